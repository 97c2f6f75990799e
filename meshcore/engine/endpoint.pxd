# What one worker knows about an endpoint and its cluster at run time: structs only, every verb on them lives elsewhere.
#
# One per worker and slot, zeroed when a snapshot first names it, kept across configurations that still do
# (keeps UNCHANGED_UNTOUCHED). Plain counters: only the owning worker writes (keeps ONE_OWNER), readers sum over workers.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from meshcore.engine.histogram cimport Histogram
from meshcore.engine.ewma cimport Ewma
from meshcore.engine.breaker cimport Breaker
from meshcore.engine.budget cimport Budget


cdef enum:
    ENDPOINT_NO_CONNECTION = 0xFFFFFFFF # idle_head of an empty pool


cdef struct EndpointState:
    # Read by every pick and every lease: the first two cache lines.
    uint32_t active                     # exchanges that hold a connection of it or are about to
    uint32_t open_connections
    uint32_t idle_head                  # pool's list of idle connections: connection index or ENDPOINT_NO_CONNECTION
    uint32_t n_idle
    void* sessions                      # HTTP/2 sessions with it: Session*
    uint32_t http2_max_streams          # it last allowed on one; 0: not known yet
    int64_t wrr_current                 # smooth weighted round robin's credit
    Ewma ewma
    Breaker breaker
    uint64_t requests
    uint64_t successes
    uint64_t failures
    uint64_t connects
    uint64_t connect_failures
    uint64_t retries
    uint64_t ejections
    uint64_t bytes_in
    uint64_t bytes_out
    Histogram* latency
    uint64_t slot_version               # snapshot version that last named this slot
    void* tls_session                   # SSL_SESSION* to resume, one reference; NULL: none
    uint64_t tls_trust                  # what the trust in it rests on (TlsRules.trust)
    uint64_t tls_handshakes             # completed
    uint64_t tls_resumed                # ... of them
    uint64_t tls_failures


cdef struct ClusterState:
    uint32_t in_flight
    uint32_t rr_next                    # round robin over equal weights: index of the next endpoint
    uint32_t rr_endpoints               # for how many endpoints rr_next was drawn; 0 = not yet
    uint32_t queue_len
    uint32_t queue_head
    uint32_t queue_tail
    uint32_t panic                      # balance's cached verdict for large clusters
    uint64_t panic_until_ns             # how long it stands
    Budget budget
    uint64_t requests
    uint64_t successes
    uint64_t failures
    uint64_t retries
    uint64_t budget_exhausted
    uint64_t queue_overflow
    uint64_t queue_timeouts
    uint64_t stale_replays
    uint64_t status_class[6]            # [1] = 1xx … [5] = 5xx, [0] = ended without a status
    Histogram* latency
