# gRPC-Web (grpc/doc/PROTOCOL-WEB.md): which requests are calls of it, what their heads become towards a server of gRPC and
# back, and the frame that carries trailers in a body. Messages are framed as in gRPC itself, and not looked at.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from meshcore.engine.fields cimport FIELD_CONTENT_TYPE
from meshcore.engine.head cimport METHOD_POST, Field, Head, head_field, head_has
from meshcore.engine.octets cimport octets_equal_lower

cdef enum GrpcWeb:
    GRPC_WEB_NONE = 0
    GRPC_WEB_BINARY = 1
    GRPC_WEB_TEXT = 2                   # bodies are base64

cdef enum:
    GRPC_WEB_FRAME_BYTES = 5
    GRPC_WEB_MORE_BYTES = 32            # that a content type may grow by


cdef inline int grpc_web_kind(const Head* head) noexcept nogil:
    """What kind of call this request is."""
    cdef const Field* field
    cdef const char* at
    if head.method != METHOD_POST or not head_has(head, FIELD_CONTENT_TYPE):
        return GRPC_WEB_NONE
    field = head_field(head, FIELD_CONTENT_TYPE)
    at = head.base + field.value_at
    if field.value_len < 20 or not octets_equal_lower(at, "application/grpc-web", 20):
        return GRPC_WEB_NONE
    if grpc_web_ends(at, field.value_len, 20):
        return GRPC_WEB_BINARY
    if field.value_len >= 25 and octets_equal_lower(at + 20, "-text", 5) and grpc_web_ends(at, field.value_len, 25):
        return GRPC_WEB_TEXT
    return GRPC_WEB_NONE


cdef inline int grpc_web_ends(const char* at, uint32_t len, uint32_t n) noexcept nogil:
    return len == n or at[n] == 43 or at[n] == 59


cdef inline int grpc_web_may_answer(const Head* head) noexcept nogil:
    """Is this response one of gRPC? Whatever else a server may say is passed on as it is."""
    cdef const Field* field
    if not head_has(head, FIELD_CONTENT_TYPE):
        return 0
    field = head_field(head, FIELD_CONTENT_TYPE)
    return field.value_len >= 16 and octets_equal_lower(head.base + field.value_at, "application/grpc", 16) \
        and grpc_web_ends(head.base + field.value_at, field.value_len, 16)


cdef inline char* grpc_web_write_type(const Head* head, int kind, int is_response, char* at) noexcept nogil:
    """The content type of the other side, its message format kept. Returns what follows it."""
    cdef const Field* field = head_field(head, FIELD_CONTENT_TYPE)
    cdef uint32_t skip = 16 if is_response else 20 if kind == GRPC_WEB_BINARY else 25
    memcpy(at, b"content-type: application/grpc", 30)
    at += 30
    if is_response:
        memcpy(at, b"-web-text", 9)
        at += 9 if kind == GRPC_WEB_TEXT else 4
    memcpy(at, head.base + field.value_at + skip, field.value_len - skip)
    at += field.value_len - skip
    memcpy(at, b"\r\n", 2)
    return at + 2


cdef inline void grpc_web_write_frame(char* at, uint32_t len) noexcept nogil:
    """The head of the frame of trailers: GRPC_WEB_FRAME_BYTES."""
    at[0] = <char>128
    at[1] = <char>(len >> 24)
    at[2] = <char>(len >> 16)
    at[3] = <char>(len >> 8)
    at[4] = <char>len
