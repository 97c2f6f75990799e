# The share of an endpoint's requests that succeed, the latest counting most: by number of requests, or by time. Judges the
# share, ejects nobody: see breaker.
#
# An exponential average, as Finagle's failure accrual has it: after n more requests, or a time t, exp(-n / requests) or
# exp(-t / window) of what was before is left. Requests of one instant (NOW_ONCE: of one wake-up) count as their mean, or
# the first of them would count alone. Nothing is judged before there is enough of it.

from libc.math cimport exp
from libc.stdint cimport uint32_t, uint64_t

from meshcore.engine.snapshot cimport SuccessRateConf


cdef struct SuccessRate:
    double rate
    double before                       # by time: the rate up to the last instant,
    double kept                         # and the share of it that counts since
    uint64_t begun_ns                   # of the first request
    uint64_t stamp_ns                   # of the last
    uint32_t requests
    uint32_t at_once                    # of the last instant
    uint32_t at_once_succeeded


cdef inline void success_rate_note(SuccessRate* rate, const SuccessRateConf* conf, bint succeeded, uint64_t now_ns) noexcept nogil:
    """One request ended."""
    cdef double value = 1.0 if succeeded else 0.0
    if rate.requests < <uint32_t>-1:
        rate.requests += 1
    if conf.window_ns == 0:
        rate.rate = value if rate.requests == 1 else rate.rate * conf.kept + value * (1.0 - conf.kept)
        return
    if rate.requests == 1:
        rate.before = rate.kept = 0.0
        rate.begun_ns = rate.stamp_ns = now_ns
        rate.at_once = rate.at_once_succeeded = 0
    elif now_ns > rate.stamp_ns:
        rate.before = rate.rate
        rate.kept = exp(-<double>(now_ns - rate.stamp_ns) / <double>conf.window_ns)
        rate.stamp_ns = now_ns
        rate.at_once = rate.at_once_succeeded = 0
    rate.at_once += 1
    rate.at_once_succeeded += <uint32_t>succeeded
    rate.rate = rate.before * rate.kept + <double>rate.at_once_succeeded / <double>rate.at_once * (1.0 - rate.kept)


cdef inline bint success_rate_is_too_low(const SuccessRate* rate, const SuccessRateConf* conf, uint64_t now_ns) noexcept nogil:
    if rate.requests < conf.requests or (conf.window_ns and now_ns - rate.begun_ns < conf.window_ns):
        return False
    return rate.rate * 1e6 < <double>conf.least_ppm


cdef inline void success_rate_forget(SuccessRate* rate) noexcept nogil:
    """It begins anew: an endpoint that comes back is not judged by what it was."""
    rate.requests = 0
