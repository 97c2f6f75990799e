# The server name a TLS client asks for, from its ClientHello (RFC 8446 4.1.2, RFC 6066 3). Reads only: answers nothing,
# and keeps nothing between calls.
#
# A hello may be cut into records as its client likes (RFC 8446 5.1), and come in as many segments: it is put together in
# a copy, bounded, and read once it is whole, so that the verdict cannot depend on the cuts (keeps SPLIT_SAME). What no
# TLS server would take is no hello. A name that is none (no letters of a host name, a dot at its end, an address) is left
# out, and the hello is one without a name.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from meshcore.engine.octets cimport octet_lower

cdef enum HelloCode:
    HELLO_MORE = 0
    HELLO_WHOLE = 1
    HELLO_NONE = 2                      # whatever it is, it is no ClientHello

cdef enum:
    HELLO_MAX_BYTES = 16384             # of the message; the largest honest ones, with post-quantum shares, have 2 KiB
    HELLO_MAX_RECORDS = 256             # that it may be cut into
    HELLO_PEEK_BYTES = 17664            # both together: more is never needed for a verdict
    HELLO_MAX_NAME = 255


cdef struct Hello:
    uint8_t name_len                    # 0: it names nobody
    char name[256]                      # lower-cased


cdef inline int hello_read(const char* octets, uint32_t n, Hello* hello) noexcept nogil:
    """What all `n` octets seen so far are. HELLO_MORE: not certain yet (never for HELLO_PEEK_BYTES or more)."""
    cdef const uint8_t* at = <const uint8_t*>octets
    cdef uint8_t message[HELLO_MAX_BYTES]
    cdef uint32_t have = 0
    cdef uint32_t wanted = 4
    cdef uint32_t i = 0
    cdef uint32_t records = 0
    cdef uint32_t record, step
    while have < wanted:
        if i < n and at[i] != 22 or i + 1 < n and at[i + 1] != 3:
            return HELLO_NONE
        if n - i < 5:
            return HELLO_MORE
        record = <uint32_t>at[i + 3] << 8 | at[i + 4]
        records += 1
        if record == 0 or record > 16384 or records > HELLO_MAX_RECORDS:
            return HELLO_NONE
        i += 5
        while record and have < wanted:
            step = wanted - have
            if step > record:
                step = record
            if step > n - i:
                step = n - i
            if step == 0:
                return HELLO_MORE
            memcpy(message + have, at + i, step)
            have += step
            record -= step
            i += step
            if message[0] != 1:
                return HELLO_NONE
            if have == 4 and wanted == 4:
                wanted = 4 + (<uint32_t>message[1] << 16 | <uint32_t>message[2] << 8 | message[3])
                if wanted > HELLO_MAX_BYTES:
                    return HELLO_NONE
    hello.name_len = 0
    return HELLO_WHOLE if hello_read_message(message + 4, have - 4, hello) else HELLO_NONE


cdef inline int hello_read_message(const uint8_t* at, uint32_t n, Hello* hello) noexcept nogil:
    """1: it is well-formed, and its name, if it has one, is noted."""
    cdef uint32_t i = 34                # version, random
    cdef uint32_t len, kind
    cdef int is_named = 0
    if n < 35 or at[0] != 3 or at[34] > 32:
        return 0
    i += 1 + at[34]                     # session id
    if n - i < 2 or i > n:
        return 0
    len = <uint32_t>at[i] << 8 | at[i + 1]
    i += 2
    if len < 2 or len & 1 or n - i < len:
        return 0                        # cipher suites
    i += len
    if i == n or at[i] == 0 or n - i - 1 < at[i]:
        return 0                        # compression methods
    i += 1 + at[i]
    if i == n:
        return 1                        # TLS 1.2 without extensions
    if n - i < 2 or (<uint32_t>at[i] << 8 | at[i + 1]) != n - i - 2:
        return 0
    i += 2
    while i < n:
        if n - i < 4:
            return 0
        kind = <uint32_t>at[i] << 8 | at[i + 1]
        len = <uint32_t>at[i + 2] << 8 | at[i + 3]
        i += 4
        if n - i < len:
            return 0
        if kind == 0:
            if is_named or not hello_read_names(at + i, len, hello):
                return 0                # RFC 8446 4.2: no extension stands twice
            is_named = 1
        i += len
    return 1


cdef inline int hello_read_names(const uint8_t* at, uint32_t n, Hello* hello) noexcept nogil:
    # RFC 6066 3: a list, of which nothing but one host name has ever been defined.
    cdef uint32_t len
    if n < 5 or (<uint32_t>at[0] << 8 | at[1]) != n - 2:
        return 0
    len = <uint32_t>at[3] << 8 | at[4]
    if at[2] != 0 or len == 0 or len != n - 5:
        return 0
    hello_note_name(at + 5, len, hello)
    return 1


cdef inline void hello_note_name(const uint8_t* at, uint32_t n, Hello* hello) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t octet = 46
    cdef uint8_t before
    cdef int is_address = 1
    if n > HELLO_MAX_NAME:
        return
    for i in range(n):
        before = octet
        octet = octet_lower(at[i])
        if not (97 <= octet <= 122 or 48 <= octet <= 57 or octet == 45 or octet == 95 or octet == 46) \
                or (octet == 46 and before == 46):
            return
        if octet != 46 and not 48 <= octet <= 57:
            is_address = 0
        hello.name[i] = <char>octet
    if octet != 46 and not is_address:
        hello.name_len = <uint8_t>n
