# Small blocks of memory, recycled per worker, for a library that allocates as it goes. Knows nothing of what is in them.
#
# A session allocates for every frame and stream. The system's allocator would lock nothing either, but gives the top of a
# thread's heap back to the kernel and takes it again, some hundred times a second under load; here a block goes to its size's
# list and comes back from it. Sizes above the largest class are the system's. What is kept is bounded per class.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    CELL_CLASSES = 9                    # 32 bytes to 8 KiB, doubling
    CELL_KEPT_BYTES = 1048576           # per class
    CELL_HEADER_BYTES = 16              # before each block: its class; as malloc aligns


cdef struct Cell:                       # a free block, or the header of one in use
    Cell* next
    uint64_t size_class


cdef struct Cells:
    Cell* free_lists[9]
    uint32_t n_free[9]


cdef inline void* cells_take(Cells* cells, size_t wanted_bytes) noexcept nogil:
    """At least so many bytes, aligned to 16. NULL without memory, or for none."""
    cdef uint32_t i = 0
    cdef size_t size_bytes = 32
    cdef Cell* cell
    if wanted_bytes == 0:
        return NULL
    while i < CELL_CLASSES and size_bytes < wanted_bytes:
        size_bytes <<= 1
        i += 1
    if i == CELL_CLASSES:
        cell = <Cell*>malloc(wanted_bytes + CELL_HEADER_BYTES)
    elif cells.free_lists[i] != NULL:
        cell = cells.free_lists[i]
        cells.free_lists[i] = cell.next
        cells.n_free[i] -= 1
    else:
        cell = <Cell*>malloc(size_bytes + CELL_HEADER_BYTES)
    if cell == NULL:
        return NULL
    cell.size_class = i if i < CELL_CLASSES else CELL_CLASSES + wanted_bytes
    return <char*>cell + CELL_HEADER_BYTES


cdef inline void cells_return(Cells* cells, void* block) noexcept nogil:
    """Give a block back. NULL is none."""
    cdef Cell* cell
    cdef uint64_t i
    if block == NULL:
        return
    # Safety: every block came from cells_take, with its header before it.
    cell = <Cell*>(<char*>block - CELL_HEADER_BYTES)
    i = cell.size_class
    if i < CELL_CLASSES and (<uint64_t>cells.n_free[i] << (5 + i)) < CELL_KEPT_BYTES:
        cell.next = cells.free_lists[i]
        cells.free_lists[i] = cell
        cells.n_free[i] += 1
    else:
        free(cell)


cdef inline void* cells_resize(Cells* cells, void* block, size_t wanted_bytes) noexcept nogil:
    """As realloc."""
    cdef Cell* cell
    cdef void* grown
    cdef size_t had_bytes
    if block == NULL:
        return cells_take(cells, wanted_bytes)
    if wanted_bytes == 0:
        cells_return(cells, block)
        return NULL
    cell = <Cell*>(<char*>block - CELL_HEADER_BYTES)
    had_bytes = <size_t>32 << cell.size_class if cell.size_class < CELL_CLASSES \
        else <size_t>(cell.size_class - CELL_CLASSES)
    if wanted_bytes <= had_bytes:
        return block
    grown = cells_take(cells, wanted_bytes)
    if grown != NULL:
        memcpy(grown, block, had_bytes)
        cells_return(cells, block)
    return grown


cdef inline void cells_free(Cells* cells) noexcept nogil:
    """Free what is kept. Blocks in use stay their users'."""
    cdef uint32_t i
    cdef Cell* cell
    for i in range(<uint32_t>CELL_CLASSES):
        while cells.free_lists[i] != NULL:
            cell = cells.free_lists[i]
            cells.free_lists[i] = cell.next
            free(cell)


# --- as nghttp2 calls for memory --------------------------------------------------------------------------------------

cdef inline void* cells_malloc(size_t n, void* cells) noexcept nogil:
    return cells_take(<Cells*>cells, n)


cdef inline void cells_release(void* block, void* cells) noexcept nogil:
    cells_return(<Cells*>cells, block)


cdef inline void* cells_calloc(size_t n, size_t size_bytes, void* cells) noexcept nogil:
    cdef void* block
    if size_bytes and n > <size_t>0x7FFFFFFF // size_bytes:
        return NULL
    block = cells_take(<Cells*>cells, n * size_bytes)
    if block != NULL:
        memset(block, 0, n * size_bytes)
    return block


cdef inline void* cells_realloc(void* block, size_t n, void* cells) noexcept nogil:
    return cells_resize(<Cells*>cells, block, n)
