# Fixed records from one worker to one reader, lossy. Owns the slots and the two counters; knows no record's meaning.
#
# The worker never waits: a full ring drops the record and counts it. The reader copies records out and then moves
# `read`; no lock, one release store each side.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from meshcore.engine.sys cimport atomic_load_u64, atomic_store_u64


cdef struct Ring:
    char* slots
    uint32_t record_bytes
    uint32_t n_slots                    # a power of two
    uint64_t written                    # moved by the worker only
    uint64_t read                       # moved by the reader only
    uint64_t dropped


cdef inline int ring_init(Ring* ring, uint32_t record_bytes, uint32_t n_slots) noexcept nogil:
    ring.slots = <char*>calloc(n_slots, record_bytes)
    ring.record_bytes = record_bytes
    ring.n_slots = n_slots
    ring.written = ring.read = ring.dropped = 0
    return ring.slots != NULL


cdef inline void ring_free(Ring* ring) noexcept nogil:
    free(ring.slots)
    ring.slots = NULL


cdef inline char* ring_claim(Ring* ring) noexcept nogil:
    """The slot to fill next, or NULL (counted) when the reader is too far behind. Follow with ring_publish."""
    if ring.slots == NULL or ring.written - atomic_load_u64(&ring.read) >= ring.n_slots:
        ring.dropped += 1
        return NULL
    return ring.slots + (ring.written & (ring.n_slots - 1)) * ring.record_bytes


cdef inline int ring_has_room(Ring* ring, uint32_t n) noexcept nogil:
    """Whether the next `n` claims get a slot each. Counts one drop when not."""
    if ring.slots != NULL and ring.written + n - atomic_load_u64(&ring.read) <= ring.n_slots:
        return 1
    ring.dropped += 1
    return 0


cdef inline void ring_publish(Ring* ring) noexcept nogil:
    atomic_store_u64(&ring.written, ring.written + 1)


cdef inline char* ring_peek(Ring* ring) noexcept nogil:
    """The oldest unread record, or NULL. Valid until ring_advance."""
    if atomic_load_u64(&ring.written) == ring.read:
        return NULL
    return ring.slots + (ring.read & (ring.n_slots - 1)) * ring.record_bytes


cdef inline void ring_advance(Ring* ring) noexcept nogil:
    atomic_store_u64(&ring.read, ring.read + 1)
