# What the fields of a head say about this hop: which are forwarded, how long the body is, does the connection stay.
# Shared by requests and responses; judges nothing that only one of them knows.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from meshcore.engine.fields cimport (
    FIELD_CONNECTION,
    FIELD_DROP,
    FIELD_OTHER,
    FIELD_TRANSFER_ENCODING,
    RULE_HOP,
    field_alias,
    field_id,
    field_may_be_named,
    field_rule,
)
from meshcore.engine.head cimport Field, Head, head_field, head_has
from meshcore.engine.octets cimport octets_equal_lower, octets_equal_nocase, octets_next_member


cdef enum ConnectionOption:
    CONNECTION_CLOSE = 1
    CONNECTION_KEEP_ALIVE = 2
    CONNECTION_UPGRADE = 4
    CONNECTION_TE = 8
    CONNECTION_OVERLONG = 16            # more options than any sane sender names

cdef enum:
    # Each option is looked up among all fields: 64 x 128 comparisons of lengths bound the work at some microseconds.
    CONNECTION_OPTIONS_MAX = 64


cdef inline void hop_classify(Head* head) noexcept nogil:
    """Give every field its id and drop mark, fill `present`, `repeated` and `first`."""
    cdef uint64_t present = 0
    cdef uint64_t repeated = 0
    cdef uint64_t bit
    cdef uint32_t i
    cdef uint8_t id
    cdef Field* field
    for i in range(head.n_fields):
        field = &head.fields[i]
        id = field_id(head.base + field.name_at, field.name_len)
        field.id = id
        if id == FIELD_OTHER:
            field.flags = FIELD_DROP if field_alias(head.base + field.name_at, field.name_len) != FIELD_OTHER else 0
            continue
        field.flags = FIELD_DROP if field_rule[id] & RULE_HOP else 0
        bit = <uint64_t>1 << id
        if present & bit:
            repeated |= bit
        else:
            present |= bit
            head.first[id] = <uint8_t>i
    head.present = present
    head.repeated = repeated


cdef inline uint32_t hop_connection_options(Head* head) noexcept nogil:
    """Read all Connection fields. Returns ConnectionOption bits; marks the fields they name as dropped.

    Members that are no token are skipped: Connection itself is never forwarded, so nobody can read them otherwise."""
    cdef uint32_t options = 0
    cdef uint32_t named = 0
    cdef uint32_t i, cursor, len
    cdef const Field* field
    cdef const char* option
    if not head_has(head, FIELD_CONNECTION):
        return 0
    field = head_field(head, FIELD_CONNECTION)
    if (field.value_len == 10 and octets_equal_lower(head.base + field.value_at, "keep-alive", 10)
            and not head.repeated >> FIELD_CONNECTION & 1):
        return CONNECTION_KEEP_ALIVE    # what every browser sends
    for i in range(head.first[FIELD_CONNECTION], head.n_fields):
        field = &head.fields[i]
        if field.id != FIELD_CONNECTION:
            continue
        cursor = 0
        while octets_next_member(head.base + field.value_at, field.value_len, &cursor, &option, &len):
            named += 1
            if named > CONNECTION_OPTIONS_MAX:
                return options | CONNECTION_OVERLONG
            if len == 5 and octets_equal_lower(option, "close", 5):
                options |= CONNECTION_CLOSE
            elif len == 10 and octets_equal_lower(option, "keep-alive", 10):
                options |= CONNECTION_KEEP_ALIVE
            elif len == 7 and octets_equal_lower(option, "upgrade", 7):
                options |= CONNECTION_UPGRADE
            elif len == 2 and octets_equal_lower(option, "te", 2):
                options |= CONNECTION_TE
            else:
                hop_drop_named(head, option, len)
    return options


cdef inline void hop_drop_named(Head* head, const char* name, uint32_t len) noexcept nogil:
    """Drop every field of that name, unless it is one that Connection may not touch. RFC 9110 7.6.1."""
    cdef uint8_t id = field_id(name, len)
    cdef uint32_t i
    cdef Field* field
    if not field_may_be_named(name, len, id):
        return
    for i in range(head.n_fields):
        field = &head.fields[i]
        if field.name_len == len and octets_equal_nocase(head.base + field.name_at, name, len):
            field.flags |= FIELD_DROP


cdef inline int hop_read_length(const char* at, uint32_t len, uint64_t* length) noexcept nogil:
    """1*DIGIT up to 2^63 - 1, nothing else. RFC 9110 8.6; no list, though 9112 6.3 would let equal members pass."""
    cdef uint64_t value = 0
    cdef uint32_t i
    cdef uint32_t digit
    if len == 0:
        return 0
    for i in range(len):
        digit = <uint32_t>(<uint8_t>at[i]) - 48
        if digit > 9:
            return 0
        # 922337203685477580 * 10 + 7 == 2^63 - 1
        if value > <uint64_t>922337203685477580 or (value == <uint64_t>922337203685477580 and digit > 7):
            return 0
        value = value * 10 + digit
    length[0] = value
    return 1


cdef inline int hop_is_chunked(const Head* head) noexcept nogil:
    """1 when Transfer-Encoding is the one coding "chunked". The field must be there."""
    cdef const Field* field = head_field(head, FIELD_TRANSFER_ENCODING)
    return (not head.repeated >> FIELD_TRANSFER_ENCODING & 1 and field.value_len == 7
            and octets_equal_lower(head.base + field.value_at, "chunked", 7))

