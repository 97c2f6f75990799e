# Which octet may stand where in HTTP/1 text: one table, one bit per grammar. Knows single octets only, no words.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    #define MC_TOKEN 1   /* RFC 9110 5.6.2 tchar */
    #define MC_HEX   2
    #define MC_PATH  4   /* RFC 3986 pchar and '/', without '.', '%' and '?', which need a second look */
    #define MC_QUERY 8   /* what browsers send raw in a query (WHATWG URL), without backslash */
    #define MC_HOST  16  /* RFC 3986 reg-name without '%' and ',' */
    #define MC_VALUE 32  /* RFC 9110 5.5: HTAB, SP, VCHAR, obs-text */
    #define MC_DIGIT 64
    #define MC_ALL (MC_TOKEN | MC_PATH | MC_QUERY | MC_HOST | MC_VALUE)
    static const uint8_t mc_octet[256] = {
      ['\\t'] = MC_VALUE, [' '] = MC_VALUE, [0x80 ... 0xFF] = MC_VALUE,
      ['0' ... '9'] = MC_ALL | MC_HEX | MC_DIGIT,
      ['A' ... 'F'] = MC_ALL | MC_HEX, ['G' ... 'Z'] = MC_ALL,
      ['a' ... 'f'] = MC_ALL | MC_HEX, ['g' ... 'z'] = MC_ALL,
      ['-'] = MC_ALL, ['_'] = MC_ALL, ['~'] = MC_ALL,
      ['.'] = MC_ALL & ~MC_PATH,
      ['!'] = MC_ALL, ['$'] = MC_ALL, ['&'] = MC_ALL, ['\\''] = MC_ALL, ['*'] = MC_ALL, ['+'] = MC_ALL,
      ['('] = MC_ALL & ~MC_TOKEN, [')'] = MC_ALL & ~MC_TOKEN, [';'] = MC_ALL & ~MC_TOKEN, ['='] = MC_ALL & ~MC_TOKEN,
      [','] = MC_PATH | MC_QUERY | MC_VALUE, [':'] = MC_PATH | MC_QUERY | MC_VALUE,
      ['@'] = MC_PATH | MC_QUERY | MC_VALUE, ['/'] = MC_PATH | MC_QUERY | MC_VALUE,
      ['?'] = MC_QUERY | MC_VALUE,
      ['%'] = MC_TOKEN | MC_QUERY | MC_VALUE, ['#'] = MC_TOKEN | MC_VALUE,
      ['^'] = MC_TOKEN | MC_QUERY | MC_VALUE, ['|'] = MC_TOKEN | MC_QUERY | MC_VALUE, ['`'] = MC_TOKEN | MC_QUERY | MC_VALUE,
      ['"'] = MC_QUERY | MC_VALUE, ['['] = MC_QUERY | MC_VALUE, [']'] = MC_QUERY | MC_VALUE,
      ['{'] = MC_QUERY | MC_VALUE, ['}'] = MC_QUERY | MC_VALUE,
      ['<'] = MC_VALUE, ['>'] = MC_VALUE, ['\\\\'] = MC_VALUE,
    };
    static const char mc_hex_pairs[513] =
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
      "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
      "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
      "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"
      "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
      "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"
      "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
      "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define mc_big_endian(word) __builtin_bswap64(word)
    #else
    #define mc_big_endian(word) (word)
    #endif
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif
    static inline const char* mc_text_end(const char* at, const char* end) {
    #ifdef __SSE2__
        const __m128i highest_control = _mm_set1_epi8(0x1F), del = _mm_set1_epi8(0x7F);
        while (end - at >= 16) {
            const __m128i x = _mm_loadu_si128((const __m128i*)at);
            const int hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(x, highest_control), x),
                                                            _mm_cmpeq_epi8(x, del)));
            if (hits) return at + __builtin_ctz((unsigned)hits);
            at += 16;
        }
    #endif
        while (at < end && (uint8_t)*at >= 0x20 && *at != 0x7F) at++;
        return at;
    }
    static inline const char* mc_token_end(const char* at, const char* end) {
    #ifdef __SSE2__
        /* Letters, digits and '-' sixteen at a time: of what else a token may hold, names have next to nothing. */
        if (end - at >= 16) {
            const __m128i x = _mm_loadu_si128((const __m128i*)at);
            const __m128i letter = _mm_sub_epi8(_mm_or_si128(x, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
            const __m128i digit = _mm_sub_epi8(x, _mm_set1_epi8('0'));
            const int others = 0xFFFF & ~_mm_movemask_epi8(_mm_or_si128(
                _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                             _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit)),
                _mm_cmpeq_epi8(x, _mm_set1_epi8('-'))));
            at += others ? __builtin_ctz((unsigned)others) : 16;
        }
    #endif
        while (at < end && mc_octet[(uint8_t)*at] & MC_TOKEN) at++;
        return at;
    }
    """
    enum:
        OCTET_TOKEN "MC_TOKEN"
        OCTET_HEX "MC_HEX"
        OCTET_PATH "MC_PATH"
        OCTET_QUERY "MC_QUERY"
        OCTET_HOST "MC_HOST"
        OCTET_VALUE "MC_VALUE"
        OCTET_DIGIT "MC_DIGIT"
    const uint8_t* octet_class "mc_octet"
    const char* hex_pairs "mc_hex_pairs"
    # The first control octet (HTAB and DEL are among them) in [at, end), or end. Reads nothing outside.
    const char* octets_text_end "mc_text_end"(const char* at, const char* end)
    # The first octet in [at, end) that a token may not hold, or end. Reads nothing outside.
    const char* octets_token_end "mc_token_end"(const char* at, const char* end)
    uint64_t octets_big_endian "mc_big_endian"(uint64_t word)


cdef inline uint32_t octet_lower(uint8_t octet) noexcept nogil:
    """ASCII lower case of one octet; others unchanged."""
    return octet | 0x20 if 65 <= octet <= 90 else octet


cdef inline void octets_copy_lower(char* out, const char* at, uint32_t len) noexcept nogil:
    """Copy with ASCII letters in lower case, eight at a time. The octets must be below 0x80."""
    cdef uint64_t word
    cdef uint32_t i = 0
    if len >= 8:
        while True:
            memcpy(&word, at + i, 8)
            # Bit 7 of a sum tells whether the octet reaches the bound: 'A' <= octet, and not octet > 'Z'.
            word |= ((word + <uint64_t>0x3F3F3F3F3F3F3F3F) & ~(word + <uint64_t>0x2525252525252525)
                     & <uint64_t>0x8080808080808080) >> 2
            memcpy(out + i, &word, 8)
            i += 8
            if i >= len:
                return
            if i + 8 > len:
                i = len - 8
    while i < len:
        out[i] = <char>octet_lower(<uint8_t>at[i])
        i += 1


cdef inline int octets_are(const char* at, uint32_t len, uint8_t mask) noexcept nogil:
    """1 when every octet of a non-empty run has a bit of `mask`."""
    cdef uint32_t i
    for i in range(len):
        if not octet_class[<uint8_t>at[i]] & mask:
            return 0
    return len != 0


cdef inline int octets_equal_lower(const char* at, const char* lower, uint32_t len) noexcept nogil:
    """1 when `at` equals the lower-case text `lower` without regard to ASCII case.

    `lower` may hold letters, digits, '-', '.' and '/' only: setting bit 5 of the other side is then exact, because no
    octet that a token may contain maps onto one of these except the upper-case letters."""
    cdef uint64_t a, b
    cdef uint32_t i = 0
    if len >= 8:
        while i + 8 <= len:
            memcpy(&a, at + i, 8)
            memcpy(&b, lower + i, 8)
            if (a | <uint64_t>0x2020202020202020) != b:
                return 0
            i += 8
        if i != len:
            memcpy(&a, at + len - 8, 8)
            memcpy(&b, lower + len - 8, 8)
            return (a | <uint64_t>0x2020202020202020) == b
        return 1
    while i < len:
        if (<uint8_t>at[i] | 0x20) != <uint8_t>lower[i]:
            return 0
        i += 1
    return 1


cdef inline int octets_hold_underscore(const char* at, uint32_t len) noexcept nogil:
    """1 when '_' is among the octets. For names: short enough that a call to memchr would cost more than the search."""
    cdef uint64_t word
    cdef uint32_t i = 0
    if len >= 8:
        while True:
            memcpy(&word, at + i, 8)
            word ^= <uint64_t>0x5F5F5F5F5F5F5F5F
            # Source: the classic zero-octet test of a word; exact as long as only "any" is asked.
            if (word - <uint64_t>0x0101010101010101) & ~word & <uint64_t>0x8080808080808080:
                return 1
            i += 8
            if i >= len:
                return 0
            if i + 8 > len:
                i = len - 8
    while i < len:
        if at[i] == 95:
            return 1
        i += 1
    return 0


cdef inline char* octets_write_hex(char* out, uint64_t word, uint32_t n_bytes) noexcept nogil:
    """Write the low `n_bytes` of `word`, most significant first, as lower-case hex. Returns the end."""
    cdef uint32_t shift = n_bytes * 8
    cdef uint64_t digits
    while shift >= 32:
        # Eight digits at a time: a nibble in each octet, then 'a' - '0' - 10 more for those above nine.
        shift -= 32
        digits = word >> shift & <uint64_t>0xFFFFFFFF
        digits = (digits | digits << 16) & <uint64_t>0x0000FFFF0000FFFF
        digits = (digits | digits << 8) & <uint64_t>0x00FF00FF00FF00FF
        digits = (digits | digits << 4) & <uint64_t>0x0F0F0F0F0F0F0F0F
        digits += <uint64_t>0x3030303030303030 + ((digits + <uint64_t>0x0606060606060606) >> 4 & <uint64_t>0x0101010101010101) * 39
        digits = octets_big_endian(digits)
        memcpy(out, &digits, 8)
        out += 8
    while shift:
        shift -= 8
        memcpy(out, hex_pairs + 2 * ((word >> shift) & 0xFF), 2)
        out += 2
    return out


cdef inline char* octets_write_decimal(char* out, uint64_t number) noexcept nogil:
    """Write `number` in decimal, at most 20 octets. Returns the end."""
    cdef char digits[20]
    cdef uint32_t i = 20
    while True:
        i -= 1
        digits[i] = <char>(48 + number % 10)
        number //= 10
        if number == 0:
            break
    memcpy(out, digits + i, 20 - i)
    return out + (20 - i)


cdef inline int octets_equal_nocase(const char* a, const char* b, uint32_t len) noexcept nogil:
    """1 when both runs are the same without regard to ASCII case, whatever octets they hold."""
    cdef uint32_t i
    for i in range(len):
        if octet_lower(<uint8_t>a[i]) != octet_lower(<uint8_t>b[i]):
            return 0
    return 1


cdef inline int octets_next_member(const char* at, uint32_t len, uint32_t* cursor, const char** member, uint32_t* member_len) noexcept nogil:
    """Walk a comma-separated list: empty members are skipped (RFC 9110 5.6.1.2), blanks trimmed. 0 when there is no more.

    Start with *cursor = 0. Quoted strings are not honoured: no list read here may hold one."""
    cdef uint32_t i = cursor[0]
    cdef uint32_t start, end
    while i < len:
        start = i
        while i < len and at[i] != 44:
            i += 1
        end = i
        i += 1
        while start < end and (at[start] == 32 or at[start] == 9):
            start += 1
        while end > start and (at[end - 1] == 32 or at[end - 1] == 9):
            end -= 1
        if end > start:
            cursor[0] = i
            member[0] = at + start
            member_len[0] = end - start
            return 1
    return 0
