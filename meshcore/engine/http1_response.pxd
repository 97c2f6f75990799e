# A response head: its status line, and how its body ends. Frames no body, rewrites nothing.
#
# Every refusal is the endpoint's fault: REASON_UPSTREAM_*.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from meshcore.engine.fields cimport FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE
from meshcore.engine.head cimport (
    FRAMING_CHUNKED,
    FRAMING_LENGTH,
    FRAMING_NONE,
    FRAMING_UNTIL_CLOSE,
    HEAD_DONE,
    HEAD_MORE,
    HEAD_REFUSED,
    METHOD_CONNECT,
    METHOD_HEAD,
    UPGRADE_NONE,
    UPGRADE_OTHER,
    UPGRADE_WEBSOCKET,
    Field,
    Head,
    head_field,
    head_has,
)
from meshcore.engine.hop cimport (
    CONNECTION_CLOSE,
    CONNECTION_KEEP_ALIVE,
    CONNECTION_OVERLONG,
    CONNECTION_UPGRADE,
    hop_classify,
    hop_connection_options,
    hop_is_chunked,
    hop_read_length,
)
from meshcore.engine.http1_request cimport upgrade_is_allowed, upgrade_is_websocket
from meshcore.engine.octets cimport OCTET_VALUE, octet_class
from meshcore.engine.reasons cimport (
    REASON_UPSTREAM_HEAD_TOO_LARGE,
    REASON_UPSTREAM_MALFORMED,
    REASON_UPSTREAM_UNASKED_UPGRADE,
)
from meshcore.engine.snapshot cimport Limits


cdef inline int status_line_read(const char* base, uint32_t len, Head* head, const Limits* limits) noexcept nogil:
    """Read "HTTP/1.x SP 3DIGIT [SP reason] CRLF". HEAD_MORE, HEAD_DONE (head.fields_at is set) or a refusal.

    The space behind the code may be missing when there is no reason: RFC 9112 4 wants it, many servers leave it out."""
    cdef const char* expected = "HTTP/1.x sss"
    cdef uint32_t i
    cdef uint8_t octet
    head.base = base
    head.method_at = 0
    i = 9 if len >= 12 and (memcmp(base, "HTTP/1.1 ", 9) == 0 or memcmp(base, "HTTP/1.0 ", 9) == 0) else 0
    while i < 12 and i < len:
        octet = <uint8_t>base[i]
        if i == 7:
            if octet != 48 and octet != 49:
                return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
        elif i < 9:
            if octet != <uint8_t>expected[i]:
                return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
        elif octet < 48 or octet > 57 or (i == 9 and (octet == 48 or octet > 53)):
            # RFC 9110 15: 100..599. A code outside is not passed on: no two clients agree on what it means.
            return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
        i += 1
    if len <= 12:
        return HEAD_MORE
    head.minor_version = <uint8_t>(base[7] - 48)
    head.status = <uint8_t>(base[9] - 48) * 100 + <uint8_t>(base[10] - 48) * 10 + <uint8_t>(base[11] - 48)
    i = 12
    if base[12] == 32:
        i = 13
        while i < len and octet_class[<uint8_t>base[i]] & OCTET_VALUE:
            i += 1
    head.reason_at = 13 if base[12] == 32 else 12
    head.reason_len = i - head.reason_at
    if i > limits.field_size_bytes:
        return HEAD_REFUSED + REASON_UPSTREAM_HEAD_TOO_LARGE
    if (i < len and base[i] != 13) or (i + 1 < len and base[i + 1] != 10):
        return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
    if i + 1 >= len:
        return HEAD_MORE if len < limits.head_size_bytes else HEAD_REFUSED + REASON_UPSTREAM_HEAD_TOO_LARGE
    head.fields_at = i + 2
    return HEAD_DONE


cdef inline int response_judge(Head* head, uint32_t request_method, int may_upgrade) noexcept nogil:
    """Give a complete response head its meaning, as the answer to a request of that method that offered an Upgrade or not.

    HEAD_DONE, or 16 + the reason it has none."""
    cdef uint32_t options
    hop_classify(head)
    head.method = <uint8_t>request_method
    head.method_len = 0
    head.authority_len = 0
    head.host_len = 0
    head.has_length = 0
    head.content_length = 0
    head.expect_continue = 0
    head.upgrade = UPGRADE_NONE
    head.wants_trailers = 0
    head.max_forwards_zero = 0
    head.is_tunnel = 0
    options = hop_connection_options(head)
    if options & CONNECTION_OVERLONG or not response_judge_framing(head):
        return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
    head.keep_alive = not options & CONNECTION_CLOSE and (head.minor_version == 1 or options & CONNECTION_KEEP_ALIVE)
    if head.status == 101:
        # RFC 9110 15.2.2: only what was asked for, and it must say what it switches to
        if not may_upgrade:
            return HEAD_REFUSED + REASON_UPSTREAM_UNASKED_UPGRADE
        if not options & CONNECTION_UPGRADE or not response_read_upgrade(head):
            return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
        head.is_tunnel = 1
    elif request_method == METHOD_CONNECT and head.status // 100 == 2:
        head.is_tunnel = 1              # RFC 9112 6.3 (2): lengths mean nothing here
    if head.is_tunnel or request_method == METHOD_HEAD or head.status < 200 or head.status == 204 or head.status == 304:
        # RFC 9112 6.3 (1): no body, whatever the fields say. A server that sent a length or a coding where none may be
        # is about to send octets nobody asked for: do not use the connection again.
        if (head.status < 200 or head.status == 204) and head.framing != FRAMING_NONE and (head.content_length or head.framing == FRAMING_CHUNKED):
            head.keep_alive = 0
        head.framing = FRAMING_NONE
    elif head.framing == FRAMING_NONE:
        head.framing = FRAMING_UNTIL_CLOSE
        head.keep_alive = 0
    return HEAD_DONE


cdef inline int response_judge_framing(Head* head) noexcept nogil:
    """What the length fields say. FRAMING_NONE: nothing. Returns 0 when they contradict each other or themselves."""
    cdef const Field* field
    head.framing = FRAMING_NONE
    if head_has(head, FIELD_TRANSFER_ENCODING):
        # RFC 9112 6.1 and 6.3 (3): with Content-Length, or in 1.0, the framing is faulty; other codings were never
        # offered by us (we send no TE but trailers).
        if head_has(head, FIELD_CONTENT_LENGTH) or head.minor_version == 0 or not hop_is_chunked(head):
            return 0
        head.framing = FRAMING_CHUNKED
    elif head_has(head, FIELD_CONTENT_LENGTH):
        field = head_field(head, FIELD_CONTENT_LENGTH)
        if head.repeated >> FIELD_CONTENT_LENGTH & 1 or not hop_read_length(head.base + field.value_at, field.value_len, &head.content_length):
            return 0
        head.framing = FRAMING_LENGTH
        head.has_length = 1
    return 1


cdef inline int response_read_upgrade(Head* head) noexcept nogil:
    """Set head.upgrade from the one protocol a 101 names. Returns 0 when there is none, several, or a forbidden one."""
    cdef const Field* field
    if not head_has(head, FIELD_UPGRADE) or head.repeated >> FIELD_UPGRADE & 1:
        return 0
    field = head_field(head, FIELD_UPGRADE)
    if not upgrade_is_allowed(head.base + field.value_at, field.value_len):
        return 0
    head.upgrade = UPGRADE_WEBSOCKET if upgrade_is_websocket(head.base + field.value_at, field.value_len) else UPGRADE_OTHER
    return 1
