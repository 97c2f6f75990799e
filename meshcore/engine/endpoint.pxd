# What one worker knows about an endpoint and its cluster at run time: structs only, every verb on them lives elsewhere.
#
# An endpoint is named by a snapshot, or is where an intercepted connection was going: a Destination. What picks, pools,
# ejects and counts does not see the difference.
#
# One per worker and slot, zeroed when a snapshot first names it, kept across configurations that still do
# (keeps UNCHANGED_UNTOUCHED). Plain counters: only the owning worker writes (keeps ONE_OWNER), readers sum over workers.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from meshcore.engine.histogram cimport Histogram
from meshcore.engine.ewma cimport Ewma
from meshcore.engine.breaker cimport Breaker
from meshcore.engine.budget cimport Budget
from meshcore.engine.snapshot cimport Address


cdef enum:
    ENDPOINT_NO_CONNECTION = 0xFFFFFFFF # idle_head of an empty pool


cdef struct TcpCounts:                  # of connections relayed as they are; told while they last, as they may last for days
    uint64_t ended                      # counted in `requests` besides, as are ...
    uint64_t failed                     # ... those of them that found nobody, or were cut
    uint64_t opened                     # reached an endpoint
    uint64_t closed                     # ... of them
    uint64_t bytes_out                  # to the endpoint
    uint64_t bytes_in


cdef struct EndpointState:
    # Read by every pick and every lease: the first two cache lines.
    uint32_t active                     # exchanges that hold a connection of it or are about to
    uint32_t open_connections
    uint32_t idle_head                  # pool's list of idle connections: connection index or ENDPOINT_NO_CONNECTION
    uint32_t n_idle
    uint8_t unhealthy                   # its health checks fail; Python writes it, whenever they have a verdict
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
    uint32_t bindings                   # current ones of this worker that name it
    void* tls_session                   # SSL_SESSION* to resume, one reference; NULL: none
    uint64_t tls_trust                  # what it was made under (TlsRules.sessions)
    uint64_t tls_handshakes             # completed
    uint64_t tls_resumed                # ... of them
    uint64_t tls_failures
    TcpCounts tcp


cdef struct Destination:                # an endpoint found at run time; see destination
    EndpointState state                 # first: what exchanges and connections point at
    Address address                     # its text is `text`
    char text[64]
    uint8_t host[16]
    uint16_t port
    uint8_t family
    uint8_t is_known                    # in its bucket; else spare, or let go and still in use
    uint32_t row_slot                   # the cluster's endpoint state that has the sums: with the address, its key
    uint32_t bucket
    Destination* bucket_next            # or the next spare or parting one
    Destination* newer                  # by last use
    Destination* older


cdef struct Destinations:
    Destination** entries               # all that were ever made: never freed before the worker, so readers may look
    uint32_t n_entries
    uint32_t n_known
    Destination** buckets
    Destination* newest
    Destination* oldest
    Destination* spare
    Destination* parting                # let go of, perhaps still in use
    uint64_t seed                       # of the hash: clients choose the keys
    uint64_t changing                   # odd while numbers move from an entry to its row: readers look again


cdef struct ClusterState:
    uint32_t in_flight
    uint32_t rr_next                    # round robin over equal weights: index of the next endpoint
    uint32_t rr_endpoints               # for how many endpoints rr_next was drawn; 0 = not yet
    uint32_t queue_len
    uint32_t queue_head
    uint32_t queue_tail
    ClusterState* queued_next           # Worker.queued_clusters
    ClusterState* queued_prev
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
