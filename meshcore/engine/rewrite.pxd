# The edited head: what is sent on in place of what was received, requests and responses. Decides no route, sends nothing.
#
# STRICT_OUT: whatever comes in, what goes out is HTTP/1.1 with one Host first, one framing, no hop-by-hop field, and
# re-parses to the same message with a strict parser. Untouched neighbouring fields are copied as one run, so an
# ordinary head costs one or two memcpy; everything this proxy adds is written behind them in lower case.
# The caller's room is checked once, against an upper bound: the writing itself needs no checks.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, strlen

from meshcore.engine.authority cimport Authority, authority_parse
from meshcore.engine.date cimport DATE_LINE_BYTES
from meshcore.engine.fields cimport (
    FIELD_CONTENT_LENGTH,
    FIELD_CONTENT_TYPE,
    FIELD_DATE,
    FIELD_DROP,
    FIELD_FORWARDED,
    FIELD_HOST,
    FIELD_L5D_CLIENT_ID,
    FIELD_L5D_ORIG_REASON,
    FIELD_MAX_FORWARDS,
    FIELD_MESH,
    FIELD_SEC_WEBSOCKET_ACCEPT,
    FIELD_TRACEPARENT,
    FIELD_TRACESTATE,
    FIELD_TRAILER,
    FIELD_UPGRADE,
    FIELD_X_FORWARDED_CLIENT_CERT,
    FIELD_X_FORWARDED_FOR,
    FIELD_X_FORWARDED_HOST,
    FIELD_X_FORWARDED_PROTO,
    FIELD_X_REAL_IP,
    FIELD_X_REQUEST_ID,
    field_hash,
    field_id,
)
from meshcore.engine.grpc_web cimport GRPC_WEB_TEXT, grpc_web_write_type
from meshcore.engine.head cimport (
    FRAMING_CHUNKED,
    FRAMING_LENGTH,
    FRAMING_NONE,
    HEAD_MAX_HOST,
    METHOD_OPTIONS,
    METHOD_POST,
    METHOD_PUT,
    TARGET_ABSOLUTE,
    TARGET_ASTERISK,
    TARGET_AUTHORITY,
    TARGET_ORIGIN,
    UPGRADE_OTHER,
    UPGRADE_WEBSOCKET,
    Field,
    Head,
    head_field,
    head_has,
)
from meshcore.engine.hop cimport hop_read_length
from meshcore.engine.http1_request cimport upgrade_is_allowed
from meshcore.engine.octets cimport octets_equal_nocase, octets_next_member, octets_write_decimal
from meshcore.engine.rng cimport Rng
from meshcore.engine.snapshot cimport HEADER_ADD, HEADER_REMOVE, Forwarding, HeaderOps, RouteConf, Text
from meshcore.engine.status cimport status_phrase
from meshcore.engine.websocket cimport WEBSOCKET_ACCEPT_BYTES
from meshcore.engine.trace cimport request_id_is_valid, request_id_write, traceparent_is_valid, traceparent_write


cdef extern from *:
    """
    /* Requests without any of these take the short way: only Host is replaced. */
    #define MC_REWRITE_RARE ( \\
      (1ULL << MC_FIELD_CONTENT_LENGTH) | (1ULL << MC_FIELD_X_FORWARDED_FOR) | (1ULL << MC_FIELD_X_FORWARDED_PROTO) | \\
      (1ULL << MC_FIELD_X_FORWARDED_HOST) | (1ULL << MC_FIELD_X_FORWARDED_CLIENT_CERT) | (1ULL << MC_FIELD_X_REAL_IP) | \\
      (1ULL << MC_FIELD_FORWARDED) | (1ULL << MC_FIELD_X_REQUEST_ID) | (1ULL << MC_FIELD_TRACEPARENT) | \\
      (1ULL << MC_FIELD_TRACESTATE) | (1ULL << MC_FIELD_MAX_FORWARDS) | (1ULL << MC_FIELD_MESH) | \\
      (1ULL << MC_FIELD_L5D_CLIENT_ID))
    """
    const uint64_t REWRITE_RARE_FIELDS "MC_REWRITE_RARE"


cdef enum ForwardMode:
    FORWARD_OFF = 0
    FORWARD_APPEND = 1
    FORWARD_REPLACE = 2

cdef enum:
    # Everything this proxy may add to a request besides texts whose lengths are counted, summed up and rounded.
    REWRITE_FIXED_BYTES = 632


cdef struct ForwardInfo:
    const Forwarding* forwarding
    const char* client_at               # the caller's address without port; len 0: none (a unix socket)
    uint32_t client_len
    uint8_t secure                      # the caller came over TLS
    uint8_t trust_mesh_headers          # keep l5d-* and X-Forwarded-Client-Cert as sent
    uint8_t allow_upgrade               # pass head.upgrade on
    uint8_t grpc_web                    # GrpcWeb: it goes on as gRPC
    uint8_t tells_empty                 # say of a request without content that it has none
    uint8_t is_http2                    # the version it came in
    const char* peer_at                 # who the caller is, as its handshake proved; len 0: nobody known
    uint32_t peer_len
    const char* certificate_at          # an element for X-Forwarded-Client-Cert; len 0: none is to be sent
    uint32_t certificate_len
    uint64_t wall_ms                    # Unix time, for the request id
    Rng* rng


cdef struct ResponseInfo:
    const Forwarding* forwarding
    uint64_t content_length
    uint8_t framing                     # FRAMING_* towards the client; FRAMING_NONE keeps a length that is metadata
    uint8_t close                       # this is the connection's last response
    uint8_t minor_version               # of the client's request
    uint8_t upgrade                     # 101, or the answer to CONNECT: no framing at all
    uint8_t interim                     # 1xx
    uint8_t tells_reason                # over the mesh's hop, which has no reason phrases: say one that is not the usual
    uint8_t takes_reason                # and back again
    uint8_t grpc_web                    # GrpcWeb: it was gRPC
    uint8_t is_http2                    # the version it came in
    const char* date                    # a line to add where none says when it was made; NULL: none
    const char* websocket_accept        # what the client's key is answered with; NULL: the endpoint's own answer


cdef inline uint32_t rewrite_request(const Head* head, const RouteConf* route, const ForwardInfo* info, char* out,
                                     uint32_t cap) noexcept nogil:
    """Write the request head to send upstream. Returns its length, or 0 when `cap` could be too small."""
    cdef const Forwarding* forwarding = info.forwarding
    cdef uint64_t drop = <uint64_t>1 << FIELD_HOST
    cdef uint64_t own = rewrite_op_mask(&route.request_headers)
    cdef uint32_t bound = (head.size_bytes + REWRITE_FIXED_BYTES + forwarding.via.len + 3 * info.client_len + info.peer_len + info.certificate_len
                           + (2 * head.authority_len if head.authority_len else HEAD_MAX_HOST) + route.host_rewrite.len + route.prefix_rewrite.len
                           + rewrite_ops_bytes(&route.request_headers))
    cdef char* at = out
    if bound > cap:
        return 0
    if head.present & REWRITE_RARE_FIELDS:
        drop |= rewrite_dropped_fields(head, info)
    if info.grpc_web:
        drop |= <uint64_t>1 << FIELD_CONTENT_TYPE
        if info.grpc_web == GRPC_WEB_TEXT:
            drop |= <uint64_t>1 << FIELD_CONTENT_LENGTH
    at = rewrite_request_line(head, route, at)
    at = rewrite_host(head, route, at)
    if head.wants_trailers or (info.allow_upgrade and head.upgrade):
        at = rewrite_request_connection(head, info, at)
    at = rewrite_copy(head, drop, &route.request_headers, at)
    if head.framing == FRAMING_CHUNKED:
        at = rewrite_put(at, "transfer-encoding: chunked\r\n", 28)
        if head_has(head, FIELD_TRAILER):
            at = rewrite_trailer(head, at)
    elif head.framing == FRAMING_LENGTH and drop >> FIELD_CONTENT_LENGTH & 1:
        at = rewrite_content_length(at, head.content_length)
    elif info.tells_empty and head.framing == FRAMING_NONE and (head.method == METHOD_POST or head.method == METHOD_PUT):
        at = rewrite_content_length(at, 0)            # RFC 9110 8.6; in HTTP/2 the end of the head said it
    if info.grpc_web:
        at = grpc_web_write_type(head, info.grpc_web, 0, at)
    at = rewrite_via(head, forwarding, info.is_http2, at)
    if forwarding.x_forwarded:
        at = rewrite_forwarded(head, info, own, at)
    if forwarding.request_id and not own >> FIELD_X_REQUEST_ID & 1 and (drop >> FIELD_X_REQUEST_ID & 1 or not head_has(head, FIELD_X_REQUEST_ID)):
        at = rewrite_put(at, "x-request-id: ", 14)
        at = request_id_write(at, info.wall_ms, info.rng)
        at = rewrite_put(at, "\r\n", 2)
    if forwarding.traceparent and not own >> FIELD_TRACEPARENT & 1 and (drop >> FIELD_TRACEPARENT & 1 or not head_has(head, FIELD_TRACEPARENT)):
        at = rewrite_put(at, "traceparent: ", 13)
        at = traceparent_write(at, info.rng)
        at = rewrite_put(at, "\r\n", 2)
    if drop >> FIELD_MAX_FORWARDS & 1:
        at = rewrite_max_forwards(head, at)
    if info.peer_len and not own >> FIELD_L5D_CLIENT_ID & 1:
        at = rewrite_put(at, "l5d-client-id: ", 15)
        at = rewrite_put(at, info.peer_at, info.peer_len)
        at = rewrite_put(at, "\r\n", 2)
    if info.certificate_len:
        at = rewrite_put(at, "x-forwarded-client-cert: ", 25)
        at = rewrite_put(at, info.certificate_at, info.certificate_len)
        at = rewrite_put(at, "\r\n", 2)
    at = rewrite_put_ops(&route.request_headers, at)
    at = rewrite_put(at, "\r\n", 2)
    return <uint32_t>(at - out)


cdef inline uint32_t rewrite_response(const Head* head, const RouteConf* route, const ResponseInfo* info, char* out,
                                      uint32_t cap) noexcept nogil:
    """Write the response head to send to the client. Returns its length, or 0 when `cap` could be too small."""
    cdef uint64_t drop = 0
    cdef uint64_t length = info.content_length if info.framing == FRAMING_LENGTH else head.content_length
    cdef bint length_is_wanted = rewrite_length_wanted(head, info)
    cdef uint32_t bound = (head.size_bytes + 256 + head.reason_len + info.forwarding.via.len + rewrite_ops_bytes(&route.response_headers))
    cdef char* at = out
    if bound > cap:
        return 0
    if head_has(head, FIELD_CONTENT_LENGTH):
        if length_is_wanted and length == head.content_length and rewrite_length_is_canonical(head):
            length_is_wanted = False    # the line that came says it
        else:
            drop |= <uint64_t>1 << FIELD_CONTENT_LENGTH
    if info.grpc_web:
        drop |= <uint64_t>1 << FIELD_CONTENT_TYPE
    if info.websocket_accept != NULL:
        drop |= <uint64_t>1 << FIELD_SEC_WEBSOCKET_ACCEPT
    at = rewrite_put(at, "HTTP/1.1 ", 9)
    at = rewrite_put(at, head.base + 9, 3)
    at = rewrite_put(at, " ", 1)
    if info.takes_reason and head_has(head, FIELD_L5D_ORIG_REASON):
        at = rewrite_put_value(head, head_field(head, FIELD_L5D_ORIG_REASON), at)
    else:
        at = rewrite_put(at, head.base + head.reason_at, head.reason_len)
    at = rewrite_put(at, "\r\n", 2)
    if info.tells_reason and not rewrite_reason_is_usual(head):
        at = rewrite_put(at, "l5d-orig-reason: ", 17)
        at = rewrite_put(at, head.base + head.reason_at, head.reason_len)
        at = rewrite_put(at, "\r\n", 2)
    if info.grpc_web:
        at = grpc_web_write_type(head, info.grpc_web, 1, at)
    at = rewrite_copy(head, drop, &route.response_headers, at)
    if info.upgrade:
        if head.status == 101:
            at = rewrite_put(at, "connection: upgrade\r\nupgrade: ", 30)
            at = rewrite_put_value(head, head_field(head, FIELD_UPGRADE), at)
            at = rewrite_put(at, "\r\n", 2)
            if info.websocket_accept != NULL:
                at = rewrite_put(at, "sec-websocket-accept: ", 22)
                at = rewrite_put(at, info.websocket_accept, WEBSOCKET_ACCEPT_BYTES)
                at = rewrite_put(at, "\r\n", 2)
    elif not info.interim:
        if length_is_wanted:
            at = rewrite_content_length(at, length)
        elif info.framing == FRAMING_CHUNKED:
            at = rewrite_put(at, "transfer-encoding: chunked\r\n", 28)
            if head_has(head, FIELD_TRAILER):
                at = rewrite_trailer(head, at)
        if info.close:
            at = rewrite_put(at, "connection: close\r\n", 19)
        elif info.minor_version == 0:
            at = rewrite_put(at, "connection: keep-alive\r\n", 24)
    if info.date != NULL and not head_has(head, FIELD_DATE) and not rewrite_op_mask(&route.response_headers) >> FIELD_DATE & 1:
        at = rewrite_put(at, info.date, DATE_LINE_BYTES)      # RFC 9110 6.6.1
    at = rewrite_via(head, info.forwarding, info.is_http2, at)
    at = rewrite_put_ops(&route.response_headers, at)
    at = rewrite_put(at, "\r\n", 2)
    return <uint32_t>(at - out)


cdef inline int rewrite_reason_is_usual(const Head* head) noexcept nogil:
    cdef const char* phrase = status_phrase(head.status)
    return strlen(phrase) == head.reason_len and memcmp(phrase, head.base + head.reason_at, head.reason_len) == 0


# --- the fields copied --------------------------------------------------------------------------------------------

cdef inline char* rewrite_copy(const Head* head, uint64_t drop, const HeaderOps* ops, char* at) noexcept nogil:
    """Copy the fields that stay, in order, neighbours in one piece."""
    cdef uint32_t run_at = head.fields_at
    cdef uint32_t i
    cdef uint32_t end = head.size_bytes - 2
    cdef const Field* field
    if ops.n_ops:
        return rewrite_copy_with_ops(head, drop, ops, at)
    for i in range(head.n_fields):
        field = &head.fields[i]
        if field.flags & FIELD_DROP or drop >> field.id & 1:
            if field.name_at > run_at:
                at = rewrite_put(at, head.base + run_at, field.name_at - run_at)
            run_at = head.fields[i + 1].name_at if i + 1 < head.n_fields else end
    if end > run_at:
        at = rewrite_put(at, head.base + run_at, end - run_at)
    return at


cdef inline char* rewrite_copy_with_ops(const Head* head, uint64_t drop, const HeaderOps* ops, char* at) noexcept nogil:
    """As rewrite_copy, less the fields the route sets or removes. O(fields x operations); operations are few."""
    cdef uint32_t run_at = head.fields_at
    cdef uint32_t i
    cdef uint32_t end = head.size_bytes - 2
    cdef const Field* field
    for i in range(head.n_fields):
        field = &head.fields[i]
        if field.flags & FIELD_DROP or drop >> field.id & 1 or rewrite_ops_replace(ops, head.base + field.name_at, field.name_len):
            if field.name_at > run_at:
                at = rewrite_put(at, head.base + run_at, field.name_at - run_at)
            run_at = head.fields[i + 1].name_at if i + 1 < head.n_fields else end
    if end > run_at:
        at = rewrite_put(at, head.base + run_at, end - run_at)
    return at


cdef inline int rewrite_ops_replace(const HeaderOps* ops, const char* name, uint32_t len) noexcept nogil:
    cdef uint64_t name_hash = field_hash(name, len)
    cdef uint32_t i
    for i in range(ops.n_ops):
        if (ops.ops[i].kind != HEADER_ADD and ops.ops[i].name_hash == name_hash and ops.ops[i].name.len == len
                and octets_equal_nocase(name, ops.ops[i].name.at, len)):
            return 1
    return 0


cdef inline uint32_t rewrite_ops_bytes(const HeaderOps* ops) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t total = 0
    for i in range(ops.n_ops):
        total += ops.ops[i].line.len
    return total


cdef inline uint64_t rewrite_op_mask(const HeaderOps* ops) noexcept nogil:
    """Known fields the route sets or removes, as bits: this proxy then adds none of its own of that name."""
    cdef uint64_t mask = 0
    cdef uint32_t i
    for i in range(ops.n_ops):
        if ops.ops[i].kind != HEADER_ADD:
            mask |= <uint64_t>1 << field_id(ops.ops[i].name.at, ops.ops[i].name.len)
    return mask & ~<uint64_t>1


cdef inline char* rewrite_put_ops(const HeaderOps* ops, char* at) noexcept nogil:
    cdef uint32_t i
    for i in range(ops.n_ops):
        if ops.ops[i].kind != HEADER_REMOVE:
            at = rewrite_put(at, ops.ops[i].line.at, ops.ops[i].line.len)
    return at


cdef inline char* rewrite_put(char* at, const char* text, uint32_t len) noexcept nogil:
    memcpy(at, text, len)
    return at + len


cdef inline char* rewrite_put_value(const Head* head, const Field* field, char* at) noexcept nogil:
    return rewrite_put(at, head.base + field.value_at, field.value_len)


# --- request: start line, host, connection -------------------------------------------------------------------------

cdef inline char* rewrite_request_line(const Head* head, const RouteConf* route, char* at) noexcept nogil:
    """RFC 9112 3.2.1: origin-form to an origin server, whatever form it came in."""
    cdef const char* path = head.base + head.path_at
    cdef uint32_t skip
    if head.target_form == TARGET_ORIGIN and route.prefix_rewrite.at == NULL and head.minor_version == 1:
        return rewrite_put(at, head.base + head.method_at, head.fields_at - head.method_at)
    at = rewrite_put(at, head.base + head.method_at, head.method_len + 1)
    if head.target_form == TARGET_ASTERISK:
        at = rewrite_put(at, "*", 1)
    elif head.target_form == TARGET_AUTHORITY:
        at = rewrite_put(at, head.base + head.authority_at, head.authority_len)
    else:
        if (head.method == METHOD_OPTIONS and head.target_form == TARGET_ABSOLUTE and head.query_len == 0
                and head.path_at < head.authority_at):
            at = rewrite_put(at, "*", 1)            # RFC 9112 3.2.4: OPTIONS with an empty path
        elif route.prefix_rewrite.at != NULL:
            at = rewrite_path(at, path, head.path_len, route)
        else:
            at = rewrite_put(at, path, head.path_len)
        at = rewrite_put(at, head.base + head.query_at, head.query_len)
    return rewrite_put(at, " HTTP/1.1\r\n", 11)


cdef inline char* rewrite_path(char* at, const char* path, uint32_t len, const RouteConf* route) noexcept nogil:
    """Put the route's new prefix in place of the matched one, by whole segments: exactly one '/' between the parts."""
    cdef uint32_t old_len = route.prefix.len
    cdef uint32_t new_len = route.prefix_rewrite.len
    while old_len and route.prefix.at[old_len - 1] == 47:
        old_len -= 1
    while new_len and route.prefix_rewrite.at[new_len - 1] == 47:
        new_len -= 1
    if old_len > len:
        old_len = len
    if new_len == 0 and old_len == len:
        return rewrite_put(at, "/", 1)
    at = rewrite_put(at, route.prefix_rewrite.at, new_len)
    return rewrite_put(at, path + old_len, len - old_len)


cdef inline char* rewrite_host(const Head* head, const RouteConf* route, char* at) noexcept nogil:
    """RFC 9112 3.2: Host first, from the target or Host."""
    at = rewrite_put(at, "host: ", 6)
    if route.host_rewrite.at != NULL:
        at = rewrite_put(at, route.host_rewrite.at, route.host_rewrite.len)
    elif head.authority_len:
        at = rewrite_put(at, head.base + head.authority_at, head.authority_len)
    else:
        at = rewrite_host_of_cluster(route, at)
    return rewrite_put(at, "\r\n", 2)


cdef inline char* rewrite_host_of_cluster(const RouteConf* route, char* at) noexcept nogil:
    """An HTTP/1.0 client may name no host, HTTP/1.1 upstream must: the name of the cluster, where it can be one."""
    cdef Authority authority
    cdef Text name
    if route.n_targets:
        name = route.targets[0].cluster.name
        if name.len <= HEAD_MAX_HOST and authority_parse(name.at, name.len, &authority):
            return rewrite_put(at, name.at, name.len)
    return rewrite_put(at, "localhost", 9)


cdef inline char* rewrite_request_connection(const Head* head, const ForwardInfo* info, char* at) noexcept nogil:
    """Connection, Upgrade and TE of our own hop."""
    cdef bint upgrades = info.allow_upgrade and (head.upgrade == UPGRADE_WEBSOCKET or head.upgrade == UPGRADE_OTHER)
    if not upgrades and not head.wants_trailers:
        return at
    at = rewrite_put(at, "connection: ", 12)
    if upgrades:
        at = rewrite_put(at, "upgrade", 7)
        if head.wants_trailers:
            at = rewrite_put(at, ", ", 2)
    if head.wants_trailers:
        at = rewrite_put(at, "te\r\nte: trailers", 16)
    at = rewrite_put(at, "\r\n", 2)
    if upgrades:
        at = rewrite_put(at, "upgrade: ", 9)
        if head.upgrade == UPGRADE_WEBSOCKET:
            at = rewrite_put(at, "websocket", 9)
        else:
            at = rewrite_allowed_protocols(head, at)
        at = rewrite_put(at, "\r\n", 2)
    return at


cdef inline char* rewrite_allowed_protocols(const Head* head, char* at) noexcept nogil:
    """The members of Upgrade that may be offered upstream, in the client's order."""
    cdef uint32_t i, cursor, len
    cdef const char* protocol
    cdef const Field* field
    cdef bint is_first = True
    for i in range(head.first[FIELD_UPGRADE], head.n_fields):
        field = &head.fields[i]
        if field.id != FIELD_UPGRADE:
            continue
        cursor = 0
        while octets_next_member(head.base + field.value_at, field.value_len, &cursor, &protocol, &len):
            if upgrade_is_allowed(protocol, len):
                if not is_first:
                    at = rewrite_put(at, ", ", 2)
                at = rewrite_put(at, protocol, len)
                is_first = False
    return at


# --- request: forwarding fields ------------------------------------------------------------------------------------

cdef inline uint64_t rewrite_dropped_fields(const Head* head, const ForwardInfo* info) noexcept nogil:
    """Which known fields of a request are not copied as they are, as bits."""
    cdef const Forwarding* forwarding = info.forwarding
    cdef const Field* field
    cdef uint64_t drop = 0
    if info.peer_len:
        drop |= <uint64_t>1 << FIELD_L5D_CLIENT_ID          # what was proved here counts, whoever else is believed
    if info.certificate_len:
        drop |= <uint64_t>1 << FIELD_X_FORWARDED_CLIENT_CERT
    if not info.trust_mesh_headers:
        # Identity and mesh control come from inside the mesh only: Linkerd's l5d-*, Envoy's XFCC.
        drop |= (<uint64_t>1 << FIELD_MESH) | (<uint64_t>1 << FIELD_L5D_CLIENT_ID) | (<uint64_t>1 << FIELD_X_FORWARDED_CLIENT_CERT)
    if forwarding.x_forwarded:
        drop |= (<uint64_t>1 << FIELD_X_FORWARDED_FOR) | (<uint64_t>1 << FIELD_FORWARDED) | (<uint64_t>1 << FIELD_X_REAL_IP)
        if forwarding.x_forwarded == FORWARD_REPLACE:
            drop |= (<uint64_t>1 << FIELD_X_FORWARDED_PROTO) | (<uint64_t>1 << FIELD_X_FORWARDED_HOST)
    if head_has(head, FIELD_CONTENT_LENGTH):
        if not rewrite_length_is_canonical(head):
            drop |= <uint64_t>1 << FIELD_CONTENT_LENGTH
    if forwarding.request_id and head_has(head, FIELD_X_REQUEST_ID):
        field = head_field(head, FIELD_X_REQUEST_ID)
        if head.repeated >> FIELD_X_REQUEST_ID & 1 or not request_id_is_valid(head.base + field.value_at, field.value_len):
            drop |= <uint64_t>1 << FIELD_X_REQUEST_ID
    if forwarding.traceparent and head_has(head, FIELD_TRACEPARENT):
        field = head_field(head, FIELD_TRACEPARENT)
        if head.repeated >> FIELD_TRACEPARENT & 1 or not traceparent_is_valid(head.base + field.value_at, field.value_len):
            drop |= <uint64_t>1 << FIELD_TRACEPARENT
    if forwarding.traceparent and (drop >> FIELD_TRACEPARENT & 1 or not head_has(head, FIELD_TRACEPARENT)):
        drop |= <uint64_t>1 << FIELD_TRACESTATE             # W3C Trace Context 3.3: no state without its parent
    if head.method == METHOD_OPTIONS and head_has(head, FIELD_MAX_FORWARDS):
        drop |= <uint64_t>1 << FIELD_MAX_FORWARDS
    return drop


cdef inline char* rewrite_forwarded(const Head* head, const ForwardInfo* info, uint64_t own, char* at) noexcept nogil:
    """Who called: X-Forwarded-For, -Proto, -Host, and the fields a caller could lie with in their place.

    The caller's address is always ours to say, and stands last in X-Forwarded-For. Proto and Host of a proxy in front
    are believed in append mode: it saw the client, we see only the proxy."""
    cdef bint appends = info.forwarding.x_forwarded == FORWARD_APPEND
    cdef const char* value
    if not own >> FIELD_X_FORWARDED_FOR & 1:
        if appends and head_has(head, FIELD_X_FORWARDED_FOR):
            at = rewrite_put(at, "x-forwarded-for: ", 17)
            value = at
            at = rewrite_join(head, FIELD_X_FORWARDED_FOR, at)
            if info.client_len:
                if at != value:
                    at = rewrite_put(at, ", ", 2)
                at = rewrite_put(at, info.client_at, info.client_len)
            at = rewrite_put(at, "\r\n", 2)
        elif info.client_len:
            at = rewrite_put(at, "x-forwarded-for: ", 17)
            at = rewrite_put(at, info.client_at, info.client_len)
            at = rewrite_put(at, "\r\n", 2)
    if not own >> FIELD_X_FORWARDED_PROTO & 1 and not (appends and head_has(head, FIELD_X_FORWARDED_PROTO)):
        if info.secure:
            at = rewrite_put(at, "x-forwarded-proto: https\r\n", 26)
        else:
            at = rewrite_put(at, "x-forwarded-proto: http\r\n", 25)
    if not own >> FIELD_X_FORWARDED_HOST & 1 and head.authority_len and not (appends and head_has(head, FIELD_X_FORWARDED_HOST)):
        at = rewrite_put(at, "x-forwarded-host: ", 18)
        at = rewrite_put(at, head.base + head.authority_at, head.authority_len)
        at = rewrite_put(at, "\r\n", 2)
    if head_has(head, FIELD_X_REAL_IP) and info.client_len and not own >> FIELD_X_REAL_IP & 1:
        at = rewrite_put(at, "x-real-ip: ", 11)
        at = rewrite_put(at, info.client_at, info.client_len)
        at = rewrite_put(at, "\r\n", 2)
    if appends and head_has(head, FIELD_FORWARDED) and not own >> FIELD_FORWARDED & 1:
        at = rewrite_rfc7239(head, info, at)
    return at


cdef inline char* rewrite_rfc7239(const Head* head, const ForwardInfo* info, char* at) noexcept nogil:
    """Append our element to a Forwarded that is there; none is started. RFC 7239 4 and 6: IPv6 in quotes and brackets."""
    cdef bint is_ipv6 = info.client_len and memchr(info.client_at, 58, info.client_len) != NULL
    cdef const char* value
    at = rewrite_put(at, "forwarded: ", 11)
    value = at
    at = rewrite_join(head, FIELD_FORWARDED, at)
    if at != value:
        at = rewrite_put(at, ", ", 2)
    at = rewrite_put(at, "for=", 4)
    if info.client_len == 0:
        at = rewrite_put(at, "unknown", 7)
    elif is_ipv6:
        at = rewrite_put(at, "\"[", 2)
        at = rewrite_put(at, info.client_at, info.client_len)
        at = rewrite_put(at, "]\"", 2)
    else:
        at = rewrite_put(at, info.client_at, info.client_len)
    return rewrite_put(at, "\r\n", 2)


cdef inline char* rewrite_join(const Head* head, uint32_t id, char* at) noexcept nogil:
    """All values of one field as one list."""
    cdef uint32_t i
    cdef bint is_first = True
    for i in range(head.first[id], head.n_fields):
        if head.fields[i].id != id or head.fields[i].value_len == 0:
            continue
        if not is_first:
            at = rewrite_put(at, ", ", 2)
        at = rewrite_put_value(head, &head.fields[i], at)
        is_first = False
    return at


cdef inline char* rewrite_via(const Head* head, const Forwarding* forwarding, int is_http2, char* at) noexcept nogil:
    """RFC 9110 7.6.3: the version received, and our pseudonym, behind whatever Via there is already."""
    if forwarding.via.at == NULL:
        return at
    at = rewrite_put(at, "via: 2.0 " if is_http2 else "via: 1.1 " if head.minor_version else "via: 1.0 ", 9)
    at = rewrite_put(at, forwarding.via.at, forwarding.via.len)
    return rewrite_put(at, "\r\n", 2)


cdef inline char* rewrite_max_forwards(const Head* head, char* at) noexcept nogil:
    """RFC 9110 7.6.2: one less. Zero never gets here; what is no number is left out."""
    cdef const Field* field = head_field(head, FIELD_MAX_FORWARDS)
    cdef uint64_t hops
    if not hop_read_length(head.base + field.value_at, field.value_len, &hops) or hops == 0:
        return at
    at = rewrite_put(at, "max-forwards: ", 14)
    at = octets_write_decimal(at, hops - 1)
    return rewrite_put(at, "\r\n", 2)


# --- framing -------------------------------------------------------------------------------------------------------

cdef inline char* rewrite_content_length(char* at, uint64_t length) noexcept nogil:
    at = rewrite_put(at, "content-length: ", 16)
    at = octets_write_decimal(at, length)
    return rewrite_put(at, "\r\n", 2)


cdef inline char* rewrite_trailer(const Head* head, char* at) noexcept nogil:
    """Trailer announces fields of a chunked body: kept, in one line, when the body stays chunked."""
    at = rewrite_put(at, "trailer: ", 9)
    at = rewrite_join(head, FIELD_TRAILER, at)
    return rewrite_put(at, "\r\n", 2)


cdef inline int rewrite_length_wanted(const Head* head, const ResponseInfo* info) noexcept nogil:
    """1 when the response goes out with a Content-Length: that of its body, or the metadata of HEAD and 304."""
    if info.upgrade or info.interim or head.status < 200 or head.status == 204:
        return 0                        # RFC 9110 8.6: MUST NOT be there
    return info.framing == FRAMING_LENGTH or (info.framing == FRAMING_NONE and head.has_length)


cdef inline int rewrite_length_is_canonical(const Head* head) noexcept nogil:
    """1 when the received Content-Length can be copied: no leading zero, which someone may read as octal."""
    cdef const Field* field = head_field(head, FIELD_CONTENT_LENGTH)
    return field.value_len == 1 or head.base[field.value_at] != 48
