# What a client speaks, from its first octets: HTTP/1, HTTP/2, TLS, or something else. Guesses nothing: a verdict is given
# only once no other is possible, so three octets that begin a method are not HTTP yet (keeps SPLIT_SAME).
#
# HTTP/1 is a request line: a token, one space, anything printable, one space, HTTP/1 and a digit. A line that begins with a
# method of RFC 9110 or 5789 and a target of theirs is believed sooner: other protocols do not say "GET /". TLS is the
# record of a ClientHello (RFC 8446 5.1, 4.1.2), HTTP/2 its whole preface (RFC 9113 3.4).

from libc.stdint cimport uint32_t
from libc.string cimport memcmp

from meshcore.engine.octets cimport OCTET_TOKEN, octet_class

cdef enum DetectCode:
    DETECT_MORE = 0
    DETECT_HTTP1 = 1
    DETECT_HTTP2 = 2
    DETECT_TLS = 3
    DETECT_OTHER = 4

cdef enum:
    DETECT_MAX_BYTES = 1024             # a request line still open by then is decided by what it has
    DETECT_MAX_METHOD_BYTES = 32
    DETECT_PREFACE_BYTES = 24

cdef extern from * nogil:
    """
    #include <string.h>
    static const char mc_h2_preface[] = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n";
    /* Does a request line begin like this for certain? `n` octets before the space, `next` behind it. */
    static int mc_is_known_start(const char* method, unsigned n, char next) {
        static const char* const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"};
        unsigned i;
        if (next != '/') return 0;
        for (i = 0; i < sizeof known / sizeof *known; i++)
            if (strlen(known[i]) == n && memcmp(known[i], method, n) == 0) return 1;
        return 0;
    }
    """
    const char* DETECT_PREFACE "mc_h2_preface"
    int detect_is_known_start "mc_is_known_start"(const char* method, unsigned int n, char following)


cdef inline int detect_read(const char* at, uint32_t n) noexcept nogil:
    """What all `n` octets seen so far begin. DETECT_MORE: not certain yet (never for DETECT_MAX_BYTES or more)."""
    cdef uint32_t seen = n if n < DETECT_PREFACE_BYTES else <uint32_t>DETECT_PREFACE_BYTES
    if n == 0:
        return DETECT_MORE
    if at[0] == 22:
        return detect_tls(at, n)
    if memcmp(at, DETECT_PREFACE, seen) == 0:
        return DETECT_HTTP2 if seen == DETECT_PREFACE_BYTES else DETECT_MORE
    return detect_http1(at, n)


cdef inline int detect_tls(const char* at, uint32_t n) noexcept nogil:
    # handshake record (22), version 3.x, a length that a record may have, then the type of a ClientHello (1)
    if n > 1 and at[1] != 3:
        return DETECT_OTHER
    if n > 2 and <unsigned char>at[2] > 4:
        return DETECT_OTHER
    if n > 3 and <unsigned char>at[3] > 0x40:
        return DETECT_OTHER
    if n > 4 and at[3] == 0 and at[4] == 0:
        return DETECT_OTHER
    if n < 6:
        return DETECT_MORE
    return DETECT_TLS if at[5] == 1 else DETECT_OTHER


cdef inline int detect_http1(const char* at, uint32_t n) noexcept nogil:
    cdef uint32_t limit = n if n < DETECT_MAX_BYTES else <uint32_t>DETECT_MAX_BYTES
    cdef uint32_t method_len = 0
    cdef uint32_t i
    cdef uint32_t spaces = 0
    cdef unsigned char octet
    while method_len < limit and octet_class[<unsigned char>at[method_len]] & OCTET_TOKEN:
        method_len += 1
        if method_len > DETECT_MAX_METHOD_BYTES:
            return DETECT_OTHER
    if method_len == limit:
        return DETECT_MORE
    if at[method_len] != c" " or method_len == 0:
        return DETECT_OTHER
    if method_len + 1 < limit and detect_is_known_start(at, method_len, at[method_len + 1]):
        return DETECT_HTTP1
    i = method_len + 1
    while i < limit:
        octet = <unsigned char>at[i]
        if octet == 13 or octet == 10:
            return detect_line(at, method_len, i)
        if octet == 32:
            spaces += 1
        if octet < 32 or octet == 127 or spaces > 1:
            return DETECT_OTHER
        i += 1
    return DETECT_MORE if n < DETECT_MAX_BYTES else DETECT_OTHER


cdef inline int detect_line(const char* at, uint32_t method_len, uint32_t n) noexcept nogil:
    # The line without its end: " HTTP/1.x" must be what it closes with, behind a target.
    cdef uint32_t version_at = n - 9
    if n < method_len + 11 or memcmp(at + version_at, b" HTTP/1.", 8) != 0:
        return DETECT_OTHER
    return DETECT_HTTP1 if 48 <= at[n - 1] <= 57 else DETECT_OTHER
