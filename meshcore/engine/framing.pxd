# The chunked transfer coding, decoded in place and written anew, with trailers. Reads no heads, moves no bytes between sockets.
#
# Strict (RFC 9112 7.1): every line ends in CRLF, a size is 1 to 16 hex digits below 2^63, extensions follow their
# grammar and are counted, data is followed by CRLF and nothing else. What is sent on is framed anew, so no octet of
# the sender's framing reaches the receiver. The decoder keeps its place to the octet (keeps SPLIT_SAME).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from meshcore.engine.fields cimport field_in_trailer
from meshcore.engine.octets cimport OCTET_HEX, OCTET_TOKEN, OCTET_VALUE, octet_class
from meshcore.engine.reasons cimport REASON_BAD_CHUNK, REASON_BAD_TRAILER, REASON_OUT_OF_MEMORY
from meshcore.engine.snapshot cimport Limits


cdef enum ChunkCode:
    CHUNK_MORE = 0
    CHUNK_DONE = 1
    CHUNK_REFUSED = 16                  # 16 + reason

cdef enum:
    CHUNK_SIZE_DIGITS_MAX = 16
    CHUNK_HEADER_MAX = 10               # what chunk_write_header may need in front of the data

cdef enum ChunkState:                   # what is awaited next
    CHUNK_AWAIT_SIZE = 0
    CHUNK_AWAIT_SIZE_END = 1            # more digits, ';', blanks or CR
    CHUNK_AWAIT_EXTENSION = 2           # ';' after blanks
    CHUNK_AWAIT_EXTENSION_NAME = 3
    CHUNK_IN_EXTENSION_NAME = 4
    CHUNK_AWAIT_EQUALS = 5              # '=', ';' or CR after blanks
    CHUNK_AWAIT_EXTENSION_VALUE = 6
    CHUNK_IN_EXTENSION_VALUE = 7
    CHUNK_IN_QUOTES = 8
    CHUNK_IN_QUOTES_ESCAPED = 9
    CHUNK_AWAIT_EXTENSION_END = 10      # ';' or CR
    CHUNK_AWAIT_SIZE_LF = 11
    CHUNK_AWAIT_DATA = 12
    CHUNK_AWAIT_DATA_CR = 13
    CHUNK_AWAIT_DATA_LF = 14
    CHUNK_AWAIT_TRAILER = 15            # a name or the final CR
    CHUNK_IN_TRAILER_NAME = 16
    CHUNK_IN_TRAILER_VALUE = 17
    CHUNK_AWAIT_TRAILER_LF = 18
    CHUNK_AWAIT_FINAL_LF = 19
    CHUNK_AWAIT_NOTHING = 20


cdef struct ChunkTrailers:              # malloc'd when the first trailer octet comes: rare
    uint32_t room_bytes                 # of text
    uint32_t len                        # canonical lines kept
    uint32_t line_len                   # of the raw line behind them
    uint32_t seen_bytes
    uint32_t n_fields
    char text[4]                        # room_bytes


cdef struct ChunkDecoder:               # 32 bytes: one sits in each direction of every exchange
    uint64_t remaining_bytes            # of the chunk's data; while its size is read, the size so far
    ChunkTrailers* trailers             # owned: chunk_free
    uint32_t extension_bytes            # of all extensions so far
    uint16_t line_bytes                 # of the size line so far
    uint8_t digits
    uint8_t state


cdef inline void chunk_reset(ChunkDecoder* decoder) noexcept nogil:
    """Make ready for a new body. Does not free: a decoder is either fresh memory or has gone through chunk_free."""
    decoder.remaining_bytes = 0
    decoder.trailers = NULL
    decoder.extension_bytes = 0
    decoder.line_bytes = 0
    decoder.digits = 0
    decoder.state = CHUNK_AWAIT_SIZE


cdef inline void chunk_free(ChunkDecoder* decoder) noexcept nogil:
    """Give back the trailers. Safe to repeat."""
    free(decoder.trailers)
    decoder.trailers = NULL


cdef inline void chunk_trailers(const ChunkDecoder* decoder, const char** at, uint32_t* len) noexcept nogil:
    """The allowed trailers as "name: value CRLF" lines, after CHUNK_DONE. Borrowed until chunk_free; *len may be 0."""
    at[0] = NULL
    len[0] = 0
    if decoder.trailers != NULL:
        at[0] = decoder.trailers.text
        len[0] = decoder.trailers.len


cdef inline uint32_t chunk_write_header(char* end, uint32_t n) noexcept nogil:
    """Write the header of a chunk of `n` octets so that it ends just before `end`. Returns its length (<= 10)."""
    cdef const char* hex_digits = "0123456789abcdef"
    cdef char* at = end - 2
    at[0] = 13
    at[1] = 10
    while True:
        at -= 1
        at[0] = hex_digits[n & 15]
        n >>= 4
        if n == 0:
            return <uint32_t>(end - at)


cdef inline int chunk_decode(ChunkDecoder* decoder, char* data, uint32_t len, uint32_t* out_len, uint32_t* used,
                             const Limits* limits) noexcept nogil:
    """chunk_decode_at with the body moved to data[0]."""
    cdef uint32_t out_at
    cdef int code = chunk_decode_at(decoder, data, len, &out_at, out_len, used, limits)
    if out_at and out_len[0]:
        memmove(data, data + out_at, out_len[0])
    return code


cdef inline int chunk_decode_at(ChunkDecoder* decoder, char* data, uint32_t len, uint32_t* out_at, uint32_t* out_len,
                                uint32_t* used, const Limits* limits) noexcept nogil:
    """Decode in place: the body octets end up together at data[*out_at], *out_len of them, *used input octets are gone.

    The first chunk's data stays where it is and later ones are moved up to it, so a large chunk costs no copy.
    CHUNK_MORE (all input used), CHUNK_DONE, or 16 + reason (*used is where; *out_len octets before it were good)."""
    cdef uint32_t i = 0
    cdef uint32_t start = 0
    cdef uint32_t out = 0
    cdef uint32_t n
    cdef uint8_t octet
    cdef int code = CHUNK_MORE
    while i < len:
        if decoder.state == CHUNK_AWAIT_DATA:
            n = len - i
            if n > decoder.remaining_bytes:
                n = <uint32_t>decoder.remaining_bytes
            if out == 0:
                start = i
            elif start + out != i:
                memmove(data + start + out, data + i, n)
            out += n
            i += n
            decoder.remaining_bytes -= n
            if decoder.remaining_bytes == 0:
                decoder.state = CHUNK_AWAIT_DATA_CR
            continue
        octet = <uint8_t>data[i]
        if decoder.state <= CHUNK_AWAIT_SIZE_LF:
            code = chunk_read_size(decoder, octet, limits)
        elif decoder.state == CHUNK_AWAIT_DATA_CR:
            code = CHUNK_MORE if octet == 13 else CHUNK_REFUSED + REASON_BAD_CHUNK
            decoder.state = CHUNK_AWAIT_DATA_LF
        elif decoder.state == CHUNK_AWAIT_DATA_LF:
            code = CHUNK_MORE if octet == 10 else CHUNK_REFUSED + REASON_BAD_CHUNK
            decoder.state = CHUNK_AWAIT_SIZE
            decoder.digits = 0
            decoder.line_bytes = 0
        elif decoder.state == CHUNK_AWAIT_NOTHING:
            code = CHUNK_DONE
            break
        else:
            code = chunk_read_trailer(decoder, octet, limits)
        if code >= CHUNK_REFUSED:
            break
        i += 1
        if code == CHUNK_DONE:
            break
    out_at[0] = start
    out_len[0] = out
    used[0] = i
    return code


cdef inline int chunk_read_size(ChunkDecoder* decoder, uint8_t octet, const Limits* limits) noexcept nogil:
    """One octet of a size line: chunk-size [chunk-ext] CRLF."""
    cdef uint8_t state = decoder.state
    if state != CHUNK_AWAIT_SIZE_LF and octet != 13:
        decoder.line_bytes += 1
        if decoder.line_bytes > limits.chunk_line_bytes:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
    if state <= CHUNK_AWAIT_SIZE_END and octet_class[octet] & OCTET_HEX:
        if state == CHUNK_AWAIT_SIZE:
            decoder.remaining_bytes = 0
            decoder.state = CHUNK_AWAIT_SIZE_END
        decoder.digits += 1
        # 16 digits fill 64 bits; the top bit must stay clear, or signed counters downstream would wrap
        if decoder.digits > CHUNK_SIZE_DIGITS_MAX or decoder.remaining_bytes >> 59:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        decoder.remaining_bytes = decoder.remaining_bytes << 4 | (octet - 48 if octet <= 57 else (octet | 0x20) - 87)
        return CHUNK_MORE
    if state == CHUNK_AWAIT_SIZE_LF:
        if octet != 10:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        decoder.state = CHUNK_AWAIT_DATA if decoder.remaining_bytes else CHUNK_AWAIT_TRAILER
        return CHUNK_MORE
    if state == CHUNK_AWAIT_SIZE_END and octet == 13:
        decoder.state = CHUNK_AWAIT_SIZE_LF
        return CHUNK_MORE
    return chunk_read_extension(decoder, octet, limits)


cdef inline int chunk_read_extension(ChunkDecoder* decoder, uint8_t octet, const Limits* limits) noexcept nogil:
    """One octet of *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), checked and thrown away.

    RFC 9112 7.1.1 lets a recipient bound their total: they are pure overhead (CVE-2023-39326)."""
    cdef uint8_t state = decoder.state
    cdef bint is_blank = octet == 32 or octet == 9
    decoder.extension_bytes += 1
    if decoder.extension_bytes > limits.chunk_extension_total_bytes:
        return CHUNK_REFUSED + REASON_BAD_CHUNK
    if state == CHUNK_IN_QUOTES:
        if octet == 34:
            decoder.state = CHUNK_AWAIT_EXTENSION_END
        elif octet == 92:
            decoder.state = CHUNK_IN_QUOTES_ESCAPED
        elif not octet_class[octet] & OCTET_VALUE:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        return CHUNK_MORE
    if state == CHUNK_IN_QUOTES_ESCAPED:
        if not octet_class[octet] & OCTET_VALUE:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        decoder.state = CHUNK_IN_QUOTES
        return CHUNK_MORE
    if octet_class[octet] & OCTET_TOKEN:
        if state == CHUNK_AWAIT_EXTENSION_NAME:
            decoder.state = CHUNK_IN_EXTENSION_NAME
        elif state == CHUNK_AWAIT_EXTENSION_VALUE:
            decoder.state = CHUNK_IN_EXTENSION_VALUE
        elif state != CHUNK_IN_EXTENSION_NAME and state != CHUNK_IN_EXTENSION_VALUE:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        return CHUNK_MORE
    if is_blank:
        # Bad whitespace (RFC 9110 5.6.3) is read around ';' and '=' only: "5 CRLF" stays an error.
        if state == CHUNK_AWAIT_SIZE_END or state == CHUNK_IN_EXTENSION_VALUE or state == CHUNK_AWAIT_EXTENSION_END:
            decoder.state = CHUNK_AWAIT_EXTENSION
        elif state == CHUNK_IN_EXTENSION_NAME:
            decoder.state = CHUNK_AWAIT_EQUALS
        elif state == CHUNK_AWAIT_SIZE:
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        return CHUNK_MORE
    if octet == 59:                     # ';'
        if (state == CHUNK_AWAIT_SIZE or state == CHUNK_AWAIT_EXTENSION_NAME or state == CHUNK_AWAIT_EXTENSION_VALUE):
            return CHUNK_REFUSED + REASON_BAD_CHUNK
        decoder.state = CHUNK_AWAIT_EXTENSION_NAME
        return CHUNK_MORE
    if octet == 61 and (state == CHUNK_IN_EXTENSION_NAME or state == CHUNK_AWAIT_EQUALS):
        decoder.state = CHUNK_AWAIT_EXTENSION_VALUE
        return CHUNK_MORE
    if octet == 34 and state == CHUNK_AWAIT_EXTENSION_VALUE:
        decoder.state = CHUNK_IN_QUOTES
        return CHUNK_MORE
    if octet == 13 and (state == CHUNK_IN_EXTENSION_NAME or state == CHUNK_IN_EXTENSION_VALUE
                        or state == CHUNK_AWAIT_EXTENSION_END):
        decoder.state = CHUNK_AWAIT_SIZE_LF
        return CHUNK_MORE
    return CHUNK_REFUSED + REASON_BAD_CHUNK


# --- trailers: RFC 9112 7.1.2, RFC 9110 6.5 ------------------------------------------------------------------------

cdef inline int chunk_read_trailer(ChunkDecoder* decoder, uint8_t octet, const Limits* limits) noexcept nogil:
    """One octet of the trailer section or of the empty line that ends the body."""
    cdef uint8_t state = decoder.state
    if state == CHUNK_AWAIT_TRAILER and octet == 13:
        decoder.state = CHUNK_AWAIT_FINAL_LF
        return CHUNK_MORE
    if state == CHUNK_AWAIT_FINAL_LF:
        if octet != 10:
            return CHUNK_REFUSED + REASON_BAD_TRAILER
        decoder.state = CHUNK_AWAIT_NOTHING
        return CHUNK_DONE
    if state == CHUNK_AWAIT_TRAILER_LF:
        if octet != 10:
            return CHUNK_REFUSED + REASON_BAD_TRAILER
        decoder.state = CHUNK_AWAIT_TRAILER
        chunk_keep_trailer(decoder.trailers)
        return CHUNK_MORE
    if state == CHUNK_IN_TRAILER_VALUE and octet == 13:
        decoder.state = CHUNK_AWAIT_TRAILER_LF
        return CHUNK_MORE
    if state == CHUNK_IN_TRAILER_VALUE:
        if not octet_class[octet] & OCTET_VALUE:
            return CHUNK_REFUSED + REASON_BAD_TRAILER
    elif octet == 58 and state == CHUNK_IN_TRAILER_NAME:
        decoder.state = CHUNK_IN_TRAILER_VALUE
    elif octet_class[octet] & OCTET_TOKEN:
        decoder.state = CHUNK_IN_TRAILER_NAME
    else:
        return CHUNK_REFUSED + REASON_BAD_TRAILER
    return chunk_collect_trailer(decoder, octet, state == CHUNK_AWAIT_TRAILER, limits)


cdef inline int chunk_collect_trailer(ChunkDecoder* decoder, uint8_t octet, int is_first, const Limits* limits) noexcept nogil:
    # Room for the raw line behind the kept ones, and for the three octets the canonical form may add ("X:" -> "X: CRLF").
    cdef ChunkTrailers* trailers = decoder.trailers
    cdef uint32_t room
    if trailers == NULL or trailers.len + trailers.line_len + 4 > trailers.room_bytes:
        room = 256 if trailers == NULL else trailers.room_bytes * 2
        trailers = <ChunkTrailers*>realloc(trailers, sizeof(ChunkTrailers) + room)
        if trailers == NULL:
            return CHUNK_REFUSED + REASON_OUT_OF_MEMORY     # the old block stays the decoder's
        if decoder.trailers == NULL:
            trailers.len = 0
            trailers.line_len = 0
            trailers.seen_bytes = 0
            trailers.n_fields = 0
        trailers.room_bytes = room
        decoder.trailers = trailers
    trailers.n_fields += is_first
    trailers.seen_bytes += 1
    if trailers.seen_bytes > limits.trailer_size_bytes or trailers.n_fields > limits.max_fields:
        return CHUNK_REFUSED + REASON_BAD_TRAILER
    trailers.text[trailers.len + trailers.line_len] = <char>octet
    trailers.line_len += 1
    return CHUNK_MORE


cdef inline void chunk_keep_trailer(ChunkTrailers* trailers) noexcept nogil:
    """A raw line is complete: keep it in canonical form, or forget it when trailers may not carry that field."""
    cdef char* line = trailers.text + trailers.len
    cdef uint32_t end = trailers.line_len
    cdef uint32_t name_len = 0
    cdef uint32_t at
    while line[name_len] != 58:
        name_len += 1
    at = name_len + 1
    while at < end and (line[at] == 32 or line[at] == 9):
        at += 1
    while end > at and (line[end - 1] == 32 or line[end - 1] == 9):
        end -= 1
    trailers.line_len = 0
    if not field_in_trailer(line, name_len):
        return
    memmove(line + name_len + 2, line + at, end - at)
    line[name_len + 1] = 32
    end = name_len + 2 + end - at
    memcpy(line + end, "\r\n", 2)
    trailers.len += end + 2
