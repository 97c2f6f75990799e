# The request target: its four forms, and the octets and segments each may hold. Routes nothing, rewrites nothing.
#
# Refused rather than repaired: dot-segments, plain or encoded, and broken percent-encoding. Whoever repairs a path reads
# it differently from whoever does not, and the difference is a way around a route. Source: RFC 9112 3.2, RFC 3986 3.3.

from libc.stdint cimport uint8_t, uint32_t

from meshcore.engine.authority cimport Authority, authority_parse
from meshcore.engine.head cimport (
    METHOD_CONNECT,
    METHOD_OPTIONS,
    SCHEME_HTTP,
    SCHEME_HTTPS,
    TARGET_ABSOLUTE,
    TARGET_ASTERISK,
    TARGET_AUTHORITY,
    TARGET_ORIGIN,
    Head,
)
from meshcore.engine.octets cimport OCTET_HEX, OCTET_PATH, OCTET_QUERY, octet_class, octets_equal_lower


cdef enum:
    TARGET_PENDING = 0                  # every octet so far may stand there
    TARGET_ENDED = 1                    # a space ends it
    TARGET_REFUSED = 2


cdef inline int target_scan(const char* base, uint32_t at, uint32_t len, Head* head, uint32_t* end) noexcept nogil:
    """Read the target that starts at `at`, as far as `len`. On TARGET_ENDED *end is its end, and the head knows the
    form, path and query of an origin-form; the other forms are left to target_split. *end is also set otherwise."""
    cdef uint32_t i = at
    cdef uint8_t octet
    cdef bint in_path = len > at and base[at] == 47
    cdef bint suspicious = False        # may hold a dot-segment or an escape
    head.target_at = at
    head.path_at = at
    head.query_len = 0
    head.target_form = TARGET_ORIGIN
    if in_path:
        while True:
            while i < len and octet_class[<uint8_t>base[i]] & OCTET_PATH:
                i += 1
            if i == len:
                end[0] = i
                return TARGET_PENDING
            octet = <uint8_t>base[i]
            if octet == 46:             # '.'
                suspicious |= base[i - 1] == 47
            elif octet == 37:           # '%'
                suspicious = True
            else:
                break
            i += 1
        head.path_len = i - at
        if octet != 63 and octet != 32:
            end[0] = i
            return TARGET_REFUSED
        if suspicious and not path_is_plain(base + at, i - at):
            end[0] = i
            return TARGET_REFUSED
        if octet == 63:                 # '?'
            head.query_at = i
    if not in_path or octet == 63:
        # Behind '?', and in the other forms, which are looked at as a whole when they are complete.
        while i < len and octet_class[<uint8_t>base[i]] & OCTET_QUERY:
            i += 1
        if i == len:
            end[0] = i
            return TARGET_PENDING
        if in_path:
            head.query_len = i - head.query_at
    end[0] = i
    head.target_len = i - at
    if base[i] != 32 or i == at:
        return TARGET_REFUSED
    if not in_path:
        head.target_form = TARGET_ABSOLUTE
    return TARGET_ENDED


cdef inline int target_split(Head* head, Authority* authority) noexcept nogil:
    """Take a target that is not in origin-form apart. Returns 0 when it is not valid for the method.

    Fills `authority` for the absolute-form and CONNECT; head.authority_at says where it is."""
    cdef const char* at = head.base + head.target_at
    cdef uint32_t len = head.target_len
    cdef uint32_t i
    cdef uint32_t start
    if head.method == METHOD_CONNECT:
        # RFC 9110 9.3.6: host and port, both required
        head.target_form = TARGET_AUTHORITY
        head.authority_at = head.target_at
        head.path_len = 0
        return authority_parse(at, len, authority) and authority.port >= 0
    if head.target_form == TARGET_ORIGIN:
        return 1
    if len == 1 and at[0] == 42:        # '*'
        head.target_form = TARGET_ASTERISK
        head.path_len = 1
        return head.method == METHOD_OPTIONS
    head.target_form = TARGET_ABSOLUTE
    if len > 7 and octets_equal_lower(at, "http", 4) and at[4] == 58 and at[5] == 47 and at[6] == 47:
        start = 7
        head.scheme = SCHEME_HTTP
    elif len > 8 and octets_equal_lower(at, "https", 5) and at[5] == 58 and at[6] == 47 and at[7] == 47:
        start = 8
        head.scheme = SCHEME_HTTPS
    else:
        return 0                        # another scheme, or an authority without CONNECT
    i = start
    while i < len and at[i] != 47 and at[i] != 63:
        i += 1
    head.authority_at = head.target_at + start
    if not authority_parse(at + start, i - start, authority):
        return 0
    if i == len or at[i] == 63:
        # An empty path means "/" (RFC 9110 4.2.3). The path must be octets of the head: borrow the scheme's last slash.
        head.path_at = head.target_at + start - 1
        head.path_len = 1
    else:
        start = i
        while i < len and at[i] != 63:
            if not octet_class[<uint8_t>at[i]] & OCTET_PATH and at[i] != 46 and at[i] != 37:
                return 0
            i += 1
        head.path_at = head.target_at + start
        head.path_len = i - start
        if not path_is_plain(at + start, i - start):
            return 0
    head.query_at = head.target_at + i
    head.query_len = len - i
    return 1


cdef inline int path_is_plain(const char* at, uint32_t len) noexcept nogil:
    """1 when every '%' starts an escape, none encodes NUL, and no segment is "." or ".." however it is written.

    A segment also ends at an encoded slash or backslash and at ';' here: back ends that decode, or that know path
    parameters, see the dot-segment there."""
    cdef uint32_t i = 0
    cdef uint32_t dots = 0              # of the segment so far; 3: not only dots
    cdef uint32_t octet
    while i < len:
        octet = <uint8_t>at[i]
        if octet == 37:
            if i + 2 >= len or not (octet_class[<uint8_t>at[i + 1]] & OCTET_HEX and octet_class[<uint8_t>at[i + 2]] & OCTET_HEX):
                return 0
            octet = hex_value(<uint8_t>at[i + 1]) * 16 + hex_value(<uint8_t>at[i + 2])
            if octet == 0:
                return 0
            i += 2
        i += 1
        if octet == 46:
            dots = dots + 1 if dots < 3 else 3
        elif octet == 47 or octet == 92 or octet == 59:
            if dots == 1 or dots == 2:
                return 0
            dots = 0 if octet != 59 else 3
        else:
            dots = 3
    return dots != 1 and dots != 2


cdef inline uint32_t hex_value(uint8_t digit) noexcept nogil:
    return digit - 48 if digit <= 57 else (digit | 0x20) - 87
