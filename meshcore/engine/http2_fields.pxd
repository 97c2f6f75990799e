# The text of an HTTP/1 head this proxy wrote, as the fields of an HTTP/2 block. The other way is http2_head's.
#
# The text is our own (see rewrite, respond): well-formed by construction, so lines are split, not judged. Names become
# lower case where they lie, what belongs to an HTTP/1 hop stays behind (RFC 9113 8.2.2), Host becomes :authority.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from meshcore.engine.fields cimport (
    FIELD_CONNECTION, FIELD_HOST, FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION,
    FIELD_SEC_WEBSOCKET_ACCEPT, FIELD_SEC_WEBSOCKET_KEY, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, field_id,
)
from meshcore.engine.hpack_write cimport (
    HPACK_AUTHORITY, HPACK_METHOD, HPACK_PATH, HPACK_SCHEME, HPACK_STATUS, Http2Field,
)
from meshcore.engine.octets cimport octets_copy_lower

cdef enum:
    HTTP2_MAX_FIELDS = 256              # those a head may have, and all that routes and this proxy add


cdef inline uint32_t http2_status_of(const char* text, uint32_t len) noexcept nogil:
    """The status of a response head."""
    return <uint32_t>((text[9] - 48) * 100 + (text[10] - 48) * 10 + text[11] - 48) if len > 12 else 0


cdef inline uint32_t http2_fields_of_response(char* text, uint32_t len, Http2Field* fields,
                                             uint32_t* used) noexcept nogil:
    """Fields of the response head that `text` begins with, `used` octets of it. Borrowed from it. 0: too many."""
    cdef uint32_t at = http2_line_end(text, len)
    # RFC 8441 5: what HTTP/1 calls switching protocols is an ordinary success here.
    if http2_status_of(text, len) == 101:
        http2_set(&fields[0], b":status", 7, b"200", 3, HPACK_STATUS)
    else:
        http2_set(&fields[0], b":status", 7, text + 9, 3, HPACK_STATUS)
    return http2_fields_read(text, at, len, fields, 1, NULL, used)


cdef inline uint32_t http2_fields_of_request(char* text, uint32_t len, int is_secure, int is_websocket,
                                             Http2Field* fields, uint32_t* used) noexcept nogil:
    """Fields of the request head that `text` begins with, `used` octets of it. Borrowed from it. 0: too many.

    `is_websocket`: an upgrade to it, which is an extended CONNECT here (RFC 8441 5)."""
    cdef uint32_t at = http2_line_end(text, len)
    cdef char* path = <char*>memchr(text, 32, len) + 1
    http2_set(&fields[0], b":method", 7, text, <uint32_t>(path - 1 - text), HPACK_METHOD)
    if path - text == 8 and memcmp(text, "CONNECT", 7) == 0:
        http2_set(&fields[1], b":authority", 10, b"", 0, HPACK_AUTHORITY)             # RFC 9113 8.5: and nothing else
        return http2_fields_read(text, at, len, fields, 2, &fields[1], used)
    http2_set(&fields[1], b":scheme", 7, b"https" if is_secure else b"http", 5 if is_secure else 4, HPACK_SCHEME)
    http2_set(&fields[2], b":authority", 10, b"", 0, HPACK_AUTHORITY)
    http2_set(&fields[3], b":path", 5, path, <uint32_t>(text + at - 11 - path), HPACK_PATH)    # before " HTTP/1.1" CRLF
    if is_websocket:
        http2_set(&fields[0], b":method", 7, b"CONNECT", 7, HPACK_METHOD)
        http2_set(&fields[4], b":protocol", 9, b"websocket", 9, 0)
    return http2_fields_read(text, at, len, fields, 5 if is_websocket else 4, &fields[2], used)


cdef inline uint32_t http2_fields_of_trailers(char* text, uint32_t len, Http2Field* fields) noexcept nogil:
    """Fields of "name: value CRLF" lines without an empty one. 0: none, or too many."""
    cdef uint32_t used
    return http2_fields_read(text, 0, len, fields, 0, NULL, &used)


cdef inline uint32_t http2_fields_read(char* text, uint32_t at, uint32_t len, Http2Field* fields, uint32_t n,
                                       Http2Field* authority, uint32_t* used) noexcept nogil:
    """Lines up to the empty one, or to the end."""
    cdef char* name
    cdef char* colon
    cdef uint32_t line_len
    cdef uint32_t name_len
    cdef uint8_t id
    while at < len:
        name = text + at
        line_len = http2_line_end(name, len - at)
        at += line_len
        if line_len <= 2:
            break                       # the empty line
        line_len -= 2
        colon = <char*>memchr(name, 58, line_len)
        if colon == NULL:
            continue
        name_len = <uint32_t>(colon - name)
        line_len -= name_len + 1
        colon += 1
        while line_len and (colon[0] == 32 or colon[0] == 9):
            colon += 1
            line_len -= 1
        while line_len and (colon[line_len - 1] == 32 or colon[line_len - 1] == 9):
            line_len -= 1
        id = field_id(name, name_len)
        if id == FIELD_HOST and authority != NULL:
            http2_set(authority, b":authority", 10, colon, line_len, HPACK_AUTHORITY)
            continue
        if id == FIELD_CONNECTION or id == FIELD_TRANSFER_ENCODING or id == FIELD_KEEP_ALIVE or id == FIELD_UPGRADE \
                or id == FIELD_PROXY_CONNECTION or id == FIELD_SEC_WEBSOCKET_ACCEPT or id == FIELD_SEC_WEBSOCKET_KEY:
            continue
        if n == HTTP2_MAX_FIELDS:
            return 0
        octets_copy_lower(name, name, name_len)
        http2_set(&fields[n], name, name_len, colon, line_len, 0)
        fields[n].id = id
        n += 1
    used[0] = at
    return n


cdef inline uint32_t http2_line_end(const char* text, uint32_t len) noexcept nogil:
    """Length of the first line, its LF included."""
    cdef const char* end = <const char*>memchr(text, 10, len)
    return len if end == NULL else <uint32_t>(end - text) + 1


cdef inline void http2_set(Http2Field* field, const char* name, uint32_t name_len, const char* value,
                           uint32_t value_len, uint8_t static_at) noexcept nogil:
    field.name = name
    field.name_len = name_len
    field.value = value
    field.value_len = value_len
    field.id = 0
    field.static_at = static_at
