# What an HTTP message says about a gRPC call: that it is one, its deadline, its status. Owns these words of the gRPC
# protocol (grpc/doc/PROTOCOL-HTTP2.md), no transport; messages are bytes of a body, and not looked at.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from meshcore.engine.fields cimport FIELD_CONTENT_TYPE, FIELD_OTHER
from meshcore.engine.head cimport METHOD_POST, Field, Head, head_field, head_has
from meshcore.engine.octets cimport octets_equal_lower

cdef enum GrpcStatus:
    GRPC_OK = 0
    GRPC_CANCELLED = 1
    GRPC_UNKNOWN = 2
    GRPC_DEADLINE_EXCEEDED = 4
    GRPC_NOT_FOUND = 5
    GRPC_PERMISSION_DENIED = 7
    GRPC_RESOURCE_EXHAUSTED = 8
    GRPC_ABORTED = 10
    GRPC_UNIMPLEMENTED = 12
    GRPC_INTERNAL = 13
    GRPC_UNAVAILABLE = 14
    GRPC_DATA_LOSS = 15
    GRPC_UNAUTHENTICATED = 16
    GRPC_STATUS_COUNT = 17
    GRPC_NONE = 255                     # no call, or none was told


cdef inline int grpc_is_request(const Head* head) noexcept nogil:
    """A POST of application/grpc, with whatever message format; not gRPC-Web, which frames otherwise."""
    cdef const Field* field
    cdef const char* at
    if head.method != METHOD_POST or not head_has(head, FIELD_CONTENT_TYPE):
        return 0
    field = head_field(head, FIELD_CONTENT_TYPE)
    at = head.base + field.value_at
    return field.value_len >= 16 and octets_equal_lower(at, "application/grpc", 16) \
        and (field.value_len == 16 or at[16] == 43 or at[16] == 59)


cdef inline uint64_t grpc_timeout_ns(const Head* head) noexcept nogil:
    """The caller's deadline from grpc-timeout: 1 to 8 digits and a unit. 0: none, or not a valid one."""
    cdef const Field* field = grpc_field(head, "grpc-timeout", 12)
    cdef const char* at
    cdef uint64_t n = 0
    cdef uint64_t unit
    cdef uint32_t i
    cdef char letter
    if field == NULL or field.value_len < 2 or field.value_len > 9:
        return 0
    at = head.base + field.value_at
    for i in range(field.value_len - 1):
        if not 48 <= at[i] <= 57:
            return 0
        n = n * 10 + <uint32_t>(at[i] - 48)
    letter = at[field.value_len - 1]
    if letter == c"n":
        unit = 1
    elif letter == c"u":
        unit = 1000
    elif letter == c"m":
        unit = 1000000
    elif letter == c"S":
        unit = 1000000000
    elif letter == c"M":
        unit = <uint64_t>60000000000ULL
    elif letter == c"H":
        unit = <uint64_t>3600000000000ULL
    else:
        return 0
    if n > <uint64_t>86400000000000ULL * 365 // unit:
        return <uint64_t>86400000000000ULL * 365      # a year is as good as none
    return n * unit if n else 1         # no time at all is a deadline that has passed


cdef inline uint8_t grpc_status_of_head(const Head* head) noexcept nogil:
    """grpc-status of a response head (a call without messages ends with it), or GRPC_NONE."""
    cdef const Field* field = grpc_field(head, "grpc-status", 11)
    return GRPC_NONE if field == NULL else grpc_read_status(head.base + field.value_at, field.value_len)


cdef inline uint8_t grpc_status_of_trailers(const char* text, uint32_t len) noexcept nogil:
    """grpc-status among "name: value CRLF" lines, or GRPC_NONE."""
    cdef uint32_t at = 0
    cdef uint32_t line_len
    cdef const char* end
    while at < len:
        end = <const char*>memchr(text + at, 10, len - at)
        if end == NULL:
            break
        line_len = <uint32_t>(end - text) - at - 1
        if line_len > 13 and octets_equal_lower(text + at, "grpc-status: ", 13):
            return grpc_read_status(text + at + 13, line_len - 13)
        at += line_len + 2
    return GRPC_NONE


cdef inline int grpc_pushes_back(const Head* head) noexcept nogil:
    """Does the server ask not to be asked again at once? gRFC A6: grpc-retry-pushback-ms, where nothing but 0 allows it: what
    is negative or no number forbids retries, and a wait is the caller's to keep."""
    cdef const Field* field = grpc_field(head, "grpc-retry-pushback-ms", 22)
    return field != NULL and (field.value_len != 1 or head.base[field.value_at] != 48)


cdef inline uint8_t grpc_read_status(const char* at, uint32_t len) noexcept nogil:
    # What is no number, or none that the protocol knows, is UNKNOWN (grpc/doc/statuscodes.md).
    cdef uint32_t n = 0
    cdef uint32_t i
    if len == 0 or len > 3:
        return GRPC_UNKNOWN
    for i in range(len):
        if not 48 <= at[i] <= 57:
            return GRPC_UNKNOWN
        n = n * 10 + <uint32_t>(at[i] - 48)
    return <uint8_t>n if n < GRPC_STATUS_COUNT else GRPC_UNKNOWN


cdef inline const Field* grpc_field(const Head* head, const char* name, uint32_t len) noexcept nogil:
    cdef uint32_t i
    for i in range(head.n_fields):
        if head.fields[i].id == FIELD_OTHER and head.fields[i].name_len == len \
                and octets_equal_lower(head.base + head.fields[i].name_at, name, len):
            return &head.fields[i]
    return NULL


cdef inline uint8_t grpc_status_of_http(uint32_t status) noexcept nogil:
    """The gRPC status that says what this HTTP status of ours does; mapping of linkerd2-proxy's respond.rs, and of
    grpc/doc/http-grpc-status-mapping.md for those it has not."""
    if status == 504 or status == 408:
        return GRPC_DEADLINE_EXCEEDED
    if status == 503 or status == 502:
        return GRPC_UNAVAILABLE
    if status == 404:
        return GRPC_NOT_FOUND
    if status == 405 or status == 501:
        return GRPC_UNIMPLEMENTED
    if status == 403:
        return GRPC_PERMISSION_DENIED
    if status == 401:
        return GRPC_UNAUTHENTICATED
    if status == 429 or status == 413 or status == 431 or status == 414:
        return GRPC_RESOURCE_EXHAUSTED
    if status == 508:
        return GRPC_ABORTED
    if status == 499:
        return GRPC_CANCELLED
    return GRPC_INTERNAL


cdef inline int grpc_is_failure(uint8_t status) noexcept nogil:
    """Is it the endpoint that failed? As linkerd2-proxy classes them, but PERMISSION_DENIED, which is the caller's."""
    return status == GRPC_UNKNOWN or status == GRPC_DEADLINE_EXCEEDED or status == GRPC_INTERNAL \
        or status == GRPC_UNAVAILABLE or status == GRPC_DATA_LOSS or status == GRPC_NONE
