# Fast random numbers for one worker. Not for secrets: whoever sees a few outputs knows the rest.
#
# Source: xoroshiro128++ (Blackman and Vigna, "Scrambled Linear Pseudorandom Number Generators", 2021), seeded through
# SplitMix64 (Steele, Lea and Flood, 2014). 16 bytes of state, about 1 ns a number, no division.

from libc.stdint cimport uint32_t, uint64_t


cdef struct Rng:
    uint64_t s[2]


cdef inline void rng_seed(Rng* rng, uint64_t seed) noexcept nogil:
    """Start the sequence of `seed`. Every seed is good, 0 included: SplitMix64 never yields two zeros in a row."""
    rng.s[0] = rng_splitmix(seed + <uint64_t>0x9E3779B97F4A7C15)
    rng.s[1] = rng_splitmix(seed + <uint64_t>0x3C6EF372FE94F82A)


cdef inline uint64_t rng_next(Rng* rng) noexcept nogil:
    """The next 64 random bits."""
    cdef uint64_t low = rng.s[0]
    cdef uint64_t high = rng.s[1]
    cdef uint64_t result = rng_rotate(low + high, 17) + low
    high ^= low
    rng.s[0] = rng_rotate(low, 49) ^ high ^ (high << 21)
    rng.s[1] = rng_rotate(high, 28)
    return result


cdef inline uint32_t rng_below(Rng* rng, uint32_t n) noexcept nogil:
    """A number in [0, n); 0 when n is 0. Bias below n / 2^32: a balancer cannot notice, and it costs no division."""
    return <uint32_t>(((rng_next(rng) >> 32) * n) >> 32)


cdef inline uint64_t rng_rotate(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline uint64_t rng_splitmix(uint64_t x) noexcept nogil:
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    return x ^ (x >> 31)
