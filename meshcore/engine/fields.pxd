# The field names this proxy knows and what each may do: classification by name. Owns no message, judges no value.
#
# HOP      meant for this hop only: never forwarded (RFC 9110 7.6.1)
# KEEP     Connection may not strip it, whatever it lists: taking away a credential or an address by naming it there is
#          an attack, not an option
# ALIAS    a name that differs only by '_' for '-' is dropped: CGI-like back ends read both as one variable
# NOTRAIL  refused in a trailer section (RFC 9110 6.5.1)
# ONCE     a second line of that name is refused: two readers could pick different ones
# To add one: a line in the table (first, last and three-quarter octet feed the hash; the test tells of a collision).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from meshcore.engine.octets cimport octet_lower, octets_equal_lower, octets_hold_underscore

cdef extern from * nogil:
    """
    #define MC_HOP 1
    #define MC_KEEP 2
    #define MC_ALIAS 4
    #define MC_NOTRAIL 8
    #define MC_ONCE 16
    #define MC_FRAME (MC_KEEP | MC_ALIAS | MC_NOTRAIL)
    #define MC_FIELDS(X) \\
      X(HOST,                      "host",                      'h','t','t', MC_FRAME | MC_ONCE) \\
      X(CONNECTION,                "connection",                'c','n','i', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(CONTENT_LENGTH,            "content-length",            'c','h','n', MC_FRAME | MC_ONCE) \\
      X(TRANSFER_ENCODING,         "transfer-encoding",         't','g','o', MC_HOP | MC_FRAME | MC_ONCE) \\
      X(UPGRADE,                   "upgrade",                   'u','e','d', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(EXPECT,                    "expect",                    'e','t','c', MC_FRAME) \\
      X(TE,                        "te",                        't','e','e', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(TRAILER,                   "trailer",                   't','r','e', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(KEEP_ALIVE,                "keep-alive",                'k','e','i', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(PROXY_CONNECTION,          "proxy-connection",          'p','n','t', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(PROXY_AUTHENTICATE,        "proxy-authenticate",        'p','e','i', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(PROXY_AUTHORIZATION,       "proxy-authorization",       'p','n','a', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(PROXY_AUTHENTICATION_INFO, "proxy-authentication-info", 'p','o','o', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      /* httpoxy (CVE-2016-5385): CGI back ends would read it as the variable HTTP_PROXY */ \\
      X(PROXY,                     "proxy",                     'p','y','x', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(HTTP2_SETTINGS,            "http2-settings",            'h','s','i', MC_HOP | MC_ALIAS | MC_NOTRAIL) \\
      X(VIA,                       "via",                       'v','a','a', MC_FRAME) \\
      X(X_FORWARDED_FOR,           "x-forwarded-for",           'x','r','-', MC_FRAME) \\
      X(X_FORWARDED_PROTO,         "x-forwarded-proto",         'x','o','p', MC_FRAME) \\
      X(X_FORWARDED_HOST,          "x-forwarded-host",          'x','t','h', MC_FRAME) \\
      X(X_FORWARDED_PORT,          "x-forwarded-port",          'x','t','p', MC_FRAME) \\
      X(X_FORWARDED_CLIENT_CERT,   "x-forwarded-client-cert",   'x','t','t', MC_FRAME) \\
      X(X_REAL_IP,                 "x-real-ip",                 'x','p','-', MC_FRAME) \\
      X(FORWARDED,                 "forwarded",                 'f','d','d', MC_FRAME) \\
      X(X_REQUEST_ID,              "x-request-id",              'x','d','-', MC_FRAME) \\
      X(TRACEPARENT,               "traceparent",               't','t','e', MC_FRAME) \\
      X(TRACESTATE,                "tracestate",                't','e','a', MC_FRAME) \\
      X(AUTHORIZATION,             "authorization",             'a','n','t', MC_FRAME | MC_ONCE) \\
      X(COOKIE,                    "cookie",                    'c','e','i', MC_FRAME) \\
      X(SET_COOKIE,                "set-cookie",                's','e','k', MC_FRAME) \\
      X(CONTENT_TYPE,              "content-type",              'c','e','y', MC_FRAME) \\
      X(CONTENT_ENCODING,          "content-encoding",          'c','g','d', MC_FRAME) \\
      X(CONTENT_RANGE,             "content-range",             'c','e','a', MC_FRAME) \\
      X(MAX_FORWARDS,              "max-forwards",              'm','s','r', MC_FRAME) \\
      X(SEC_WEBSOCKET_KEY,         "sec-websocket-key",         's','y','t', MC_FRAME) \\
      X(SEC_WEBSOCKET_VERSION,     "sec-websocket-version",     's','n','e', MC_FRAME) \\
      X(SEC_WEBSOCKET_ACCEPT,      "sec-websocket-accept",      's','t','c', MC_FRAME) \\
      X(DATE,                      "date",                      'd','e','e', MC_KEEP | MC_NOTRAIL) \\
      X(CACHE_CONTROL,             "cache-control",             'c','l','t', MC_KEEP | MC_NOTRAIL) \\
      X(PRAGMA,                    "pragma",                    'p','a','m', MC_KEEP | MC_NOTRAIL) \\
      X(RANGE,                     "range",                     'r','e','g', MC_KEEP | MC_NOTRAIL) \\
      X(WWW_AUTHENTICATE,          "www-authenticate",          'w','e','c', MC_KEEP | MC_NOTRAIL) \\
      X(AGE,                       "age",                       'a','e','e', MC_KEEP | MC_NOTRAIL) \\
      X(EXPIRES,                   "expires",                   'e','s','e', MC_KEEP | MC_NOTRAIL) \\
      X(LOCATION,                  "location",                  'l','n','o', MC_KEEP | MC_NOTRAIL) \\
      X(RETRY_AFTER,               "retry-after",               'r','r','t', MC_KEEP | MC_NOTRAIL) \\
      X(VARY,                      "vary",                      'v','y','y', MC_KEEP | MC_NOTRAIL) \\
      X(WARNING,                   "warning",                   'w','g','n', MC_KEEP | MC_NOTRAIL) \\
      X(SERVER,                    "server",                    's','r','e', MC_KEEP | MC_NOTRAIL) \\
      /* who the caller is, as a handshake proved it: never a caller's to say */ \\
      X(L5D_CLIENT_ID,             "l5d-client-id",             'l','d','t', MC_FRAME) \\
      /* what a request was before the mesh's own hop: between two proxies, and no further */ \
      X(L5D_ORIG_PROTO,            "l5d-orig-proto",            'l','o','r', MC_HOP | MC_FRAME) \
      X(L5D_ORIG_REASON,           "l5d-orig-reason",           'l','n','a', MC_HOP | MC_FRAME) \
      X(X_MESH_REASON,             "x-mesh-reason",             'x','n','a', MC_FRAME)
    /* The multipliers were searched for: with them the names above fall into different slots of 256. */
    #define MC_FIELD_SLOT(first, last, mid, len) (((first) * 11 + (last) * 6 + (mid) * 2 + (len) * 103) & 255)
    enum {
      MC_FIELD_OTHER,
    #define X(id, text, first, last, mid, rule) MC_FIELD_##id,
      MC_FIELDS(X)
    #undef X
      MC_FIELD_MESH,                    /* l5d-*, by prefix */
      MC_FIELD_COUNT
    };
    static const uint8_t mc_field_slot[256] = {
    #define X(id, text, first, last, mid, rule) [MC_FIELD_SLOT(first, last, mid, sizeof(text) - 1)] = MC_FIELD_##id,
      MC_FIELDS(X)
    #undef X
    };
    static const uint8_t mc_field_rule[MC_FIELD_COUNT] = {
      0,
    #define X(id, text, first, last, mid, rule) rule,
      MC_FIELDS(X)
    #undef X
      MC_FRAME
    };
    static const uint8_t mc_field_len[MC_FIELD_COUNT] = {
      0,
    #define X(id, text, first, last, mid, rule) sizeof(text) - 1,
      MC_FIELDS(X)
    #undef X
      0
    };
    static const char mc_field_text[MC_FIELD_COUNT][32] = {
      "",
    #define X(id, text, first, last, mid, rule) text,
      MC_FIELDS(X)
    #undef X
      "l5d-"
    };
    """
    enum:
        FIELD_OTHER "MC_FIELD_OTHER"
        FIELD_HOST "MC_FIELD_HOST"
        FIELD_CONNECTION "MC_FIELD_CONNECTION"
        FIELD_CONTENT_LENGTH "MC_FIELD_CONTENT_LENGTH"
        FIELD_TRANSFER_ENCODING "MC_FIELD_TRANSFER_ENCODING"
        FIELD_UPGRADE "MC_FIELD_UPGRADE"
        FIELD_EXPECT "MC_FIELD_EXPECT"
        FIELD_TE "MC_FIELD_TE"
        FIELD_TRAILER "MC_FIELD_TRAILER"
        FIELD_KEEP_ALIVE "MC_FIELD_KEEP_ALIVE"
        FIELD_PROXY_CONNECTION "MC_FIELD_PROXY_CONNECTION"
        FIELD_PROXY_AUTHENTICATE "MC_FIELD_PROXY_AUTHENTICATE"
        FIELD_PROXY_AUTHORIZATION "MC_FIELD_PROXY_AUTHORIZATION"
        FIELD_PROXY_AUTHENTICATION_INFO "MC_FIELD_PROXY_AUTHENTICATION_INFO"
        FIELD_PROXY "MC_FIELD_PROXY"
        FIELD_HTTP2_SETTINGS "MC_FIELD_HTTP2_SETTINGS"
        FIELD_VIA "MC_FIELD_VIA"
        FIELD_X_FORWARDED_FOR "MC_FIELD_X_FORWARDED_FOR"
        FIELD_X_FORWARDED_PROTO "MC_FIELD_X_FORWARDED_PROTO"
        FIELD_X_FORWARDED_HOST "MC_FIELD_X_FORWARDED_HOST"
        FIELD_X_FORWARDED_PORT "MC_FIELD_X_FORWARDED_PORT"
        FIELD_X_FORWARDED_CLIENT_CERT "MC_FIELD_X_FORWARDED_CLIENT_CERT"
        FIELD_X_REAL_IP "MC_FIELD_X_REAL_IP"
        FIELD_FORWARDED "MC_FIELD_FORWARDED"
        FIELD_X_REQUEST_ID "MC_FIELD_X_REQUEST_ID"
        FIELD_TRACEPARENT "MC_FIELD_TRACEPARENT"
        FIELD_TRACESTATE "MC_FIELD_TRACESTATE"
        FIELD_AUTHORIZATION "MC_FIELD_AUTHORIZATION"
        FIELD_COOKIE "MC_FIELD_COOKIE"
        FIELD_SET_COOKIE "MC_FIELD_SET_COOKIE"
        FIELD_CONTENT_TYPE "MC_FIELD_CONTENT_TYPE"
        FIELD_CONTENT_ENCODING "MC_FIELD_CONTENT_ENCODING"
        FIELD_CONTENT_RANGE "MC_FIELD_CONTENT_RANGE"
        FIELD_MAX_FORWARDS "MC_FIELD_MAX_FORWARDS"
        FIELD_SEC_WEBSOCKET_KEY "MC_FIELD_SEC_WEBSOCKET_KEY"
        FIELD_SEC_WEBSOCKET_VERSION "MC_FIELD_SEC_WEBSOCKET_VERSION"
        FIELD_SEC_WEBSOCKET_ACCEPT "MC_FIELD_SEC_WEBSOCKET_ACCEPT"
        FIELD_DATE "MC_FIELD_DATE"
        FIELD_L5D_CLIENT_ID "MC_FIELD_L5D_CLIENT_ID"
        FIELD_L5D_ORIG_PROTO "MC_FIELD_L5D_ORIG_PROTO"
        FIELD_L5D_ORIG_REASON "MC_FIELD_L5D_ORIG_REASON"
        FIELD_X_MESH_REASON "MC_FIELD_X_MESH_REASON"
        FIELD_MESH "MC_FIELD_MESH"
        FIELD_COUNT "MC_FIELD_COUNT"
    enum:
        RULE_HOP "MC_HOP"
        RULE_KEEP "MC_KEEP"
        RULE_ALIAS "MC_ALIAS"
        RULE_NOTRAIL "MC_NOTRAIL"
        RULE_ONCE "MC_ONCE"
    const uint8_t* field_rule "mc_field_rule"
    const uint8_t* field_slot "mc_field_slot"
    const uint8_t* field_len "mc_field_len"
    const char* field_text_at "(const char*)mc_field_text"
    uint32_t FIELD_SLOT "MC_FIELD_SLOT"(uint32_t first, uint32_t last, uint32_t mid, uint32_t len)


cdef enum FieldFlag:
    FIELD_DROP = 1                      # hop-by-hop, named by Connection, or an alias of a guarded name


cdef inline uint8_t field_id(const char* name, uint32_t len) noexcept nogil:
    """Which known field a token names, in any case. FIELD_OTHER when it is none of the table."""
    cdef uint8_t id
    if len == 0:
        return FIELD_OTHER
    id = field_slot[FIELD_SLOT(<uint8_t>name[0] | 0x20, <uint8_t>name[len - 1] | 0x20,
                               <uint8_t>name[(len * 3) >> 2] | 0x20, len)]
    if id != FIELD_OTHER and field_len[id] == len and octets_equal_lower(name, field_text_at + 32 * <uint32_t>id, len):
        return id
    if len > 4 and octets_equal_lower(name, "l5d-", 4):
        return FIELD_MESH
    return FIELD_OTHER


cdef inline uint8_t field_alias(const char* name, uint32_t len) noexcept nogil:
    """The guarded field that a name with underscores aliases, or FIELD_OTHER."""
    cdef char dashed[32]
    cdef uint32_t i
    cdef uint8_t id
    if not octets_hold_underscore(name, len):
        return FIELD_OTHER
    for i in range(len if len < 32 else 32):
        dashed[i] = 45 if name[i] == 95 else name[i]
    if len >= 32:                       # longer than any name of the table: only the prefix can matter
        return FIELD_MESH if octets_equal_lower(dashed, "l5d-", 4) else FIELD_OTHER
    id = field_id(dashed, len)
    return id if field_rule[id] & RULE_ALIAS else FIELD_OTHER


cdef inline int field_in_trailer(const char* name, uint32_t len) noexcept nogil:
    """1 when a field of that name may arrive in a trailer section. RFC 9110 6.5.1: never what frames, routes, modifies
    the request, authenticates or describes the content."""
    cdef uint8_t id = field_id(name, len)
    if id == FIELD_OTHER:
        id = field_alias(name, len)
    if field_rule[id] & RULE_NOTRAIL:
        return 0
    if len > 8 and octets_equal_lower(name, "content-", 8):
        # RFC 9530 lets a digest of the content follow it; every other content-* field describes it in advance.
        return len == 14 and octets_equal_lower(name, "content-digest", 14)
    if len > 3 and octets_equal_lower(name, "if-", 3):
        return 0
    if len > 6 and octets_equal_lower(name, "proxy-", 6):
        return 0
    if len > 12 and octets_equal_lower(name, "x-forwarded-", 12):
        return 0
    return 1


cdef inline int field_may_be_named(const char* name, uint32_t len, uint8_t id) noexcept nogil:
    """1 when Connection may declare that field hop-by-hop."""
    if field_rule[id] & RULE_KEEP:
        return 0
    return not (len > 12 and octets_equal_lower(name, "x-forwarded-", 12))


cdef inline uint64_t field_hash(const char* name, uint32_t len) noexcept nogil:
    """64-bit hash of a name without regard to case, never 0. Used to match header operations. Source: FNV-1a."""
    cdef uint64_t h = <uint64_t>14695981039346656037ULL
    cdef uint32_t i
    for i in range(len):
        h = (h ^ octet_lower(<uint8_t>name[i])) * <uint64_t>1099511628211ULL
    return h | 1
