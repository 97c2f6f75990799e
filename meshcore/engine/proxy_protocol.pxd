# The header that a PROXY protocol sender puts in front of a connection: both versions read, and written. Trusts nobody.
#
# Source: proxy-protocol.txt of HAProxy, sections 2.1 and 2.2. Whether a peer may send a header at all is the listener's
# business. Read from all octets seen so far, so the verdict cannot depend on how they were cut (keeps SPLIT_SAME).
# PROXY_MORE is given only for a prefix of a valid header; the one exception is a checksum, judged when all is there.
#
# Stricter than the text: no datagrams, at most one checksum, only a space or CRLF behind UNKNOWN. LOCAL and the family
# UNSPEC are skipped by their length, unread: any family is to be ignored there, so nobody can say where TLVs begin.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from meshcore.engine.ip_text cimport ip_text_expect, ip_text_read, ip_text_read_number, ip_text_write
from meshcore.engine.octets cimport octets_write_decimal
from meshcore.engine.sys cimport AF_INET, AF_INET6

cdef extern from * nogil:
    """
    #define MC_PROXY_SIGNATURE "\\r\\n\\r\\n\\0\\r\\nQUIT\\n"
    static const uint32_t mc_crc32c_nibble[16] = {      /* polynomial 0x82F63B78, reflected: RFC 9260 appendix A */
      0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
      0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
    };
    """
    const char* PROXY_SIGNATURE "MC_PROXY_SIGNATURE"
    const uint32_t* crc32c_nibble "mc_crc32c_nibble"


cdef enum ProxyCode:                    # the numbers of IpTextCode
    PROXY_MORE = 0
    PROXY_DONE = 1
    PROXY_REFUSED = 16

cdef enum:
    PROXY_V1 = 1                        # which versions a listener reads
    PROXY_V2 = 2
    PROXY_V1_MAX_BYTES = 107            # the text's own bound, CRLF included
    PROXY_V2_MAX_BYTES = 4096           # all of it; the TLVs of load balancers stay under 1 KiB
    PROXY_SIGNATURE_BYTES = 12
    PROXY_FIXED_BYTES = 16              # of version 2: signature, command, family, length
    PROXY_TLV_CHECKSUM = 3              # PP2_TYPE_CRC32C


cdef struct ProxyHeader:
    uint32_t size_bytes                 # what precedes the connection's own first octet
    uint16_t family                     # AF_INET, AF_INET6; 0 when is_local
    uint16_t source_port                # host order, like the next
    uint16_t destination_port
    uint8_t version
    uint8_t is_local                    # LOCAL, UNKNOWN, UNSPEC, AF_UNIX: the peer's own address counts
    uint8_t source_address[16]          # network order; IPv4 in the first four
    uint8_t destination_address[16]


cdef inline int proxy_header_read(const char* at, uint32_t n, uint32_t versions, ProxyHeader* header) noexcept nogil:
    """Read the header in front of all `n` octets seen so far. `versions`: PROXY_V1 | PROXY_V2.

    PROXY_DONE (`header` is filled, drop header.size_bytes), PROXY_MORE (not yet whole), or PROXY_REFUSED."""
    memset(header, 0, sizeof(ProxyHeader))
    if n == 0:
        return PROXY_MORE if versions & (PROXY_V1 | PROXY_V2) else PROXY_REFUSED
    if at[0] == 80:                     # 'P'
        return proxy_header_read_v1(at, n, header) if versions & PROXY_V1 else PROXY_REFUSED
    return proxy_header_read_v2(at, n, header) if versions & PROXY_V2 else PROXY_REFUSED


cdef inline uint32_t proxy_header_write_v1(char* out, const ProxyHeader* header) noexcept nogil:
    """Write the line of version 1, or of UNKNOWN when is_local. Returns its length (<= PROXY_V1_MAX_BYTES)."""
    cdef char* at = out + 11
    if header.is_local:
        memcpy(out, "PROXY UNKNOWN\r\n", 15)
        return 15
    memcpy(out, "PROXY TCP6 " if header.family == AF_INET6 else "PROXY TCP4 ", 11)
    at = ip_text_write(at, header.family, header.source_address)
    at[0] = 32
    at = ip_text_write(at + 1, header.family, header.destination_address)
    at[0] = 32
    at = octets_write_decimal(at + 1, header.source_port)
    at[0] = 32
    at = octets_write_decimal(at + 1, header.destination_port)
    memcpy(at, "\r\n", 2)
    return <uint32_t>(at + 2 - out)


cdef inline uint32_t proxy_header_write_v2(char* out, const ProxyHeader* header) noexcept nogil:
    """Write version 2 without TLVs, or LOCAL. Returns its length (16, 28 or 52)."""
    cdef uint32_t n = 16 if header.family == AF_INET6 else 4
    cdef char* ports = out + PROXY_FIXED_BYTES + 2 * n
    memset(out, 0, PROXY_FIXED_BYTES)
    memcpy(out, PROXY_SIGNATURE, PROXY_SIGNATURE_BYTES)
    out[12] = 0x20
    if header.is_local:
        return PROXY_FIXED_BYTES
    out[12] = 0x21
    out[13] = 0x21 if header.family == AF_INET6 else 0x11
    out[15] = <char>(2 * n + 4)
    memcpy(out + PROXY_FIXED_BYTES, header.source_address, n)
    memcpy(out + PROXY_FIXED_BYTES + n, header.destination_address, n)
    ports[0] = <char>(header.source_port >> 8)
    ports[1] = <char>(header.source_port & 0xFF)
    ports[2] = <char>(header.destination_port >> 8)
    ports[3] = <char>(header.destination_port & 0xFF)
    return PROXY_FIXED_BYTES + 2 * n + 4


# --- version 1 -----------------------------------------------------------------------------------------------------

cdef inline int proxy_header_read_v1(const char* at, uint32_t n, ProxyHeader* header) noexcept nogil:
    """The line of version 1, codes as of proxy_header_read. The numbers are the least that must follow each word."""
    cdef uint32_t cursor = 0
    cdef int code = ip_text_expect(at, n, &cursor, "PROXY ", 6)
    header.version = 1
    if code == PROXY_DONE and cursor < n and at[cursor] == 85:      # 'U'
        return proxy_header_read_unknown(at, n, cursor, header)
    if code == PROXY_DONE:
        code = ip_text_expect(at, n, &cursor, "TCP", 3)
    if code == PROXY_DONE:
        header.family = AF_INET6 if cursor < n and at[cursor] == 54 else AF_INET
        code = ip_text_expect(at, n, &cursor, "6 " if header.family == AF_INET6 else "4 ", 2)
    if code == PROXY_DONE:
        code = ip_text_read(at, n, &cursor, header.family, header.source_address)
        code = proxy_header_end_word(at, n, &cursor, code, " ", 9)  # " :: 0 0" CRLF
    if code == PROXY_DONE:
        code = ip_text_read(at, n, &cursor, header.family, header.destination_address)
        code = proxy_header_end_word(at, n, &cursor, code, " ", 6)
    if code == PROXY_DONE:
        code = ip_text_read_number(at, n, &cursor, 65535, &header.source_port)
        code = proxy_header_end_word(at, n, &cursor, code, " ", 4)
    if code == PROXY_DONE:
        code = ip_text_read_number(at, n, &cursor, 65535, &header.destination_port)
        code = proxy_header_end_word(at, n, &cursor, code, "\r\n", 2)
    header.size_bytes = cursor
    return code


cdef inline int proxy_header_end_word(const char* at, uint32_t n, uint32_t* cursor, int code, const char* then,
                                      uint32_t least_bytes) noexcept nogil:
    """What a word read with `code` means for the line: `then` must follow it, and `least_bytes` must have room."""
    if code == PROXY_REFUSED or cursor[0] + least_bytes > PROXY_V1_MAX_BYTES:
        return PROXY_REFUSED
    return ip_text_expect(at, n, cursor, then, 1 if then[0] == 32 else 2) if code == PROXY_DONE else PROXY_MORE


cdef inline int proxy_header_read_unknown(const char* at, uint32_t n, uint32_t cursor,
                                          ProxyHeader* header) noexcept nogil:
    """UNKNOWN, then CRLF, or a space and whatever precedes the first CRLF."""
    cdef int code = ip_text_expect(at, n, &cursor, "UNKNOWN", 7)
    header.is_local = 1
    if code == PROXY_DONE and cursor < n and at[cursor] == 32:
        cursor += 1
        while cursor < n and cursor < PROXY_V1_MAX_BYTES and (at[cursor] != 10 or at[cursor - 1] != 13):
            cursor += 1
        if cursor + (1 if at[cursor - 1] == 13 else 2) > PROXY_V1_MAX_BYTES:
            return PROXY_REFUSED
        if cursor == n:
            return PROXY_MORE
        cursor += 1
    elif code == PROXY_DONE:
        code = ip_text_expect(at, n, &cursor, "\r\n", 2)
    header.size_bytes = cursor
    return code


# --- version 2 -----------------------------------------------------------------------------------------------------

cdef inline int proxy_header_read_v2(const char* at, uint32_t n, ProxyHeader* header) noexcept nogil:
    """The binary header of version 2, codes as of proxy_header_read."""
    cdef const uint8_t* octets = <const uint8_t*>at
    cdef uint32_t total_bytes
    cdef uint32_t address_bytes = 0     # of one of the two
    cdef uint32_t tlvs_at = 0           # 0: skipped unread
    if (memcmp(at, PROXY_SIGNATURE, n if n < PROXY_SIGNATURE_BYTES else PROXY_SIGNATURE_BYTES) != 0
            or (n > 12 and octets[12] != 0x20 and octets[12] != 0x21)):
        return PROXY_REFUSED
    if n < 14:
        return PROXY_MORE
    if octets[12] == 0x21 and octets[13] != 0:
        if octets[13] == 0x11:
            header.family = AF_INET
            address_bytes = 4
            tlvs_at = PROXY_FIXED_BYTES + 12
        elif octets[13] == 0x21:
            header.family = AF_INET6
            address_bytes = 16
            tlvs_at = PROXY_FIXED_BYTES + 36
        elif octets[13] == 0x31:        # two paths of 108 octets
            tlvs_at = PROXY_FIXED_BYTES + 216
        else:
            return PROXY_REFUSED
    total_bytes = PROXY_FIXED_BYTES + (<uint32_t>octets[14] << 8 if n > 14 else 0) + (octets[15] if n > 15 else 0)
    if total_bytes > PROXY_V2_MAX_BYTES:
        return PROXY_REFUSED
    if n < PROXY_FIXED_BYTES:
        return PROXY_MORE
    if tlvs_at and not proxy_header_check_tlvs(octets, n, tlvs_at, total_bytes):
        return PROXY_REFUSED
    if n < total_bytes:
        return PROXY_MORE
    header.version = 2
    header.size_bytes = total_bytes
    header.is_local = address_bytes == 0
    memcpy(header.source_address, octets + 16, address_bytes)
    memcpy(header.destination_address, octets + 16 + address_bytes, address_bytes)
    if address_bytes:
        octets += 16 + 2 * address_bytes
        header.source_port = <uint16_t>(octets[0] << 8 | octets[1])
        header.destination_port = <uint16_t>(octets[2] << 8 | octets[3])
    return PROXY_DONE


cdef inline int proxy_header_check_tlvs(const uint8_t* at, uint32_t n, uint32_t i, uint32_t total_bytes) noexcept nogil:
    """0 when the TLVs from `i` on cannot end with the header, or all is there and its checksum is wrong; else 1."""
    cdef uint32_t checksum_at = 0
    cdef uint32_t rest_bytes, value_bytes
    while i != total_bytes:
        if i + 3 > total_bytes:
            return 0
        if i >= n:
            return 1
        rest_bytes = total_bytes - i - 3
        if at[i] == PROXY_TLV_CHECKSUM and (checksum_at or (rest_bytes != 4 and rest_bytes < 7)):
            return 0
        value_bytes = (<uint32_t>at[i + 1] << 8 if i + 1 < n else 0) + (at[i + 2] if i + 2 < n else 0)
        if (value_bytes > rest_bytes
                or (at[i] == PROXY_TLV_CHECKSUM and (value_bytes > 4 or (i + 2 < n and value_bytes < 4)))):
            return 0
        if i + 2 >= n:
            return 1
        if at[i] == PROXY_TLV_CHECKSUM:
            checksum_at = i + 3
        i += 3 + value_bytes
    if checksum_at == 0 or n < total_bytes:
        return 1
    return proxy_header_crc32c(at, total_bytes, checksum_at) == (
        <uint32_t>at[checksum_at] << 24 | <uint32_t>at[checksum_at + 1] << 16
        | <uint32_t>at[checksum_at + 2] << 8 | at[checksum_at + 3])


cdef inline uint32_t proxy_header_crc32c(const uint8_t* at, uint32_t n, uint32_t zero_at) noexcept nogil:
    """CRC32c of `n` octets of which the four at `zero_at` count as 0."""
    cdef uint32_t crc = <uint32_t>0xFFFFFFFF
    cdef uint32_t i
    for i in range(n):
        if i < zero_at or i >= zero_at + 4:
            crc ^= at[i]
        crc = crc >> 4 ^ crc32c_nibble[crc & 15]
        crc = crc >> 4 ^ crc32c_nibble[crc & 15]
    return crc ^ <uint32_t>0xFFFFFFFF
