# How long to wait before something is tried again: the first wait, its growth, its jitter. Pure: what was waited before is
# the caller's to keep, and so is the waiting.
#
# Doubling: first * 2^n, at most `longest`, plus up to `jitter_ppm` of itself, so that those who failed together do not
# come back together. Decorrelated: drawn between the first wait and three times the one before, at most `longest`.

from libc.stdint cimport uint32_t, uint64_t

from meshcore.engine.rng cimport Rng, rng_below, rng_next
from meshcore.engine.snapshot cimport BACKOFF_DECORRELATED, BackoffConf


cdef inline uint64_t backoff_next_ns(const BackoffConf* conf, uint32_t before, uint64_t last_ns, Rng* rng) noexcept nogil:
    """The wait after `before` others in a row, the last of which was `last_ns`."""
    cdef uint32_t doublings = before if before < 63 else 63
    cdef uint64_t longest_ns = conf.longest_ns if conf.longest_ns > conf.first_ns else conf.first_ns
    cdef uint64_t wait_ns = longest_ns
    if conf.kind == BACKOFF_DECORRELATED:
        return conf.first_ns if before == 0 else backoff_between(conf.first_ns, last_ns * 3, longest_ns, rng)
    if conf.first_ns < longest_ns >> doublings:
        wait_ns = conf.first_ns << doublings
    # Double: exact to a nanosecond for backoffs of up to weeks, and cannot overflow.
    return wait_ns + <uint64_t>(<double>wait_ns * rng_below(rng, conf.jitter_ppm + 1) * 1e-6)


cdef inline uint64_t backoff_between(uint64_t least_ns, uint64_t most_ns, uint64_t longest_ns, Rng* rng) noexcept nogil:
    cdef uint64_t span_ns
    if most_ns <= least_ns:
        return least_ns
    span_ns = most_ns - least_ns
    # 53 random bits: a double holds them exactly, and spans of days to the microsecond.
    span_ns = <uint64_t>(<double>span_ns * <double>(rng_next(rng) >> 11) * (1.0 / 9007199254740992.0))
    return least_ns + span_ns if span_ns < longest_ns - least_ns else longest_ns
