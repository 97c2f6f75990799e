# Log-linear histogram of durations: record, merge, read quantiles. Knows no clock and no names.
#
# Buckets: the value in units of 128 ns; 64 buckets in each power of two, so a bucket is 1/64 of its value wide and its
# middle is at most 0.8 % away from every sample in it. Below 64 units (8 us) the buckets are one unit wide: there the
# error is at most 64 ns, less than what the clock reads around a system call cost. 128 ns and 27 octaves reach
# 1099 s; longer durations count in the last bucket (max_ns keeps the truth). 14 KiB each.
#
# As Python sees it (`raw`): native uint64 values count, sum_ns, max_ns, counts[0..HISTOGRAM_BUCKETS).

from libc.stdint cimport uint32_t, uint64_t
from libc.math cimport ceil


cdef extern from * nogil:
    int histogram_leading_zeros "__builtin_clzll"(unsigned long long)


cdef enum:
    HISTOGRAM_UNIT_SHIFT = 7
    HISTOGRAM_SUB_BITS = 6
    HISTOGRAM_SUB_BUCKETS = 64
    HISTOGRAM_VALUE_BITS = 33                   # units above 2^33 are clamped: 2^33 * 128 ns = 1099 s
    HISTOGRAM_BUCKETS = 1792                    # (33 - 6) octaves * 64 + 64 for the linear start


cdef struct Histogram:
    uint64_t count
    uint64_t sum_ns
    uint64_t max_ns
    uint64_t counts[HISTOGRAM_BUCKETS]


cdef inline uint32_t histogram_index(uint64_t ns) noexcept nogil:
    """The bucket of a duration, in [0, HISTOGRAM_BUCKETS). Monotonic in `ns`, no branch but the clamp."""
    cdef uint64_t units = ns >> HISTOGRAM_UNIT_SHIFT
    cdef uint32_t octave
    if units >> HISTOGRAM_VALUE_BITS:
        return HISTOGRAM_BUCKETS - 1
    # `| 64` gives the linear start octave 0, so it needs no case of its own.
    octave = 63 - HISTOGRAM_SUB_BITS - <uint32_t>histogram_leading_zeros(units | HISTOGRAM_SUB_BUCKETS)
    return (octave << HISTOGRAM_SUB_BITS) + <uint32_t>(units >> octave)


cdef inline void histogram_record(Histogram* histogram, uint64_t ns) noexcept nogil:
    """Count one duration."""
    histogram.counts[histogram_index(ns)] += 1
    histogram.count += 1
    histogram.sum_ns += ns
    if ns > histogram.max_ns:
        histogram.max_ns = ns


cdef inline uint64_t histogram_lower_bound_ns(uint32_t index) noexcept nogil:
    """The smallest duration of a bucket."""
    cdef uint32_t octave = index >> HISTOGRAM_SUB_BITS
    octave -= octave > 0                # the linear start is as wide as two octaves
    return <uint64_t>(index - (octave << HISTOGRAM_SUB_BITS)) << (octave + HISTOGRAM_UNIT_SHIFT)


cdef inline uint64_t histogram_upper_bound_ns(uint32_t index) noexcept nogil:
    """The first duration beyond a bucket: bucket i holds [lower(i), upper(i)), and upper(i) == lower(i + 1)."""
    return histogram_lower_bound_ns(index + 1)


cdef inline void histogram_merge(Histogram* into, const Histogram* source) noexcept nogil:
    """Add every sample of `source`. A source that its worker is writing reads slightly behind, never wrong."""
    cdef int i
    into.count += source.count
    into.sum_ns += source.sum_ns
    if source.max_ns > into.max_ns:
        into.max_ns = source.max_ns
    for i in range(HISTOGRAM_BUCKETS):
        into.counts[i] += source.counts[i]


cdef inline uint64_t histogram_quantile_ns(const Histogram* histogram, double q) noexcept nogil:
    """The duration that a share `q` (0..1, clamped) of the samples does not exceed: the nearest-rank sample, rounded to
    the middle of its bucket and never above max_ns. 0 when empty."""
    cdef uint64_t total = 0
    cdef uint64_t seen = 0
    cdef uint64_t rank
    cdef uint64_t middle_ns
    cdef int i
    # Ranks count what the buckets hold, not `count`: a live histogram may be read between its two increments.
    for i in range(HISTOGRAM_BUCKETS):
        total += histogram.counts[i]
    if total == 0:
        return 0
    rank = 1 if not q > 0.0 else <uint64_t>ceil((q if q < 1.0 else 1.0) * <double>total)
    if rank < 1:
        rank = 1
    if rank > total:
        rank = total
    for i in range(HISTOGRAM_BUCKETS):
        seen += histogram.counts[i]
        if seen >= rank:
            break
    middle_ns = (histogram_lower_bound_ns(<uint32_t>i) + histogram_upper_bound_ns(<uint32_t>i)) >> 1
    return middle_ns if middle_ns < histogram.max_ns else histogram.max_ns
