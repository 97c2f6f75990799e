# host[:port] as in Host, absolute-form and CONNECT: one strict grammar for all three. Resolves nothing, routes nothing.
#
# Stricter than RFC 3986 3.2 on purpose: no userinfo (RFC 9110 4.2.4), no percent-encoding and no zone id (two spellings
# of one host would compare unequal), no comma (it would read as a list), no IPvFuture.

from libc.stdint cimport uint8_t, uint32_t, int32_t

from meshcore.engine.octets cimport OCTET_DIGIT, OCTET_HEX, OCTET_HOST, octet_class


cdef enum AuthorityKind:
    AUTHORITY_NAME = 0                  # reg-name or IPv4
    AUTHORITY_IPV6 = 1


cdef struct Authority:
    uint32_t host_len                   # of the text parsed, brackets included, from its first octet
    uint32_t len                        # host and port; an empty port's colon is left out
    int32_t port                        # -1: none or empty
    uint8_t kind


cdef inline int authority_parse(const char* at, uint32_t len, Authority* authority) noexcept nogil:
    """Read exactly `len` octets as host[:port]. Returns 1, or 0 when they are anything else (empty host included)."""
    cdef uint32_t i = 0
    cdef uint32_t port = 0
    cdef uint32_t port_at
    if len == 0:
        return 0
    if at[0] == 91:                     # '['
        i = ipv6_literal_len(at, len)
        if i == 0:
            return 0
        authority.kind = AUTHORITY_IPV6
    else:
        while i < len and octet_class[<uint8_t>at[i]] & OCTET_HOST:
            i += 1
        if i == 0:
            return 0
        authority.kind = AUTHORITY_NAME
    authority.host_len = i
    authority.len = i
    authority.port = -1
    if i == len:
        return 1
    if at[i] != 58:                     # ':'
        return 0
    i += 1
    port_at = i
    while i < len:
        if not octet_class[<uint8_t>at[i]] & OCTET_DIGIT:
            return 0
        port = port * 10 + <uint32_t>(<uint8_t>at[i] - 48)
        if port > 65535:
            return 0
        i += 1
    if i != port_at:                    # RFC 3986 3.2.3: an empty port is the default port
        authority.port = <int32_t>port
        authority.len = len
    return 1


cdef inline uint32_t ipv6_literal_len(const char* at, uint32_t len) noexcept nogil:
    """Length of a bracketed IPv6 address at the start of `at`, or 0. Source: RFC 3986 3.2.2."""
    cdef uint32_t i = 1
    cdef uint32_t groups = 0
    cdef uint32_t digits
    cdef uint32_t group_at
    cdef bint compressed = False
    if len < 4:
        return 0
    if at[1] == 58:                     # leading "::"
        if at[2] != 58:
            return 0
        compressed = True
        i = 3
        if at[3] == 93:
            return 4
    while True:
        group_at = i
        digits = 0
        while i < len and octet_class[<uint8_t>at[i]] & OCTET_HEX:
            i += 1
            digits += 1
        if i == len or digits == 0:
            return 0
        if at[i] == 46:                 # '.': the last 32 bits as IPv4
            i = ipv4_end(at, len, group_at)
            groups += 2
            if i == 0 or i == len or at[i] != 93:
                return 0
            break
        if digits > 4:
            return 0
        groups += 1
        if at[i] == 93:
            break
        if at[i] != 58:
            return 0
        i += 1
        if i == len:
            return 0
        if at[i] == 58:
            if compressed:
                return 0
            compressed = True
            i += 1
            if i == len:
                return 0
            if at[i] == 93:
                break
        if groups > 8:
            return 0
    # "::" stands for at least one group
    if groups > 7 if compressed else groups != 8:
        return 0
    return i + 1


cdef inline uint32_t ipv4_end(const char* at, uint32_t len, uint32_t i) noexcept nogil:
    """Offset just behind a dotted quad that starts at `i`, or 0. No leading zeros: inet_aton would read them as octal."""
    cdef uint32_t part, value, digits
    for part in range(4):
        if part:
            if i >= len or at[i] != 46:
                return 0
            i += 1
        value = 0
        digits = 0
        while i < len and octet_class[<uint8_t>at[i]] & OCTET_DIGIT:
            value = value * 10 + <uint32_t>(<uint8_t>at[i] - 48)
            digits += 1
            if digits > 3 or value > 255:
                return 0
            i += 1
        if digits == 0 or (digits > 1 and at[i - digits] == 48):
            return 0
    return i
