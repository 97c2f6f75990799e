# What a name is bound to, and one worker's table of such names. Owns both shapes and the finding; asks nobody, sends nothing.
#
# A Binding is a small snapshot: routes and clusters of one name, immutable, in an arena of its own, built by the door with
# the same code, freed when no worker and no exchange holds it. A change of one name so costs what that name costs. The
# table is a fixed array of buckets: its cost does not change with the number of names up to its size, and there is no
# moment at which it is rebuilt. An entry without a Binding is a name that was asked for: its exchanges wait in it.
#
# Of ten thousand names hardly one is in a cache when its request comes, and its binding is a dozen lines of memory that lead to
# each other. So they lie together, each worker's hold among them, and are fetched at once, when the entry is found.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from meshcore.engine.routes cimport routes_hash
from meshcore.engine.snapshot cimport Arena, ClusterConf, RouteConf

cdef extern from *:
    void binding_touch "__builtin_prefetch"(const void* at) noexcept nogil

cdef enum:
    BINDING_BUCKETS = 65536             # 512 KiB of address space, touched as names come
    BINDING_LINE_BYTES = 64
    BINDING_TOUCHED_LINES = 24          # a binding to one cluster of one endpoint, whole


cdef struct Binding:
    Arena arena
    void* routes                        # routes.RouteTable*; NULL: `only` takes everything
    RouteConf* only
    RouteConf* confs
    uint32_t n_confs
    ClusterConf* clusters
    uint32_t n_clusters
    uint8_t falls_back                  # negative: to the lookup route's own targets, if it has any


cdef struct BindingRef:                 # one worker's hold on one binding
    Binding* binding
    uint32_t* workers_left              # shared: the last worker to drop it lets Python free it
    uint32_t exchanges
    uint8_t is_current
    uint64_t last_used_ns               # read by Python, racily
    uint64_t expires_ns                 # 0: never
    uint8_t unused[24]                  # up to a whole line: each is written by another worker


cdef struct BoundName:                  # an entry of the table; its key follows it in memory
    BoundName* bucket_next
    uint64_t hash
    BindingRef* ref                     # NULL: asked for, not answered
    const Binding* binding              # of it
    uint32_t route_slot
    uint32_t key_len
    uint32_t name_len                   # of the key's name: see name
    uint32_t n_waiting
    void* waiting                       # Exchange*, oldest first
    void* waiting_last


cdef struct BindingTable:
    BoundName** buckets
    uint64_t seed                       # clients choose the keys
    uint32_t n_names


cdef inline int binding_table_init(BindingTable* table, uint64_t seed) noexcept nogil:
    """1, or 0 without memory."""
    table.buckets = <BoundName**>calloc(BINDING_BUCKETS, sizeof(void*))
    table.seed = seed
    table.n_names = 0
    return table.buckets != NULL


cdef inline void binding_table_free(BindingTable* table) noexcept nogil:
    cdef BoundName* name
    cdef BoundName* following
    cdef uint32_t i
    if table.buckets == NULL or table.n_names == 0:
        free(table.buckets)
        table.buckets = NULL
        return
    for i in range(<uint32_t>BINDING_BUCKETS):
        name = table.buckets[i]
        while name != NULL:
            following = name.bucket_next
            free(name)
            name = following
    free(table.buckets)
    table.buckets = NULL


cdef inline char* binding_key(BoundName* name) noexcept nogil:
    return <char*>name + sizeof(BoundName)


cdef inline uint64_t binding_hash(const BindingTable* table, uint32_t route_slot, const char* key, uint32_t len) noexcept nogil:
    return routes_hash(table.seed, route_slot, key, len)


cdef inline BoundName* binding_find(const BindingTable* table, uint64_t hash, uint32_t route_slot, const char* key,
                                    uint32_t len) noexcept nogil:
    """The entry of a name of one lookup route, or NULL."""
    cdef BoundName* name = table.buckets[hash >> 48]
    while name != NULL:
        if name.hash == hash and name.key_len == len and name.route_slot == route_slot \
                and memcmp(binding_key(name), key, len) == 0:
            return name
        name = name.bucket_next
    return NULL


cdef inline void binding_hold(BoundName* name, BindingRef* ref) noexcept nogil:
    """What the name is bound to from now on; NULL: to nothing."""
    name.ref = ref
    name.binding = ref.binding if ref != NULL else NULL


cdef inline void binding_fetch(const Binding* binding) noexcept nogil:
    """Have its memory on its way: it will be needed in a moment, all of it."""
    cdef const char* at = <const char*>binding
    cdef uint32_t i
    for i in range(<uint32_t>BINDING_TOUCHED_LINES):
        binding_touch(at + i * BINDING_LINE_BYTES)


cdef inline BoundName* binding_add(BindingTable* table, uint64_t hash, uint32_t route_slot, const char* key,
                                   uint32_t len, uint32_t name_len) noexcept nogil:
    """A new entry, bound to nothing. NULL without memory. The name must not be there yet."""
    cdef BoundName* name = <BoundName*>malloc(sizeof(BoundName) + len)
    if name == NULL:
        return NULL
    name.hash = hash
    name.ref = NULL
    name.binding = NULL
    name.route_slot = route_slot
    name.key_len = len
    name.name_len = name_len
    name.n_waiting = 0
    name.waiting = name.waiting_last = NULL
    memcpy(binding_key(name), key, len)
    name.bucket_next = table.buckets[hash >> 48]
    table.buckets[hash >> 48] = name
    table.n_names += 1
    return name


cdef inline void binding_remove(BindingTable* table, BoundName* name) noexcept nogil:
    """Take an entry out and free it. Nobody waits in it, and it holds no binding."""
    cdef BoundName** at = &table.buckets[name.hash >> 48]
    while at[0] != name:
        at = &at[0].bucket_next
    at[0] = name.bucket_next
    table.n_names -= 1
    free(name)
