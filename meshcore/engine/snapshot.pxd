# One immutable compiled configuration. Owns the structs and their memory; decides nothing, holds no run-time state.
#
# Built by the door from a validated plan, posted to the workers by pointer, read without locks, freed when the last
# exchange that started under it has ended. Every pointer in it points into its own arena: freeing is one loop.
# Run-time state (pools, breakers, counters) lives in tables of the worker, found by the `slot` numbers below, so that
# an unchanged cluster, endpoint or route keeps its state across configurations (keeps UNCHANGED_UNTOUCHED).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int32_t
from libc.stdlib cimport malloc, free
from libc.string cimport memcpy, memset

from meshcore.engine.openssl cimport SSL_CTX


cdef enum:
    ARENA_FIRST_BYTES = 2032            # with malloc's own words, half a page
    ARENA_BLOCK_BYTES = 65536


cdef struct ArenaBlock:
    ArenaBlock* next
    size_t used_bytes
    size_t size_bytes


cdef struct Arena:
    ArenaBlock* head
    size_t total_bytes


cdef struct Text:                       # bytes of the arena, not NUL-terminated
    const char* at
    uint32_t len


cdef struct Address:
    uint16_t family                     # AF_INET, AF_INET6, AF_UNIX
    uint16_t sockaddr_len
    uint8_t sockaddr[128]               # struct sockaddr_storage's size
    Text text                           # "10.0.0.1:80", "[::1]:80", "unix:/run/x": for Host-less use, tap, logs


cdef enum BalancerKind:
    BALANCER_ROUND_ROBIN = 0
    BALANCER_RANDOM = 1
    BALANCER_LEAST_REQUEST = 2
    BALANCER_PEAK_EWMA = 3


cdef enum BackoffKind:                  # how waits grow: see backoff
    BACKOFF_DOUBLING = 0
    BACKOFF_DECORRELATED = 1


cdef struct BackoffConf:
    uint64_t first_ns                   # 0: nothing is waited for
    uint64_t longest_ns
    uint32_t jitter_ppm                 # 500_000 = up to +50 %
    uint8_t kind


cdef struct SuccessRateConf:            # see success_rate
    uint32_t least_ppm                  # of requests that must succeed; 0 = not judged
    uint32_t requests                   # before it is judged
    uint64_t window_ns                  # by time; 0 = by number of requests
    double kept                         # by number: what one request leaves of the rate before it


cdef struct BreakerConf:
    uint32_t consecutive_failures       # eject at this many in a row; 0 = never
    SuccessRateConf success_rate        # or when fewer succeed
    BackoffConf backoff                 # how long
    uint32_t panic_percent              # fewer than this share of endpoints admitted -> ejection and health are ignored


cdef struct BudgetConf:
    uint32_t ratio_ppm                  # retries allowed per request, 200_000 = 20 %
    uint32_t min_per_second             # always allowed, so that a quiet cluster can retry at all
    uint32_t ttl_ms                     # how long a deposit counts


cdef struct EndpointConf:
    uint32_t slot                       # index into the worker's endpoint states
    uint32_t weight                     # 1..65535; 0 = keep its streams, pick it for nothing new
    Address address
    SSL_CTX* tls                        # held by the snapshot's handle; NULL: plaintext, or see `context`
    uint16_t context                    # 1 + index of a context that all bindings share, in Worker.tls_contexts; 0: none
    uint8_t speaks                      # UpstreamProtocol
    uint8_t identity_kind               # who it must be, by a shared context: identity.IdentityKind
    Text identity                       # len 0: the context's own rules say so
    Text sni                            # to ask it for, NUL-terminated; len 0: none
    uint32_t labels                     # number of what is said of it in taps and statistics; 0: nothing


cdef enum UpstreamProtocol:
    UPSTREAM_HTTP1 = 0
    UPSTREAM_HTTP2 = 1
    UPSTREAM_SAME = 2                   # as the client of each request
    UPSTREAM_HOP = 3                    # HTTP/2, with requests of HTTP/1 marked as such: see mesh_hop
    UPSTREAM_MIXED = 4                  # of a cluster: its endpoints differ


cdef struct ClusterConf:
    uint32_t slot                       # index into the worker's cluster states
    Text name
    EndpointConf* endpoints
    uint32_t n_endpoints
    uint32_t* cumulative_weights        # running sums over endpoints, [n-1] == total_weight
    uint32_t total_weight
    uint8_t weights_equal               # every weight > 0 and the same: balancers may skip the search
    uint8_t balancer
    uint64_t ewma_decay_ns
    uint64_t connect_timeout_ns
    uint32_t max_connections            # per worker, per endpoint
    uint32_t max_requests               # in flight, per worker, whole cluster
    uint32_t max_queue                  # exchanges waiting for a connection, per worker
    uint64_t queue_timeout_ns
    uint32_t max_idle                   # idle pooled connections per worker, per endpoint
    uint64_t idle_timeout_ns
    uint32_t max_requests_per_connection
    uint8_t proxy_version               # PROXY header sent first: 1, 2, or 0 for none; TCP only
    uint8_t speaks                      # UpstreamProtocol of all its endpoints
    uint8_t is_original_destination     # the endpoint is where the client was going; endpoints[0] is its row of numbers
    uint8_t is_to_loopback              # then: at the loopback address of its family
    uint16_t to_port                    # then: at this port; 0: its own
    uint8_t is_nothing                  # empty on purpose: what a tree sends here goes nowhere else
    BreakerConf breaker
    BudgetConf budget


cdef enum HeaderOpKind:
    HEADER_SET = 0                      # replace all of that name
    HEADER_ADD = 1
    HEADER_REMOVE = 2


cdef struct HeaderOp:
    uint8_t kind
    uint64_t name_hash                  # http1.field_hash of the lower-cased name
    Text name                           # lower-cased
    Text value
    Text line                           # "name: value\r\n", ready to copy


cdef struct HeaderOps:
    HeaderOp* ops
    uint32_t n_ops


cdef enum TargetKind:
    TARGET_CLUSTER = 0
    TARGET_FIRST = 1                    # the first child that has a live endpoint
    TARGET_SHARE = 2                    # one of those that have, by weight


cdef struct TargetNode:                 # of a tree of clusters; see target_tree
    uint8_t kind
    uint8_t leaf                        # number of a cluster in the tree; from 64 on, none is remembered as used up
    uint32_t n_children
    uint32_t weight                     # in its parent's share
    ClusterConf* cluster
    TargetNode* children


cdef struct RouteTarget:
    ClusterConf* cluster
    uint32_t cumulative_weight


cdef enum NameKind:                     # what the name of a request is made of
    NAME_AUTHORITY = 0
    NAME_DESTINATION = 1
    NAME_HOST = 2
    NAME_METHOD_AND_HOST = 3
    NAME_PATH = 4
    NAME_HEADER = 5
    NAME_HEADER_TOKEN = 6
    NAME_CONSTANT = 7


cdef struct LookupConf:
    uint8_t by                          # NameKind
    uint8_t overrides                   # tables in the request are a part of its name
    uint32_t segments                   # of NAME_PATH
    Text prefix
    Text field                          # lower-cased
    Text name                           # of NAME_CONSTANT
    uint64_t timeout_ns


cdef struct DirectResponse:
    uint16_t status
    uint8_t reason                      # reasons.REASON_*
    Text head                           # whole response head without Date/Connection, up to the last field's CRLF
    Text body


cdef enum RetryOn:
    RETRY_CONNECT_FAILURE = 1           # nothing was sent: any method
    RETRY_RESET = 2                     # closed before a response byte: idempotent methods only
    RETRY_502 = 4
    RETRY_503 = 8
    RETRY_504 = 16
    RETRY_CANCELLED = 32                # gRPC calls that ended so without a message
    RETRY_DEADLINE_EXCEEDED = 64
    RETRY_RESOURCE_EXHAUSTED = 128
    RETRY_UNAVAILABLE = 256


cdef struct FieldMatch:                 # a header field a request must have
    Text name                           # in lower case
    Text value


cdef struct RouteConf:
    uint32_t slot                       # index into the worker's route states
    Text name
    uint32_t method_mask                # bit http1.Method; 0 = any
    uint32_t order                      # position in the configuration: first listed wins among equals
    FieldMatch* fields                  # all of them must be there
    uint32_t n_fields
    RouteTarget* targets
    uint32_t n_targets
    uint32_t total_weight
    TargetNode* tree                    # instead of `targets`; NULL: those
    LookupConf* lookup                  # NULL unless a name says where requests go; `targets` then are for those without
    DirectResponse* direct              # NULL unless the route answers itself
    uint8_t refuses_for                 # a reason: what a name that means nothing is bound to; 0: it goes on
    Text prefix                         # the matched prefix, when prefix_rewrite is set
    Text prefix_rewrite                 # at == NULL: keep the path
    Text host_rewrite                   # at == NULL: keep Host
    HeaderOps request_headers
    HeaderOps response_headers
    uint64_t response_timeout_ns        # request sent -> response head; 0 = none
    uint64_t total_timeout_ns           # request head -> response end; 0 = none
    uint64_t idle_timeout_ns            # no byte either way during a body
    uint64_t tunnel_idle_timeout_ns
    uint64_t max_body_bytes             # 0 = no limit
    uint16_t retry_on                   # RetryOn bits
    uint8_t max_attempts                # first try included
    BackoffConf backoff                 # before a try is repeated
    uint8_t filters                     # 1 = on_request, 2 = on_response (Python hooks)
    uint8_t allow_upgrade               # Upgrade tunnels; h2c and TLS never
    uint8_t allow_connect
    uint8_t grpc_web                    # calls of gRPC-Web go on as gRPC


cdef struct Limits:
    uint32_t head_size_bytes
    uint32_t field_size_bytes
    uint32_t target_size_bytes
    uint32_t max_fields
    uint32_t trailer_size_bytes
    uint32_t chunk_line_bytes
    uint32_t chunk_extension_total_bytes
    uint32_t max_interim_responses
    uint32_t max_requests_per_connection
    uint32_t max_connections            # per worker, downstream
    uint32_t max_in_flight              # exchanges per worker
    uint64_t buffer_memory_bytes        # per worker, all buffers in use together
    uint32_t body_min_rate_bytes_per_s
    uint64_t body_min_rate_grace_ns
    uint64_t head_timeout_ns
    uint64_t keep_alive_timeout_ns
    uint64_t linger_timeout_ns          # lingering close: how long a refused client may still send
    uint32_t linger_bytes
    uint64_t tls_handshake_timeout_ns
    uint32_t max_tls_handshakes         # under way per worker
    uint64_t filter_timeout_ns          # a Python filter that has not answered by then: 504
    uint32_t max_filters_waiting        # exchanges per worker that wait for a Python filter
    uint32_t http2_max_streams          # per downstream session
    uint32_t http2_stream_window_bytes  # body octets a peer may send ahead, per stream
    uint32_t http2_max_resets           # per downstream session, forgotten in 6 s
    uint32_t max_lookups_waiting        # exchanges per worker that wait for a name to be bound
    uint32_t name_size_bytes            # of a name with its overrides
    uint32_t max_latency_histograms     # per worker, of routes, clusters and endpoints together
    uint32_t max_original_destinations  # addresses per worker that clients were on their way to, all clusters together


cdef struct Forwarding:
    Text via                            # pseudonym, "meshcore"; at == NULL: no Via
    uint8_t x_forwarded                 # 0 off, 1 append, 2 replace
    uint8_t request_id
    uint8_t traceparent


cdef enum Interception:
    INTERCEPTION_OFF = 0
    INTERCEPTION_REDIRECT = 1           # the kernel rewrote the address, and tells the original when asked
    INTERCEPTION_TPROXY = 2             # the connection's own address is the original


cdef struct ListenerConf:
    uint32_t slot
    Text name
    void* routes                        # routes.RouteTable*, of this arena
    uint8_t relays                      # connections may be of something else than HTTP
    uint8_t serves_http
    RouteConf* tcp_route                # where those go that are not HTTP; NULL: nowhere
    void* tls_routes                    # RouteTable* by the name that a ClientHello asks for; NULL: not asked
    uint64_t detect_timeout_ns          # 0: their first octets are not looked at
    uint8_t trust_mesh_headers          # keep l5d-* and XFCC fields of callers
    uint8_t proxy_versions              # PROXY protocol bits a client must begin with; 0: none
    uint8_t interception                # Interception: how connections got here that were going elsewhere
    uint32_t* opaque_ports              # one bit a port: these are not looked at; NULL: no such port
    uint8_t mesh_hop                    # requests may say that they were HTTP/1 before the mesh: see mesh_hop
    uint8_t http2                       # clients may speak HTTP/2 by prior knowledge, or agree on it
    SSL_CTX* tls                        # held by the snapshot's handle; NULL: plaintext
    uint8_t tls_is_optional             # clients without TLS are let in, as nobody


cdef struct Snapshot:
    Arena arena
    uint64_t version
    Limits limits
    Forwarding forwarding
    ListenerConf* listeners
    uint32_t n_listeners
    ClusterConf* clusters
    uint32_t n_clusters
    RouteConf* routes
    uint32_t n_routes


# --- arena: bump allocation while a snapshot is built -------------------------------------------------------------

cdef inline void* arena_alloc(Arena* arena, size_t size_bytes) noexcept nogil:
    """Zeroed memory, 16-byte aligned, freed with the arena. Returns NULL when the system has none."""
    cdef ArenaBlock* block = arena.head
    cdef size_t wanted = (size_bytes + 15) & ~<size_t>15
    cdef size_t block_bytes
    cdef char* at
    if block == NULL or block.size_bytes - block.used_bytes < wanted:
        # As much as there is already: a 10,000-route table takes a few dozen blocks, what one name is bound to half a page.
        block_bytes = arena.total_bytes if arena.total_bytes > ARENA_FIRST_BYTES else ARENA_FIRST_BYTES
        if block_bytes > ARENA_BLOCK_BYTES:
            block_bytes = ARENA_BLOCK_BYTES
        if block_bytes < wanted + sizeof(ArenaBlock) + 16:
            block_bytes = wanted + sizeof(ArenaBlock) + 16
        block = <ArenaBlock*>malloc(block_bytes)
        if block == NULL:
            return NULL
        block.next = arena.head
        block.used_bytes = (sizeof(ArenaBlock) + 15) & ~<size_t>15
        block.size_bytes = block_bytes
        arena.head = block
        arena.total_bytes += block_bytes
    at = <char*>block + block.used_bytes
    block.used_bytes += wanted
    memset(at, 0, wanted)
    return at


cdef inline void arena_free(Arena* arena) noexcept nogil:
    """Free every block. Safe on an arena that holds none."""
    cdef ArenaBlock* block = arena.head
    cdef ArenaBlock* following
    # Safety: the arena itself may live inside its first block, so it is not read after the loop starts.
    while block != NULL:
        following = block.next
        free(block)
        block = following


cdef inline Text arena_text(Arena* arena, const char* at, size_t len) noexcept nogil:
    """Copy bytes into the arena. `at` of the result is NULL only when memory ran out."""
    cdef Text text
    cdef char* copy = <char*>arena_alloc(arena, len + 1)
    text.at = copy
    text.len = <uint32_t>len
    if copy != NULL and len:
        memcpy(copy, at, len)
    return text
