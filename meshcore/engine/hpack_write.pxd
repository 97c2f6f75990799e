# Writing a header block of HPACK (RFC 7541): fields in, octets out. Knows no frames, and what a field means only as far as it
# may be remembered.
#
# A field gets a place in the table the second time it is seen, so that what is different each time (ids, lengths, times)
# pushes nothing out. Octets are written as they are: the Huffman code would save a third of what is new on a connection,
# and cost more than all the rest here.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from meshcore.engine.fields cimport (
    FIELD_AUTHORIZATION, FIELD_CONTENT_ENCODING, FIELD_CONTENT_LENGTH, FIELD_CONTENT_RANGE, FIELD_CONTENT_TYPE,
    FIELD_COOKIE, FIELD_DATE, FIELD_MAX_FORWARDS, FIELD_MESH, FIELD_OTHER, FIELD_SET_COOKIE, FIELD_VIA,
)
from meshcore.engine.hpack_table cimport (
    HPACK_RING_ENTRIES, HPACK_STATIC_ENTRIES, HPACK_TABLE_BYTES, HpackEntry, HpackStatic, HpackTable, hpack_static,
    hpack_table_entry, hpack_table_insert, hpack_table_resize,
)

cdef enum:                              # first entries of the static table with a name
    HPACK_AUTHORITY = 1
    HPACK_METHOD = 2
    HPACK_PATH = 4
    HPACK_SCHEME = 6
    HPACK_STATUS = 8

cdef enum:
    HPACK_FIELD_OVERHEAD_BYTES = 16     # most that a field takes beyond its octets
    HPACK_SIZES_BYTES = 16              # most that changes of the table take at the head of a block
    HPACK_SHORT_COOKIE_BYTES = 20       # that could be guessed by how blocks shrink (RFC 7541 7.1.3)


cdef struct HpackWriter:
    HpackTable table
    uint32_t smallest_bytes             # that the peer allowed since the last block
    uint8_t is_resized
    uint8_t slots[128]                  # by hash: 1 + the entry's place in the ring
    uint16_t seen[128]                  # by hash: the rest of the hash of what was seen last


cdef struct Http2Field:
    const char* name
    const char* value
    uint32_t name_len
    uint32_t value_len
    uint8_t id                          # of `fields`
    uint8_t static_at                   # a pseudo-header field: its first entry of the static table


cdef inline void hpack_writer_init(HpackWriter* writer) noexcept nogil:
    memset(writer, 0, sizeof(HpackWriter))
    writer.table.limit_bytes = writer.smallest_bytes = HPACK_TABLE_BYTES


cdef inline void hpack_limit(HpackWriter* writer, uint32_t limit_bytes) noexcept nogil:
    """The peer told how large a table it keeps. We use what it must have unasked at most."""
    if limit_bytes > HPACK_TABLE_BYTES:
        limit_bytes = HPACK_TABLE_BYTES
    if limit_bytes == writer.table.limit_bytes and not writer.is_resized:
        return
    if not writer.is_resized or limit_bytes < writer.smallest_bytes:
        writer.smallest_bytes = limit_bytes
    writer.is_resized = 1
    hpack_table_resize(&writer.table, limit_bytes)


cdef inline char* hpack_begin(HpackWriter* writer, char* out) noexcept nogil:
    """What has to stand at the head of a block: RFC 7541 4.2, the smallest size there was and the one there is."""
    if not writer.is_resized:
        return out
    writer.is_resized = 0
    if writer.smallest_bytes < writer.table.limit_bytes:
        out = hpack_put_integer(out, 0x20, 31, writer.smallest_bytes)
    return hpack_put_integer(out, 0x20, 31, writer.table.limit_bytes)


cdef inline char* hpack_write(HpackWriter* writer, char* out, const Http2Field* field) noexcept nogil:
    """Write one field; the end of what was written. It takes HPACK_FIELD_OVERHEAD_BYTES and its octets at most."""
    cdef uint32_t hash
    cdef uint32_t place
    cdef HpackEntry* entry
    if field.static_at:
        place = hpack_find_static(field)
        if place:
            return hpack_put_integer(out, 0x80, 127, place)
    if field.id == FIELD_AUTHORIZATION or (field.id == FIELD_COOKIE and field.value_len < HPACK_SHORT_COOKIE_BYTES):
        return hpack_put_literal(out, 0x10, 15, field)                # RFC 7541 7.1.3: never in a shared table
    hash = hpack_hash(field)
    entry = hpack_find(writer, field, hash)
    if entry != NULL:
        return hpack_put_integer(out, 0x80, 127, HPACK_STATIC_ENTRIES + 1 + writer.table.inserted - entry.number)
    if writer.seen[hash & 127] != <uint16_t>(hash >> 16) or field.id == FIELD_SET_COOKIE \
            or field.name_len + field.value_len > writer.table.limit_bytes // 2:
        writer.seen[hash & 127] = <uint16_t>(hash >> 16)
        return hpack_put_literal(out, 0, 15, field)
    entry = hpack_table_insert(&writer.table, field.name, field.name_len, field.value, field.value_len)
    if entry == NULL:
        return hpack_put_literal(out, 0, 15, field)
    entry.hash = hash
    entry.id = field.id
    writer.slots[hash & 127] = <uint8_t>(1 + (entry.number & (HPACK_RING_ENTRIES - 1)))
    return hpack_put_literal(out, 0x40, 63, field)


cdef inline uint32_t hpack_find_static(const Http2Field* field) noexcept nogil:
    """The entry with this value too, or 0. Entries of a name follow one another."""
    cdef uint32_t i = field.static_at
    cdef const HpackStatic* first = &hpack_static[i]
    while i <= HPACK_STATIC_ENTRIES and hpack_static[i].name_len == first.name_len \
            and hpack_static[i].name[1] == first.name[1]:
        if hpack_static[i].value_len == field.value_len \
                and memcmp(hpack_static[i].value, field.value, field.value_len) == 0:
            return i if field.value_len else 0
        i += 1
    return 0


cdef inline HpackEntry* hpack_find(const HpackWriter* writer, const Http2Field* field, uint32_t hash) noexcept nogil:
    """The live entry that says the same, or NULL."""
    cdef const HpackTable* table = &writer.table
    cdef uint32_t slot = writer.slots[hash & 127]
    cdef HpackEntry* entry
    if slot == 0:
        return NULL
    entry = &table.ring[slot - 1]
    if entry.hash != hash or table.inserted - entry.number >= table.n or entry.name_len != field.name_len \
            or entry.value_len != field.value_len or entry.id != field.id \
            or not (hpack_has_own_id(field) or hpack_is_equal(table.octets + entry.at, field.name, field.name_len)) \
            or not hpack_is_equal(table.octets + entry.at + field.name_len, field.value, field.value_len):
        return NULL
    return entry


cdef inline int hpack_has_own_id(const Http2Field* field) noexcept nogil:
    """Is its name told by its id and length alone?"""
    return field.id != FIELD_OTHER and field.id != FIELD_MESH


cdef inline uint64_t hpack_tail(const char* at, uint32_t n) noexcept nogil:
    """Fewer than eight octets as a word that tells them apart from all others of their number."""
    cdef uint32_t low
    cdef uint32_t high
    if n >= 4:
        memcpy(&low, at, 4)
        memcpy(&high, at + n - 4, 4)
        return <uint64_t>high << 32 | low
    if n == 0:
        return 0
    return <uint64_t>(<uint8_t>at[0]) | <uint64_t>(<uint8_t>at[n >> 1]) << 8 | <uint64_t>(<uint8_t>at[n - 1]) << 16


cdef inline int hpack_is_equal(const char* a, const char* b, uint32_t n) noexcept nogil:
    """As memcmp says, without the call: most are short."""
    cdef uint64_t x
    cdef uint64_t y
    if n > 64:
        return memcmp(a, b, n) == 0
    while n >= 8:
        memcpy(&x, a, 8)
        memcpy(&y, b, 8)
        if x != y:
            return 0
        a += 8
        b += 8
        n -= 8
    return hpack_tail(a, n) == hpack_tail(b, n)


cdef inline uint32_t hpack_hash(const Http2Field* field) noexcept nogil:
    cdef uint64_t mixed = (<uint64_t>field.value_len << 32 | field.name_len) * <uint64_t>0x9E3779B97F4A7C15
    mixed = mixed ^ field.id if hpack_has_own_id(field) else hpack_mix(mixed, field.name, field.name_len)
    mixed = hpack_mix(mixed, field.value, field.value_len)
    return <uint32_t>(mixed >> 32)


cdef inline uint64_t hpack_mix(uint64_t mixed, const char* at, uint32_t n) noexcept nogil:
    cdef uint64_t word
    while n >= 8:
        memcpy(&word, at, 8)
        mixed = (mixed ^ word) * <uint64_t>0x9E3779B97F4A7C15
        mixed ^= mixed >> 29
        at += 8
        n -= 8
    word = hpack_tail(at, n)
    mixed = (mixed ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return mixed ^ mixed >> 29


cdef inline uint32_t hpack_static_name(const Http2Field* field) noexcept nogil:
    """An entry of the static table with its name, or 0: of names that come often without being the same twice."""
    if field.static_at:
        return field.static_at
    if field.id == FIELD_CONTENT_LENGTH:
        return 28
    if field.id == FIELD_DATE:
        return 33
    if field.id == FIELD_CONTENT_TYPE:
        return 31
    if field.id == FIELD_COOKIE:
        return 32
    if field.id == FIELD_SET_COOKIE:
        return 55
    if field.id == FIELD_AUTHORIZATION:
        return 23
    if field.id == FIELD_VIA:
        return 60
    if field.id == FIELD_CONTENT_RANGE:
        return 30
    if field.id == FIELD_CONTENT_ENCODING:
        return 26
    return 47 if field.id == FIELD_MAX_FORWARDS else 0


cdef inline char* hpack_put_literal(char* out, uint32_t first, uint32_t mask, const Http2Field* field) noexcept nogil:
    cdef uint32_t name = hpack_static_name(field)
    out = hpack_put_integer(out, first, mask, name)
    if name == 0:
        out = hpack_put_integer(out, 0, 127, field.name_len)
        memcpy(out, field.name, field.name_len)
        out += field.name_len
    out = hpack_put_integer(out, 0, 127, field.value_len)
    memcpy(out, field.value, field.value_len)
    return out + field.value_len


cdef inline char* hpack_put_integer(char* out, uint32_t first, uint32_t mask, uint32_t value) noexcept nogil:
    """RFC 7541 5.1: `first` are the bits before it, `mask` those it has in the first octet."""
    if value < mask:
        out[0] = <char>(first | value)
        return out + 1
    out[0] = <char>(first | mask)
    out += 1
    value -= mask
    while value >= 128:
        out[0] = <char>(value & 127 | 128)
        value >>= 7
        out += 1
    out[0] = <char>value
    return out + 1
