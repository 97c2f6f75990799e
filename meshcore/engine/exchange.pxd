# Beginning and end of an exchange, and what is noted about it. The plot between lies in request, dispatch, response.
#
#   request  (a head arrived)   -> route -> [filter] -> dispatch (pick, lease or connect, send)
#   response (a head came back) -> forward -> relay both bodies -> exchange_end -> next request
#
# Timestamps: start (head complete), attempt (sent to this endpoint), first byte (response head), end. start..end feeds
# the route's, the cluster's and the endpoint's histogram; attempt..first byte feeds the balancer's EWMA.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from meshcore.engine.binding cimport BindingRef
from meshcore.engine.breaker cimport (
    BREAKER_CLOSED, BREAKER_UNREACHABLE, breaker_on_abandoned, breaker_on_failure, breaker_on_success, breaker_on_unreachable,
)
from meshcore.engine.buffer cimport buffer_return
from meshcore.engine.conn cimport conn_is_secure
from meshcore.engine.endpoint cimport ClusterState, EndpointState, TcpCounts
from meshcore.engine.ewma cimport ewma_observe
from meshcore.engine.flow cimport flow_close
from meshcore.engine.grpc cimport GRPC_NONE, GRPC_UNKNOWN, grpc_is_failure, grpc_status_of_http
from meshcore.engine.histogram cimport Histogram
from meshcore.engine.histogram_pool cimport histogram_pool_record
from meshcore.engine.pool cimport pool_discard, pool_return
from meshcore.engine.reasons cimport REASON_NONE, reason_status
from meshcore.engine.slab cimport slab_return, slab_take
from meshcore.engine.snapshot cimport BALANCER_PEAK_EWMA
from meshcore.engine.state cimport (
    EXCHANGE_ACTIVE, EXCHANGE_COUNTED, EXCHANGE_GRPC, EXCHANGE_KEEP_UPSTREAM, EXCHANGE_PROBE,
    EXCHANGE_RESPONSE_STARTED, EXCHANGE_TCP, FLOW_DONE, FLOW_EMPTY, Conn, Exchange, RouteState, SnapshotRef, Worker,
)
from meshcore.engine.sys cimport atomic_add_u32
from meshcore.engine.tap cimport tap_end, tap_release
from meshcore.engine.upstream cimport upstream_is_trusted_still

cdef enum AttemptOutcome:
    ATTEMPT_SUCCEEDED = 0
    ATTEMPT_FAILED = 1                  # the endpoint's fault
    ATTEMPT_ABANDONED = 2               # nobody learnt anything about the endpoint


cdef inline Exchange* exchange_begin(Worker* worker, Conn* down, uint64_t now_ns) noexcept nogil:
    """A new exchange under the current snapshot. NULL at the in-flight limit."""
    cdef Exchange* exchange
    if worker.exchanges.in_use >= worker.current.snapshot.limits.max_in_flight:
        return NULL
    exchange = <Exchange*>slab_take(&worker.exchanges)
    if exchange == NULL:
        return NULL
    exchange.down = down
    exchange.up = NULL
    exchange.snapshot = worker.current
    exchange.binding = NULL
    exchange.waits_for = NULL
    exchange.listed_route = NULL
    exchange.spent = 0
    exchange.listener = NULL
    exchange.route = NULL
    exchange.cluster = NULL
    exchange.cluster_state = NULL
    exchange.endpoint = NULL
    exchange.address = NULL
    exchange.route_state = NULL
    exchange.request_buffer = NULL
    exchange.head_buffer = exchange.answer_buffer = NULL
    exchange.endpoint_index = -1
    exchange.request_sent = 0
    exchange.flags = 0
    exchange.attempts = 0
    exchange.unreachable = 0
    exchange.interim_responses = 0
    exchange.reason = REASON_NONE
    exchange.tap_mask = exchange.tap_pending = 0
    exchange.status = 0
    exchange.grpc_status = GRPC_NONE
    exchange.excluded = 0
    exchange.start_ns = now_ns
    exchange.attempt_ns = now_ns
    exchange.first_byte_ns = 0
    exchange.total_deadline_ns = 0
    exchange.backoff_ns = 0
    exchange.body_start_ns = now_ns
    exchange.queue_next = exchange.queue_prev = NULL
    exchange.request.state = exchange.response.state = FLOW_DONE
    exchange.request.framing_in = exchange.response.framing_in = FLOW_EMPTY
    exchange.request.framing_out = FLOW_EMPTY
    exchange.request.pipe.write_fd = exchange.response.pipe.write_fd = -1
    exchange.request.piped_bytes = exchange.response.piped_bytes = 0
    exchange.request.moved_bytes = exchange.response.moved_bytes = 0
    exchange.request.capture_bytes = exchange.response.capture_bytes = 0
    exchange.request.captured = exchange.response.captured = NULL
    worker.next_stream += 1
    exchange.stream = worker.next_stream
    exchange.told_out_bytes = exchange.told_in_bytes = 0
    worker.current.exchanges += 1
    down.exchange = exchange
    return exchange


cdef inline void exchange_note_attempt(Worker* worker, Exchange* exchange, int outcome, uint64_t now_ns) noexcept nogil:
    """Settle the current attempt with its endpoint: breaker, counters, in-flight. Once per pick.

    CLIENT_FAULT_NOT_UPSTREAM: what a client caused is ATTEMPT_ABANDONED.
    """
    cdef EndpointState* endpoint = exchange.endpoint
    if not exchange.flags & EXCHANGE_ACTIVE:
        return
    exchange.flags &= ~<uint32_t>EXCHANGE_ACTIVE
    endpoint.active -= 1
    endpoint.requests += 1
    if exchange.flags & EXCHANGE_TCP:
        endpoint.tcp.ended += 1
        endpoint.tcp.failed += outcome == ATTEMPT_FAILED
    if outcome == ATTEMPT_SUCCEEDED:
        endpoint.successes += 1
    elif outcome == ATTEMPT_FAILED:
        endpoint.failures += 1
    # While an endpoint is ejected only its probe speaks for it: what was sent before says nothing new.
    if endpoint.breaker.state != BREAKER_CLOSED and not exchange.flags & EXCHANGE_PROBE \
            and endpoint.breaker.state != BREAKER_UNREACHABLE:
        return
    exchange.flags &= ~<uint32_t>EXCHANGE_PROBE
    if outcome == ATTEMPT_SUCCEEDED:
        breaker_on_success(&endpoint.breaker, &exchange.cluster.breaker, now_ns)
    elif outcome == ATTEMPT_FAILED:
        if breaker_on_failure(&endpoint.breaker, &exchange.cluster.breaker, now_ns, &worker.rng):
            endpoint.ejections += 1
    else:
        breaker_on_abandoned(&endpoint.breaker, now_ns)


cdef inline void exchange_note_unreachable(Worker* worker, Exchange* exchange) noexcept nogil:
    """Settle the current attempt: its endpoint could not be connected to."""
    if exchange.flags & EXCHANGE_ACTIVE:
        exchange_note_attempt(worker, exchange, ATTEMPT_FAILED, worker.now_ns)
        breaker_on_unreachable(&exchange.endpoint.breaker, &exchange.cluster.breaker, worker.now_ns)


cdef inline void exchange_release_upstream(Worker* worker, Exchange* exchange, int reusable) noexcept nogil:
    """Part from the upstream connection: back to its pool, or closed."""
    cdef Conn* up = exchange.up
    cdef EndpointState* endpoint = exchange.endpoint
    if up == NULL:
        return
    exchange.up = NULL
    up.exchange = NULL
    # An endpoint that left the configuration meanwhile gets no idle connection: nobody would look for it.
    if reusable and exchange_keeps_endpoint(worker, endpoint) and upstream_is_trusted_still(worker, exchange, up):
        pool_return(worker, endpoint, exchange.cluster, up)
    else:
        pool_discard(worker, endpoint, up)
    if worker.queued_exchanges:
        worker.serve_queues = 1


cdef inline int exchange_keeps_endpoint(const Worker* worker, const EndpointState* endpoint) noexcept nogil:
    return endpoint.slot_version == worker.current.snapshot.version or endpoint.bindings != 0


cdef inline void exchange_end(Worker* worker, Exchange* exchange, int outcome, uint64_t now_ns) noexcept nogil:
    """Note the result, give everything back. The pointer is dead; the downstream connection is the caller's to close
    or to wait on."""
    cdef uint64_t took_ns = now_ns - exchange.start_ns
    cdef uint32_t status_class = exchange.status // 100
    cdef ClusterState* cluster_state = exchange.cluster_state
    cdef SnapshotRef* snapshot = exchange.snapshot
    cdef BindingRef* binding = exchange.binding
    # Body bytes still in the pipe are lost with it: on this connection, the next head would be read in their place.
    cdef int reusable = exchange.flags & EXCHANGE_KEEP_UPSTREAM and exchange.response.state == FLOW_DONE \
        and outcome != ATTEMPT_ABANDONED and exchange_request_is_out(exchange)
    if status_class > 5:
        status_class = 0
    if exchange.endpoint != NULL and exchange.flags & EXCHANGE_ACTIVE:
        exchange.endpoint.bytes_out += exchange.request.moved_bytes
        exchange.endpoint.bytes_in += exchange.response.moved_bytes
        if outcome != ATTEMPT_ABANDONED:
            exchange_record(worker, &exchange.endpoint.latency, took_ns)
    if exchange.flags & EXCHANGE_GRPC:
        exchange_settle_grpc(exchange)
    elif exchange.flags & EXCHANGE_TCP and exchange.flags & EXCHANGE_RESPONSE_STARTED:
        exchange_note_tcp(worker, exchange, 0, 1)
    if exchange.route_state != NULL:
        exchange_note_route(worker, exchange, exchange.route_state, status_class, took_ns)
    if exchange.listed_route != exchange.route and exchange.listed_route != NULL:
        exchange_note_listed(worker, exchange, status_class, took_ns)
    if exchange.flags & EXCHANGE_COUNTED:
        cluster_state.in_flight -= 1
        cluster_state.requests += 1
        cluster_state.status_class[status_class] += 1
        if outcome == ATTEMPT_SUCCEEDED:
            cluster_state.successes += 1
        elif outcome == ATTEMPT_FAILED:
            cluster_state.failures += 1
        exchange_record(worker, &cluster_state.latency, took_ns)
    exchange_note_attempt(worker, exchange, outcome, now_ns)
    if exchange.reason != REASON_NONE:
        worker.reasons[exchange.reason] += 1
    if exchange.tap_mask:
        tap_end(worker, exchange, now_ns)
    exchange_release_upstream(worker, exchange, reusable)
    tap_release(worker, exchange)
    if exchange.request_buffer != NULL:
        buffer_return(&worker.buffers, exchange.request_buffer)
        exchange.request_buffer = NULL
    flow_close(worker, &exchange.request)
    flow_close(worker, &exchange.response)
    if exchange.down != NULL:
        exchange.down.exchange = NULL
    slab_return(&worker.exchanges, &exchange.item)
    snapshot.exchanges -= 1
    if snapshot.exchanges == 0 and not snapshot.is_current:
        atomic_add_u32(snapshot.workers_left, <uint32_t>-1)
    if binding != NULL:
        exchange_drop_binding(binding)


cdef inline void exchange_note_tcp(Worker* worker, Exchange* exchange, int has_opened, int has_closed) noexcept nogil:
    """What a connection that is relayed has moved since this was asked last."""
    cdef uint64_t out_bytes = exchange.request.moved_bytes - exchange.told_out_bytes
    cdef uint64_t in_bytes = exchange.response.moved_bytes - exchange.told_in_bytes
    cdef RouteState* listed
    exchange.told_out_bytes += out_bytes
    exchange.told_in_bytes += in_bytes
    if exchange.endpoint != NULL:
        exchange_add_tcp(&exchange.endpoint.tcp, out_bytes, in_bytes, has_opened, has_closed)
    if exchange.route_state != NULL:
        exchange_add_tcp(&exchange.route_state.tcp, out_bytes, in_bytes, has_opened, has_closed)
    if exchange.listed_route != exchange.route and exchange.listed_route != NULL:
        listed = worker.routes[exchange.listed_route.slot]
        if listed != exchange.route_state:
            exchange_add_tcp(&listed.tcp, out_bytes, in_bytes, has_opened, has_closed)


cdef inline void exchange_add_tcp(TcpCounts* tcp, uint64_t out_bytes, uint64_t in_bytes, int has_opened,
                                  int has_closed) noexcept nogil:
    tcp.bytes_out += out_bytes
    tcp.bytes_in += in_bytes
    tcp.opened += has_opened
    tcp.closed += has_closed


cdef inline void exchange_drop_binding(BindingRef* binding) noexcept nogil:
    binding.exchanges -= 1
    if binding.exchanges == 0 and not binding.is_current:
        atomic_add_u32(binding.workers_left, <uint32_t>-1)


cdef inline void exchange_note_route(Worker* worker, Exchange* exchange, RouteState* state, uint32_t status_class,
                                     uint64_t took_ns) noexcept nogil:
    state.requests += 1
    if exchange.flags & EXCHANGE_TCP:
        state.tcp.ended += 1
        state.tcp.failed += exchange.status == 0 or exchange.reason != REASON_NONE
    if exchange.down != NULL and conn_is_secure(exchange.down):
        state.secure += 1
    state.status_class[status_class] += 1
    if exchange.flags & EXCHANGE_GRPC:
        state.grpc_status[exchange.grpc_status] += 1
        if exchange.status < 500 and grpc_is_failure(exchange.grpc_status):
            state.grpc_failed += 1
    exchange_record(worker, &state.latency, took_ns)


cdef inline void exchange_note_listed(Worker* worker, Exchange* exchange, uint32_t status_class, uint64_t took_ns) noexcept nogil:
    # What a name was bound to has a route of its own: the one of the configuration counts it, too.
    cdef RouteState* listed = worker.routes[exchange.listed_route.slot]
    if listed != exchange.route_state:
        exchange_note_route(worker, exchange, listed, status_class, took_ns)


cdef inline void exchange_settle_grpc(Exchange* exchange) noexcept nogil:
    # A call that told no status ended by what this proxy, or the lack of an answer, says of it.
    if exchange.grpc_status == GRPC_NONE:
        exchange.grpc_status = grpc_status_of_http(reason_status[exchange.reason]) if exchange.reason != REASON_NONE \
            else GRPC_UNKNOWN


cdef inline uint64_t exchange_idle_ns(const Exchange* exchange) noexcept nogil:
    """How long neither side may say anything. A stream of calls is quiet by design, as a tunnel is."""
    return exchange.route.tunnel_idle_timeout_ns if exchange.flags & EXCHANGE_GRPC else exchange.route.idle_timeout_ns


cdef inline uint64_t exchange_idle_deadline(const Worker* worker, const Exchange* exchange) noexcept nogil:
    cdef uint64_t idle_ns = exchange_idle_ns(exchange)
    return worker.now_ns + idle_ns if idle_ns else 0


cdef inline int exchange_request_is_out(const Exchange* exchange) noexcept nogil:
    """Has the kernel taken the whole request? An endpoint may answer before that; the rest would then follow."""
    return exchange.request.state == FLOW_DONE and exchange.request.piped_bytes == 0 \
        and (exchange.up == NULL or exchange.up.out_buffer == NULL) \
        and (exchange.request_buffer == NULL
             or exchange.request_sent == exchange.request_buffer.end - exchange.request_buffer.start)


cdef inline void exchange_record(Worker* worker, Histogram** histogram, uint64_t took_ns) noexcept nogil:
    # The first sample of a route or endpoint makes its histogram: 10,000 routes do not pay for the 9,900 idle ones.
    histogram_pool_record(&worker.histograms, histogram, worker.current.snapshot.limits.max_latency_histograms, took_ns)


cdef inline void exchange_observe_latency(Exchange* exchange, uint64_t now_ns) noexcept nogil:
    """The response head is here: tell the balancer how long this endpoint took."""
    if exchange.cluster.balancer == BALANCER_PEAK_EWMA:
        ewma_observe(&exchange.endpoint.ewma, <double>(now_ns - exchange.attempt_ns), now_ns,
                     exchange.cluster.ewma_decay_ns)


cdef inline uint64_t exchange_earlier(uint64_t a_ns, uint64_t b_ns) noexcept nogil:
    """The earlier of two deadlines, where 0 means none."""
    if a_ns == 0 or (b_ns != 0 and b_ns < a_ns):
        return b_ns
    return a_ns
