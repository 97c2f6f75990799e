# Peak-sensitive moving average of one endpoint's response time. Owns the arithmetic; who is compared is balance's.
#
# Source: peak EWMA as in Finagle: a worse sample replaces the average at once, better ones pull it down with time
# constant `decay_ns`. Reading decays too, so an endpoint that was slow once and is no longer asked comes back by itself.

from libc.stdint cimport uint64_t


cdef enum:
    # 1 ms: what an endpoint is said to cost before its first answer. Only ever compared with another unmeasured one
    # (balance lends a newcomer its rival's cost: a constant would either shun it in a fast cluster or, in a slow one,
    # send it everything until its first answer), so any positive value is right; 1 ms reads well in a table.
    EWMA_DEFAULT_RTT_NS = 1_000_000
    # 50 us: one wake-up of an idle core. Differences below it are scheduling noise: there the number of active
    # requests should decide, and no endpoint may decay into costing nothing.
    EWMA_FLOOR_NS = 50_000


cdef struct Ewma:
    double cost_ns                      # 0 = never measured
    uint64_t stamp_ns


cdef inline bint ewma_is_measured(const Ewma* ewma) noexcept nogil:
    return ewma.cost_ns > 0.0


cdef inline void ewma_observe(Ewma* ewma, double rtt_ns, uint64_t now_ns, uint64_t decay_ns) noexcept nogil:
    """Take one response time into account."""
    cdef double kept
    if rtt_ns < 1.0:
        rtt_ns = 1.0                    # request and answer within one clock reading is still a measurement
    if rtt_ns >= ewma.cost_ns:
        ewma.cost_ns = rtt_ns
    else:
        kept = ewma_kept(ewma, now_ns, decay_ns)
        ewma.cost_ns = ewma.cost_ns * kept + rtt_ns * (1.0 - kept)
    ewma.stamp_ns = now_ns


cdef inline double ewma_cost(const Ewma* ewma, uint64_t now_ns, uint64_t decay_ns) noexcept nogil:
    """The average as of now, never below EWMA_FLOOR_NS; EWMA_DEFAULT_RTT_NS before the first measurement."""
    cdef double cost_ns = ewma.cost_ns
    if not ewma_is_measured(ewma):
        return EWMA_DEFAULT_RTT_NS
    # A busy endpoint was measured within the last 1/1024 of the decay time: what it lost since decides nothing, and
    # leaving it out spares every pick of a busy cluster four divisions.
    if now_ns > ewma.stamp_ns + (decay_ns >> 10):
        cost_ns *= ewma_kept(ewma, now_ns, decay_ns)
    return cost_ns if cost_ns > EWMA_FLOOR_NS else EWMA_FLOOR_NS


cdef inline double ewma_kept(const Ewma* ewma, uint64_t now_ns, uint64_t decay_ns) noexcept nogil:
    """The share of the old value that is left: exp(-elapsed / decay), from 1 down to 0.

    1 / (first five terms of exp(x)): within 0.4 % up to one decay time, monotonic everywhere, a fifth of exp's price.
    """
    cdef double x
    if now_ns <= ewma.stamp_ns:         # two readings of one wake-up, or a stamp from a fresher clock
        return 1.0
    x = <double>(now_ns - ewma.stamp_ns) / (<double>decay_ns if decay_ns else 1.0)
    return 1.0 / (1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0)))))
