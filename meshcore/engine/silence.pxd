# For whom clients wait in silence: how often, as it were in a row, those of one key let the server speak first.
#
# A key is a hash of where clients connect. The table has a fixed size and no chains: of two keys with the same place the
# later stays. What that costs is a longer wait for a server that speaks first, never a wrong verdict.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    SILENCE_PLACES = 512                # 4 KiB a worker; a power of two
    SILENCE_LONGEST_STREAK = 6          # 1/64 of the wait

cdef struct Silences:
    uint64_t places[512]                # the key's upper 56 bits, then its streak


cdef inline uint32_t silence_streak(const Silences* silences, uint64_t key) noexcept nogil:
    """How often the wait for the first octet has to be halved: 0 to SILENCE_LONGEST_STREAK."""
    cdef uint64_t place = silences.places[key & (SILENCE_PLACES - 1)]
    return <uint32_t>(place & 255) if place >> 8 == key >> 8 else 0


cdef inline void silence_note(Silences* silences, uint64_t key) noexcept nogil:
    """A client said nothing for as long as it was waited for."""
    cdef uint32_t streak = silence_streak(silences, key)
    silence_set(silences, key, streak + 1 if streak < SILENCE_LONGEST_STREAK else streak)


cdef inline void silence_broken(Silences* silences, uint64_t key) noexcept nogil:
    """A client spoke first."""
    cdef uint32_t streak = silence_streak(silences, key)
    if streak:
        silence_set(silences, key, streak >> 1)


cdef inline void silence_set(Silences* silences, uint64_t key, uint32_t streak) noexcept nogil:
    silences.places[key & (SILENCE_PLACES - 1)] = (key >> 8) << 8 | streak
