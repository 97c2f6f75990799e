# Request identity: X-Request-Id and W3C traceparent, checked or made. Emits no head, keeps no clock.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.octets cimport OCTET_HEX, octet_class, octets_write_hex
from meshcore.engine.rng cimport Rng, rng_next


cdef enum:
    REQUEST_ID_LEN = 36
    TRACEPARENT_LEN = 55


cdef inline int request_id_is_valid(const char* at, uint32_t len) noexcept nogil:
    """[A-Za-z0-9._~-]{1,128}: what may go into logs and other people's headers unquoted."""
    cdef uint32_t i
    cdef uint8_t octet
    if len == 0 or len > 128:
        return 0
    for i in range(len):
        octet = <uint8_t>at[i]
        if not (97 <= (octet | 0x20) <= 122 or 48 <= octet <= 57 or octet == 45 or octet == 46 or octet == 95 or octet == 126):
            return 0
    return 1


cdef inline char* request_id_write(char* out, uint64_t wall_ms, Rng* rng) noexcept nogil:
    """A UUIDv7: sorts by time, and is unique enough without a secret. Source: RFC 9562 5.7. Returns the end."""
    cdef uint64_t high = rng_next(rng)
    cdef uint64_t low = rng_next(rng)
    out = octets_write_hex(out, wall_ms >> 16, 4)
    out[0] = 45
    out = octets_write_hex(out + 1, wall_ms, 2)
    out[0] = 45
    out = octets_write_hex(out + 1, 0x7000 | (high & 0x0FFF), 2)
    out[0] = 45
    out = octets_write_hex(out + 1, 0x8000 | (low >> 48 & 0x3FFF), 2)
    out[0] = 45
    return octets_write_hex(out + 1, low, 6)


cdef inline int traceparent_is_valid(const char* at, uint32_t len) noexcept nogil:
    """W3C Trace Context 3.2: lower-case hex, version not ff, neither id all zero; later versions may be longer."""
    cdef uint32_t i
    cdef uint32_t seen = 0
    cdef uint8_t octet
    if len < TRACEPARENT_LEN or at[2] != 45 or at[35] != 45 or at[52] != 45:
        return 0
    if at[0] == 102 and at[1] == 102:
        return 0
    if len > TRACEPARENT_LEN and ((at[0] == 48 and at[1] == 48) or at[TRACEPARENT_LEN] != 45):
        return 0
    for i in range(<uint32_t>TRACEPARENT_LEN):
        if i == 2 or i == 35 or i == 52:
            if i and i != 2 and seen == 0:
                return 0
            seen = 0
            continue
        octet = <uint8_t>at[i]
        if not octet_class[octet] & OCTET_HEX or 65 <= octet <= 70:
            return 0
        seen |= octet ^ 48
    return 1


cdef inline char* traceparent_write(char* out, Rng* rng) noexcept nogil:
    """A new trace, version 00, sampled: what an SDK at the root would have done by default. Returns the end."""
    memcpy(out, "00-", 3)
    out = octets_write_hex(out + 3, rng_next(rng) | 1, 8)
    out = octets_write_hex(out, rng_next(rng), 8)
    out[0] = 45
    out = octets_write_hex(out + 1, rng_next(rng) | 1, 8)
    memcpy(out, "-01", 3)
    return out + 3
