# IP addresses and decimal numbers inside a line of text that may not have come whole: read strictly, and written.
#
# No leading zeros in decimal (inet_aton would read them as octal), no zone ids. Each reader moves *cursor behind what
# it takes. With IP_TEXT_MORE it took all there was, and the caller starts again at the same place when more has come:
# the verdict does not depend on how the input was cut (keeps SPLIT_SAME).

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memmove, memset

from meshcore.engine.octets cimport OCTET_DIGIT, OCTET_HEX, octet_class, octets_write_decimal, octets_write_hex
from meshcore.engine.sys cimport AF_INET, AF_INET6


cdef enum IpTextCode:
    IP_TEXT_MORE = 0
    IP_TEXT_DONE = 1                    # an octet that does not belong to it was seen behind it
    IP_TEXT_REFUSED = 16                # no continuation can make it valid

cdef enum:
    IP_TEXT_NO_GAP = 17                 # beyond the octets of any address


cdef inline int ip_text_expect(const char* at, uint32_t n, uint32_t* cursor, const char* text,
                               uint32_t len) noexcept nogil:
    """Exactly `text`. Unlike the others, IP_TEXT_DONE as soon as its last octet was seen."""
    cdef uint32_t seen = n - cursor[0] if n - cursor[0] < len else len
    if memcmp(at + cursor[0], text, seen) != 0:
        return IP_TEXT_REFUSED
    cursor[0] += seen
    return IP_TEXT_DONE if seen == len else IP_TEXT_MORE


cdef inline int ip_text_read_number(const char* at, uint32_t n, uint32_t* cursor, uint32_t most,
                                    uint16_t* number) noexcept nogil:
    """A decimal number up to `most`."""
    cdef uint32_t start = cursor[0]
    cdef uint32_t value = 0
    while cursor[0] < n and octet_class[<uint8_t>at[cursor[0]]] & OCTET_DIGIT:
        if cursor[0] > start and value == 0:
            return IP_TEXT_REFUSED
        value = value * 10 + <uint32_t>(<uint8_t>at[cursor[0]] - 48)
        if value > most:
            return IP_TEXT_REFUSED
        cursor[0] += 1
    number[0] = <uint16_t>value
    if cursor[0] == n:
        return IP_TEXT_MORE
    return IP_TEXT_DONE if cursor[0] > start else IP_TEXT_REFUSED


cdef inline int ip_text_read(const char* at, uint32_t n, uint32_t* cursor, uint16_t family,
                             uint8_t* address) noexcept nogil:
    """An address of the family, AF_INET6 or AF_INET, into 16 or 4 octets of network order."""
    cdef uint16_t number
    cdef uint32_t part
    cdef int code = IP_TEXT_DONE
    if family == AF_INET6:
        return ip_text_read_ipv6(at, n, cursor, address)
    for part in range(4):
        if part:
            code = ip_text_expect(at, n, cursor, ".", 1)
        if code == IP_TEXT_DONE:
            code = ip_text_read_number(at, n, cursor, 255, &number)
        if code != IP_TEXT_DONE:
            return code
        address[part] = <uint8_t>number
    return IP_TEXT_DONE


cdef inline int ip_text_read_ipv6(const char* at, uint32_t n, uint32_t* cursor, uint8_t* address) noexcept nogil:
    """Eight groups of one to four hex digits, "::" once for one or more of them, the last two perhaps as IPv4."""
    cdef uint32_t filled = 0            # octets of `address`
    cdef uint32_t gap = IP_TEXT_NO_GAP  # how many of them stand before "::"
    cdef uint32_t room = 16             # what groups may fill: "::" stands for at least one
    cdef uint32_t start, value
    cdef uint8_t octet
    cdef int code
    if cursor[0] < n and at[cursor[0]] == 58:
        code = ip_text_expect(at, n, cursor, "::", 2)
        if code != IP_TEXT_DONE:
            return code
        gap = 0
        room = 14
    while True:
        start = cursor[0]
        value = 0
        while cursor[0] < n and cursor[0] < start + 4 and octet_class[<uint8_t>at[cursor[0]]] & OCTET_HEX:
            octet = <uint8_t>at[cursor[0]]
            value = value << 4 | <uint32_t>(octet - 48 if octet <= 57 else (octet | 0x20) - 87)
            cursor[0] += 1
        if cursor[0] > start and filled == room:
            return IP_TEXT_REFUSED
        if cursor[0] == n:
            return IP_TEXT_MORE
        if cursor[0] == start:          # the address may end with "::"
            if filled != gap:
                return IP_TEXT_REFUSED
            break
        if at[cursor[0]] == 46:         # '.': the group was the first part of an IPv4 address
            if filled != 12 if gap == IP_TEXT_NO_GAP else filled > 10:
                return IP_TEXT_REFUSED
            cursor[0] = start
            code = ip_text_read(at, n, cursor, AF_INET, address + filled)
            if code != IP_TEXT_DONE:
                return code
            filled += 4
            break
        address[filled] = <uint8_t>(value >> 8)
        address[filled + 1] = <uint8_t>(value & 0xFF)
        filled += 2
        if at[cursor[0]] != 58:
            break
        if filled == room:
            return IP_TEXT_REFUSED
        cursor[0] += 1
        if gap == IP_TEXT_NO_GAP and cursor[0] < n and at[cursor[0]] == 58:
            cursor[0] += 1
            gap = filled
            room = 14
    if gap == IP_TEXT_NO_GAP:
        return IP_TEXT_DONE if filled == 16 else IP_TEXT_REFUSED
    memmove(address + 16 - (filled - gap), address + gap, filled - gap)
    memset(address + gap, 0, 16 - filled)
    return IP_TEXT_DONE


cdef inline char* ip_text_write(char* out, uint16_t family, const uint8_t* address) noexcept nogil:
    """Write an address of the family, at most 39 octets: IPv6 in full, which every reader takes. Returns the end."""
    cdef uint32_t i = 0
    while True:
        if family == AF_INET6:
            out = octets_write_hex(out, <uint32_t>address[i] << 8 | address[i + 1], 2)
            i += 2
        else:
            out = octets_write_decimal(out, address[i])
            i += 1
        if i == (16 if family == AF_INET6 else 4):
            return out
        out[0] = 58 if family == AF_INET6 else 46
        out += 1
