# The filter thread and what a Python filter sees: Request, ResponseHead, Headers. Workers hand over heads, this
# side hands back verdicts; no socket is touched here.

import logging as _logging

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


cdef class Headers:
    """The fields of one head, in order. Names compare without case; values are latin-1 text."""
    cdef list fields                    # [lower name, name, value]
    cdef bint changed

    def __cinit__(self, list fields):
        self.fields = fields
        self.changed = False

    def get(self, str name, default=None):
        """The first value of that name, or `default`."""
        cdef str wanted = name.lower()
        for field in self.fields:
            if field[0] == wanted:
                return field[2]
        return default

    def get_all(self, str name) -> list:
        """Every value of that name, in order."""
        cdef str wanted = name.lower()
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
        cdef str wanted = self._checked(name, value)
        kept = [field for field in self.fields if field[0] != wanted]
        kept.append((wanted, name, value))
        self.fields = kept
        self.changed = True

    def add(self, str name, str value) -> None:
        """Append a field, keeping others of that name."""
        self.fields.append((self._checked(name, value), name, value))
        self.changed = True

    def __delitem__(self, str name) -> None:
        cdef str wanted = name.lower()
        if wanted in _UNSETTABLE:
            raise ValueError(f"field {name!r} belongs to the proxy: a filter cannot remove it")
        kept = [field for field in self.fields if field[0] != wanted]
        if len(kept) == len(self.fields):
            raise KeyError(name)
        self.fields = kept
        self.changed = True

    def items(self) -> list:
        return [(field[1], field[2]) for field in self.fields]

    def __iter__(self):
        return iter([field[1] for field in self.fields])

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"

    cdef str _checked(self, str name, str value):
        cdef str wanted = name.lower()
        if wanted in _UNSETTABLE:
            raise ValueError(f"field {name!r} belongs to the proxy: a filter cannot set it")
        if not wanted or not _TOKEN.issuperset(wanted):
            raise ValueError(f"field name {name!r} is not a token (RFC 9110 5.1)")
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"value of field {name!r} holds a line break or NUL")
        return wanted


cdef Headers _parse_headers(list lines):
    # The engine has parsed this head strictly: a colon is there, names are tokens, no line is folded.
    cdef list fields = []
    cdef str line
    cdef str name
    for line in lines:
        name, _, value = line.partition(":")
        fields.append((name.lower(), name, value.strip(" \t")))
    return Headers.__new__(Headers, fields)


cdef class Request:
    """One request at a filter. Change `method`, `path` or `headers`, pick a `cluster`, or return a response."""
    cdef public str method
    cdef public str target              # origin form, with the query; "*" or an authority where the method says so
    cdef readonly str version
    cdef readonly Headers headers
    cdef public str cluster             # name of a cluster to use instead of the route's; None: the route's
    cdef readonly str route
    cdef str first_line

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
        cdef str line = f"{self.method} {self.target} {self.version}"
        if line == self.first_line and not self.headers.changed:
            return None
        return _head_bytes(line, self.headers)


cdef class ResponseHead:
    """One response head at a filter. Change `status` or `headers`, or return a response to replace it whole."""
    cdef public int status
    cdef public str phrase
    cdef readonly Headers headers
    cdef readonly str route
    cdef str first_line

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} route={self.route!r}>"

    cdef bytes head(self):
        cdef str line = f"HTTP/1.1 {self.status:03d} {self.phrase}"
        if line == self.first_line and not self.headers.changed:
            return None
        return _head_bytes(line, self.headers)


cdef bytes _head_bytes(str line, Headers headers):
    cdef list lines = [line]
    for field in headers.fields:
        lines.append(f"{field[1]}: {field[2]}")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1")


cdef class FilterLoop:
    """The thread that runs Python filters, for all workers of one engine. One GIL take per batch it finds."""
    cdef Engine engine
    cdef object thread
    cdef uint32_t stopping
    cdef dict by_slot                   # route slot -> (route name, on_request functions, on_response functions)
    cdef uint64_t told_second
    cdef readonly uint64_t batches
    cdef readonly uint64_t calls

    def __cinit__(self, Engine engine):
        self.engine = engine
        self.by_slot = {}

    def configure(self, dict by_slot) -> None:
        """Route slot -> (name, on_request functions, on_response functions). Starts the thread when there is any."""
        self.by_slot = by_slot
        if by_slot and self.thread is None:
            self.thread = _threading.Thread(target=self._run, name="meshcore-filters", daemon=True)
            self.thread.start()

    def stop(self) -> None:
        if self.thread is not None:
            atomic_store_u32(&self.stopping, 1)
            sys_notify(self.engine.filter_fd)
            self.thread.join()
            self.thread = None

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
            while node != NULL:
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

    cdef _on_request(self, Hook* hook):
        cdef Request request = Request.__new__(Request)
        cdef list lines = PyBytes_FromStringAndSize(hook.head, hook.head_bytes).decode("latin-1").split("\r\n")
        cdef tuple entry = self.by_slot.get(hook.route_slot)
        if entry is None:
            return
        if not lines[0]:
            lines.pop(0)                # one empty line may precede a request line
        request.first_line = lines[0]
        request.method, request.target, request.version = request.first_line.split(" ")
        request.headers = _parse_headers(lines[1:len(lines) - 2])
        request.route = entry[0]
        for function in entry[1]:
            answer = function(request)
            if answer is not None:
                _respond(hook, answer)
                return
        if request.cluster is not None:
            hook.cluster_index = self.engine.cluster_index(request.cluster)
        _replace(hook, request.head())

    cdef _on_response(self, Hook* hook):
        cdef ResponseHead response = ResponseHead.__new__(ResponseHead)
        cdef list lines = PyBytes_FromStringAndSize(hook.head, hook.head_bytes).decode("latin-1").split("\r\n")
        cdef tuple entry = self.by_slot.get(hook.route_slot)
        if entry is None:
            return
        response.first_line = lines[0]
        response.status = int(response.first_line[9:12])
        response.phrase = response.first_line[13:]
        response.headers = _parse_headers(lines[1:len(lines) - 2])
        response.route = entry[0]
        for function in entry[2]:
            answer = function(response)
            if answer is not None:
                _respond(hook, answer)
                return
        _replace(hook, response.head())


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
    cdef Headers checker = Headers.__new__(Headers, [])
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
        checker._checked(name, value)
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
