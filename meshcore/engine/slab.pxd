# Fixed-size items in chunks, found by number, reused newest first. Owns the memory; an item's meaning is its user's.
#
# An item never moves. Each carries a generation, raised when it is freed, so that a number kept too long (a stale
# epoll event) is recognised: token = generation << 32 | index. Chunks are kept until the slab is freed: a worker's
# footprint is its high-water mark.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cdef enum:
    SLAB_CHUNK_ITEMS = 256              # 48 KiB of connections at a time
    SLAB_MAX_CHUNKS = 8192              # 2 million items: above any RLIMIT_NOFILE seen
    SLAB_NONE = 0xFFFFFFFF


cdef struct SlabItem:                   # the first member of every item
    uint32_t index
    uint32_t generation
    uint32_t next_free


cdef struct Slab:
    char** chunks
    uint32_t item_bytes
    uint32_t n_chunks
    uint32_t free_head
    uint32_t in_use
    uint32_t max_items


cdef inline int slab_init(Slab* slab, uint32_t item_bytes, uint32_t max_items) noexcept nogil:
    """Prepare an empty slab. Returns 1, or 0 when memory ran out."""
    slab.chunks = <char**>calloc(SLAB_MAX_CHUNKS, sizeof(char*))
    slab.item_bytes = item_bytes
    slab.n_chunks = 0
    slab.free_head = SLAB_NONE
    slab.in_use = 0
    slab.max_items = max_items
    return slab.chunks != NULL


cdef inline void slab_free(Slab* slab) noexcept nogil:
    cdef uint32_t i
    for i in range(slab.n_chunks):
        free(slab.chunks[i])
    free(slab.chunks)
    slab.chunks = NULL
    slab.n_chunks = 0


cdef inline SlabItem* slab_at(Slab* slab, uint32_t index) noexcept nogil:
    return <SlabItem*>(slab.chunks[index // SLAB_CHUNK_ITEMS]
                       + <size_t>(index % SLAB_CHUNK_ITEMS) * slab.item_bytes)


cdef inline SlabItem* slab_find(Slab* slab, uint64_t token) noexcept nogil:
    """The item of a token, or NULL when it was freed since."""
    cdef SlabItem* item = slab_at(slab, <uint32_t>token)
    return item if item.generation == <uint32_t>(token >> 32) else NULL


cdef inline SlabItem* slab_take(Slab* slab) noexcept nogil:
    """An item, its bytes as its last user left them beyond SlabItem (zero at first). NULL at the limit."""
    cdef SlabItem* item
    if slab.free_head == SLAB_NONE and not slab_grow(slab):
        return NULL
    item = slab_at(slab, slab.free_head)
    slab.free_head = item.next_free
    slab.in_use += 1
    return item


cdef inline void slab_return(Slab* slab, SlabItem* item) noexcept nogil:
    item.generation += 1
    item.next_free = slab.free_head
    slab.free_head = item.index
    slab.in_use -= 1


cdef inline int slab_grow(Slab* slab) noexcept nogil:
    cdef uint32_t held = slab.n_chunks * SLAB_CHUNK_ITEMS
    cdef uint32_t fresh = SLAB_CHUNK_ITEMS      # fewer in the last chunk: the limit is meant to the item
    cdef uint32_t i
    cdef uint32_t index
    cdef SlabItem* item
    cdef char* chunk
    if slab.n_chunks >= SLAB_MAX_CHUNKS or held >= slab.max_items:
        return 0
    if slab.max_items - held < fresh:
        fresh = slab.max_items - held
    chunk = <char*>calloc(SLAB_CHUNK_ITEMS, slab.item_bytes)
    if chunk == NULL:
        return 0
    slab.chunks[slab.n_chunks] = chunk
    slab.n_chunks += 1
    for i in range(fresh):
        index = held + fresh - 1 - i            # lowest number on top of the free list
        item = slab_at(slab, index)
        item.index = index
        item.generation = 1
        item.next_free = slab.free_head
        slab.free_head = index
    return 1
