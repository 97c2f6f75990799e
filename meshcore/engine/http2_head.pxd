# A header block of HTTP/2 as the HTTP/1 text that means the same: one strict parser then judges both. Frames nothing.
#
# Everything that HTTP/2 itself asks of a block is checked here, field by field, before an octet of text is made of it
# (RFC 9113 8.2, 8.3): what could end a line, split a name or stand twice never becomes text. What a target, an authority
# or a length may be is the parser's verdict, as for HTTP/1. A block found malformed is decoded to its end all the same,
# so that both sides' tables stay in step, and nothing more of it is kept.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, strlen

from meshcore.engine.buffer cimport Buffer, BufferPool, buffer_append, buffer_return, buffer_take
from meshcore.engine.fields cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_COOKIE, FIELD_HOST, FIELD_KEEP_ALIVE, FIELD_PROXY_CONNECTION,
    FIELD_TE, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, field_id, field_in_trailer,
)
from meshcore.engine.hop cimport hop_read_length
from meshcore.engine.octets cimport OCTET_TOKEN, OCTET_VALUE, octet_class, octets_equal_lower, octets_equal_nocase
from meshcore.engine.reasons cimport REASON_HEAD_TOO_LARGE, REASON_MALFORMED_HEAD, REASON_OUT_OF_MEMORY
from meshcore.engine.rng cimport Rng, rng_next
from meshcore.engine.status cimport status_phrase

cdef enum BlockKind:
    BLOCK_REQUEST = 0
    BLOCK_RESPONSE = 1
    BLOCK_TRAILERS = 2

cdef enum:
    BLOCK_METHOD = 1                    # pseudo-header fields seen
    BLOCK_SCHEME = 2
    BLOCK_AUTHORITY = 4
    BLOCK_PATH = 8
    BLOCK_STATUS = 16
    BLOCK_PROTOCOL = 32
    BLOCK_BEGUN = 64                    # the start line is written, regular fields follow
    BLOCK_HAS_LENGTH = 128

cdef enum:
    BLOCK_FIELD_OVERHEAD_BYTES = 32     # RFC 9113 6.5.2: what a field counts beyond its octets
    BLOCK_MAX_PSEUDO_BYTES = 65536


cdef struct Span:
    uint32_t at
    uint32_t len


cdef struct HeadBlock:                  # one block being read
    Buffer* text                        # HTTP/1 lines
    Buffer* pseudo                      # values of pseudo-header fields, until the start line is written
    Span method
    Span path
    Span authority
    uint32_t cookie_end                 # of the last cookie's value in `text`; 0: none
    uint32_t decoded_bytes              # RFC 9113 6.5.2, the whole block
    uint32_t limit_bytes
    uint64_t length                     # of BLOCK_HAS_LENGTH: its digits, whatever else is wrong with it
    uint16_t status
    uint16_t seen
    uint8_t kind
    uint8_t is_tunnel                   # CONNECT: what follows is no content
    uint8_t is_websocket                # the answer to an extended CONNECT
    uint8_t reason                      # the first thing wrong with it


cdef inline void block_begin(HeadBlock* block, int kind, uint32_t limit_bytes) noexcept nogil:
    block.text = block.pseudo = NULL
    block.method.len = block.path.len = block.authority.len = 0
    block.cookie_end = 0
    block.decoded_bytes = 0
    block.limit_bytes = limit_bytes
    block.status = 0
    block.seen = 0
    block.kind = <uint8_t>kind
    block.is_tunnel = 0
    block.is_websocket = 0
    block.reason = 0


cdef inline void block_free(BufferPool* pool, HeadBlock* block) noexcept nogil:
    """Give back what it holds. Safe to repeat."""
    if block.text != NULL:
        buffer_return(pool, block.text)
        block.text = NULL
    if block.pseudo != NULL:
        buffer_return(pool, block.pseudo)
        block.pseudo = NULL


cdef inline void block_field(BufferPool* pool, HeadBlock* block, const char* name, uint32_t name_len,
                             const char* value, uint32_t value_len, uint32_t* is_valid, Rng* rng) noexcept nogil:
    """Take one field. What is wrong with it stays in block.reason.

    `is_valid`: where it is remembered that these octets were found valid; NULL for those that come once.
    """
    if name_len + value_len > block.limit_bytes or block.decoded_bytes > block.limit_bytes:
        block.reason = REASON_HEAD_TOO_LARGE
    block.decoded_bytes += name_len + value_len + BLOCK_FIELD_OVERHEAD_BYTES
    if block.decoded_bytes > block.limit_bytes and block.reason == 0:
        block.reason = REASON_HEAD_TOO_LARGE
    if block.reason:
        return
    if name_len and name[0] == 58:
        block.reason = block_pseudo(pool, block, name + 1, name_len - 1, value, value_len)
    elif (is_valid == NULL or not is_valid[0]) \
            and (not block_name_is_valid(name, name_len) or not block_value_is_valid(value, value_len)):
        block.reason = REASON_MALFORMED_HEAD
    else:
        if is_valid != NULL:
            is_valid[0] = 1
        block.reason = block_regular(pool, block, name, name_len, value, value_len, rng)


cdef inline uint8_t block_end(BufferPool* pool, HeadBlock* block, int ends_stream, int has_body_text,
                              Rng* rng) noexcept nogil:
    """The block is complete: finish the text. Returns the reason it is refused for, or 0.

    `has_body_text`: write down that a body of unknown length follows, as HTTP/1 has to.
    """
    if block.pseudo != NULL and block.seen & BLOCK_BEGUN:
        buffer_return(pool, block.pseudo)
        block.pseudo = NULL
    if block.reason == 0 and block.kind != BLOCK_TRAILERS and not block.seen & BLOCK_BEGUN:
        block.reason = block_start_line(pool, block, rng)
    if block.reason == 0 and ends_stream and block.kind == BLOCK_REQUEST \
            and block.seen & BLOCK_HAS_LENGTH and block.length:
        block.reason = REASON_MALFORMED_HEAD          # RFC 9113 8.1.1: a length that is not the content's
    if block.reason == 0 and has_body_text and not block.is_tunnel and not block.seen & BLOCK_HAS_LENGTH:
        block.reason = block_put(pool, block, b"transfer-encoding: chunked\r\n", 28)
    if block.reason == 0 and block.kind != BLOCK_TRAILERS:
        block.reason = block_put(pool, block, b"\r\n", 2)
    return block.reason


# --- fields -----------------------------------------------------------------------------------------------------------

cdef inline int block_name_is_valid(const char* name, uint32_t len) noexcept nogil:
    """RFC 9113 8.2.1: a token without upper case."""
    cdef uint32_t i
    for i in range(len):
        if not octet_class[<uint8_t>name[i]] & OCTET_TOKEN or 65 <= name[i] <= 90:
            return 0
    return len != 0


cdef inline int block_value_is_valid(const char* value, uint32_t len) noexcept nogil:
    """RFC 9113 8.2.1: no control octet, no blank at either end."""
    cdef uint32_t i
    if len and (value[0] == 32 or value[0] == 9 or value[len - 1] == 32 or value[len - 1] == 9):
        return 0
    for i in range(len):
        if not octet_class[<uint8_t>value[i]] & OCTET_VALUE:
            return 0
    return 1


cdef inline int block_is_visible(const char* value, uint32_t len) noexcept nogil:
    """No octet that could end a word of a start line."""
    cdef uint32_t i
    for i in range(len):
        if <uint8_t>value[i] <= 32 or <uint8_t>value[i] >= 127:
            return 0
    return len != 0


cdef inline uint8_t block_pseudo(BufferPool* pool, HeadBlock* block, const char* name, uint32_t len, const char* value,
                                 uint32_t value_len) noexcept nogil:
    """RFC 9113 8.3: those of its kind, once, before all others, never in trailers."""
    cdef uint16_t bit = 0
    cdef Span* span = NULL
    if block.kind == BLOCK_REQUEST:
        if len == 6 and memcmp(name, "method", 6) == 0:
            bit = BLOCK_METHOD
            span = &block.method
        elif len == 4 and memcmp(name, "path", 4) == 0:
            bit = BLOCK_PATH
            span = &block.path
        elif len == 9 and memcmp(name, "authority", 9) == 0:
            bit = BLOCK_AUTHORITY
            span = &block.authority
            if value_len == 0:
                if block.seen & (BLOCK_AUTHORITY | BLOCK_BEGUN):
                    return REASON_MALFORMED_HEAD
                block.seen |= BLOCK_AUTHORITY
                return 0                # as if it were not there
        elif len == 6 and memcmp(name, "scheme", 6) == 0:
            bit = BLOCK_SCHEME
            if not (value_len == 4 and octets_equal_lower(value, "http", 4)) \
                    and not (value_len == 5 and octets_equal_lower(value, "https", 5)):
                return REASON_MALFORMED_HEAD
        elif len == 8 and memcmp(name, "protocol", 8) == 0:
            bit = BLOCK_PROTOCOL
            if value_len != 9 or memcmp(value, "websocket", 9) != 0:
                return REASON_MALFORMED_HEAD
    elif block.kind == BLOCK_RESPONSE and len == 6 and memcmp(name, "status", 6) == 0:
        bit = BLOCK_STATUS
        if value_len != 3 or not 49 <= value[0] <= 53 or not 48 <= value[1] <= 57 or not 48 <= value[2] <= 57:
            return REASON_MALFORMED_HEAD
        block.status = <uint16_t>((value[0] - 48) * 100 + (value[1] - 48) * 10 + value[2] - 48)
    if bit == 0 or block.seen & (bit | BLOCK_BEGUN) or not block_is_visible(value, value_len):
        return REASON_MALFORMED_HEAD
    block.seen |= bit
    if span != NULL:
        if block.pseudo == NULL:
            block.pseudo = buffer_take(pool, value_len + 256)
            if block.pseudo == NULL:
                return REASON_OUT_OF_MEMORY
        span.at = block.pseudo.end
        span.len = value_len
        return block_append(pool, &block.pseudo, value, value_len)
    return 0


cdef inline uint8_t block_regular(BufferPool* pool, HeadBlock* block, const char* name, uint32_t name_len,
                                  const char* value, uint32_t value_len, Rng* rng) noexcept nogil:
    cdef uint8_t id = field_id(name, name_len)
    cdef uint8_t reason
    if id == FIELD_CONNECTION or id == FIELD_TRANSFER_ENCODING or id == FIELD_UPGRADE or id == FIELD_KEEP_ALIVE \
            or id == FIELD_PROXY_CONNECTION \
            or (id == FIELD_TE and (value_len != 8 or not octets_equal_lower(value, "trailers", 8))):
        return REASON_MALFORMED_HEAD    # RFC 9113 8.2.2
    if block.kind == BLOCK_TRAILERS:
        return block_line(pool, block, name, name_len, value, value_len) if field_in_trailer(name, name_len) else 0
    if not block.seen & BLOCK_BEGUN:
        reason = block_start_line(pool, block, rng)
        if reason:
            return reason
    if id == FIELD_COOKIE and block.kind == BLOCK_REQUEST:
        return block_cookie(pool, block, value, value_len)
    if id == FIELD_HOST and block.kind == BLOCK_REQUEST and block.authority.len:
        # RFC 9113 8.3.1: two names for one target must agree, or two readers serve two sites.
        if value_len != block.authority.len \
                or not octets_equal_nocase(value, block.text.data + block.authority.at, value_len):
            return REASON_MALFORMED_HEAD
        return 0
    if id == FIELD_TE:
        # HTTP/1 has it named in Connection (RFC 9110 10.1.4).
        return block_put(pool, block, b"connection: te\r\nte: trailers\r\n", 30)
    if id == FIELD_CONTENT_LENGTH:
        block.seen |= BLOCK_HAS_LENGTH
        if not hop_read_length(value, value_len, &block.length):
            return REASON_MALFORMED_HEAD
    return block_line(pool, block, name, name_len, value, value_len)


cdef inline uint8_t block_cookie(BufferPool* pool, HeadBlock* block, const char* value,
                                 uint32_t value_len) noexcept nogil:
    """RFC 9113 8.2.3: crumbs are joined before they reach what does not know them."""
    cdef uint32_t behind
    cdef uint32_t grown = value_len + 2
    cdef char* at
    if block.cookie_end == 0:
        if block_put(pool, block, b"cookie: ", 8) or block_put(pool, block, value, value_len):
            return block.reason if block.reason else REASON_OUT_OF_MEMORY
        block.cookie_end = block.text.end
        return block_put(pool, block, b"\r\n", 2)
    behind = block.text.end - block.cookie_end
    if block_put(pool, block, value, value_len) or block_put(pool, block, b"; ", 2):
        return REASON_OUT_OF_MEMORY     # room only: what lies there now is moved below
    at = block.text.data + block.cookie_end
    memmove(at + grown, at, behind)
    memcpy(at, "; ", 2)
    memcpy(at + 2, value, value_len)
    block.cookie_end += grown
    return 0


# --- text -------------------------------------------------------------------------------------------------------------

cdef inline uint8_t block_start_line(BufferPool* pool, HeadBlock* block, Rng* rng) noexcept nogil:
    cdef char line[16]
    cdef const char* phrase
    block.seen |= BLOCK_BEGUN
    if block.kind == BLOCK_RESPONSE:
        if not block.seen & BLOCK_STATUS or block.status == 101:
            return REASON_MALFORMED_HEAD
        if block.is_websocket and 200 <= block.status < 300:
            # RFC 8441 5: what HTTP/1 calls switching protocols.
            return block_put(pool, block, b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"
                             b"upgrade: websocket\r\n", 75)
        memcpy(line, "HTTP/1.1 ", 9)
        line[9] = <char>(48 + block.status // 100)
        line[10] = <char>(48 + block.status // 10 % 10)
        line[11] = <char>(48 + block.status % 10)
        line[12] = c" "
        phrase = status_phrase(block.status)
        if block_put(pool, block, line, 13) or block_put(pool, block, phrase, <uint32_t>strlen(phrase)):
            return REASON_OUT_OF_MEMORY
        return block_put(pool, block, b"\r\n", 2)
    if not block.seen & BLOCK_METHOD:
        return REASON_MALFORMED_HEAD
    if block.seen & BLOCK_PROTOCOL:
        return block_websocket(pool, block, rng)
    if block_method_is(block, b"CONNECT", 7):
        # RFC 9113 8.5: the authority and nothing else.
        if block.seen & (BLOCK_SCHEME | BLOCK_PATH) or not block.authority.len:
            return REASON_MALFORMED_HEAD
        block.path = block.authority
        block.is_tunnel = 1
    elif not block.seen & BLOCK_SCHEME or not block_path_is_valid(block):
        return REASON_MALFORMED_HEAD
    return block_request_line(pool, block, block.pseudo.data + block.method.at, block.method.len)


cdef inline int block_method_is(const HeadBlock* block, const char* name, uint32_t len) noexcept nogil:
    return block.method.len == len and memcmp(block.pseudo.data + block.method.at, name, len) == 0


cdef inline int block_path_is_valid(const HeadBlock* block) noexcept nogil:
    """RFC 9113 8.3.1: origin-form, or the asterisk of OPTIONS. Never a whole URI: its authority would be a second one."""
    cdef char first
    if block.path.len == 0:
        return 0
    first = block.pseudo.data[block.path.at]
    return first == 47 or (first == 42 and block.path.len == 1 and block_method_is(block, b"OPTIONS", 7))


cdef inline uint8_t block_request_line(BufferPool* pool, HeadBlock* block, const char* method,
                                       uint32_t method_len) noexcept nogil:
    cdef uint32_t room = method_len + block.path.len + block.authority.len + 24
    cdef char* at
    block.text = buffer_take(pool, room + 512)
    if block.text == NULL:
        return REASON_OUT_OF_MEMORY
    at = block.text.data
    memcpy(at, method, method_len)
    at += method_len
    at[0] = 32
    memcpy(at + 1, block.pseudo.data + block.path.at, block.path.len)
    at += 1 + block.path.len
    memcpy(at, " HTTP/1.1\r\n", 11)
    at += 11
    if block.authority.len:
        memcpy(at, "host: ", 6)
        memcpy(at + 6, block.pseudo.data + block.authority.at, block.authority.len)
        at += 6
        block.authority.at = <uint32_t>(at - block.text.data)         # from here on a span of `text`
        at += block.authority.len
        memcpy(at, "\r\n", 2)
        at += 2
    block.text.end = <uint32_t>(at - block.text.data)
    return 0


cdef inline uint8_t block_websocket(BufferPool* pool, HeadBlock* block, Rng* rng) noexcept nogil:
    """RFC 8441 4: CONNECT with :protocol is what HTTP/1 calls an upgrade; the key is of the hop that needs one."""
    cdef const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef char key[26]
    cdef uint64_t word = 0
    cdef uint32_t i
    cdef uint8_t reason
    if not block_method_is(block, b"CONNECT", 7) or not block.seen & BLOCK_SCHEME or not block.authority.len \
            or not block_path_is_valid(block):
        return REASON_MALFORMED_HEAD
    block.is_tunnel = 1
    for i in range(22):
        if i % 10 == 0:
            word = rng_next(rng)
        key[i] = digits[word & 63]
        word >>= 6
    key[21] = c"A"                      # 128 bits end four bits into their last digit
    memcpy(key + 22, "==\r\n", 4)
    reason = block_request_line(pool, block, b"GET", 3)
    if reason == 0:
        reason = block_put(pool, block, b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: ", 60)
    return reason if reason else block_put(pool, block, key, 26)


cdef inline uint8_t block_line(BufferPool* pool, HeadBlock* block, const char* name, uint32_t name_len,
                               const char* value, uint32_t value_len) noexcept nogil:
    cdef uint32_t n = name_len + value_len + 4
    cdef char* at
    if block.text == NULL or block.text.size_bytes - block.text.end < n:
        return block_line_grown(pool, block, name, name_len, value, value_len)
    at = block.text.data + block.text.end
    memcpy(at, name, name_len)
    at += name_len
    memcpy(at, ": ", 2)
    memcpy(at + 2, value, value_len)
    memcpy(at + 2 + value_len, "\r\n", 2)
    block.text.end += n
    return 0


cdef inline uint8_t block_line_grown(BufferPool* pool, HeadBlock* block, const char* name, uint32_t name_len,
                                     const char* value, uint32_t value_len) noexcept nogil:
    if block_put(pool, block, name, name_len) or block_put(pool, block, b": ", 2) \
            or block_put(pool, block, value, value_len):
        return REASON_OUT_OF_MEMORY
    return block_put(pool, block, b"\r\n", 2)


cdef inline uint8_t block_put(BufferPool* pool, HeadBlock* block, const char* at, uint32_t n) noexcept nogil:
    return block_append(pool, &block.text, at, n)


cdef inline uint8_t block_append(BufferPool* pool, Buffer** buffer, const char* at, uint32_t n) noexcept nogil:
    cdef Buffer* grown = buffer_append(pool, buffer[0], at, n)
    if grown == NULL:
        return REASON_OUT_OF_MEMORY
    buffer[0] = grown
    return 0
