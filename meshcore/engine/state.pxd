# The structs that point at each other: worker, connection, exchange. Owns their shape only; verbs live in the rooms
# named after what they do (conn, pool, flow, dispatch, response, request, loop).
#
# ONE_OWNER: a connection belongs to at most one exchange, an exchange to exactly one downstream connection, both to
# one worker. Nothing here is touched by another thread, except `Worker.mailbox` (commands in), the statistics (read
# racily, monotonic) and an exchange that waits for a Python filter (owned by the filter thread until it comes back).

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshcore.engine.base64 cimport Base64
from meshcore.engine.binding cimport BindingRef, BindingTable, BoundName
from meshcore.engine.buffer cimport Buffer, BufferPool
from meshcore.engine.date cimport DateLine
from meshcore.engine.endpoint cimport ClusterState, Destinations, EndpointState, TcpCounts
from meshcore.engine.framing cimport ChunkDecoder
from meshcore.engine.histogram cimport Histogram
from meshcore.engine.histogram_pool cimport HistogramPool
from meshcore.engine.hpack_read cimport HpackReader
from meshcore.engine.hpack_write cimport HpackWriter
from meshcore.engine.http2_frame cimport Frame
from meshcore.engine.http2_head cimport HeadBlock
from meshcore.engine.head cimport Head, HeadParser
from meshcore.engine.llhttp cimport Llhttp
from meshcore.engine.openssl cimport SSL_CTX, TlsPipe
from meshcore.engine.ring cimport Ring
from meshcore.engine.rng cimport Rng
from meshcore.engine.slab cimport Slab, SlabItem
from meshcore.engine.silence cimport Silences
from meshcore.engine.snapshot cimport Address, Snapshot, RouteConf, ClusterConf, ListenerConf
from meshcore.engine.stack cimport Stack, StackNode
from meshcore.engine.tap_session cimport MAX_TAPS, TapSession
from meshcore.engine.timer cimport TimerNode, TimerWheel
from meshcore.engine.uring cimport Uring

cdef enum:
    MAX_ENDPOINTS = 262144              # slots per worker; pages of an unused table are never touched
    MAX_CLUSTERS = 65536
    MAX_ROUTES = 65536
    MAX_LISTENERS = 1024
    MAX_DESTINATIONS = 65536            # most that limits.max_original_destinations may ask for
    DESTINATION_BUCKETS = 16384
    MAX_TLS_CONTEXTS = 16               # that bindings share
    MAX_IDLE_PIPES = 64
    LISTENER_REMOVED = 0xFFFFFFFF
    READ_BYTES = 65536                  # one read of ordinary traffic
    READ_LARGE_BYTES = 262144           # one read once a body turned out large: half the CPU per byte
    SCRATCH_BYTES = 98304               # an edited head (<= 64 KiB) with a small body behind it
    BATCH_EVENTS = 32                   # connections served between two entries into the kernel for their sends
    BATCH_SENDS = 240                   # an event may cause more than one, one of a session many
    BATCH_SEND_BYTES = 65536            # held back of all connections together
    BATCH_SEND_MAX_BYTES = 8192         # of one: above, copying costs what the call saved


cdef struct Exchange
cdef struct Hook
cdef struct Session
cdef struct RouteState
cdef struct SnapshotRef
cdef struct Worker


# --- connection -----------------------------------------------------------------------------------------------------

cdef enum ConnKind:
    CONN_FREE = 0
    CONN_DOWNSTREAM = 1
    CONN_UPSTREAM = 2
    CONN_LISTENER = 3

cdef enum ConnState:
    # downstream
    CONN_AWAIT_HEAD = 0
    CONN_IN_EXCHANGE = 1
    CONN_AWAIT_FLUSH = 2                # close once the output is out
    CONN_LINGERING = 3                  # our side is shut; the client may finish sending before it reads
    CONN_AWAIT_PREFACE = 6              # a PROXY header comes first
    CONN_AWAIT_PROTOCOL = 7             # its first bytes will tell what it speaks
    CONN_AWAIT_HELLO = 10               # TLS that is not ended here: whom it asks for will tell its route
    # both
    CONN_AWAIT_TLS = 9                  # a handshake is under way; downstream, its first byte may not have come yet
    # upstream
    CONN_AWAIT_CONNECT = 4
    CONN_IDLE = 5                       # in its endpoint's pool
    # both
    CONN_IN_SESSION = 8                 # HTTP/2: its streams are connections of their own

cdef enum ConnTransport:
    TRANSPORT_SOCKET = 0                # its bytes are the socket's
    TRANSPORT_TLS = 1                   # encrypted: see tls
    TRANSPORT_STREAM = 2                # it is one stream of an HTTP/2 session, and has no socket

cdef enum ConnCode:                     # what a read or a write came to
    CONN_OK = 0
    CONN_BLOCKED = 1                    # the rest waits in out_buffer
    CONN_AGAIN = 2                      # nothing to read now
    CONN_EOF = 3
    CONN_ERROR = 4

cdef enum:
    IO_READABLE = 1                     # an edge came and was not yet read to its end
    IO_WRITABLE = 2
    IO_PEER_CLOSED = 4                  # RDHUP: the end of the input follows what is still unread
    IO_FAILED = 8                       # ERR or HUP

cdef enum:
    CONN_CLOSE_AFTER = 1                # no further request on this connection
    CONN_QUEUED = 2                     # in the worker's run list
    CONN_REUSED = 4                     # upstream: has carried a response before
    CONN_SHUT = 8                       # our sending side is closed
    CONN_DOUBTFUL = 32                  # upstream: bytes nobody asked for may follow; ask before reuse
    CONN_RESET = 16                     # close with RST: the client must not take what it has for complete


cdef struct Conn:
    SlabItem item                       # first: found by token
    int32_t fd
    TimerNode timer
    Exchange* exchange
    Buffer* in_buffer                   # read, not consumed: a partial head or pipelined requests
    Buffer* out_buffer                  # accepted, not yet taken by the kernel
    HeadParser* parser                  # progress inside a partial head
    void* owner                         # downstream, listener: ListenerState*; upstream: EndpointState*
    uint8_t kind
    uint8_t state
    uint8_t io
    uint8_t flags
    uint8_t transport
    uint8_t ring_reads                  # made through the ring, up to where its file is kept there: see batch
    uint32_t requests
    void* channel                       # of a transport other than the socket; a stream: Stream*
    Session* session                    # CONN_IN_SESSION
    uint32_t run_next                   # run list of the worker
    uint32_t pool_next                  # idle list of the endpoint, or all downstream connections of the worker
    uint32_t pool_prev
    uint16_t peer_port
    uint8_t received_slot               # 1 + place in Batch.received; 0: none
    uint8_t send_slot                   # 1 + place in Batch.sends; 0: none
    uint8_t peer_text_len               # 0: not IPv4, see peer_address
    char peer_text[16]
    uint8_t peer_address[16]
    uint8_t original_family             # downstream: where an intercepted one was going; 0: not intercepted
    uint16_t original_port
    uint8_t original_address[16]        # IPv4 in the first four


# --- HTTP/2 (see session, stream) ------------------------------------------------------------------------------------

cdef enum:
    STREAM_ENDED_IN = 1                 # its last octet came
    STREAM_ENDED_OUT = 2                # nothing follows what is in out_buffer
    STREAM_HEAD_OUT_DUE = 4             # out_buffer begins with a head
    STREAM_SENT = 8                     # upstream: the request's head has left
    STREAM_CLOSED = 16                  # the session has forgotten it
    STREAM_DIRTY = 32                   # in its session's list of those with something to send
    STREAM_READY = 64                   # in the worker's list of those with something for their exchange
    STREAM_UNLISTED = 128               # given up while in that list, which gives it back
    STREAM_STALLED = 256                # a window holds its body back
    STREAM_HEAD_IN = 512                # the (final) head came: what follows are trailers
    STREAM_HEAD_TAKEN = 1024
    STREAM_RESET_WHEN_OUT = 2048        # answered before all of the request came: the rest is not wanted
    STREAM_UNPROCESSED = 4096           # the endpoint says it did nothing with the request
    STREAM_LEFT_BEHIND = 8192           # ... since its session was ending
    STREAM_WEBSOCKET = 16384            # upstream: its request is an extended CONNECT (RFC 8441)
    STREAM_ALL_SENT = 32768             # its last octet has left
    STREAM_FULL_BYTES = 16384           # waiting in one stream: one frame's worth, so that its session never idles


cdef struct Stream:                     # one exchange's side of a session: the transport of a Conn
    SlabItem item
    Session* session                    # NULL: gone
    Conn* conn                          # NULL: parted, only the session still knows the id
    Stream* next                        # all of the session
    Stream* prev
    Stream* dirty_next
    Stream* ready_next
    Stream* place_next                  # those whose ids share a place in its session
    int32_t id                          # 0: not submitted yet
    int32_t send_window_bytes           # that the peer takes; below zero when it has thought better of it
    int32_t window_bytes                # that the peer may send
    uint32_t taken_bytes                # of those it sent, not given back yet
    uint32_t flags
    uint8_t ready_io                    # edges to note when its turn comes
    uint8_t refusal                     # the reason its head is refused for
    Buffer* head                        # the head that came, as HTTP/1 text
    Buffer* data                        # body octets that came, not yet taken
    Buffer* trailers_in                 # "name: value CRLF" lines
    Buffer* trailers_out
    uint64_t length_left                # of a request that told its length; else FLOW_UNKNOWN_BYTES
    uint32_t error_code                 # it was closed with; 0: none


cdef struct Session:
    Worker* worker
    Conn* conn                          # the socket's; NULL once the session is over
    Stream* streams
    Stream* dirty                       # streams with something to send
    Stream* dirty_last
    Session* dirty_next                 # sessions with something to send
    Session* next                       # upstream: all of its endpoint
    Session* prev
    uint32_t n_streams                  # of which the session knows, or will
    uint32_t n_begun                    # of them those with an id
    uint32_t max_streams                # that we may open
    uint32_t max_peer_streams           # that the client may, as it was told
    uint32_t resets                     # tokens left: see session_spend
    uint32_t frames
    uint64_t refilled_ns
    Stream* places[64]                  # all streams with an id, by it
    Buffer* control                     # frames to send ahead of all else: see http2_control
    uint32_t n_answers                  # of them, to PING and SETTINGS
    HpackReader reader
    HpackWriter writer
    HeadBlock block                     # the header block being read
    Stream* block_stream                # whose it is; NULL: read for the tables' sake only
    Buffer* block_rest                  # of it: a field that is not whole yet
    int32_t block_id                    # its HEADERS came, its end did not; 0: none
    uint8_t block_ends                  # and with it its stream
    uint8_t block_is_passed_over
    uint8_t in_block                    # a HEADERS frame began and its block is not at its end
    uint8_t in_frame                    # `frame` began and is not at its end
    uint8_t has_settings                # the peer's came
    uint8_t awaits_settings_ack
    uint8_t is_choked                   # a stream waits for the connection's window
    uint8_t peer_takes_connect          # RFC 8441: upstream, the endpoint said so
    Frame frame                         # being read
    uint32_t payload_left               # of DATA or of what is passed over: octets to come, without their padding
    uint32_t padding_left
    Buffer* partial                     # of a frame that is not whole yet: its head, or its payload
    int32_t send_window_bytes           # of the connection, that the peer takes
    int32_t peer_window_bytes           # that streams begin with
    int32_t window_bytes                # of the connection, that the peer may send
    uint32_t taken_bytes                # of those it sent, not given back yet
    int32_t stream_window_bytes         # that streams of the peer begin with
    int32_t next_id                     # upstream: of the next stream
    int32_t goaway_id                   # downstream: streams above it are passed over
    int32_t peer_goaway_id              # streams above it were not served; -1: all may be
    uint8_t is_client
    uint8_t is_dirty
    uint8_t is_ready                    # its streams may begin: an endpoint has told its settings
    uint8_t is_closing                  # no further streams: GOAWAY came or went
    uint8_t has_ended                   # nothing more to read; close once the output is out
    uint8_t has_served                  # upstream: a response came
    uint8_t is_connected                # its socket takes bytes
    uint8_t is_secure
    uint8_t is_idle                     # no stream: its deadline runs
    uint8_t is_stalled                  # its deadline runs because the peer takes nothing
    uint8_t has_said_goaway
    uint8_t has_begun                   # a stream was opened
    uint32_t error_code                 # it ends for; 0: none
    uint32_t max_requests               # upstream: streams it may carry in all; 0: any number
    int32_t last_id                     # highest stream the client has opened
    int32_t reset_ids[32]               # streams we reset lately: what the client had on its way to them is no fault
    uint32_t n_resets
    int32_t forgotten_id                # highest of those that were pushed out of reset_ids
    uint8_t preface_left                # of the client's connection preface
    uint8_t n_continuations             # in a row
    uint8_t wants_drain                 # enough streams were served
    uint64_t idle_timeout_ns


# --- exchange -------------------------------------------------------------------------------------------------------

cdef enum ExchangeState:
    EXCHANGE_AWAIT_FILTER = 0
    EXCHANGE_AWAIT_CONNECTION = 1       # in its cluster's queue
    EXCHANGE_AWAIT_CONNECT = 2
    EXCHANGE_AWAIT_RESPONSE = 3         # request (at least its head) on its way
    EXCHANGE_AWAIT_RESPONSE_FILTER = 4
    EXCHANGE_RELAY = 5                  # response head forwarded
    EXCHANGE_TUNNEL = 6
    EXCHANGE_AWAIT_BINDING = 7          # its name was asked for
    EXCHANGE_AWAIT_RETRY = 8            # its backoff runs

cdef enum FlowState:
    FLOW_DONE = 0                       # every byte of this direction was read and handed on
    FLOW_OPEN = 1

cdef enum FlowFraming:
    FLOW_EMPTY = 0
    FLOW_LENGTH = 1
    FLOW_CHUNKED = 2
    FLOW_UNTIL_CLOSE = 3
    FLOW_RAW = 4                        # tunnel: end of input shuts the other side
    FLOW_STREAM = 5                     # HTTP/2: octets as they are, the stream itself says when it ends


cdef extern from *:
    """
    #define MC_UNKNOWN_BYTES 0xFFFFFFFFFFFFFFFFULL
    """
    const uint64_t FLOW_UNKNOWN_BYTES "MC_UNKNOWN_BYTES"              # FLOW_STREAM: no length was told


cdef struct Pipe:
    int read_fd
    int write_fd


cdef struct Flow:                       # one direction's body
    uint8_t state
    uint8_t framing_in
    uint8_t framing_out
    uint8_t trailers_wanted
    uint8_t is_bulk                     # FLOW_RAW: the last read was a full one
    uint32_t piped_bytes                # in the pipe, not yet written
    uint32_t capture_bytes              # of the body a tap still wants; 0 as a rule
    Buffer* captured                    # what it has: see tap
    Pipe pipe
    uint64_t remaining_bytes            # FLOW_LENGTH, FLOW_STREAM: not yet read
    uint64_t moved_bytes
    ChunkDecoder decoder
    uint8_t decodes                     # base64 comes, octets go on
    uint8_t grpc_web                    # GrpcWeb: trailers go into the body
    Base64 base64


cdef enum:
    EXCHANGE_IDEMPOTENT = 1
    EXCHANGE_HEAD_METHOD = 2            # HEAD: the response has no body
    EXCHANGE_MAY_REPLAY = 4             # request_buffer still holds every byte sent
    EXCHANGE_RESPONSE_STARTED = 8       # a byte of the final response went downstream: NO_RETRY_AFTER_BODY
    EXCHANGE_UPGRADE = 16
    EXCHANGE_CONNECT = 32
    EXCHANGE_ABANDONED = 64             # the client is gone while a filter holds the exchange
    EXCHANGE_FILTERED = 128             # on_request has been answered
    EXCHANGE_RESPONSE_FILTERED = 256
    EXCHANGE_MINOR_0 = 512              # an HTTP/1.0 client
    EXCHANGE_COUNTED = 1024             # in flight in its cluster
    EXCHANGE_ACTIVE = 2048              # in flight at its endpoint
    EXCHANGE_WANTS_TRAILERS = 4096
    EXCHANGE_KEEP_UPSTREAM = 8192       # the upstream connection may carry another request
    EXCHANGE_FRESH_CONNECTION = 16384   # the last attempt met a stale pooled connection: open a new one
    EXCHANGE_STALE_REPLAYED = 32768
    EXCHANGE_BODY_ABORTED = 65536       # the upstream stopped reading the body; its response may still come
    EXCHANGE_PROBE = 131072             # carries its endpoint's one probe
    EXCHANGE_TAPPED = 262144            # its req record is written, or suppressed
    EXCHANGE_TCP = 524288               # a connection relayed as it is: see tcp
    EXCHANGE_GRPC = 1048576             # a gRPC call
    EXCHANGE_DEADLINE = 2097152         # its total deadline is the caller's own
    EXCHANGE_RESTORED = 4194304         # HTTP/1 that came here over HTTP/2: see mesh_hop
    EXCHANGE_GRPC_WEB = 8388608         # a call that came as gRPC-Web, and goes on as gRPC
    EXCHANGE_GRPC_WEB_TEXT = 16777216   # ... in base64
    EXCHANGE_ABSOLUTE = 33554432        # its target was in absolute form
    EXCHANGE_MARKED = 67108864          # request_buffer says that it is of HTTP/1: see mesh_hop, reframe


cdef struct Exchange:
    SlabItem item
    Conn* down
    Conn* up
    SnapshotRef* snapshot
    BindingRef* binding                 # `route` and `cluster` are of it; NULL: of the snapshot
    BoundName* waits_for
    ListenerConf* listener
    RouteConf* listed_route             # the snapshot's; what a name was bound to may have set another
    RouteConf* route
    ClusterConf* cluster
    ClusterState* cluster_state
    EndpointState* endpoint
    const Address* address              # of `endpoint`: the snapshot's, or of a Destination
    RouteState* route_state
    Buffer* request_buffer              # edited head and first body bytes, kept until a response arrives
    Buffer* head_buffer                 # what a tap may still want of the request head
    Buffer* answer_buffer               # ... and of the response's fields
    Hook* hook
    int32_t endpoint_index
    uint32_t request_head_bytes         # of request_buffer: the edited head
    uint64_t spent                      # clusters of its route's tree that have nobody left to try, by leaf
    uint8_t leaf                        # `cluster` in that tree
    uint32_t request_sent               # bytes of request_buffer this upstream has
    uint32_t flags
    uint8_t state
    uint8_t method
    uint8_t attempts
    uint8_t unreachable                 # endpoints it tried to connect to in vain, not counted in `attempts`
    uint8_t interim_responses
    uint8_t reason
    uint8_t tap_mask                    # sessions that may see it
    uint8_t tap_pending                 # ... of them those that first want to know how it ends
    uint8_t grpc_status                 # that the response told; GRPC_NONE
    uint16_t status
    uint16_t method_len
    uint64_t excluded                   # endpoints tried, by index
    uint64_t start_ns
    uint64_t attempt_ns                 # this attempt was sent
    uint64_t first_byte_ns
    uint64_t total_deadline_ns
    uint64_t backoff_ns                 # waited before its last retry
    uint64_t body_start_ns
    uint64_t stream                     # number in its worker, for taps
    uint64_t told_out_bytes             # of a TCP connection: what its endpoint and its routes have counted already
    uint64_t told_in_bytes
    Flow request
    Flow response
    Exchange* queue_next
    Exchange* queue_prev


# --- filters written in Python (see hook) ---------------------------------------------------------------------------

cdef enum HookPhase:
    HOOK_REQUEST = 0
    HOOK_RESPONSE = 1

cdef enum HookVerdict:
    HOOK_CONTINUE = 0
    HOOK_REPLACE_HEAD = 1
    HOOK_RESPOND = 2
    HOOK_ERROR = 3

cdef struct Hook:
    StackNode node                      # first: travels through stacks
    Worker* worker
    Exchange* exchange
    uint8_t phase
    uint8_t verdict
    uint8_t method                      # of the request, for the parse of a response
    uint8_t upgrade
    int32_t cluster_index               # on_request picked a cluster of the snapshot; -1: keep
    char* head                          # raw head, borrowed from the connection's in_buffer
    uint32_t head_bytes
    char* replacement                   # malloc'd by the filter side, freed by the worker
    uint32_t replacement_bytes
    uint32_t answer_head_bytes          # of a HOOK_RESPOND: how much of `replacement` is its head
    uint16_t status
    Snapshot* snapshot
    uint8_t secure
    uint16_t identity_len               # of the client, verified; a copy: the connection may end meanwhile
    char identity[2048]


# --- per-worker run-time state found by slot ------------------------------------------------------------------------

cdef struct RouteState:
    uint64_t requests
    uint64_t status_class[6]
    uint64_t filter_errors
    uint64_t secure                     # requests of clients that came over TLS
    uint64_t grpc_status[17]            # calls by the status they ended with
    uint64_t grpc_failed                # calls that failed although their HTTP status did not say so
    Histogram* latency
    TcpCounts tcp


cdef struct ListenerState:
    uint64_t accepted
    uint64_t active
    uint64_t requests
    uint64_t refused
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t tls_handshakes             # completed
    uint64_t tls_resumed                # ... of them
    uint64_t tls_failures
    uint64_t tls_plaintext              # connections let in without TLS where it is optional
    uint32_t slot
    uint32_t conf_index                 # in the current snapshot's listeners; LISTENER_REMOVED
    uint64_t version                    # of the snapshot that last named it
    int32_t fd                          # to adopt at the next configuration; -1 when adopted
    uint8_t is_loopback                 # only this machine can connect
    uint8_t is_any_host                 # bound to every address of its family
    uint8_t family
    uint16_t port                       # as bound
    uint8_t host[16]
    Conn* conn                          # NULL once closed


cdef struct SnapshotRef:                # one worker's hold on one snapshot
    Snapshot* snapshot
    uint32_t* workers_left              # shared: the last worker to drop it lets Python free it
    uint32_t exchanges
    uint8_t is_current


cdef struct Received:                   # what a connection was sent, read in a batch, not yet taken
    Conn* conn                          # NULL: taken, or the connection is gone
    char* at
    int32_t n                           # bytes, 0 at the end of input, or a negated errno
    uint32_t room                       # that the read had


cdef struct Send:                       # bytes held back until the end of the batch
    Conn* conn                          # NULL: sent otherwise, or dropped
    char* at
    uint32_t n
    uint8_t is_request                  # counted in Exchange.request_sent


cdef struct Batch:
    Uring ring
    Received received[32]
    Send sends[240]
    int32_t results[240]
    uint32_t n_received
    uint32_t n_sends
    uint8_t holds                       # sends are held back now
    uint8_t holds_requests
    uint8_t is_ring_wanted
    uint32_t held_bytes
    char* held                          # the bytes of `sends`
    char* read_slots
    uint64_t calls                      # made through the ring


cdef struct Worker:
    uint64_t now_ns                     # NOW_ONCE: read once per wake-up
    int epoll_fd
    int wake_fd
    int spare_fd                        # given up to accept and refuse when the process is out of descriptors
    uint32_t index
    uint32_t n_workers
    Slab conns
    Slab exchanges
    Slab streams
    TimerWheel timers
    BufferPool buffers
    Rng rng
    Llhttp* llhttp
    HeadParser* parser                  # for heads that arrive whole
    Head* head
    char* read_buffer
    char* scratch
    TlsPipe tls_pipe                    # what OpenSSL reads and writes, of one connection at a time
    void* tls_bio                       # BIO*: the pipe as OpenSSL knows it
    char* tls_in                        # ciphertext as it was read
    uint32_t tls_handshakes             # under way
    uint32_t tls_steps                  # of handshakes, made in this wake-up
    Batch batch
    SnapshotRef* current
    EndpointState** endpoints
    ClusterState** clusters
    RouteState** routes
    ListenerState** listeners
    HistogramPool histograms            # of its endpoints, clusters and routes
    ClusterState* queued_clusters       # with exchanges that wait for a connection
    BindingTable bindings
    SSL_CTX* tls_contexts[16]           # that bindings share, by EndpointConf.context; one reference each
    uint64_t tls_trusts[16]             # their TlsRules.trust
    Stack* lookup_stack                 # of the engine's thread for names
    int lookup_fd
    uint32_t lookups_waiting
    Stack mailbox
    Stack returned_hooks
    Stack* filter_stack                 # of the engine's filter thread
    int filter_fd
    uint32_t filters_waiting
    StackNode* parked                   # hooks of this wake-up, handed over together
    StackNode* parked_last
    uint32_t run_head
    uint32_t run_tail
    uint32_t downstream_head            # all downstream connections, for drain
    uint32_t n_downstream
    uint32_t n_upstream
    uint32_t serve_queues               # a connection became free while exchanges wait
    uint32_t queued_exchanges
    uint8_t draining
    uint8_t stopping
    uint64_t drain_deadline_ns
    uint64_t wall_offset_ns             # wall clock minus monotonic, refreshed per wake-up batch
    DateLine date
    Pipe idle_pipes[64]
    uint32_t n_idle_pipes
    TapSession* taps[8]
    uint64_t tap_since[8]               # exchanges up to this one are older than the session
    uint32_t tap_bits                   # which entries are in use
    Destinations destinations
    Silences silences
    uint64_t next_stream
    Ring tap_ring
    Session* dirty_sessions
    Stream* ready_streams
    Stream* ready_last
    char* session_out                   # where a session's frames are gathered for one send, and fields decoded
    uint64_t wakeups
    uint64_t accepted
    uint64_t requests
    uint64_t refused_connections
    uint64_t reasons[128]
    uint32_t stopped                    # set last: the thread touches nothing of this afterwards
