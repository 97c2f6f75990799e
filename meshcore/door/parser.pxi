# The door to the byte rooms: finds llhttp in httptools and proves its layout, and shows heads, chunks and edited heads
# to tests as plain Python values. The engine takes `llhttp_library` by pointer; traffic never passes the functions here.

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from meshcore.engine.authority cimport AUTHORITY_IPV6, Authority, authority_parse
from meshcore.engine.fields cimport FIELD_DROP, FIELD_MESH, field_alias, field_hash, field_id
from meshcore.engine.fields cimport field_len, field_text_at
from meshcore.engine.framing cimport CHUNK_DONE, CHUNK_MORE, ChunkDecoder, chunk_decode, chunk_decode_at, chunk_free
from meshcore.engine.framing cimport chunk_reset, chunk_trailers, chunk_write_header
from meshcore.engine.head cimport HEAD_DONE, HEAD_MORE, Field, Head, HeadParser, head_attach
from meshcore.engine.head cimport head_parser_reset
from meshcore.engine.http1 cimport head_parse_request, head_parse_response
from meshcore.engine.http1_request cimport method_from_token
from meshcore.engine.llhttp cimport LLHTTP_REQUEST, LLHTTP_SETTINGS_SLOTS, LLHTTP_STATE_BYTES, Llhttp, LlhttpSettings
from meshcore.engine.llhttp cimport LlhttpState, llhttp_execute_fn, llhttp_get_error_pos_fn, llhttp_init_fn
from meshcore.engine.llhttp cimport llhttp_settings_init_fn
from meshcore.engine.proxy_protocol cimport PROXY_DONE, PROXY_V1_MAX_BYTES, ProxyHeader, proxy_header_read
from meshcore.engine.proxy_protocol cimport proxy_header_write_v1, proxy_header_write_v2
from meshcore.engine.reasons cimport reason_name
from meshcore.engine.date cimport DateLine, date_line
from meshcore.engine.rewrite cimport ForwardInfo, ResponseInfo, rewrite_request, rewrite_response
from meshcore.engine.rng cimport Rng, rng_seed
from meshcore.engine.snapshot cimport Arena, Forwarding, HeaderOp, HeaderOps, Limits, RouteConf, RouteTarget
from meshcore.engine.snapshot cimport ClusterConf, arena_alloc, arena_free
from meshcore.engine.snapshot cimport arena_text
from meshcore.engine.sys cimport AF_INET, AF_INET6

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    char* dlerror()
    int RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)
    int CLOCK_MONOTONIC

cdef extern from *:
    """
    /* The optimiser may not carry anything across it: timing loops do the work as often as they say. */
    #define MC_PARSER_BARRIER() __asm__ volatile("" ::: "memory")
    """
    void parser_barrier "MC_PARSER_BARRIER"() noexcept nogil


# --- llhttp -------------------------------------------------------------------------------------------------------

cdef Llhttp llhttp_library              # written once below, at import; its address never changes


cdef object llhttp_open():
    """Resolve and check llhttp. Raises RuntimeError naming the way out."""
    import httptools.parser.parser as parser

    way_out = (f"meshcore needs the llhttp inside httptools 0.9 ({parser.__file__}): "
               "install it with  pip install 'httptools>=0.9,<0.10'  from a wheel")
    path = parser.__file__.encode()
    cdef void* library = dlopen(path, RTLD_NOW | RTLD_NOLOAD)
    if library == NULL:
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise RuntimeError(f"cannot open it ({dlerror().decode()}); {way_out}")
    llhttp_library.init = <llhttp_init_fn>dlsym(library, "llhttp_init")
    llhttp_library.execute = <llhttp_execute_fn>dlsym(library, "llhttp_execute")
    llhttp_library.settings_init = <llhttp_settings_init_fn>dlsym(library, "llhttp_settings_init")
    llhttp_library.get_error_pos = <llhttp_get_error_pos_fn>dlsym(library, "llhttp_get_error_pos")
    if (llhttp_library.init == NULL or llhttp_library.execute == NULL or llhttp_library.settings_init == NULL
            or llhttp_library.get_error_pos == NULL):
        raise RuntimeError(f"it does not export llhttp's functions; {way_out}")
    problem = llhttp_check()
    if problem:
        raise RuntimeError(f"its llhttp is not the one known here: {problem}; {way_out}")


cdef object llhttp_check():
    """What is wrong with the resolved library, or None. Sizes first: a wrong one would write past our structs."""
    cdef unsigned char probe[512]
    cdef uint32_t i = 0
    cdef uint32_t last = 0
    memset(probe, 0xFF, sizeof(probe))
    llhttp_library.settings_init(<LlhttpSettings*>probe)
    while i < sizeof(probe) and probe[i] == 0:
        i += 1
    if i != 8 * LLHTTP_SETTINGS_SLOTS or i != sizeof(LlhttpSettings):
        return f"llhttp_settings_t has {i} bytes, expected {sizeof(LlhttpSettings)}"
    memset(probe, 0xFF, sizeof(probe))
    llhttp_library.init(<LlhttpState*>probe, LLHTTP_REQUEST, NULL)
    for i in range(sizeof(probe)):
        if probe[i] != 0xFF:
            last = i + 1
    if last != LLHTTP_STATE_BYTES or last != sizeof(LlhttpState):
        return f"llhttp_t has {last} bytes, expected {sizeof(LlhttpState)}"
    if not head_attach(&llhttp_library):
        return "a canned start line was refused"
    verdict, head = parse_request([b"PUT /a?b HTTP/1.1\r\nHost: x.test\r\nContent-Length: 12\r\nA:\r\n\r\nrest"])
    if verdict != "done" or head["size"] != 59 or head["fields"] != [
            (b"Host", b"x.test", "host", False), (b"Content-Length", b"12", "content-length", False), (b"A", b"", "", False)]:
        return f"a canned request was read as {verdict} {head}"
    verdict, head = parse_response([b"HTTP/1.0 404 Not", b" Found\r\nA: b ", b"c \r\nConnection: x\r\n\r\nbody"])
    if verdict != "done" or head["size"] != 50 or head["fields"] != [
            (b"A", b"b c", "", False), (b"Connection", b"x", "connection", True)]:
        return f"a canned response was read as {verdict} {head}"
    if parse_request([b"GET / HTTP/1.1\r\nHost: x.test\r\nA : b\r\n\r\n"])[0] != "MALFORMED_HEAD":
        return "a space before a colon was let through"
    return None


# --- values for tests ---------------------------------------------------------------------------------------------

cdef object text_of(int code):
    return reason_name[code - 16].decode()


cdef Limits* limits_into(Limits* limits, dict given):
    """The shipped defaults, less what a test says."""
    memset(limits, 0, sizeof(Limits))
    limits.head_size_bytes = 32768
    limits.field_size_bytes = 16384
    limits.target_size_bytes = 8192
    limits.max_fields = 100
    limits.trailer_size_bytes = 8192
    limits.chunk_line_bytes = 256
    limits.chunk_extension_total_bytes = 16384
    for name, value in (given or {}).items():
        if name == "head_size_bytes":
            limits.head_size_bytes = value
        elif name == "field_size_bytes":
            limits.field_size_bytes = value
        elif name == "target_size_bytes":
            limits.target_size_bytes = value
        elif name == "max_fields":
            limits.max_fields = value
        elif name == "trailer_size_bytes":
            limits.trailer_size_bytes = value
        elif name == "chunk_line_bytes":
            limits.chunk_line_bytes = value
        elif name == "chunk_extension_total_bytes":
            limits.chunk_extension_total_bytes = value
        else:
            raise TypeError(f"no parser limit {name!r}")
    return limits


cdef dict head_values(const Head* head):
    cdef const char* base = head.base
    cdef uint32_t i
    cdef const Field* field
    fields = []
    for i in range(head.n_fields):
        field = &head.fields[i]
        fields.append((base[field.name_at:field.name_at + field.name_len],
                       base[field.value_at:field.value_at + field.value_len],
                       (field_text_at + 32 * <uint32_t>field.id)[:].decode(),
                       bool(field.flags & FIELD_DROP)))
    values = {
        "size": head.size_bytes, "fields": fields, "framing": head.framing,
        "content_length": head.content_length if head.has_length else None, "keep_alive": bool(head.keep_alive),
        "minor_version": head.minor_version, "upgrade": head.upgrade,
    }
    if head.status:
        values.update(status=head.status, reason=base[head.reason_at:head.reason_at + head.reason_len],
                      is_tunnel=bool(head.is_tunnel))
    else:
        values.update(
            method=base[head.method_at:head.method_at + head.method_len], method_id=head.method,
            target=base[head.target_at:head.target_at + head.target_len], target_form=head.target_form,
            path=base[head.path_at:head.path_at + head.path_len],
            query=base[head.query_at:head.query_at + head.query_len] if head.query_len else b"",
            authority=base[head.authority_at:head.authority_at + head.authority_len] if head.authority_len else b"",
            host=head.host_lower[:head.host_len], port=head.port, scheme=head.scheme,
            expect_continue=bool(head.expect_continue), wants_trailers=bool(head.wants_trailers),
            max_forwards_zero=bool(head.max_forwards_zero))
    return values


cdef class _HeadReading:
    """One head read from pieces, each call with a buffer of exactly the octets so far, at a new address."""
    cdef Head head
    cdef HeadParser parser
    cdef Limits limits
    cdef char* buffer
    cdef int code
    cdef uint32_t seen

    def __dealloc__(self):
        free(self.buffer)

    cdef int read(self, list pieces, bint is_response, dict limits, uint32_t method, bint may_upgrade) except -1:
        cdef char* moved
        cdef bytes piece
        limits_into(&self.limits, limits)
        head_parser_reset(&self.parser, &llhttp_library, is_response)
        self.code = HEAD_MORE
        for piece in pieces:
            moved = <char*>malloc(self.seen + len(piece) + (1 if self.seen + len(piece) == 0 else 0))
            if moved == NULL:
                raise MemoryError
            if self.seen:
                memcpy(moved, self.buffer, self.seen)
            memcpy(moved + self.seen, PyBytes_AS_STRING(piece), len(piece))
            self.seen += <uint32_t>len(piece)
            free(self.buffer)
            self.buffer = moved
            # Another connection's head passed through the shared Head meanwhile.
            memset(&self.head, 0xA5, sizeof(Head))
            if is_response:
                self.code = head_parse_response(&self.parser, moved, self.seen, &self.head, &self.limits, method, may_upgrade)
            else:
                self.code = head_parse_request(&self.parser, moved, self.seen, &self.head, &self.limits)
            if self.code != HEAD_MORE:
                break
        return 0

    cdef object verdict(self):
        if self.code == HEAD_MORE:
            return "more", None
        if self.code == HEAD_DONE:
            return "done", head_values(&self.head)
        return text_of(self.code), self.seen


def parse_request(list pieces, dict limits=None):
    """Read a request head from pieces: ("more", None), ("done", values) or (REASON, octets seen when it was known)."""
    cdef _HeadReading reading = _HeadReading()
    reading.read(pieces, False, limits, 0, False)
    return reading.verdict()


def parse_response(list pieces, dict limits=None, bytes method=b"GET", bint may_upgrade=False):
    """Read a response head from pieces, as the answer to `method`."""
    cdef _HeadReading reading = _HeadReading()
    reading.read(pieces, True, limits, method_from_token(method, <uint32_t>len(method)), may_upgrade)
    return reading.verdict()


def parse_authority(bytes text):
    """(host, port or None, is_ipv6, octets without an empty port) or None."""
    cdef Authority authority
    cdef char* exact = <char*>malloc(len(text) + 1)
    memcpy(exact, PyBytes_AS_STRING(text), len(text))
    try:
        if not authority_parse(exact, <uint32_t>len(text), &authority):
            return None
        return (text[:authority.host_len], None if authority.port < 0 else authority.port,
                authority.kind == AUTHORITY_IPV6, authority.len)
    finally:
        free(exact)


def known_fields():
    """The names of the field table, in order of their ids from 1."""
    return [(field_text_at + 32 * i)[:field_len[i]].decode() for i in range(1, FIELD_MESH)]


def classify_field(bytes name):
    """The known name of a field, "l5d-" for a mesh field, "" otherwise; and what it aliases by underscores."""
    cdef uint8_t id = field_id(name, <uint32_t>len(name))
    cdef uint8_t alias = field_alias(name, <uint32_t>len(name))
    return (field_text_at + 32 * <uint32_t>id)[:].decode(), (field_text_at + 32 * <uint32_t>alias)[:].decode()


# --- PROXY protocol -----------------------------------------------------------------------------------------------

def read_proxy_header(bytes data, uint32_t versions):
    """The header in front of `data` as values, or the code of what is none (16) or not yet whole (0)."""
    cdef ProxyHeader header
    cdef int code
    cdef uint32_t n
    cdef char* exact = <char*>malloc(len(data) + (1 if len(data) == 0 else 0))
    memcpy(exact, PyBytes_AS_STRING(data), len(data))
    memset(&header, 0xA5, sizeof(ProxyHeader))
    code = proxy_header_read(exact, <uint32_t>len(data), versions, &header)
    free(exact)
    if code != PROXY_DONE:
        return code
    n = 16 if header.family == AF_INET6 else 4 if header.family == AF_INET else 0
    return {"size_bytes": header.size_bytes, "version": header.version, "is_local": bool(header.is_local),
            "source": (<char*>header.source_address)[:n], "source_port": header.source_port,
            "destination": (<char*>header.destination_address)[:n], "destination_port": header.destination_port}


def write_proxy_header(uint32_t version, bytes source, uint16_t source_port, bytes destination, uint16_t destination_port):
    """The header for two addresses of 4 or 16 octets; for empty ones, the header that names nobody."""
    cdef ProxyHeader header
    cdef char out[PROXY_V1_MAX_BYTES]
    cdef uint32_t n
    if version not in (1, 2) or len(source) not in (0, 4, 16) or len(source) != len(destination):
        raise ValueError("version 1 or 2, and two addresses of the same 0, 4 or 16 octets")
    memset(&header, 0, sizeof(ProxyHeader))
    header.is_local = len(source) == 0
    header.family = AF_INET6 if len(source) == 16 else AF_INET
    memcpy(header.source_address, PyBytes_AS_STRING(source), len(source))
    memcpy(header.destination_address, PyBytes_AS_STRING(destination), len(source))
    header.source_port = source_port
    header.destination_port = destination_port
    n = proxy_header_write_v1(out, &header) if version == 1 else proxy_header_write_v2(out, &header)
    return out[:n]


# --- chunks -------------------------------------------------------------------------------------------------------

def decode_chunks(list pieces, dict limits=None, bint keep_place=False):
    """Decode a chunked body from pieces: (verdict, body, trailers, octets used)."""
    cdef ChunkDecoder decoder
    cdef Limits given
    cdef uint32_t out_at = 0, out_len = 0, used = 0
    cdef uint64_t total = 0
    cdef int code = CHUNK_MORE
    cdef char* data
    cdef const char* trailers
    cdef uint32_t trailers_len
    cdef bytes piece
    body = []
    limits_into(&given, limits)
    chunk_reset(&decoder)
    try:
        for piece in pieces:
            data = <char*>malloc(len(piece) + 1)
            memcpy(data, PyBytes_AS_STRING(piece), len(piece))
            if keep_place:
                code = chunk_decode_at(&decoder, data, <uint32_t>len(piece), &out_at, &out_len, &used, &given)
            else:
                code = chunk_decode(&decoder, data, <uint32_t>len(piece), &out_len, &used, &given)
            body.append(data[out_at:out_at + out_len])
            free(data)
            total += used
            if code != CHUNK_MORE:
                break
        chunk_trailers(&decoder, &trailers, &trailers_len)
        return ("more" if code == CHUNK_MORE else "done" if code == CHUNK_DONE else text_of(code), b"".join(body),
                trailers[:trailers_len] if trailers_len else b"", total)
    finally:
        chunk_free(&decoder)


def encode_chunk_header(uint32_t n):
    cdef char text[16]
    cdef uint32_t size = chunk_write_header(text + 16, n)
    return text[16 - size:16]


def chunk_decoder_bytes():
    return sizeof(ChunkDecoder)


# --- edited heads -------------------------------------------------------------------------------------------------

cdef int ops_into(Arena* arena, HeaderOps* ops, list given) except -1:
    cdef uint32_t i = 0
    cdef bytes name, value, line
    ops.ops = <HeaderOp*>arena_alloc(arena, sizeof(HeaderOp) * (len(given) + 1))
    for kind, name, value in given:
        line = name + b": " + value + b"\r\n"
        ops.ops[i].kind = kind
        ops.ops[i].name = arena_text(arena, name, len(name))
        ops.ops[i].name_hash = field_hash(name, <uint32_t>len(name))
        ops.ops[i].value = arena_text(arena, value, len(value))
        ops.ops[i].line = arena_text(arena, line, len(line))
        i += 1
    ops.n_ops = i
    return 0


cdef RouteConf* route_into(Arena* arena, dict route) except NULL:
    cdef RouteConf* conf = <RouteConf*>arena_alloc(arena, sizeof(RouteConf))
    for key in route:
        if key not in ("prefix", "prefix_rewrite", "host_rewrite", "request_headers", "response_headers", "cluster"):
            raise TypeError(f"no route option {key!r}")
    if "prefix" in route:
        conf.prefix = arena_text(arena, route["prefix"], len(route["prefix"]))
    if "prefix_rewrite" in route:
        conf.prefix_rewrite = arena_text(arena, route["prefix_rewrite"], len(route["prefix_rewrite"]))
    if "host_rewrite" in route:
        conf.host_rewrite = arena_text(arena, route["host_rewrite"], len(route["host_rewrite"]))
    if "cluster" in route:
        conf.targets = <RouteTarget*>arena_alloc(arena, sizeof(RouteTarget))
        conf.targets.cluster = <ClusterConf*>arena_alloc(arena, sizeof(ClusterConf))
        conf.targets.cluster.name = arena_text(arena, route["cluster"], len(route["cluster"]))
        conf.n_targets = 1
    ops_into(arena, &conf.request_headers, route.get("request_headers", []))
    ops_into(arena, &conf.response_headers, route.get("response_headers", []))
    return conf


cdef int forwarding_into(Arena* arena, Forwarding* forwarding, dict given) except -1:
    memset(forwarding, 0, sizeof(Forwarding))
    via = given.get("via", b"meshcore")
    if via is not None:
        forwarding.via = arena_text(arena, via, len(via))
    forwarding.x_forwarded = given.get("x_forwarded", 1)
    forwarding.request_id = given.get("request_id", True)
    forwarding.traceparent = given.get("traceparent", True)
    return 0


def edit_request(bytes data, dict route=None, dict forwarding=None, bytes client=b"192.0.2.7", bint secure=False,
                 bint trust_mesh_headers=False, bint allow_upgrade=False, bint tells_empty=False, bint is_http2=False,
                 uint64_t wall_ms=1700000000000, uint64_t seed=1, uint32_t room=65536):
    """The request head that would go upstream for the head at the start of `data`, or None when `room` is too small."""
    cdef _HeadReading reading = _HeadReading()
    cdef Arena arena
    cdef Forwarding conf
    cdef ForwardInfo info
    cdef Rng rng
    cdef char* out
    cdef uint32_t n
    arena.head = NULL
    arena.total_bytes = 0
    reading.read([data], False, None, 0, False)
    if reading.code != HEAD_DONE:
        raise ValueError(f"not a request head: {reading.verdict()}")
    out = <char*>malloc(room + 1)
    try:
        forwarding_into(&arena, &conf, forwarding or {})
        rng_seed(&rng, seed)
        memset(&info, 0, sizeof(info))
        info.forwarding = &conf
        info.client_at = client
        info.client_len = <uint32_t>len(client)
        info.secure = secure
        info.trust_mesh_headers = trust_mesh_headers
        info.allow_upgrade = allow_upgrade
        info.tells_empty = tells_empty
        info.is_http2 = is_http2
        info.wall_ms = wall_ms
        info.rng = &rng
        n = rewrite_request(&reading.head, route_into(&arena, route or {}), &info, out, room)
        return out[:n] if n else None
    finally:
        free(out)
        arena_free(&arena)


def edit_response(bytes data, bytes method=b"GET", bint may_upgrade=False, dict route=None, dict forwarding=None,
                  framing=None, content_length=None, bint close=False, uint8_t minor_version=1, bint interim=False,
                  bint is_http2=False, second=None, uint32_t room=65536):
    """The response head that would go to the client. `framing` and `content_length` default to what was received. `second`: of
    Unix time, for a Date; None: none is added."""
    cdef DateLine date
    cdef _HeadReading reading = _HeadReading()
    cdef Arena arena
    cdef Forwarding conf
    cdef ResponseInfo info
    cdef char* out
    cdef uint32_t n
    arena.head = NULL
    arena.total_bytes = 0
    reading.read([data], True, None, method_from_token(method, <uint32_t>len(method)), may_upgrade)
    if reading.code != HEAD_DONE:
        raise ValueError(f"not a response head: {reading.verdict()}")
    out = <char*>malloc(room + 1)
    try:
        forwarding_into(&arena, &conf, forwarding or {})
        memset(&info, 0, sizeof(info))
        info.forwarding = &conf
        info.framing = reading.head.framing if framing is None else framing
        info.content_length = reading.head.content_length if content_length is None else content_length
        info.close = close
        info.minor_version = minor_version
        info.upgrade = reading.head.is_tunnel
        info.interim = interim
        info.is_http2 = is_http2
        memset(&date, 0, sizeof(date))
        if second is not None:
            info.date = date_line(&date, <uint64_t>second)
        n = rewrite_response(&reading.head, route_into(&arena, route or {}), &info, out, room)
        return out[:n] if n else None
    finally:
        free(out)
        arena_free(&arena)


# --- timing: nanoseconds per call, for the bench ------------------------------------------------------------------

cdef inline double parser_clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1e9 + now.tv_nsec


def time_head(bytes data, uint32_t repeat, bint is_response=False):
    """Nanoseconds to parse the head in `data` once, state reset and policy included."""
    cdef _HeadReading reading = _HeadReading()
    cdef const char* base = data
    cdef uint32_t len_ = <uint32_t>len(data)
    cdef uint32_t i
    cdef double start
    cdef int code = HEAD_MORE
    reading.read([data], is_response, None, 0, False)
    if reading.code != HEAD_DONE:
        raise ValueError(f"not a complete head: {reading.verdict()}")
    with nogil:
        start = parser_clock_ns()
        for i in range(repeat):
            head_parser_reset(&reading.parser, &llhttp_library, is_response)
            if is_response:
                code = head_parse_response(&reading.parser, base, len_, &reading.head, &reading.limits, 0, 0)
            else:
                code = head_parse_request(&reading.parser, base, len_, &reading.head, &reading.limits)
            parser_barrier()
        start = parser_clock_ns() - start
    if code != HEAD_DONE:
        raise RuntimeError("the head stopped being valid")
    return start / repeat


def time_edit(bytes data, uint32_t repeat, bint is_response=False):
    """Nanoseconds to write the edited head once, with default forwarding."""
    cdef _HeadReading reading = _HeadReading()
    cdef Arena arena
    cdef Forwarding conf
    cdef ForwardInfo info
    cdef ResponseInfo response_info
    cdef RouteConf* route
    cdef Rng rng
    cdef uint32_t i
    cdef double start
    cdef char out[8192]
    cdef bytes client = b"127.0.0.1"
    arena.head = NULL
    arena.total_bytes = 0
    reading.read([data], is_response, None, 0, False)
    if reading.code != HEAD_DONE:
        raise ValueError(f"not a complete head: {reading.verdict()}")
    try:
        forwarding_into(&arena, &conf, {})
        route = route_into(&arena, {})
        rng_seed(&rng, 1)
        memset(&info, 0, sizeof(info))
        info.forwarding = &conf
        info.client_at = client
        info.client_len = <uint32_t>len(client)
        info.wall_ms = 1700000000000
        info.rng = &rng
        memset(&response_info, 0, sizeof(response_info))
        response_info.forwarding = &conf
        response_info.framing = reading.head.framing
        response_info.content_length = reading.head.content_length
        response_info.minor_version = 1
        with nogil:
            start = parser_clock_ns()
            for i in range(repeat):
                if is_response:
                    rewrite_response(&reading.head, route, &response_info, out, sizeof(out))
                else:
                    rewrite_request(&reading.head, route, &info, out, sizeof(out))
                parser_barrier()
            start = parser_clock_ns() - start
        return start / repeat
    finally:
        arena_free(&arena)


def time_chunks(bytes data, uint32_t repeat):
    """Nanoseconds to decode the chunked body in `data` once, a copy of it included."""
    cdef ChunkDecoder decoder
    cdef Limits limits
    cdef uint32_t out_at, out_len, used, i
    cdef double start
    cdef uint32_t len_ = <uint32_t>len(data)
    cdef const char* base = data
    cdef char* copy = <char*>malloc(len_ + 1)
    limits_into(&limits, None)
    try:
        with nogil:
            start = parser_clock_ns()
            for i in range(repeat):
                memcpy(copy, base, len_)
                chunk_reset(&decoder)
                chunk_decode_at(&decoder, copy, len_, &out_at, &out_len, &used, &limits)
                chunk_free(&decoder)
                parser_barrier()
            start = parser_clock_ns() - start
        return start / repeat
    finally:
        free(copy)


llhttp_open()
