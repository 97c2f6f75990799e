# Reading a header block of HPACK (RFC 7541): octets in, fields out, one at a time. Judges no field.
#
# A block may come in pieces; a field that is not whole yet is asked for again with more. Whatever a block is refused for
# elsewhere, it has to be read to its end, or the tables of both sides part.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from meshcore.engine.hpack_table cimport (
    HPACK_STATIC_ENTRIES, HPACK_TABLE_BYTES, HpackEntry, HpackTable, hpack_static, hpack_table_entry, hpack_table_fits,
    hpack_table_insert, hpack_table_resize,
)
from meshcore.engine.huffman cimport HUFFMAN_NO_ROOM, huffman_decode

cdef enum HpackCode:
    HPACK_DONE = 0                      # the octets are at their end, and no field with them
    HPACK_FIELD = 1
    HPACK_MORE = 2                      # they end within a field
    HPACK_BROKEN = 3                    # COMPRESSION_ERROR
    HPACK_TOO_LARGE = 4                 # a name or a value longer than is ever read: no more of this connection can be

cdef enum:
    HPACK_SCRATCH_BYTES = 131072        # what hpack_read needs to write names and values in
    HPACK_STRING_BYTES = 65536          # a name or a value, decoded; half of that
    HPACK_MAX_INTEGER = 0x7FFFFFF


cdef struct HpackReader:
    HpackTable table
    uint8_t has_begun                   # fields of this block came: no size may follow (RFC 7541 4.2)


cdef struct HpackField:
    const char* name                    # good until the next read
    const char* value
    uint32_t name_len
    uint32_t value_len
    HpackEntry* entry                   # of the table, that is all of it; or NULL


cdef inline int hpack_read(HpackReader* reader, const uint8_t** at, const uint8_t* end, char* scratch,
                           HpackField* field) noexcept nogil:
    """The next field, as a HpackCode. `at` moves behind it, and not at all for HPACK_MORE."""
    cdef const uint8_t* from_here = at[0]
    cdef uint32_t index
    cdef int code
    while from_here < end and from_here[0] & 0xE0 == 0x20:
        if reader.has_begun:
            return HPACK_BROKEN
        code = hpack_integer(&from_here, end, 31, &index)
        if code != HPACK_DONE:
            return code
        if index > HPACK_TABLE_BYTES:
            return HPACK_BROKEN
        hpack_table_resize(&reader.table, index)
        at[0] = from_here
    if from_here == end:
        return HPACK_DONE
    reader.has_begun = 1
    if from_here[0] & 0x80:
        code = hpack_integer(&from_here, end, 127, &index)
        if code != HPACK_DONE:
            return code
        if not hpack_look_up(reader, index, field):
            return HPACK_BROKEN
        at[0] = from_here
        return HPACK_FIELD
    return hpack_literal(reader, at, end, scratch, field)


cdef inline int hpack_literal(HpackReader* reader, const uint8_t** at, const uint8_t* end, char* scratch,
                              HpackField* field) noexcept nogil:
    cdef const uint8_t* from_here = at[0]
    cdef int is_kept = from_here[0] & 0x40
    cdef uint32_t index
    cdef int code = hpack_integer(&from_here, end, 63 if is_kept else 15, &index)
    if code != HPACK_DONE:
        return code
    if index:
        if not hpack_look_up(reader, index, field):
            return HPACK_BROKEN
        if is_kept and index > HPACK_STATIC_ENTRIES:
            # Safety: the entry it is borrowed from may be what makes room for the new one.
            memcpy(scratch, field.name, field.name_len)
            field.name = scratch
    else:
        code = hpack_string(&from_here, end, scratch, &field.name, &field.name_len)
        if code != HPACK_DONE:
            return code
    field.entry = NULL
    code = hpack_string(&from_here, end, scratch + HPACK_STRING_BYTES, &field.value, &field.value_len)
    if code != HPACK_DONE:
        return code
    if is_kept and hpack_table_insert(&reader.table, field.name, field.name_len, field.value, field.value_len) == NULL \
            and hpack_table_fits(&reader.table, field.name_len, field.value_len):
        return HPACK_BROKEN             # no memory: what follows could not be read
    at[0] = from_here
    return HPACK_FIELD


cdef inline int hpack_look_up(const HpackReader* reader, uint32_t index, HpackField* field) noexcept nogil:
    """Borrow the field of an index. 1, or 0: there is none."""
    cdef HpackEntry* entry
    field.entry = NULL
    if index - 1 < <uint32_t>HPACK_STATIC_ENTRIES:
        field.name = hpack_static[index].name
        field.name_len = hpack_static[index].name_len
        field.value = hpack_static[index].value
        field.value_len = hpack_static[index].value_len
        return 1
    index -= HPACK_STATIC_ENTRIES + 1
    if index >= reader.table.n:
        return 0
    entry = hpack_table_entry(&reader.table, index)
    field.entry = entry
    field.name = reader.table.octets + entry.at
    field.name_len = entry.name_len
    field.value = field.name + entry.name_len
    field.value_len = entry.value_len
    return 1


cdef inline int hpack_integer(const uint8_t** at, const uint8_t* end, uint32_t mask, uint32_t* value) noexcept nogil:
    """RFC 7541 5.1, as HPACK_DONE, HPACK_MORE or HPACK_BROKEN. `mask`: of its first octet."""
    cdef uint32_t shift = 0
    cdef uint32_t octet
    value[0] = at[0][0] & mask
    at[0] += 1
    if value[0] < mask:
        return HPACK_DONE
    while at[0] < end:
        octet = at[0][0]
        at[0] += 1
        # Four octets say more than any index or length here can be; further ones only hide what they say.
        if shift > 21:
            return HPACK_BROKEN
        value[0] += (octet & 127) << shift
        shift += 7
        if octet < 128:
            return HPACK_DONE if value[0] <= HPACK_MAX_INTEGER else HPACK_BROKEN
    return HPACK_MORE


cdef inline int hpack_string(const uint8_t** at, const uint8_t* end, char* scratch, const char** text,
                             uint32_t* text_len) noexcept nogil:
    """RFC 7541 5.2: where it lies, or written to `scratch`. A HpackCode."""
    cdef uint32_t n
    cdef int32_t written
    cdef int is_huffman
    cdef int code
    if at[0] == end:
        return HPACK_MORE
    is_huffman = at[0][0] & 0x80
    code = hpack_integer(at, end, 127, &n)
    if code != HPACK_DONE:
        return code
    if n > HPACK_STRING_BYTES:
        return HPACK_TOO_LARGE
    if n > <uint32_t>(end - at[0]):
        return HPACK_MORE
    if is_huffman:
        written = huffman_decode(scratch, HPACK_STRING_BYTES, at[0], n)
        if written < 0:
            return HPACK_TOO_LARGE if written == HUFFMAN_NO_ROOM else HPACK_BROKEN
        text[0] = scratch
        text_len[0] = <uint32_t>written
    else:
        text[0] = <const char*>at[0]
        text_len[0] = n
    at[0] += n
    return HPACK_DONE
