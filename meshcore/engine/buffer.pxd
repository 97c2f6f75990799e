# Byte buffers of a few sizes, recycled per worker, counted against a limit. Knows nothing of sockets.
#
# An idle connection holds none. A buffer appears for a partial head, for a request that may have to be sent again,
# and for output the kernel did not take; it goes back as soon as it is empty. Every buffer has HEADROOM writable
# bytes before `data` and TAILROOM after `size_bytes`, so that a chunk header and trailer can be put around bytes in
# place.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport malloc, free
from libc.string cimport memcpy, memmove

cdef enum:
    BUFFER_HEADROOM = 32
    BUFFER_TAILROOM = 32
    BUFFER_CLASSES = 5

cdef extern from *:
    """
    #include <stdint.h>
    /* 2 KiB holds an ordinary request head, 512 KiB the largest read plus a head. */
    static const uint32_t mc_buffer_sizes[5] = {2048, 8192, 32768, 131072, 524288};
    /* Per class: what a worker keeps for reuse; the rest goes back to malloc. Under the sanitizer all of it, so that
     * a buffer given back twice, or used after, is found where it happens. */
    #ifdef __SANITIZE_ADDRESS__
    #define MC_BUFFER_KEPT_BYTES 0u
    #else
    #define MC_BUFFER_KEPT_BYTES 2097152u
    #endif
    """
    const uint32_t* BUFFER_SIZES "mc_buffer_sizes"
    uint32_t BUFFER_KEPT_BYTES "MC_BUFFER_KEPT_BYTES"


cdef struct Buffer:
    Buffer* next                        # free list
    uint32_t size_bytes                 # usable bytes at data
    uint32_t start                      # first byte not consumed
    uint32_t end                        # one past the last byte
    uint8_t size_class
    char* data


cdef struct BufferPool:
    Buffer* free_lists[5]
    uint32_t n_free[5]
    uint64_t in_use_bytes
    uint64_t limit_bytes
    uint64_t refused


cdef inline Buffer* buffer_take(BufferPool* pool, uint32_t wanted_bytes) noexcept nogil:
    """An empty buffer of at least `wanted_bytes`. NULL at the memory limit."""
    cdef uint32_t i = 0
    cdef uint64_t size_bytes
    cdef Buffer* buffer = NULL
    while i < BUFFER_CLASSES and BUFFER_SIZES[i] < wanted_bytes:
        i += 1
    if i < BUFFER_CLASSES:
        size_bytes = BUFFER_SIZES[i]
        buffer = pool.free_lists[i]
    else:
        size_bytes = wanted_bytes       # an answer of a filter or a route may be of any size: made to measure, not kept
    if pool.in_use_bytes + size_bytes > pool.limit_bytes:
        pool.refused += 1               # also where one lies ready: the limit is on what is in use
        return NULL
    if buffer != NULL:
        pool.free_lists[i] = buffer.next
        pool.n_free[i] -= 1
    else:
        buffer = <Buffer*>malloc(sizeof(Buffer) + BUFFER_HEADROOM + size_bytes + BUFFER_TAILROOM)
        if buffer == NULL:
            pool.refused += 1
            return NULL
        buffer.size_bytes = <uint32_t>size_bytes
        buffer.size_class = <uint8_t>i
        buffer.data = <char*>buffer + sizeof(Buffer) + BUFFER_HEADROOM
    pool.in_use_bytes += buffer.size_bytes
    buffer.start = buffer.end = 0
    return buffer


cdef inline void buffer_return(BufferPool* pool, Buffer* buffer) noexcept nogil:
    pool.in_use_bytes -= buffer.size_bytes
    if buffer.size_class < BUFFER_CLASSES \
            and pool.n_free[buffer.size_class] * buffer.size_bytes < BUFFER_KEPT_BYTES:
        buffer.next = pool.free_lists[buffer.size_class]
        pool.free_lists[buffer.size_class] = buffer
        pool.n_free[buffer.size_class] += 1
    else:
        free(buffer)


cdef inline Buffer* buffer_append(BufferPool* pool, Buffer* buffer, const char* at, uint32_t n) noexcept nogil:
    """Append bytes, moving to a larger buffer when needed; `buffer` may be NULL. The old pointer is then dead.

    `at` lies outside the buffer. Returns the buffer now in use, or NULL when there is no room: the old buffer is
    untouched then.
    """
    cdef uint32_t held
    cdef Buffer* larger
    if buffer == NULL:
        buffer = buffer_take(pool, n)
        if buffer == NULL:
            return NULL
    elif buffer.size_bytes - buffer.end < n:
        held = buffer.end - buffer.start
        if n <= buffer.size_bytes - held:
            memmove(buffer.data, buffer.data + buffer.start, held)
            buffer.start = 0
            buffer.end = held
        else:
            larger = buffer_take(pool, held + n)
            if larger == NULL:
                return NULL
            memcpy(larger.data, buffer.data + buffer.start, held)
            larger.end = held
            buffer_return(pool, buffer)
            buffer = larger
    memcpy(buffer.data + buffer.end, at, n)
    buffer.end += n
    return buffer


cdef inline void buffer_pool_free(BufferPool* pool) noexcept nogil:
    """Free what is kept for reuse. Buffers in use stay with their owners."""
    cdef uint32_t i
    cdef Buffer* buffer
    for i in range(<uint32_t>BUFFER_CLASSES):
        while pool.free_lists[i] != NULL:
            buffer = pool.free_lists[i]
            pool.free_lists[i] = buffer.next
            free(buffer)
