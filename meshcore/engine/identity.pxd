# Who a peer is, as text: SPIFFE ids and DNS names, and whether a rule of the configuration means one. Reads no certificate.
#
# A SPIFFE id is `spiffe://trust-domain/path` in the strict form of its specification (SPIFFE-ID 2): no port, no user, no
# query, no empty or dot segment; scheme and trust domain without case, the path with it. A rule names one id, or with
# `/*` every id of one trust domain; `dns:name` names a DNS SAN. What is not strictly valid matches nothing.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

cdef enum IdentityKind:
    IDENTITY_ID = 0                     # one SPIFFE id
    IDENTITY_TRUST_DOMAIN = 1           # every id of "spiffe://td/"
    IDENTITY_DNS = 2

cdef enum:
    IDENTITY_MAX_BYTES = 2048           # SPIFFE-ID 2.3
    IDENTITY_SCHEME_BYTES = 9           # "spiffe://"
    TRUST_DOMAIN_MAX_BYTES = 255


cdef struct Identity:                   # a rule: `text` without "dns:" and "*", its case-less part in lower case
    uint8_t kind
    uint32_t len
    char* text


cdef inline char identity_lower(char c) noexcept nogil:
    return c + 32 if 65 <= c <= 90 else c


cdef inline uint32_t identity_authority(const char* at, uint32_t n) noexcept nogil:
    """Octets of "spiffe://trust-domain" in a valid SPIFFE id; 0 when it is none."""
    cdef const char* scheme = b"spiffe://"
    cdef uint32_t i
    cdef uint32_t end
    cdef char c
    if n <= IDENTITY_SCHEME_BYTES or n > IDENTITY_MAX_BYTES:
        return 0
    for i in range(<uint32_t>IDENTITY_SCHEME_BYTES):
        if identity_lower(at[i]) != scheme[i]:
            return 0
    end = IDENTITY_SCHEME_BYTES
    while end < n and at[end] != c"/":
        c = identity_lower(at[end])
        if not (97 <= c <= 122 or 48 <= c <= 57 or c == c"-" or c == c"." or c == c"_"):
            return 0
        end += 1
    if end == IDENTITY_SCHEME_BYTES or end - IDENTITY_SCHEME_BYTES > TRUST_DOMAIN_MAX_BYTES:
        return 0
    return end if identity_path_is_valid(at + end, n - end) else 0


cdef inline int identity_path_is_valid(const char* at, uint32_t n) noexcept nogil:
    # Nothing, or segments that are neither empty nor dots (SPIFFE-ID 2.2).
    cdef uint32_t i
    cdef uint32_t begin = 1
    cdef char c
    if n == 0:
        return 1
    for i in range(1, n + 1):
        if i == n or at[i] == c"/":
            if i == begin or (i == begin + 1 and at[begin] == c".") \
                    or (i == begin + 2 and at[begin] == c"." and at[begin + 1] == c"."):
                return 0
            begin = i + 1
            continue
        c = identity_lower(at[i])
        if not (97 <= c <= 122 or 48 <= c <= 57 or c == c"-" or c == c"." or c == c"_"):
            return 0
    return 1


cdef inline int identity_means_id(const Identity* rule, const char* at, uint32_t n) noexcept nogil:
    """Does the rule mean this SPIFFE id? `at` as it stands in the certificate."""
    cdef uint32_t authority = identity_authority(at, n)
    cdef uint32_t i
    if authority == 0 or rule.kind == IDENTITY_DNS or rule.len < authority:
        return 0
    for i in range(authority):
        if identity_lower(at[i]) != rule.text[i]:
            return 0
    if rule.kind == IDENTITY_TRUST_DOMAIN:
        return rule.len == authority and n > authority
    return rule.len == n and memcmp(at + authority, rule.text + authority, n - authority) == 0


cdef inline int identity_is_dns(const char* at, uint32_t n) noexcept nogil:
    """Is this a DNS name that can be compared and shown? A wildcard may be its whole first label."""
    cdef uint32_t i = 0
    cdef uint32_t label = 0
    cdef char c
    if n > 2 and at[0] == c"*" and at[1] == c".":
        i = 2
    if n - i == 0 or n > 253:
        return 0
    while i < n:
        c = identity_lower(at[i])
        if c == c".":
            if label == 0:
                return 0
            label = 0
        elif 97 <= c <= 122 or 48 <= c <= 57 or c == c"-" or c == c"_":
            label += 1
        else:
            return 0
        i += 1
    return label > 0


cdef inline int identity_dns_covers(const char* pattern, uint32_t n, const char* name, uint32_t name_len) noexcept nogil:
    """Does a certificate's DNS name cover `name`? RFC 6125 6.4: without case; `*` is exactly one label, the first."""
    cdef uint32_t i = 0
    if not identity_is_dns(pattern, n):
        return 0
    if n > 2 and pattern[0] == c"*":
        while i < name_len and name[i] != c".":
            i += 1
        if i == 0 or i == name_len:
            return 0
        pattern += 1
        n -= 1
        name += i
        name_len -= i
        for i in range(1, n):
            if pattern[i] == c".":
                break
        else:
            return 0                    # "*.com" covers a whole registry
    if n != name_len:
        return 0
    for i in range(n):
        if identity_lower(pattern[i]) != identity_lower(name[i]):
            return 0
    return 1
