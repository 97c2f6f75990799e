# The histograms of one worker: made with their first sample, bounded in number. Beyond the bound samples are folded into
# one histogram for all who have none, so that ten thousand endpoints do not cost ten thousand times 14 KiB.
#
# The worker takes, whoever clears a state gives back, on another thread: `made` is counted atomically.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from meshcore.engine.histogram cimport Histogram, histogram_record
from meshcore.engine.sys cimport atomic_add_u32, atomic_load_u32


cdef struct HistogramPool:
    Histogram* folded                   # samples of all who came too late; NULL: there is none
    uint32_t made


cdef inline void histogram_pool_record(HistogramPool* pool, Histogram** at, uint32_t most, uint64_t ns) noexcept nogil:
    """Count one duration at `at`, in a histogram of its own where `most` allows one. Without memory it is lost."""
    if at[0] == NULL and not histogram_pool_take(pool, at, most):
        if pool.folded == NULL:
            pool.folded = <Histogram*>calloc(1, sizeof(Histogram))
        if pool.folded != NULL:
            histogram_record(pool.folded, ns)
        return
    histogram_record(at[0], ns)


cdef inline int histogram_pool_take(HistogramPool* pool, Histogram** at, uint32_t most) noexcept nogil:
    """A histogram for one who has none. 1, or 0: there are `most` of them, or there is no memory."""
    if atomic_load_u32(&pool.made) >= most:
        return 0
    at[0] = <Histogram*>calloc(1, sizeof(Histogram))
    if at[0] == NULL:
        return 0
    atomic_add_u32(&pool.made, 1)
    return 1


cdef inline void histogram_pool_return(HistogramPool* pool, Histogram** at) noexcept nogil:
    """Give a histogram back, if there is one. Nobody reads it any more."""
    if at[0] != NULL:
        free(at[0])
        at[0] = NULL
        atomic_add_u32(&pool.made, <uint32_t>-1)
