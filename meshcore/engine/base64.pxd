# Base64 (RFC 4648 4) as it streams by: decoded where it lies, encoded into room of the caller's. Owns the state between
# pieces, and nothing of what the octets mean.
#
# What is decoded is never longer than what has been read of it, so that it can be put in its own place. Blocks may follow
# each other, each padded on its own, as a server that sends messages one by one pads them.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    BASE64_MALFORMED = 0xFFFFFFFF


cdef struct Base64:
    uint32_t bits                       # not yet told, the lowest n_bits of it
    uint8_t n_bits
    uint8_t place                       # in a block of four digits, while decoding; 0: between blocks
    uint8_t is_padded                   # this block has ended, its last places are padding


cdef inline void base64_begin(Base64* state) noexcept nogil:
    state.bits = 0
    state.n_bits = state.place = state.is_padded = 0


cdef inline uint32_t base64_value(uint8_t digit) noexcept nogil:
    """0 to 63, or more for what is no digit."""
    if 65 <= digit <= 90:
        return digit - 65
    if 97 <= digit <= 122:
        return digit - 71
    if 48 <= digit <= 57:
        return digit + 4
    return 62 if digit == 43 else 63 if digit == 47 else 255


cdef inline uint32_t base64_decode(Base64* state, char* at, uint32_t n) noexcept nogil:
    """Decode `n` digits in place. Returns how many octets they made, or BASE64_MALFORMED."""
    cdef uint32_t i
    cdef uint32_t value
    cdef uint32_t made = 0
    for i in range(n):
        if at[i] == 61:                 # "=": in the last two places of a block alone
            if state.place < 2:
                return BASE64_MALFORMED
            state.is_padded = 1
        else:
            value = base64_value(<uint8_t>at[i])
            if value > 63 or state.is_padded:
                return BASE64_MALFORMED
            state.bits = state.bits << 6 | value
            state.n_bits += 6
            if state.n_bits >= 8:
                state.n_bits -= 8
                at[made] = <char>(state.bits >> state.n_bits & 255)
                made += 1
        state.place += 1
        if state.place == 4:
            base64_begin(state)
    return made


cdef inline uint32_t base64_encode(Base64* state, char* out, const char* at, uint32_t n) noexcept nogil:
    """Encode as far as whole digits go; the rest waits for base64_end. Returns how many were written: at most 4/3 n + 1."""
    cdef const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint32_t i
    cdef uint32_t made = 0
    for i in range(n):
        state.bits = state.bits << 8 | <uint8_t>at[i]
        state.n_bits += 8
        state.place = (state.place + 1) % 3
        while state.n_bits >= 6:
            state.n_bits -= 6
            out[made] = digits[state.bits >> state.n_bits & 63]
            made += 1
        state.bits &= 63
    return made


cdef inline uint32_t base64_end(Base64* state, char* out) noexcept nogil:
    """The last digit and the padding of a block: at most three."""
    cdef const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint32_t made = 0
    if state.n_bits:
        out[0] = digits[state.bits << (6 - state.n_bits) & 63]
        made = 1
        if state.place:
            out[1] = out[2] = c"="
            made += 3 - state.place
    base64_begin(state)
    return made
