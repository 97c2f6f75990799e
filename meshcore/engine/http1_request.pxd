# A request head: its request line, and the one strict meaning its fields may have. Frames no body, rewrites nothing.
#
# Everything here answers "exactly one meaning or a 4xx": two recipients that read a head differently are how requests
# are smuggled. The order of the checks is fixed, so the verdict is a function of the octets (keeps SPLIT_SAME).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from meshcore.engine.authority cimport Authority, authority_parse
from meshcore.engine.fields cimport (
    FIELD_AUTHORIZATION,
    FIELD_CONTENT_LENGTH,
    FIELD_DROP,
    FIELD_EXPECT,
    FIELD_HOST,
    FIELD_MAX_FORWARDS,
    FIELD_SEC_WEBSOCKET_KEY,
    FIELD_TE,
    FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE,
)
from meshcore.engine.head cimport (
    FRAMING_CHUNKED,
    FRAMING_LENGTH,
    FRAMING_NONE,
    HEAD_DONE,
    HEAD_MAX_HOST,
    HEAD_MORE,
    HEAD_REFUSED,
    METHOD_CONNECT,
    METHOD_DELETE,
    METHOD_EXTENSION,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_OPTIONS,
    METHOD_PATCH,
    METHOD_POST,
    METHOD_PUT,
    METHOD_TRACE,
    SCHEME_HTTP,
    TARGET_ABSOLUTE,
    TARGET_AUTHORITY,
    TARGET_ORIGIN,
    UPGRADE_IGNORED,
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
from meshcore.engine.octets cimport (
    OCTET_TOKEN,
    octet_class,
    octets_are,
    octets_copy_lower,
    octets_equal_lower,
    octets_next_member,
)
from meshcore.engine.reasons cimport (
    REASON_BAD_FRAMING,
    REASON_BAD_HOST,
    REASON_BAD_METHOD,
    REASON_BAD_TARGET,
    REASON_BAD_UPGRADE,
    REASON_BAD_VERSION,
    REASON_EXPECTATION_FAILED,
    REASON_HEAD_TOO_LARGE,
    REASON_MALFORMED_HEAD,
    REASON_METHOD_NOT_ALLOWED,
    REASON_NONE,
    REASON_TARGET_TOO_LONG,
    REASON_UNSUPPORTED_CODING,
)
from meshcore.engine.snapshot cimport Limits
from meshcore.engine.target cimport TARGET_PENDING, TARGET_REFUSED, target_scan, target_split


cdef enum:
    METHOD_MAX = 32                     # longest registered method is 17 octets (UPDATEREDIRECTREF)


cdef inline int request_line_read(const char* base, uint32_t len, Head* head, const Limits* limits) noexcept nogil:
    """Read "method SP target SP HTTP/1.x CRLF". HEAD_MORE, HEAD_DONE (head.fields_at is set) or a refusal.

    Starts over on every call: a request line is short, and a reading without state cannot depend on the pieces."""
    cdef uint32_t at = 0
    cdef uint32_t i, end
    cdef int code
    cdef Authority authority
    if len and base[0] == 13:
        # RFC 9112 2.2: one empty line before the request line is left over from an old client's body; more is noise.
        if len > 1 and base[1] != 10:
            return HEAD_REFUSED + REASON_MALFORMED_HEAD
        at = 2
    if len <= at:
        return HEAD_MORE
    head.base = base
    head.method_at = at
    i = at
    while i < len and octet_class[<uint8_t>base[i]] & OCTET_TOKEN:
        i += 1
    head.method_len = i - at
    if head.method_len > METHOD_MAX:
        return HEAD_REFUSED + REASON_BAD_METHOD
    if i == len:
        return HEAD_MORE
    if i == at or base[i] != 32:
        return HEAD_REFUSED + REASON_BAD_METHOD
    head.method = method_from_token(base + at, i - at)
    if i - at == 3 and memcmp(base + at, "PRI", 3) == 0:
        return HEAD_REFUSED + REASON_BAD_METHOD         # RFC 9113 11.6: reserved, it opens HTTP/2
    at = i + 1
    head.authority_len = 0
    head.scheme = SCHEME_HTTP
    code = target_scan(base, at, len, head, &end)
    if end - at > limits.target_size_bytes:
        return HEAD_REFUSED + REASON_TARGET_TOO_LONG
    if code == TARGET_REFUSED:
        return HEAD_REFUSED + REASON_BAD_TARGET
    if code == TARGET_PENDING:
        return HEAD_MORE if len < limits.head_size_bytes else HEAD_REFUSED + REASON_HEAD_TOO_LARGE
    if head.target_form != TARGET_ORIGIN or head.method == METHOD_CONNECT:
        if not target_split(head, &authority):
            return HEAD_REFUSED + REASON_BAD_TARGET
        if head.target_form == TARGET_ABSOLUTE or head.target_form == TARGET_AUTHORITY:
            if not head_set_authority(head, head.authority_at, &authority):
                return HEAD_REFUSED + REASON_BAD_TARGET
    at = end + 1
    if len - at >= 10 and memcmp(base + at, "HTTP/1.1\r\n", 10) == 0:
        head.minor_version = 1
    else:
        code = version_read(base + at, len - at)
        if code:
            return code
        if len - at < 10:
            return HEAD_MORE if len < limits.head_size_bytes else HEAD_REFUSED + REASON_HEAD_TOO_LARGE
        head.minor_version = <uint8_t>(base[at + 7] - 48)
    head.fields_at = at + 10
    return HEAD_DONE


cdef inline int version_read(const char* at, uint32_t len) noexcept nogil:
    """0 when the octets there may still become "HTTP/1.0" or "HTTP/1.1" and CRLF, else the refusal."""
    cdef const char* name = "HTTP/"
    cdef uint32_t i
    for i in range(len if len < 10 else 10):
        if i < 5:
            if at[i] != name[i]:
                return HEAD_REFUSED + REASON_MALFORMED_HEAD
        elif i == 5 or i == 7:
            if at[i] < 48 or at[i] > 57:
                return HEAD_REFUSED + REASON_MALFORMED_HEAD
            if i == 7 and (at[5] != 49 or at[7] > 49):
                # RFC 9110 15.6.6. 1.2 and up are refused too: nobody sends them honestly.
                return HEAD_REFUSED + REASON_BAD_VERSION
        elif at[i] != (46 if i == 6 else 13 if i == 8 else 10):
            return HEAD_REFUSED + REASON_MALFORMED_HEAD
    return 0


cdef inline uint8_t method_from_token(const char* at, uint32_t len) noexcept nogil:
    """The Method of a token; METHOD_EXTENSION for any it does not list. Case-sensitive (RFC 9110 9.1)."""
    if len == 3:
        if memcmp(at, "GET", 3) == 0:
            return METHOD_GET
        if memcmp(at, "PUT", 3) == 0:
            return METHOD_PUT
    elif len == 4:
        if memcmp(at, "POST", 4) == 0:
            return METHOD_POST
        if memcmp(at, "HEAD", 4) == 0:
            return METHOD_HEAD
    elif len == 5:
        if memcmp(at, "PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(at, "TRACE", 5) == 0:
            return METHOD_TRACE
    elif len == 6:
        if memcmp(at, "DELETE", 6) == 0:
            return METHOD_DELETE
    elif len == 7:
        if memcmp(at, "OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(at, "CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_EXTENSION


cdef inline int head_set_authority(Head* head, uint32_t at, const Authority* authority) noexcept nogil:
    """Take an authority over as the one of the head. Returns 0 when its host is too long or only a dot."""
    cdef uint32_t len = authority.host_len
    if head.base[at + len - 1] == 46:
        len -= 1                        # RFC 1034 3.1: the absolute spelling of the same name
    if len == 0 or len > HEAD_MAX_HOST:
        return 0
    head.authority_at = at
    head.authority_len = authority.len
    head.host_at = at
    head.host_len = len
    head.port = authority.port
    octets_copy_lower(head.host_lower, head.base + at, len)
    return 1


cdef inline int request_judge(Head* head) noexcept nogil:
    """Give a complete request head its meaning. HEAD_DONE, or 16 + the reason it has none."""
    cdef uint32_t options
    cdef int reason
    hop_classify(head)
    head.status = 0
    head.is_tunnel = 0
    head.has_length = 0
    head.expect_continue = 0
    head.upgrade = UPGRADE_NONE
    head.wants_trailers = 0
    head.max_forwards_zero = 0
    reason = request_judge_host(head)
    if reason:
        return HEAD_REFUSED + reason
    if head.repeated >> FIELD_AUTHORIZATION & 1:
        return HEAD_REFUSED + REASON_MALFORMED_HEAD     # the policy and the back end could each believe another one
    reason = request_judge_framing(head)
    if reason:
        return HEAD_REFUSED + reason
    options = hop_connection_options(head)
    if options & CONNECTION_OVERLONG:
        return HEAD_REFUSED + REASON_MALFORMED_HEAD
    # RFC 9112 9.3: close wins, 1.1 persists by default, 1.0 only when it asks to
    head.keep_alive = not options & CONNECTION_CLOSE and (head.minor_version == 1 or options & CONNECTION_KEEP_ALIVE)
    if head_has(head, FIELD_EXPECT):
        reason = request_judge_expect(head)
        if reason:
            return HEAD_REFUSED + reason
    if head_has(head, FIELD_UPGRADE):
        reason = request_judge_upgrade(head, options)
        if reason:
            return HEAD_REFUSED + reason
    if head_has(head, FIELD_TE):
        head.wants_trailers = request_te_has_trailers(head)
    if head.method == METHOD_TRACE:
        return HEAD_REFUSED + REASON_METHOD_NOT_ALLOWED # it would hand the client's credentials to whoever can script it
    if head.method == METHOD_OPTIONS and head_has(head, FIELD_MAX_FORWARDS):
        head.max_forwards_zero = request_max_forwards_is_zero(head)
    return HEAD_DONE


cdef inline int request_judge_host(Head* head) noexcept nogil:
    """RFC 9112 3.2: exactly one valid Host in 1.1. The target's authority wins over it (RFC 9112 3.2.2)."""
    cdef Authority authority
    cdef const Field* field
    if not head_has(head, FIELD_HOST):
        if head.minor_version == 1:
            return REASON_BAD_HOST
        if head.authority_len == 0:
            head.host_len = 0
            head.port = -1
        return REASON_NONE
    field = head_field(head, FIELD_HOST)
    if head.repeated >> FIELD_HOST & 1 or not authority_parse(head.base + field.value_at, field.value_len, &authority):
        return REASON_BAD_HOST
    if head.authority_len == 0 and not head_set_authority(head, field.value_at, &authority):
        return REASON_BAD_HOST
    return REASON_NONE


cdef inline int request_judge_framing(Head* head) noexcept nogil:
    """RFC 9112 6.3, without its leniencies."""
    cdef const Field* field
    head.framing = FRAMING_NONE
    head.content_length = 0
    if head_has(head, FIELD_TRANSFER_ENCODING):
        # RFC 9112 6.1: with Content-Length, or from HTTP/1.0, someone on the way has read or will read it differently.
        if head_has(head, FIELD_CONTENT_LENGTH) or head.minor_version == 0:
            return REASON_BAD_FRAMING
        if not hop_is_chunked(head):
            return REASON_UNSUPPORTED_CODING if request_coding_is_foreign(head) else REASON_BAD_FRAMING
        head.framing = FRAMING_CHUNKED
    elif head_has(head, FIELD_CONTENT_LENGTH):
        field = head_field(head, FIELD_CONTENT_LENGTH)
        if head.repeated >> FIELD_CONTENT_LENGTH & 1 or not hop_read_length(head.base + field.value_at, field.value_len, &head.content_length):
            return REASON_BAD_FRAMING
        head.framing = FRAMING_LENGTH
        head.has_length = 1
    if head.method == METHOD_CONNECT and (head.framing == FRAMING_CHUNKED or head.content_length):
        return REASON_BAD_FRAMING       # RFC 9110 9.3.6: content of CONNECT has no meaning, what follows is the tunnel
    return REASON_NONE


cdef inline int request_coding_is_foreign(const Head* head) noexcept nogil:
    """1 when Transfer-Encoding is a clean list of codings that names one we lack: 501 is the honest answer then
    (RFC 9112 6.1), for everything else it is a framing attack. "identity" is no coding any more, and chunked may
    stand only once and last."""
    cdef const Field* field = head_field(head, FIELD_TRANSFER_ENCODING)
    cdef const char* at = head.base + field.value_at
    cdef const char* coding
    cdef uint32_t cursor = 0
    cdef uint32_t len
    cdef uint32_t foreign = 0
    cdef bint ended = False
    if head.repeated >> FIELD_TRANSFER_ENCODING & 1 or field.value_len == 0 or at[0] == 44 or at[field.value_len - 1] == 44:
        return 0
    while octets_next_member(at, field.value_len, &cursor, &coding, &len):
        if ended or not octets_are(coding, len, OCTET_TOKEN) or (len == 8 and octets_equal_lower(coding, "identity", 8)):
            return 0
        if len == 7 and octets_equal_lower(coding, "chunked", 7):
            ended = True
        else:
            foreign += 1
    return foreign != 0


cdef inline int request_judge_expect(Head* head) noexcept nogil:
    """RFC 9110 10.1.1."""
    cdef Field* field = &head.fields[head.first[FIELD_EXPECT]]
    cdef uint32_t i
    if head.minor_version == 0:
        # MUST be ignored, and must not reach an HTTP/1.1 server as if it had been meant
        for i in range(head.n_fields):
            if head.fields[i].id == FIELD_EXPECT:
                head.fields[i].flags |= FIELD_DROP
        return REASON_NONE
    if (head.repeated >> FIELD_EXPECT & 1 or field.value_len != 12
            or not octets_equal_lower(head.base + field.value_at, "100-continue", 12)):
        return REASON_EXPECTATION_FAILED
    head.expect_continue = head.framing == FRAMING_CHUNKED or head.content_length != 0
    return REASON_NONE


cdef inline int request_judge_upgrade(Head* head, uint32_t options) noexcept nogil:
    """RFC 9110 7.8: only with Connection: upgrade, never in 1.0. A request with content never switches here."""
    cdef uint32_t i, cursor, len
    cdef uint32_t best = UPGRADE_IGNORED
    cdef const char* protocol
    cdef const Field* field
    if (not options & CONNECTION_UPGRADE or head.minor_version == 0 or head.framing == FRAMING_CHUNKED
            or head.content_length or head.method == METHOD_CONNECT):
        head.upgrade = UPGRADE_IGNORED
        return REASON_NONE
    for i in range(head.first[FIELD_UPGRADE], head.n_fields):
        field = &head.fields[i]
        if field.id != FIELD_UPGRADE:
            continue
        cursor = 0
        while octets_next_member(head.base + field.value_at, field.value_len, &cursor, &protocol, &len):
            if upgrade_is_websocket(protocol, len):
                best = UPGRADE_WEBSOCKET
            elif best == UPGRADE_IGNORED and upgrade_is_allowed(protocol, len):
                best = UPGRADE_OTHER
    if best == UPGRADE_WEBSOCKET:
        if head.method != METHOD_GET:
            best = UPGRADE_IGNORED      # RFC 6455 4.1: a GET, or no handshake
        elif not websocket_key_is_valid(head):
            return REASON_BAD_UPGRADE
    head.upgrade = <uint8_t>best
    return REASON_NONE


cdef inline int upgrade_is_websocket(const char* protocol, uint32_t len) noexcept nogil:
    return len == 9 and octets_equal_lower(protocol, "websocket", 9)


cdef inline int upgrade_is_allowed(const char* protocol, uint32_t len) noexcept nogil:
    """1 unless the protocol would carry requests past this proxy's eyes (h2c, TLS, HTTP) or is no protocol name.

    RFC 9113 3.1 withdrew h2c; RFC 2817's TLS upgrade and HTTP/x are the same hole."""
    cdef uint32_t i = 0
    while i < len and octet_class[<uint8_t>protocol[i]] & OCTET_TOKEN:
        i += 1
    if i == 0 or (i != len and (protocol[i] != 47 or not octets_are(protocol + i + 1, len - i - 1, OCTET_TOKEN))):
        return 0
    if i >= 2 and octets_equal_lower(protocol, "h2", 2) or i >= 2 and octets_equal_lower(protocol, "h3", 2):
        return 0
    if i == 3 and octets_equal_lower(protocol, "tls", 3) or i == 4 and octets_equal_lower(protocol, "http", 4):
        return 0
    return 1


cdef inline int websocket_key_is_valid(const Head* head) noexcept nogil:
    """RFC 6455 4.1: exactly one key, base64 of 16 octets."""
    cdef const Field* field
    cdef const char* at
    cdef uint32_t i
    if not head_has(head, FIELD_SEC_WEBSOCKET_KEY) or head.repeated >> FIELD_SEC_WEBSOCKET_KEY & 1:
        return 0
    field = head_field(head, FIELD_SEC_WEBSOCKET_KEY)
    at = head.base + field.value_at
    if field.value_len != 24 or at[22] != 61 or at[23] != 61:
        return 0
    for i in range(22):
        if not (48 <= at[i] <= 57 or 65 <= at[i] <= 90 or 97 <= at[i] <= 122 or at[i] == 43 or at[i] == 47):
            return 0
    return 1


cdef inline uint8_t request_te_has_trailers(const Head* head) noexcept nogil:
    """1 when a TE field lists "trailers": the one coding worth passing on. RFC 9110 10.1.4."""
    cdef uint32_t i, cursor, len
    cdef const char* member
    cdef const Field* field
    for i in range(head.first[FIELD_TE], head.n_fields):
        field = &head.fields[i]
        if field.id != FIELD_TE:
            continue
        cursor = 0
        while octets_next_member(head.base + field.value_at, field.value_len, &cursor, &member, &len):
            if len == 8 and octets_equal_lower(member, "trailers", 8):
                return 1
    return 0


cdef inline uint8_t request_max_forwards_is_zero(const Head* head) noexcept nogil:
    """RFC 9110 7.6.2: at zero the recipient answers itself."""
    cdef const Field* field = head_field(head, FIELD_MAX_FORWARDS)
    cdef uint64_t hops
    return hop_read_length(head.base + field.value_at, field.value_len, &hops) and hops == 0
