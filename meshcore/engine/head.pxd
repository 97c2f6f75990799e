# One message head as offsets into the bytes it came in, and the llhttp pass that records them. Judges nothing.
#
# The start line is read by the rooms above (http1_request, http1_response). A field section that came whole and is as
# nearly all are is divided in one pass (head_divide_plain), which takes a quarter of llhttp's instructions. It refuses
# nothing: whatever is not plain, be it wrong or only rare, is llhttp's to judge; and what it takes, llhttp takes too, with
# the same spans (keeps SPLIT_SAME: heads in pieces go through llhttp). llhttp is entered from a parser state that was
# saved just behind a canned start line. Callbacks only record spans.
#
# A head that arrives in pieces is fed to llhttp once, octet by octet if need be, so a bad octet is seen at once; the
# spans of such a pass are thrown away and the whole head is read again when it is complete. That keeps HeadParser small
# (it waits with an idle connection), lets all connections of a worker share one Head, and makes the final reading
# independent of how the octets came (keeps SPLIT_SAME).

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshcore.engine.llhttp cimport (
    HPE_INVALID_CONTENT_LENGTH,
    HPE_INVALID_TRANSFER_ENCODING,
    HPE_OK,
    HPE_PAUSED,
    HPE_UNEXPECTED_CONTENT_LENGTH,
    HPE_USER,
    LLHTTP_REQUEST,
    LLHTTP_RESPONSE,
    Llhttp,
    LlhttpState,
)
from meshcore.engine.octets cimport OCTET_DIGIT, octets_are, octets_equal_lower, octets_text_end, octets_token_end
from meshcore.engine.reasons cimport (
    REASON_BAD_FRAMING,
    REASON_FIELD_TOO_LARGE,
    REASON_HEAD_TOO_LARGE,
    REASON_MALFORMED_HEAD,
    REASON_NONE,
    REASON_TOO_MANY_FIELDS,
)
from meshcore.engine.snapshot cimport Limits


cdef enum:
    HEAD_MAX_FIELDS = 128               # Field is 16 octets: the table is 2 KiB and lives once per worker
    HEAD_MAX_HOST = 255                 # RFC 1035 2.3.4

cdef enum HeadCode:
    HEAD_MORE = 0
    HEAD_DONE = 1
    HEAD_REFUSED = 16                   # 16 + reason

cdef enum Method:                       # bit numbers of RouteConf.method_mask
    METHOD_GET = 0
    METHOD_HEAD = 1
    METHOD_POST = 2
    METHOD_PUT = 3
    METHOD_DELETE = 4
    METHOD_CONNECT = 5
    METHOD_OPTIONS = 6
    METHOD_TRACE = 7
    METHOD_PATCH = 8
    METHOD_EXTENSION = 9                # any other token: its text is in the head

cdef enum Framing:                      # how the end of the body is found
    FRAMING_NONE = 0
    FRAMING_LENGTH = 1
    FRAMING_CHUNKED = 2
    FRAMING_UNTIL_CLOSE = 3             # responses only

cdef enum TargetForm:                   # RFC 9112 3.2
    TARGET_ORIGIN = 0
    TARGET_ABSOLUTE = 1
    TARGET_AUTHORITY = 2
    TARGET_ASTERISK = 3

cdef enum Upgrade:
    UPGRADE_NONE = 0
    UPGRADE_WEBSOCKET = 1
    UPGRADE_OTHER = 2
    UPGRADE_IGNORED = 3                 # asked for, but not honoured here: forwarded without

cdef enum Scheme:
    SCHEME_HTTP = 0
    SCHEME_HTTPS = 1


cdef struct Field:
    uint32_t name_at
    uint32_t value_at
    uint32_t value_len                  # without surrounding blanks
    uint16_t name_len
    uint8_t id                          # fields.FIELD_*
    uint8_t flags                       # fields.FIELD_DROP


cdef struct Head:
    # Offsets count from `base`. Safety: `base` is borrowed from the caller's buffer and valid until that buffer moves.
    const char* base
    uint64_t present                    # bit i: a field of id i is there; first[i] is its index
    uint64_t repeated                   # bit i: more than one
    uint64_t content_length             # has_length only
    uint32_t size_bytes                 # start line .. empty line, a leading CRLF included
    uint32_t method_at                  # start of the request line: 0, or 2 behind a leading CRLF
    uint32_t fields_at                  # of the first field line
    uint32_t method_len
    uint32_t target_at
    uint32_t target_len
    uint32_t path_at                    # path without query; "/" for an absolute-form without path
    uint32_t path_len
    uint32_t query_at                   # '?' included
    uint32_t query_len
    uint32_t authority_at               # host[:port] of the absolute-form or CONNECT target, else of Host
    uint32_t authority_len              # 0: none (HTTP/1.0 without Host); an empty port is left out
    uint32_t host_at
    uint32_t host_len                   # no port, no trailing dot, brackets kept
    uint32_t reason_at
    uint32_t reason_len
    int32_t port                        # of the authority; -1 none
    uint16_t status                     # 0 in a request
    uint16_t n_fields
    uint8_t method
    uint8_t minor_version
    uint8_t framing
    uint8_t has_length                  # a Content-Length was given: also as metadata in answers to HEAD, in 304
    uint8_t keep_alive
    uint8_t expect_continue
    uint8_t upgrade
    uint8_t target_form
    uint8_t scheme                      # of an absolute-form target; SCHEME_HTTP otherwise
    uint8_t wants_trailers              # TE: trailers
    uint8_t max_forwards_zero           # OPTIONS or TRACE that must be answered here
    uint8_t is_tunnel                   # response: 101, or 2xx to CONNECT; what follows is not HTTP
    uint8_t first[64]                   # index of the first field of that id; see `present`
    char host_lower[256]                # host_len octets, for routing
    Field fields[HEAD_MAX_FIELDS]


cdef struct HeadParser:
    LlhttpState llhttp                  # first: callbacks get its address
    const Llhttp* library
    # Safety: `base` and `head` are the arguments of the running call, set on entry, used by callbacks only.
    const char* base
    Head* head
    uint32_t fed_bytes                  # given to llhttp, start line included; 0: start line not complete
    uint32_t line_at                    # of the field line being read
    uint32_t value_at
    uint32_t field_size_max
    uint16_t n_fields
    uint16_t n_fields_max
    uint8_t place                       # HeadPlace
    uint8_t reason                      # why a callback stopped llhttp
    uint8_t is_response


cdef enum HeadPlace:
    PLACE_VALUE = 0                     # in a value, or before the first field
    PLACE_NAME = 1


cdef inline int head_attach(Llhttp* library) noexcept nogil:
    """Point the settings at the callbacks and save the two entry states. Returns 0 when llhttp refuses a canned line."""
    cdef const char* request_line = "GET / HTTP/1.1\r\n"
    cdef const char* status_line = "HTTP/1.1 200 OK\r\n"
    cdef const char* no_fields = "\r\n"
    cdef HeadParser probe
    library.settings_init(&library.settings)
    library.settings.on_header_field = head_on_name
    library.settings.on_header_value = head_on_value
    library.settings.on_headers_complete = head_on_complete
    library.init(&library.after_request_line, LLHTTP_REQUEST, &library.settings)
    library.init(&library.after_status_line, LLHTTP_RESPONSE, &library.settings)
    if (library.execute(&library.after_request_line, request_line, 16) != HPE_OK
            or library.execute(&library.after_status_line, status_line, 17) != HPE_OK):
        return 0
    probe.llhttp = library.after_request_line
    if library.execute(&probe.llhttp, no_fields, 2) != HPE_PAUSED:
        return 0
    library.pause_behind = <uint32_t>(no_fields + 2 - library.get_error_pos(&probe.llhttp))
    return library.pause_behind <= 1


cdef inline void head_parser_reset(HeadParser* parser, const Llhttp* library, int is_response) noexcept nogil:
    """Make ready for a new head. Cheap: the llhttp state is filled in when the start line is complete."""
    parser.library = library
    parser.fed_bytes = 0
    parser.is_response = <uint8_t>is_response


cdef inline int head_parser_is_idle(const HeadParser* parser) noexcept nogil:
    """1 when no start line has been completed since the reset: nothing but the octets themselves need be kept."""
    return parser.fed_bytes == 0


cdef inline int head_read_fields(HeadParser* parser, const char* base, uint32_t len, Head* head,
                                 const Limits* limits) noexcept nogil:
    """Feed what is new of the field section to llhttp. HEAD_MORE, HEAD_DONE (head.size_bytes is set) or a refusal.

    On the first call for a head, head.fields_at says where its start line ended."""
    cdef uint32_t end = len if len < limits.head_size_bytes else limits.head_size_bytes
    cdef uint32_t seen
    cdef int code
    if parser.fed_bytes == 0:
        parser.llhttp = parser.library.after_status_line if parser.is_response else parser.library.after_request_line
        parser.fed_bytes = head.fields_at
        parser.line_at = head.fields_at
        parser.n_fields = 0
        parser.place = PLACE_VALUE
        parser.field_size_max = limits.field_size_bytes if limits.field_size_bytes < 65535 else 65535
        parser.n_fields_max = <uint16_t>(limits.max_fields if limits.max_fields < HEAD_MAX_FIELDS else HEAD_MAX_FIELDS)
    parser.base = base
    parser.head = head
    parser.reason = REASON_NONE
    if end > parser.fed_bytes:
        code = parser.library.execute(&parser.llhttp, base + parser.fed_bytes, end - parser.fed_bytes)
    else:
        code = HPE_OK
    if code == HPE_PAUSED:
        seen = <uint32_t>(parser.library.get_error_pos(&parser.llhttp) - base) + parser.library.pause_behind
        head.size_bytes = seen
        head.n_fields = parser.n_fields
        return HEAD_DONE
    if code == HPE_OK:
        parser.fed_bytes = end
        if head_line_size(parser, end) > parser.field_size_max:
            return HEAD_REFUSED + REASON_FIELD_TOO_LARGE
        if len >= limits.head_size_bytes:
            return HEAD_REFUSED + REASON_HEAD_TOO_LARGE
        return HEAD_MORE
    if code == HPE_USER and parser.reason != REASON_NONE:
        return HEAD_REFUSED + parser.reason
    # The size rule must speak first where it would have spoken octet by octet (keeps SPLIT_SAME): llhttp may fail
    # without having reported the name it was in, or the empty value before.
    seen = <uint32_t>(parser.library.get_error_pos(&parser.llhttp) - base)
    if head_longest_line(base + parser.line_at, seen - parser.line_at) > parser.field_size_max:
        return HEAD_REFUSED + REASON_FIELD_TOO_LARGE
    if code == HPE_INVALID_CONTENT_LENGTH or code == HPE_UNEXPECTED_CONTENT_LENGTH or code == HPE_INVALID_TRANSFER_ENCODING:
        return HEAD_REFUSED + REASON_BAD_FRAMING
    return HEAD_REFUSED + REASON_MALFORMED_HEAD


cdef inline int head_divide_plain(const char* base, uint32_t len, Head* head, const Limits* limits) noexcept nogil:
    """Divide a whole field section of "token: text CRLF" lines. 1: HEAD_DONE; 0: it is not plain, and nothing is said of it.

    Not plain: a control octet other than the line ends, a blank before a name or colon, a bound that is passed, any
    Transfer-Encoding, a Content-Length that is repeated or no short number."""
    cdef uint32_t size_max = limits.field_size_bytes if limits.field_size_bytes < 65535 else 65535
    cdef uint32_t n_max = limits.max_fields if limits.max_fields < HEAD_MAX_FIELDS else HEAD_MAX_FIELDS
    cdef const char* end = base + (len if len < limits.head_size_bytes else limits.head_size_bytes)
    cdef const char* at = base + head.fields_at
    cdef const char* name
    cdef const char* value
    cdef uint32_t name_len
    cdef uint32_t n = 0
    cdef int has_length = 0
    cdef Field* field
    while end - at >= 2 and at[0] != 13:
        name = at
        at = octets_token_end(at, end)
        name_len = <uint32_t>(at - name)
        if at == end or at[0] != 58 or name_len == 0 or n == n_max:
            return 0
        at += 1
        while at < end and at[0] == 32:
            at += 1
        value = at
        at = octets_text_end(at, end)
        if end - at < 2 or at[0] != 13 or at[1] != 10 or at - name > <long>size_max:
            return 0
        field = &head.fields[n]
        field.name_at = <uint32_t>(name - base)
        field.name_len = <uint16_t>name_len
        field.value_at = <uint32_t>(value - base)
        field.value_len = <uint32_t>(at - value)
        while field.value_len and value[field.value_len - 1] == 32:
            field.value_len -= 1        # RFC 9112 5.1: trailing blanks are no part of the value
        if name_len == 14 and octets_equal_lower(name, "content-length", 14):
            if has_length or field.value_len > 18 or not octets_are(value, field.value_len, OCTET_DIGIT):
                return 0
            has_length = 1
        elif name_len == 17 and octets_equal_lower(name, "transfer-encoding", 17):
            return 0
        n += 1
        at += 2
    if end - at < 2 or at[1] != 10:
        return 0
    head.size_bytes = <uint32_t>(at + 2 - base)
    head.n_fields = <uint16_t>n
    return 1


cdef inline uint32_t head_longest_line(const char* at, uint32_t len) noexcept nogil:
    """Octets of the longest line, line ends not counted; the last may be unfinished. A bare LF ends no line."""
    cdef uint32_t longest = 0
    cdef uint32_t start = 0
    cdef uint32_t i
    for i in range(len):
        if at[i] == 10 and i > start and at[i - 1] == 13:
            if i - 1 - start > longest:
                longest = i - 1 - start
            start = i + 1
    if len > start and at[len - 1] == 13:
        len -= 1
    return len - start if len > start and len - start > longest else longest


cdef inline uint32_t head_line_size(const HeadParser* parser, uint32_t end) noexcept nogil:
    """Octets of the unfinished field line that ends at `end`, its line end not counted."""
    cdef const char* last = parser.base + end - 1
    cdef uint32_t crs = 0
    # Safety: a start line of at least 16 octets stands before every field line.
    if end <= parser.line_at or (last[0] == 10 and (last - 1)[0] == 13):
        return 0
    if last[0] == 13:
        crs = 1
        if (last - 1)[0] == 10 and (last - 2)[0] == 13:
            return 0                    # in the empty line
    return end - parser.line_at - crs


# --- callbacks: spans only, pieces of one span are joined ----------------------------------------------------------

cdef inline int head_on_name(LlhttpState* state, const char* at, size_t len) noexcept nogil:
    # Safety: `llhttp` is the first member of HeadParser.
    cdef HeadParser* parser = <HeadParser*>state
    if parser.place == PLACE_VALUE:
        parser.place = PLACE_NAME
        parser.line_at = <uint32_t>(at - parser.base)
    parser.value_at = <uint32_t>(at + len - parser.base)    # until the value starts: where the name ends
    return 0


cdef inline int head_on_value(LlhttpState* state, const char* at, size_t len) noexcept nogil:
    cdef HeadParser* parser = <HeadParser*>state
    cdef uint32_t value_at = <uint32_t>(at - parser.base)
    cdef uint32_t end = <uint32_t>(at + len - parser.base)
    cdef Field* field
    if parser.place == PLACE_NAME:
        parser.place = PLACE_VALUE
        if len == 0 and (at - 1)[0] == 10:  # llhttp reports an empty value from behind its line end
            end -= 2
            value_at = end
        # In the order in which octet by octet would notice: size up to here, count, size of the value.
        if value_at - parser.line_at > parser.field_size_max:
            parser.reason = REASON_FIELD_TOO_LARGE
            return HPE_USER
        if parser.n_fields >= parser.n_fields_max:
            parser.reason = REASON_TOO_MANY_FIELDS
            return HPE_USER
        field = &parser.head.fields[parser.n_fields]
        field.name_at = parser.line_at
        field.name_len = <uint16_t>(parser.value_at - parser.line_at)
        parser.n_fields += 1
        parser.value_at = value_at
    else:
        value_at = parser.value_at
        field = &parser.head.fields[parser.n_fields - 1]
    if end - parser.line_at > parser.field_size_max:
        parser.reason = REASON_FIELD_TOO_LARGE
        return HPE_USER
    while end > value_at and (parser.base[end - 1] == 32 or parser.base[end - 1] == 9):
        end -= 1                        # RFC 9112 5.1: trailing blanks are no part of the value
    field.value_at = value_at
    field.value_len = end - value_at
    return 0


cdef inline int head_on_complete(LlhttpState* state) noexcept nogil:
    return HPE_PAUSED


# --- reading a head ------------------------------------------------------------------------------------------------

cdef inline int head_has(const Head* head, uint32_t id) noexcept nogil:
    """1 when a field of that known id is there."""
    return <int>(head.present >> id & 1)


cdef inline const Field* head_field(const Head* head, uint32_t id) noexcept nogil:
    """The first field of that id. Only when head_has says so."""
    return &head.fields[head.first[id]]


cdef inline int method_is_idempotent(uint32_t method) noexcept nogil:
    """1 when sending the request twice does no more than once. RFC 9110 9.2.2."""
    return (1 << method) & ((1 << METHOD_GET) | (1 << METHOD_HEAD) | (1 << METHOD_PUT) | (1 << METHOD_DELETE)
                            | (1 << METHOD_OPTIONS) | (1 << METHOD_TRACE)) != 0
