# The two verbs that turn octets into a head: request and response. Owns the order of the steps, none of their rules.

from libc.stdint cimport uint8_t, uint32_t

from meshcore.engine.head cimport (
    FRAMING_CHUNKED,
    FRAMING_LENGTH,
    FRAMING_NONE,
    FRAMING_UNTIL_CLOSE,
    HEAD_DONE,
    HEAD_MAX_FIELDS,
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
    SCHEME_HTTPS,
    TARGET_ABSOLUTE,
    TARGET_ASTERISK,
    TARGET_AUTHORITY,
    TARGET_ORIGIN,
    UPGRADE_IGNORED,
    UPGRADE_NONE,
    UPGRADE_OTHER,
    UPGRADE_WEBSOCKET,
    Field,
    Head,
    HeadParser,
    head_attach,
    head_divide_plain,
    head_field,
    head_has,
    head_parser_is_idle,
    head_parser_reset,
    head_read_fields,
    method_is_idempotent,
)
from meshcore.engine.fields cimport field_hash
from meshcore.engine.http1_request cimport method_from_token, request_judge, request_line_read
from meshcore.engine.http1_response cimport response_judge, status_line_read
from meshcore.engine.llhttp cimport Llhttp
from meshcore.engine.reasons cimport (
    REASON_FIELD_TOO_LARGE,
    REASON_HEAD_TOO_LARGE,
    REASON_TOO_MANY_FIELDS,
    REASON_UPSTREAM_HEAD_TOO_LARGE,
    REASON_UPSTREAM_MALFORMED,
)
from meshcore.engine.snapshot cimport Limits


cdef inline int head_parse_request(HeadParser* parser, const char* base, uint32_t len, Head* head,
                                   const Limits* limits) noexcept nogil:
    """Read a request head from all `len` octets seen of it so far; call again with more, `base` may have moved.

    HEAD_MORE, HEAD_DONE (head is filled and means exactly one thing; head.size_bytes were its octets), or 16 + REASON,
    which is final. `head` is scratch until HEAD_DONE. After either end: head_parser_reset."""
    cdef uint32_t had_bytes = parser.fed_bytes
    cdef int code
    if had_bytes == 0:
        code = request_line_read(base, len, head, limits)
        if code != HEAD_DONE:
            return code
        if head_divide_plain(base, len, head, limits):
            return request_judge(head)
    code = head_read_fields(parser, base, len, head, limits)
    if code != HEAD_DONE:
        return code
    if had_bytes:
        # It came in pieces and `head` may be another connection's leftovers: read it once more, whole.
        parser.fed_bytes = 0
        code = request_line_read(base, head.size_bytes, head, limits)
        if code == HEAD_DONE:
            code = head_read_fields(parser, base, head.size_bytes, head, limits)
        if code != HEAD_DONE:
            return code
    return request_judge(head)


cdef inline int head_parse_response(HeadParser* parser, const char* base, uint32_t len, Head* head, const Limits* limits,
                                    uint32_t request_method, int may_upgrade) noexcept nogil:
    """Read a response head, as head_parse_request does. `request_method` and `may_upgrade` (an Upgrade was sent
    upstream with it) decide about body and 101. All refusals are REASON_UPSTREAM_*."""
    cdef uint32_t had_bytes = parser.fed_bytes
    cdef int code
    if had_bytes == 0:
        code = status_line_read(base, len, head, limits)
        if code != HEAD_DONE:
            return code
        if head_divide_plain(base, len, head, limits):
            return response_judge(head, request_method, may_upgrade)
    code = head_read_fields(parser, base, len, head, limits)
    if code == HEAD_DONE and had_bytes:
        parser.fed_bytes = 0
        code = status_line_read(base, head.size_bytes, head, limits)
        if code == HEAD_DONE:
            code = head_read_fields(parser, base, head.size_bytes, head, limits)
    if code == HEAD_MORE:
        return HEAD_MORE
    if code != HEAD_DONE:
        if (code == HEAD_REFUSED + REASON_HEAD_TOO_LARGE or code == HEAD_REFUSED + REASON_FIELD_TOO_LARGE
                or code == HEAD_REFUSED + REASON_TOO_MANY_FIELDS):
            return HEAD_REFUSED + REASON_UPSTREAM_HEAD_TOO_LARGE
        return HEAD_REFUSED + REASON_UPSTREAM_MALFORMED
    return response_judge(head, request_method, may_upgrade)
