# The name of a request: what a lookup makes of its head. Writes text; knows no binding, and trusts nobody by itself.
#
# A name is a path as Finagle shows it, `/svc/1.1/GET/web`, or, without a prefix, a plain `host:port`. An element with an
# octet that is not showable is escaped whole, `\x5b\x3a`, as meshcore.naming shows it, so that the same name is always the
# same text. What overrides a name (tables in the request) stands behind it and a NUL: together they are the key.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.head cimport Field, Head
from meshcore.engine.octets cimport octets_copy_lower, octets_equal_nocase, octets_write_decimal
from meshcore.engine.snapshot cimport (
    NAME_AUTHORITY, NAME_CONSTANT, NAME_DESTINATION, NAME_HEADER_TOKEN, NAME_HOST, NAME_METHOD_AND_HOST,
    NAME_PATH, LookupConf, Text,
)

cdef enum:
    NAME_AUTHORITY_BYTES = 264          # a host of 255, a colon and a port


cdef struct NameOut:                    # text being written; once it does not fit, or cannot be, it stays so
    char* at
    uint32_t len
    uint32_t cap
    uint8_t is_none


cdef struct Name:
    uint32_t len                        # of the key; 0: there is no name
    uint32_t name_len                   # of the name in it; what is more is a NUL and the overrides


cdef inline Name name_of_request(const LookupConf* conf, const Head* head, int is_secure, Text destination,
                                 int is_trusted, char* out, uint32_t cap) noexcept nogil:
    """Write the key of a request to `out`. `destination`: where its connection was going, if anybody knows."""
    cdef NameOut name
    cdef Name result
    name.at = out
    name.len = 0
    name.cap = cap
    name.is_none = 0
    result.len = result.name_len = 0
    if conf.by == NAME_AUTHORITY:
        if head.authority_len:
            name_put_authority(&name, conf, head, is_secure)
        else:
            name_put_whole(&name, conf, destination)
    elif conf.by == NAME_HOST:
        name_put_text_or_element(&name, conf, head.host_lower, head.host_len)
    elif conf.by == NAME_DESTINATION:
        name_put_whole(&name, conf, destination)
    else:
        name_put(&name, conf.prefix.at, conf.prefix.len)
        name_put_elements(&name, conf, head)
    if name.is_none or name.len == 0:
        return result
    result.name_len = name.len
    if conf.overrides and is_trusted:
        name_put_overrides(&name, head, b"l5d-ctx-dtab", 12, result.name_len)
        name_put_overrides(&name, head, b"l5d-dtab", 8, result.name_len)
    if not name.is_none:
        result.len = name.len
    return result


cdef inline Name name_of_connection(const LookupConf* conf, Text destination, char* out, uint32_t cap) noexcept nogil:
    """The key of a connection that is not HTTP."""
    cdef NameOut name
    cdef Name result
    name.at = out
    name.len = 0
    name.cap = cap
    name.is_none = 0
    if conf.by == NAME_CONSTANT:
        name_put(&name, conf.prefix.at, conf.prefix.len)
        name_put(&name, conf.name.at, conf.name.len)
    else:
        name_put_whole(&name, conf, destination)
    result.len = result.name_len = 0 if name.is_none else name.len
    return result


cdef inline void name_put_elements(NameOut* name, const LookupConf* conf, const Head* head) noexcept nogil:
    cdef const Field* field
    if conf.by == NAME_CONSTANT:
        name_put(name, conf.name.at, conf.name.len)
    elif conf.by == NAME_METHOD_AND_HOST:
        name_put(name, b"/1.0" if head.minor_version == 0 else b"/1.1", 4)
        name_put_element(name, head.base + head.method_at, head.method_len)
        if head.minor_version:
            name_put_host(name, head)
    elif conf.by == NAME_PATH:
        name_put_segments(name, head.base + head.path_at, head.path_len, conf.segments)
    elif name_is_host(conf.field.at, conf.field.len):
        name_put_element(name, head.base + head.authority_at, head.authority_len)
    else:
        field = name_field(head, conf.field.at, conf.field.len)
        if field == NULL or field.value_len == 0:
            name.is_none = 1
        elif conf.by == NAME_HEADER_TOKEN:
            name_put_element(name, head.base + field.value_at, field.value_len)
        else:
            name_put_path(name, head.base + field.value_at, field.value_len)


cdef inline int name_is_host(const char* at, uint32_t len) noexcept nogil:
    return len == 4 and at[0] == c"h" and at[1] == c"o" and at[2] == c"s" and at[3] == c"t"


cdef inline void name_put_authority(NameOut* name, const LookupConf* conf, const Head* head, int is_secure) noexcept nogil:
    """host:port, whatever of it was left out."""
    cdef char text[264]
    cdef char* end = text + head.host_len
    memcpy(text, head.host_lower, head.host_len)
    end[0] = 58
    end = octets_write_decimal(end + 1, <uint32_t>head.port if head.port >= 0 else 443 if is_secure else 80)
    name_put_text_or_element(name, conf, text, <uint32_t>(end - text))


cdef inline void name_put_host(NameOut* name, const Head* head) noexcept nogil:
    """What Host says, in lower case, as one element."""
    cdef char text[264]
    if head.authority_len == 0 or head.authority_len > NAME_AUTHORITY_BYTES:
        name.is_none = 1
        return
    octets_copy_lower(text, head.base + head.authority_at, head.authority_len)
    name_put_element(name, text, head.authority_len)


cdef inline void name_put_segments(NameOut* name, const char* path, uint32_t len, uint32_t wanted) noexcept nogil:
    cdef uint32_t start = 1
    cdef uint32_t end
    cdef uint32_t i
    if len == 0 or path[0] != c"/":
        name.is_none = 1
        return
    for i in range(wanted):
        end = start
        while end < len and path[end] != c"/":
            end += 1
        if end <= start:
            name.is_none = 1            # too few, or an empty one
            return
        name_put_element(name, path + start, end - start)
        start = end + 1


cdef inline void name_put_path(NameOut* name, const char* at, uint32_t len) noexcept nogil:
    """A field's value that is a path already: copied, when it is one."""
    cdef uint32_t i = 0
    cdef uint32_t elements = 0
    if len == 1 and at[0] == c"/":
        return
    while i < len:
        if at[i] == c"/":
            if i + 1 == len or at[i + 1] == c"/":
                name.is_none = 1
                return
            elements += 1
            i += 1
        elif elements == 0:
            name.is_none = 1
            return
        elif at[i] == c"\\" and i + 3 < len and at[i + 1] == c"x" and name_is_hex(at[i + 2]) and name_is_hex(at[i + 3]):
            i += 4
        elif name_is_showable(at[i]):
            i += 1
        else:
            name.is_none = 1
            return
    name_put(name, at, len)


cdef inline void name_put_whole(NameOut* name, const LookupConf* conf, Text text) noexcept nogil:
    name_put_text_or_element(name, conf, text.at, text.len)


cdef inline void name_put_text_or_element(NameOut* name, const LookupConf* conf, const char* at, uint32_t len) noexcept nogil:
    """An element below the prefix; without a prefix the text as it is."""
    if conf.prefix.len:
        name_put(name, conf.prefix.at, conf.prefix.len)
        name_put_element(name, at, len)
    elif len == 0:
        name.is_none = 1
    else:
        name_put(name, at, len)


cdef inline void name_put_element(NameOut* name, const char* at, uint32_t len) noexcept nogil:
    cdef const char* digits = b"0123456789abcdef"
    cdef uint32_t i
    cdef char* to
    if len == 0:
        name.is_none = 1
        return
    name_put(name, b"/", 1)
    for i in range(len):
        if not name_is_showable(at[i]):
            break
    else:
        name_put(name, at, len)
        return
    if name.is_none or <uint64_t>len * 4 > name.cap - name.len:
        name.is_none = 1
        return
    to = name.at + name.len
    for i in range(len):
        to[0] = 92
        to[1] = 120
        to[2] = digits[<uint8_t>at[i] >> 4]
        to[3] = digits[<uint8_t>at[i] & 15]
        to += 4
    name.len += len * 4


cdef inline void name_put_overrides(NameOut* name, const Head* head, const char* field, uint32_t len,
                                    uint32_t name_len) noexcept nogil:
    """Every value of a field, parted by semicolons, behind what stands there already."""
    cdef uint32_t i
    for i in range(head.n_fields):
        if head.fields[i].name_len != len or head.fields[i].value_len == 0 \
                or not octets_equal_nocase(head.base + head.fields[i].name_at, field, len):
            continue
        name_put(name, b"\0" if name.len == name_len else b";", 1)
        name_put(name, head.base + head.fields[i].value_at, head.fields[i].value_len)


cdef inline const Field* name_field(const Head* head, const char* wanted, uint32_t len) noexcept nogil:
    """The first field of that name."""
    cdef uint32_t i
    for i in range(head.n_fields):
        if head.fields[i].name_len == len and octets_equal_nocase(head.base + head.fields[i].name_at, wanted, len):
            return &head.fields[i]
    return NULL


cdef inline void name_put(NameOut* name, const char* at, uint32_t len) noexcept nogil:
    if name.is_none or len > name.cap - name.len:
        name.is_none = 1
        return
    memcpy(name.at + name.len, at, len)
    name.len += len


cdef inline int name_is_showable(char octet) noexcept nogil:
    # finagle Path.showable
    return c"a" <= octet <= c"z" or c"0" <= octet <= c"9" or c"A" <= octet <= c"Z" or octet == c"-" or octet == c"." \
        or octet == c"_" or octet == c":" or octet == c"%" or octet == c"#" or octet == c"$"


cdef inline int name_is_hex(char octet) noexcept nogil:
    return c"0" <= octet <= c"9" or c"a" <= octet <= c"f" or c"A" <= octet <= c"F"
