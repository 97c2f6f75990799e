# Circuit breaker of one endpoint: when failures in a row eject it, for how long, who probes. Never picks an endpoint.
#
#   CLOSED --consecutive failures--> OPEN --due, picked--> HALF_OPEN --success--> CLOSED
#                                     ^------- failure, or the probe was abandoned ----'
#
# Exactly one probe: HALF_OPEN admits nobody until its verdict. Answers that arrive while OPEN belong to requests sent
# before the ejection (or under panic) and say nothing new: they are ignored. Client faults are not failures:
# the caller reports only what the endpoint did (keeps CLIENT_FAULT_NOT_UPSTREAM).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from meshcore.engine.rng cimport Rng, rng_below
from meshcore.engine.snapshot cimport BreakerConf


cdef enum BreakerState:
    BREAKER_CLOSED = 0
    BREAKER_OPEN = 1
    BREAKER_HALF_OPEN = 2


cdef struct Breaker:
    uint64_t until_ns                   # OPEN: when a probe is due
    uint32_t consecutive                # failures in a row while CLOSED
    uint32_t ejections_in_row           # without a success in between: doubles the backoff
    uint8_t state


cdef inline bint breaker_admits(const Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """May a request be sent? Changes nothing: call breaker_on_pick when it is."""
    if breaker.state == BREAKER_CLOSED:
        return True
    return breaker.state == BREAKER_OPEN and now_ns >= breaker.until_ns


cdef inline void breaker_on_pick(Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """The endpoint was chosen: if it was due, this request is its probe."""
    if breaker.state == BREAKER_OPEN and now_ns >= breaker.until_ns:
        breaker.state = BREAKER_HALF_OPEN


cdef inline void breaker_on_success(Breaker* breaker) noexcept nogil:
    if breaker.state == BREAKER_OPEN:
        return
    breaker.state = BREAKER_CLOSED
    breaker.consecutive = 0
    breaker.ejections_in_row = 0


cdef inline bint breaker_on_failure(Breaker* breaker, const BreakerConf* conf, uint64_t now_ns, Rng* rng) noexcept nogil:
    """Returns 1 when this failure ejects the endpoint (a failed probe ejects it again, for longer)."""
    if breaker.state == BREAKER_OPEN:
        return False
    if breaker.state == BREAKER_CLOSED:
        breaker.consecutive += 1
        if conf.consecutive_failures == 0 or breaker.consecutive < conf.consecutive_failures:
            return False
    breaker.until_ns = now_ns + breaker_backoff_ns(breaker.ejections_in_row, conf, rng)
    breaker.state = BREAKER_OPEN
    breaker.ejections_in_row += 1
    return True


cdef inline void breaker_on_abandoned(Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """A request ended without a verdict (the client left). If it was the probe, the next request probes."""
    if breaker.state == BREAKER_HALF_OPEN:
        breaker.state = BREAKER_OPEN
        breaker.until_ns = now_ns


cdef inline uint64_t breaker_backoff_ns(uint32_t ejections_before, const BreakerConf* conf, Rng* rng) noexcept nogil:
    """backoff * 2^ejections_before, at most max_backoff, plus up to jitter_ppm of itself.

    The jitter comes on top, so that workers and proxies that lost an endpoint together do not probe it together.
    """
    cdef uint32_t doublings = ejections_before if ejections_before < 63 else 63
    cdef uint64_t longest_ns = conf.max_backoff_ns if conf.max_backoff_ns > conf.backoff_ns else conf.backoff_ns
    cdef uint64_t backoff_ns = longest_ns
    if conf.backoff_ns < longest_ns >> doublings:
        backoff_ns = conf.backoff_ns << doublings
    # Double: exact to a nanosecond for backoffs of up to weeks, and cannot overflow.
    return backoff_ns + <uint64_t>(<double>backoff_ns * rng_below(rng, conf.jitter_ppm + 1) * 1e-6)
