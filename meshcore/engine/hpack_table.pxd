# The tables of HPACK (RFC 7541 2.3, appendix A): fields by their index, those that both sides remember with their eviction.
# Reads and writes no octets of a connection.
#
# Entries stand in a ring, the newest is number `inserted`; their octets follow one another in one block that moves up when it
# is full, so that what is borrowed from a table is good until something is inserted. A table holds 4096 octets at most,
# which both sides may assume unasked (RFC 7541 4.2 counts 32 for each entry: 128 of them), and no memory before its first.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cdef extern from * nogil:
    """
    #define MC_HPACK_STATIC(X) \\
      X(":authority", "") X(":method", "GET") X(":method", "POST") X(":path", "/") X(":path", "/index.html") \\
      X(":scheme", "http") X(":scheme", "https") X(":status", "200") X(":status", "204") X(":status", "206") \\
      X(":status", "304") X(":status", "400") X(":status", "404") X(":status", "500") X("accept-charset", "") \\
      X("accept-encoding", "gzip, deflate") X("accept-language", "") X("accept-ranges", "") X("accept", "") \\
      X("access-control-allow-origin", "") X("age", "") X("allow", "") X("authorization", "") \\
      X("cache-control", "") X("content-disposition", "") X("content-encoding", "") X("content-language", "") \\
      X("content-length", "") X("content-location", "") X("content-range", "") X("content-type", "") \\
      X("cookie", "") X("date", "") X("etag", "") X("expect", "") X("expires", "") X("from", "") X("host", "") \\
      X("if-match", "") X("if-modified-since", "") X("if-none-match", "") X("if-range", "") \\
      X("if-unmodified-since", "") X("last-modified", "") X("link", "") X("location", "") X("max-forwards", "") \\
      X("proxy-authenticate", "") X("proxy-authorization", "") X("range", "") X("referer", "") X("refresh", "") \\
      X("retry-after", "") X("server", "") X("set-cookie", "") X("strict-transport-security", "") \\
      X("transfer-encoding", "") X("user-agent", "") X("vary", "") X("via", "") X("www-authenticate", "")
    struct mc_hpack_static { const char* name; const char* value; uint8_t name_len; uint8_t value_len; };
    static const struct mc_hpack_static mc_hpack_static[62] = {
      { "", "", 0, 0 },
    #define X(name, value) { name, value, sizeof(name) - 1, sizeof(value) - 1 },
      MC_HPACK_STATIC(X)
    #undef X
    };
    """
    ctypedef struct HpackStatic "struct mc_hpack_static":
        const char* name
        const char* value
        uint8_t name_len
        uint8_t value_len
    const HpackStatic* hpack_static "mc_hpack_static"

cdef enum:
    HPACK_STATIC_ENTRIES = 61
    HPACK_TABLE_BYTES = 4096            # of the protocol when nobody says otherwise
    HPACK_RING_ENTRIES = 128            # a power of two; so many of 32 octets each fill the table
    HPACK_ENTRY_OVERHEAD_BYTES = 32     # RFC 7541 4.1
    HPACK_FIRST_OCTETS = 512            # of the block; doubles up to twice the table


cdef struct HpackEntry:
    uint32_t number                     # how many had been inserted with it
    uint32_t hash                       # the writer's; see hpack_write. The reader's: 1 once its octets were found valid
    uint16_t at                         # its name, then its value, in the block
    uint16_t name_len
    uint16_t value_len
    uint8_t id                          # the writer's: of `fields`


cdef struct HpackTable:
    HpackEntry* ring
    char* octets
    uint32_t octets_size
    uint32_t octets_end
    uint32_t inserted
    uint32_t n
    uint32_t used_bytes                 # as RFC 7541 4.1 counts
    uint32_t limit_bytes


cdef inline void hpack_table_init(HpackTable* table) noexcept nogil:
    table.ring = NULL
    table.octets = NULL
    table.octets_size = table.octets_end = 0
    table.inserted = table.n = 0
    table.used_bytes = 0
    table.limit_bytes = HPACK_TABLE_BYTES


cdef inline void hpack_table_free(HpackTable* table) noexcept nogil:
    free(table.ring)
    free(table.octets)
    hpack_table_init(table)


cdef inline HpackEntry* hpack_table_entry(const HpackTable* table, uint32_t age) noexcept nogil:
    """The entry that `age` others came after; age < n."""
    return &table.ring[(table.inserted - age) & (HPACK_RING_ENTRIES - 1)]


cdef inline void hpack_table_resize(HpackTable* table, uint32_t limit_bytes) noexcept nogil:
    table.limit_bytes = limit_bytes
    hpack_table_evict(table, 0)


cdef inline void hpack_table_evict(HpackTable* table, uint32_t wanted_bytes) noexcept nogil:
    """Make room as RFC 7541 4.4 has it: the oldest go first, all of them for what is larger than the table."""
    cdef HpackEntry* oldest
    while table.n and table.used_bytes + wanted_bytes > table.limit_bytes:
        oldest = hpack_table_entry(table, table.n - 1)
        table.used_bytes -= oldest.name_len + oldest.value_len + HPACK_ENTRY_OVERHEAD_BYTES
        table.n -= 1
    if table.n == 0:
        table.octets_end = 0


cdef inline HpackEntry* hpack_table_insert(HpackTable* table, const char* name, uint32_t name_len, const char* value,
                                           uint32_t value_len) noexcept nogil:
    """The new entry; NULL when it is larger than the table, which is empty then (hpack_table_fits), or without memory.

    `name` and `value` lie outside the table.
    """
    cdef uint32_t wanted_bytes = name_len + value_len + HPACK_ENTRY_OVERHEAD_BYTES
    cdef HpackEntry* entry
    hpack_table_evict(table, wanted_bytes)
    if wanted_bytes > table.limit_bytes or not hpack_table_make_room(table, name_len + value_len):
        return NULL
    table.inserted += 1
    entry = hpack_table_entry(table, 0)
    entry.number = table.inserted
    entry.hash = 0
    entry.id = 0
    entry.at = <uint16_t>table.octets_end
    entry.name_len = <uint16_t>name_len
    entry.value_len = <uint16_t>value_len
    memcpy(table.octets + table.octets_end, name, name_len)
    memcpy(table.octets + table.octets_end + name_len, value, value_len)
    table.octets_end += name_len + value_len
    table.used_bytes += wanted_bytes
    table.n += 1
    return entry


cdef inline int hpack_table_fits(const HpackTable* table, uint32_t name_len, uint32_t value_len) noexcept nogil:
    return name_len + value_len + HPACK_ENTRY_OVERHEAD_BYTES <= table.limit_bytes


cdef inline int hpack_table_make_room(HpackTable* table, uint32_t n) noexcept nogil:
    """Have `n` octets free behind the last. 1, or 0 without memory."""
    cdef uint32_t size = table.octets_size if table.octets_size else HPACK_FIRST_OCTETS
    cdef uint32_t first
    cdef uint32_t i
    cdef char* grown
    if table.ring == NULL:
        table.ring = <HpackEntry*>malloc(HPACK_RING_ENTRIES * sizeof(HpackEntry))
        if table.ring == NULL:
            return 0
    if table.octets != NULL and table.octets_end + n <= table.octets_size:
        return 1
    if table.n:
        first = hpack_table_entry(table, table.n - 1).at
        memmove(table.octets, table.octets + first, table.octets_end - first)
        table.octets_end -= first
        for i in range(table.n):
            hpack_table_entry(table, i).at -= <uint16_t>first
    # Half of it free at least, so that octets move seldom.
    while size < 2 * HPACK_TABLE_BYTES and (table.octets_end + n) * 2 > size:
        size *= 2
    if size > table.octets_size:
        grown = <char*>realloc(table.octets, size)
        if grown == NULL:
            return 0
        table.octets = grown
        table.octets_size = size
    return 1
