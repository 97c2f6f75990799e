# Circuit breaker of one endpoint: when its failures eject it, for how long, who probes. Never picks an endpoint.
#
#   CLOSED --too many failures--> OPEN --due, picked--> HALF_OPEN --success--> CLOSED
#                                  ^------- failure, or the probe was abandoned ----'
#
# Too many are so many in a row, or a success rate that is too low; each may be off. Only a failure ejects.
# An endpoint that cannot be connected to is UNREACHABLE from the first time on, for the shortest ejection: others are
# picked, as long as there are any, panic or not; where there are none it may be picked as if it were closed. Failures go on
# being counted, and open it. OPEN remembers whether it was out of reach, for the same reason.
#
# Exactly one probe: HALF_OPEN admits nobody until its verdict. Answers that arrive while OPEN belong to requests sent
# before the ejection (or under panic) and say nothing new: they are ignored. Client faults are not failures:
# the caller reports only what the endpoint did (keeps CLIENT_FAULT_NOT_UPSTREAM).

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from meshcore.engine.backoff cimport backoff_next_ns
from meshcore.engine.rng cimport Rng
from meshcore.engine.snapshot cimport BreakerConf
from meshcore.engine.success_rate cimport SuccessRate, success_rate_forget, success_rate_is_too_low, success_rate_note


cdef enum BreakerState:
    BREAKER_CLOSED = 0
    BREAKER_OPEN = 1
    BREAKER_HALF_OPEN = 2
    BREAKER_UNREACHABLE = 3


cdef struct Breaker:
    uint64_t until_ns                   # OPEN: when a probe is due; UNREACHABLE: when it may be again like others
    uint32_t consecutive                # failures in a row while CLOSED
    uint32_t ejections_in_row           # without a success in between: lengthens the backoff
    uint8_t state
    uint8_t was_unreachable             # of any state but CLOSED: the last that was heard
    uint64_t backoff_ns                 # of the last ejection
    SuccessRate rate


cdef inline bint breaker_admits(const Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """May a request be sent? Changes nothing: call breaker_on_pick when it is."""
    if breaker.state == BREAKER_CLOSED:
        return True
    return breaker.state != BREAKER_HALF_OPEN and now_ns >= breaker.until_ns


cdef inline bint breaker_is_ejected(const Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """Is it kept out by its failures? For statistics: what is out of reach for now is only passed over."""
    return breaker.state != BREAKER_UNREACHABLE and not breaker_admits(breaker, now_ns)


cdef inline void breaker_on_pick(Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """The endpoint was chosen: if it was due, this request is its probe."""
    if breaker.state == BREAKER_OPEN and now_ns >= breaker.until_ns:
        breaker.state = BREAKER_HALF_OPEN


cdef inline void breaker_on_success(Breaker* breaker, const BreakerConf* conf, uint64_t now_ns) noexcept nogil:
    if breaker.state == BREAKER_OPEN:
        return
    if breaker.state == BREAKER_HALF_OPEN:
        success_rate_forget(&breaker.rate)
    elif conf.success_rate.least_ppm:
        success_rate_note(&breaker.rate, &conf.success_rate, True, now_ns)
    breaker.state = BREAKER_CLOSED
    breaker.consecutive = 0
    breaker.ejections_in_row = 0


cdef inline bint breaker_on_failure(Breaker* breaker, const BreakerConf* conf, uint64_t now_ns, Rng* rng) noexcept nogil:
    """Returns 1 when this failure ejects the endpoint (a failed probe ejects it again, for longer)."""
    if breaker.state == BREAKER_OPEN:
        return False
    if breaker.state != BREAKER_HALF_OPEN and not breaker_has_failed(breaker, conf, now_ns):
        return False
    breaker.backoff_ns = backoff_next_ns(&conf.backoff, breaker.ejections_in_row, breaker.backoff_ns, rng)
    breaker.until_ns = now_ns + breaker.backoff_ns
    breaker.state = BREAKER_OPEN
    breaker.was_unreachable = 0
    breaker.ejections_in_row += 1
    return True


cdef inline void breaker_on_unreachable(Breaker* breaker, const BreakerConf* conf, uint64_t now_ns) noexcept nogil:
    """The failure just told was that there was nobody to connect to."""
    breaker.was_unreachable = 1
    if breaker.state == BREAKER_CLOSED or breaker.state == BREAKER_UNREACHABLE:
        breaker.state = BREAKER_UNREACHABLE
        breaker.until_ns = now_ns + conf.backoff.first_ns


cdef inline bint breaker_has_failed(Breaker* breaker, const BreakerConf* conf, uint64_t now_ns) noexcept nogil:
    """Count a failure. Are they too many now?"""
    breaker.consecutive += 1
    if conf.success_rate.least_ppm:
        success_rate_note(&breaker.rate, &conf.success_rate, False, now_ns)
        if success_rate_is_too_low(&breaker.rate, &conf.success_rate, now_ns):
            return True
    return conf.consecutive_failures != 0 and breaker.consecutive >= conf.consecutive_failures


cdef inline void breaker_on_abandoned(Breaker* breaker, uint64_t now_ns) noexcept nogil:
    """A request ended without a verdict (the client left). If it was the probe, the next request probes."""
    if breaker.state == BREAKER_HALF_OPEN:
        breaker.state = BREAKER_OPEN
        breaker.until_ns = now_ns
