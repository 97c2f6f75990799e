# The filter thread and what a Python filter sees: Request, ResponseHead, Headers. Workers hand over heads, this
# side hands back verdicts; no socket is touched here.

import logging as _logging

from libc.string cimport memchr, memcmp

from meshcore.engine.octets cimport octets_equal_nocase
from meshcore.engine.snapshot cimport RouteConf
from meshcore.engine.sys cimport atomic_store_u32

from meshcore.engine.state cimport (
    HOOK_CONTINUE, HOOK_ERROR, HOOK_REPLACE_HEAD, HOOK_REQUEST, HOOK_RESPOND, HOOK_RESPONSE, Hook,
)

_filter_log = _logging.getLogger("meshcore.filters")

# Fields a filter may not set: they say where a message ends or belong to one hop (RFC 9110 7.6.1).
_UNSETTABLE = frozenset((
    "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
))
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
# Field names as filters write them -> (lower case, the same as ASCII octets or None, why no filter may set it or None).
# Filters use a handful of names, a million times each.
cdef dict _names = {}
cdef enum:
    NAMES_KEPT = 1024

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    int PyUnicode_1BYTE_KIND
    void* PyUnicode_DATA(object text)


cdef tuple _name(str name):
    cdef tuple known = _names.get(name)
    cdef str wanted
    cdef str problem = None
    if known is None:
        wanted = name.lower()
        if wanted in _UNSETTABLE:
            problem = f"field {name!r} belongs to the proxy: a filter cannot set it"
        elif not wanted or not _TOKEN.issuperset(wanted):
            problem = f"field name {name!r} is not a token (RFC 9110 5.1)"
        known = (wanted, wanted.encode("ascii") if wanted.isascii() else None, problem)
        if len(_names) >= NAMES_KEPT:
            _names.clear()
        _names[name] = known
    return known


cdef class Headers:
    """The fields of one head, in order. Names compare without case; values are latin-1 text.

    Reads the raw head in place and parses it whole only when a field is replaced or removed: most filters look at one
    field and add another.
    """
    cdef bytes raw                      # the head as it came, strictly parsed by the engine
    cdef Py_ssize_t start               # of the first field line
    cdef list fields                    # [(lower name, name, value)] once parsed; None: raw is what there is
    cdef list added                     # behind raw, while fields is None
    cdef bint changed

    def get(self, str name not None, default=None):
        """The first value of that name, or `default`."""
        cdef tuple known = _name(name)
        cdef str wanted = known[0]
        cdef Py_ssize_t at
        if self.fields is None and known[1] is not None:
            at = self._find(<bytes>known[1])
            if at >= 0:
                return self._value_at(at + len(wanted) + 1)
        for field in self.added if self.fields is None else self.fields:
            if field[0] == wanted:
                return field[2]
        return default

    def get_all(self, str name not None) -> list:
        """Every value of that name, in order."""
        cdef str wanted = name.lower()
        self._parse()
        return [field[2] for field in self.fields if field[0] == wanted]

    def __getitem__(self, str name) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, str name) -> bool:
        return self.get(name) is not None

    def __setitem__(self, str name, str value) -> None:
        """Replace every field of that name by one. ValueError for framing fields and for bytes no field may hold."""
        cdef str wanted = _settable(name, value)
        if self.fields is not None or self.get(name) is not None:
            self._parse()
            self.fields = [field for field in self.fields if field[0] != wanted]
        self._append(wanted, name, value)

    def add(self, str name not None, str value not None) -> None:
        """Append a field, keeping others of that name."""
        self._append(_settable(name, value), name, value)

    def __delitem__(self, str name) -> None:
        cdef str wanted = name.lower()
        if wanted in _UNSETTABLE:
            raise ValueError(f"field {name!r} belongs to the proxy: a filter cannot remove it")
        self._parse()
        kept = [field for field in self.fields if field[0] != wanted]
        if len(kept) == len(self.fields):
            raise KeyError(name)
        self.fields = kept
        self.changed = True

    def items(self) -> list:
        self._parse()
        return [(field[1], field[2]) for field in self.fields]

    def __iter__(self):
        self._parse()
        return iter([field[1] for field in self.fields])

    def __len__(self) -> int:
        self._parse()
        return len(self.fields)

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"

    cdef _append(self, str wanted, str name, str value):
        (self.added if self.fields is None else self.fields).append((wanted, name, value))
        self.changed = True

    cdef Py_ssize_t _find(self, bytes wanted):
        # Where the first field line of that name begins, or -1. `wanted` is lower case.
        cdef const char* head = PyBytes_AS_STRING(self.raw)
        cdef Py_ssize_t end = len(self.raw) - 2
        cdef Py_ssize_t at = self.start
        cdef Py_ssize_t length = len(wanted)
        cdef const char* line_end
        while at < end:
            line_end = <const char*>memchr(head + at, c"\n", end - at)
            if line_end == NULL:
                return -1
            if line_end - head - at > length and head[at + length] == c":" \
                    and octets_equal_nocase(head + at, PyBytes_AS_STRING(wanted), <uint32_t>length):
                return at
            at = line_end - head + 1
        return -1

    cdef str _value_at(self, Py_ssize_t at):
        cdef const char* head = PyBytes_AS_STRING(self.raw)
        cdef const char* line_end = <const char*>memchr(head + at, c"\r", len(self.raw) - at)
        cdef Py_ssize_t end = line_end - head
        while at < end and (head[at] == c" " or head[at] == c"\t"):
            at += 1
        while end > at and (head[end - 1] == c" " or head[end - 1] == c"\t"):
            end -= 1
        return head[at:end].decode("latin-1")

    cdef _parse(self):
        cdef str line
        cdef str name
        if self.fields is not None:
            return
        self.fields = []
        for line in self.raw[self.start:len(self.raw) - 4].decode("latin-1").split("\r\n"):
            if line:
                name, _, value = line.partition(":")
                self.fields.append((name.lower(), name, value.strip(" \t")))
        self.fields += self.added

    cdef bytes head(self, bytes first_line):
        """The whole head, under another first line (CRLF included) if there is one. UnicodeEncodeError: not latin-1."""
        cdef list fields = self.added if self.fields is None else self.fields
        cdef const char* raw = PyBytes_AS_STRING(self.raw)
        cdef Py_ssize_t kept_from = self.start
        cdef Py_ssize_t kept_to = self.start if self.fields is not None else len(self.raw) - 2
        cdef Py_ssize_t n = 2
        cdef bytes out
        cdef char* at
        cdef tuple field
        if first_line is None:
            if self.fields is None:
                kept_from = 0           # as it came, in one piece
            else:
                first_line = self.raw[:self.start]
        for field in fields:
            n += len(<str>field[1]) + len(<str>field[2]) + 4
        n += kept_to - kept_from + (len(first_line) if first_line is not None else 0)
        out = PyBytes_FromStringAndSize(NULL, n)
        at = PyBytes_AS_STRING(out)
        if first_line is not None:
            memcpy(at, PyBytes_AS_STRING(first_line), len(first_line))
            at += len(first_line)
        memcpy(at, raw + kept_from, kept_to - kept_from)
        at += kept_to - kept_from
        for field in fields:
            at = _put_text(at, <str>field[1])
            memcpy(at, b": ", 2)
            at = _put_text(at + 2, <str>field[2])
            memcpy(at, b"\r\n", 2)
            at += 2
        memcpy(at, b"\r\n", 2)
        return out


cdef char* _put_text(char* at, str text) except NULL:
    """Append a text's octets in latin-1, which is how Python itself keeps one that has none above U+00FF."""
    if PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND:
        text.encode("latin-1")          # raises, naming the character
        raise ValueError(f"{text!r} is not latin-1")
    memcpy(at, PyUnicode_DATA(text), len(text))
    return at + len(text)


cdef Headers _headers_of(bytes raw, Py_ssize_t start):
    cdef Headers headers = Headers.__new__(Headers)
    headers.raw = raw
    headers.start = start
    headers.added = []
    return headers


cdef str _settable(str name, str value):
    """The lower-cased name of a field a filter may write. ValueError says why it may not."""
    cdef tuple known = _name(name)
    cdef const char* octets
    cdef Py_ssize_t i
    if known[2] is not None:
        raise ValueError(known[2])
    if PyUnicode_KIND(value) == PyUnicode_1BYTE_KIND:
        octets = <const char*>PyUnicode_DATA(value)
        for i in range(len(value)):
            if octets[i] == c"\r" or octets[i] == c"\n" or octets[i] == 0:
                raise ValueError(f"value of field {name!r} holds a line break or NUL")
    elif "\r" in value or "\n" in value or "\0" in value:
        raise ValueError(f"value of field {name!r} holds a line break or NUL")
    return known[0]


cdef class Request:
    """One request at a filter. Change `method`, `target` or `headers`, pick a `cluster`, or return a response."""
    cdef readonly Headers headers
    cdef public str cluster             # name of a cluster to use instead of the route's; None: the route's
    cdef readonly str route
    cdef readonly str peer_identity     # who the client proved to be by its certificate; None: nobody known
    cdef readonly bint secure           # it came over TLS
    cdef list words                     # method, target, version once looked at

    cdef list _words(self):
        if self.words is None:
            self.words = self.headers.raw[:self.headers.start - 2].decode("latin-1").split(" ")
        return self.words

    @property
    def method(self) -> str:
        return self._words()[0]

    @method.setter
    def method(self, str value not None) -> None:
        self._words()[0] = value

    @property
    def target(self) -> str:
        """Origin form with the query; "*" or an authority where the method says so."""
        return self._words()[1]

    @target.setter
    def target(self, str value not None) -> None:
        self._words()[1] = value

    @property
    def version(self) -> str:
        return self._words()[2]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def authority(self) -> str:
        return self.headers.get("host", "")

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.authority}{self.target} route={self.route!r}>"

    cdef bytes head(self):
        """The head to go on with, or None when nothing changed."""
        cdef bytes line = None
        if self.words is not None:
            line = (" ".join(self.words) + "\r\n").encode("latin-1")
            if line == self.headers.raw[:self.headers.start]:
                line = None
        if line is None and not self.headers.changed:
            return None
        return self.headers.head(line)


cdef class ResponseHead:
    """One response head at a filter. Change `status` or `headers`, or return a response to replace it whole."""
    cdef public int status
    cdef public str phrase
    cdef readonly Headers headers
    cdef readonly str route
    cdef bytes first_line

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} route={self.route!r}>"

    cdef bytes head(self):
        cdef bytes line = f"HTTP/1.1 {self.status:03d} {self.phrase}\r\n".encode("latin-1")
        if line == self.first_line and not self.headers.changed:
            return None
        return self.headers.head(line)


cdef class FilterLoop:
    """The thread that runs Python filters, for all workers of one engine. One GIL take per batch it finds."""
    cdef Engine engine
    cdef object thread
    cdef dict entries                   # a route's slot -> (name as octets, name, filters), as last met
    cdef uint32_t stopping
    cdef dict by_route                  # route name -> (on_request functions, on_response functions)
    cdef uint64_t told_second
    cdef readonly uint64_t batches
    cdef readonly uint64_t calls

    def __cinit__(self, Engine engine):
        self.engine = engine
        self.by_route = {}
        self.entries = {}

    def configure(self, dict by_route) -> None:
        """Route name -> (on_request functions, on_response functions). Starts the thread when there is any.

        Call it before the engine gets a plan that asks for these filters. A route it does not name answers 500.
        """
        self.by_route = by_route
        self.entries = {}
        if by_route and self.thread is None:
            self.engine.has_filters = True
            self.thread = _threading.Thread(target=self._run, name="meshcore-filters", daemon=True)
            self.thread.start()

    def stop(self) -> None:
        if self.thread is not None:
            atomic_store_u32(&self.stopping, 1)
            sys_notify(self.engine.filter_fd)
            self.thread.join()
            self.thread = None
            self.engine.has_filters = False

    def _run(self) -> None:
        cdef StackNode* node
        cdef StackNode* following
        while not atomic_load_u32(&self.stopping):
            with nogil:
                node = stack_take(&self.engine.filter_stack)
                if node == NULL:
                    sys_drain_notify(self.engine.filter_fd)      # blocks until a worker parks something
                    node = stack_take(&self.engine.filter_stack)
            if node != NULL:
                self.batches += 1
            while node != NULL and not atomic_load_u32(&self.stopping):
                following = node.next   # read before the hook goes back: its worker may reuse it
                self._answer(<Hook*>node)
                node = following

    cdef _answer(self, Hook* hook):
        cdef Worker* worker = hook.worker
        self.calls += 1
        try:
            if hook.phase == HOOK_REQUEST:
                self._on_request(hook)
            else:
                self._on_response(hook)
        except BaseException:
            hook.verdict = HOOK_ERROR
            self._tell_error()
        if stack_push(&worker.returned_hooks, &hook.node):
            sys_notify(worker.wake_fd)

    cdef _tell_error(self):
        # One traceback a second: a filter that always raises must not fill a disk. The counter tells how many.
        cdef uint64_t second = sys_now_ns() // 1000000000
        if second != self.told_second:
            self.told_second = second
            _filter_log.exception("filter raised; answered 500 filter_error (told once a second)")

    cdef tuple _entry(self, Hook* hook):
        """(name as octets, name, filters) of the route. A slot may change hands: the octets tell."""
        # Safety: a parked exchange holds its snapshot and keeps its route.
        cdef RouteConf* route = hook.exchange.listed_route
        cdef dict entries = self.entries            # before by_route: configure() replaces them in the other order
        cdef tuple entry = entries.get(route.slot)
        cdef bytes octets
        if entry is not None:
            octets = <bytes>entry[0]
            if len(octets) == route.name.len \
                    and memcmp(PyBytes_AS_STRING(octets), route.name.at, route.name.len) == 0:
                return entry
        octets = route.name.at[:route.name.len]
        name = octets.decode("latin-1")
        entry = (octets, name, self.by_route[name])
        entries[route.slot] = entry
        return entry

    cdef _on_request(self, Hook* hook):
        cdef Request request = Request.__new__(Request)
        cdef Py_ssize_t skip = 2 if hook.head[0] == c"\r" else 0       # one empty line may precede a request line
        cdef bytes raw = PyBytes_FromStringAndSize(hook.head + skip, hook.head_bytes - skip)
        cdef tuple entry = self._entry(hook)
        request.headers = _headers_of(raw, _after_first_line(raw))
        request.route = <str>entry[1]
        request.secure = hook.secure
        if hook.identity_len:
            request.peer_identity = hook.identity[:hook.identity_len].decode("ascii")
        for function in <tuple>(<tuple>entry[2])[0]:
            answer = function(request)
            if answer is not None:
                _respond(hook, answer)
                return
        if request.cluster is not None:
            hook.cluster_index = _hook_cluster(hook, request.cluster)
        _replace(hook, request.head())

    cdef _on_response(self, Hook* hook):
        cdef ResponseHead response = ResponseHead.__new__(ResponseHead)
        cdef bytes raw = PyBytes_FromStringAndSize(hook.head, hook.head_bytes)
        cdef Py_ssize_t line_end = _after_first_line(raw)
        cdef tuple entry = self._entry(hook)
        response.first_line = raw[:line_end]
        response.status = int(raw[9:12])
        response.phrase = raw[13:line_end - 2].decode("latin-1")
        response.headers = _headers_of(raw, line_end)
        response.route = <str>entry[1]
        for function in <tuple>(<tuple>entry[2])[1]:
            answer = function(response)
            if answer is not None:
                _respond(hook, answer)
                return
        _replace(hook, response.head())


cdef Py_ssize_t _after_first_line(bytes raw):
    # Safety: a head that was parsed holds an end of line.
    cdef const char* head = PyBytes_AS_STRING(raw)
    return <const char*>memchr(head, c"\n", len(raw)) - head + 1


cdef int _hook_cluster(Hook* hook, str name) except -1:
    """Position of a cluster in the exchange's own snapshot, which may not be the current one; KeyError: none."""
    cdef bytes wanted = name.encode("latin-1")
    cdef uint32_t i
    cdef Text* found
    for i in range(hook.snapshot.n_clusters):
        found = &hook.snapshot.clusters[i].name
        if found.len == len(wanted) and memcmp(found.at, PyBytes_AS_STRING(wanted), found.len) == 0:
            return i
    raise KeyError(name)


cdef int _replace(Hook* hook, bytes head) except -1:
    if head is None:
        return 0
    hook.replacement = <char*>malloc(len(head))
    if hook.replacement == NULL:
        raise MemoryError
    memcpy(hook.replacement, PyBytes_AS_STRING(head), len(head))
    hook.replacement_bytes = len(head)
    hook.verdict = HOOK_REPLACE_HEAD
    return 0


cdef int _respond(Hook* hook, answer) except -1:
    # `answer`: an object with status, headers (mapping or pairs) and body (bytes or str).
    cdef char line[128]
    cdef bytes body = answer.body.encode() if isinstance(answer.body, str) else bytes(answer.body or b"")
    cdef bytearray head
    status = int(answer.status)
    if not 200 <= status <= 599:
        raise ValueError(f"a filter's response needs a status of 200..599, got {status}")
    if status == 204 or status == 304:
        body = b""
    head = bytearray(line[:respond_status_line(line, status)])
    head += b"x-mesh-reason: filter_response\r\n"
    pairs = answer.headers.items() if hasattr(answer.headers, "items") else (answer.headers or ())
    for name, value in pairs:
        _settable(name, value)
        head += f"{name}: {value}\r\n".encode("latin-1")
    if status != 204 and status != 304:
        head += b"content-length: %d\r\n" % len(body)
    hook.replacement = <char*>malloc(len(head) + len(body) + 1)
    if hook.replacement == NULL:
        raise MemoryError
    memcpy(hook.replacement, <char*>head, len(head))
    memcpy(hook.replacement + len(head), PyBytes_AS_STRING(body), len(body))
    hook.replacement_bytes = len(head) + len(body)
    hook.answer_head_bytes = len(head)
    hook.status = status
    hook.verdict = HOOK_RESPOND
    return 0
