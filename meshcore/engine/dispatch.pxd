# From a ready request to bytes on an upstream connection: pick, lease or connect, send; queue, retry, give up.
# Reads no response: see response.
#
# Retry rule (NO_RETRY_AFTER_BODY): only while `request_buffer` still holds every byte any upstream got, and before the
# first response byte went downstream. A failed connect may go elsewhere with any method: nothing was sent; for as long as
# endpoints are left that are not known to be out of reach, neither attempts nor budget bound that. A reset may be
# repeated for idempotent methods, or when provably no byte was sent. Others get 502: the endpoint may have acted. A pooled
# connection that turns out closed is not the endpoint's failure; its replay goes over a new one.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int32_t

from meshcore.engine.backoff cimport backoff_next_ns
from meshcore.engine.balance cimport balance_admits_only, balance_pick
from meshcore.engine.breaker cimport BREAKER_HALF_OPEN
from meshcore.engine.budget cimport budget_deposit, budget_withdraw
from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.conn cimport (
    conn_deadline, conn_end, conn_is_stream, conn_open, conn_run_later, conn_send_request,
)
from meshcore.engine.destination cimport destination_find
from meshcore.engine.endpoint cimport ClusterState, Destination, EndpointState
from meshcore.engine.exchange cimport (
    ATTEMPT_ABANDONED, ATTEMPT_FAILED, exchange_earlier, exchange_idle_deadline, exchange_note_attempt,
    exchange_note_unreachable, exchange_release_upstream,
)
from meshcore.engine.flow cimport (
    FLOW_AWAIT_INPUT, FLOW_AWAIT_OUTPUT, FLOW_FINISHED, FLOW_MALFORMED, FLOW_RECEIVER_FAILED, FLOW_SENDER_CLOSED,
    FLOW_SENDER_FAILED, flow_pump, flow_stream_is_whole, flow_take, flow_trailers,
)
from meshcore.engine.pool cimport pool_discard, pool_lease, pool_remove
from meshcore.engine.queue cimport queue_join, queue_leave
from meshcore.engine.reasons cimport (
    REASON_ALL_EJECTED, REASON_BODY_INCOMPLETE, REASON_BODY_TOO_LARGE, REASON_DOWNSTREAM_CLOSED, REASON_LOAD_SHED,
    REASON_NO_ENDPOINT, REASON_OUT_OF_MEMORY, REASON_QUEUE_FULL, REASON_UPSTREAM_CONNECT_FAILED,
    REASON_UPSTREAM_CONNECT_TIMEOUT, REASON_UPSTREAM_NO_WEBSOCKET, REASON_UPSTREAM_RESET,
)
from meshcore.engine.reframe cimport reframe
from meshcore.engine.respond cimport respond_gone, respond_reason
from meshcore.engine.session cimport (
    session_adopt, session_has_room, session_is_refusing, session_lease, session_open, session_request,
    session_takes_websockets,
)
from meshcore.engine.slab cimport SLAB_NONE, slab_at
from meshcore.engine.snapshot cimport RETRY_CONNECT_FAILURE, RETRY_RESET, ClusterConf, Limits, TargetNode
from meshcore.engine.state cimport (
    CONN_AWAIT_CONNECT, CONN_CLOSE_AFTER, CONN_IN_EXCHANGE, CONN_REUSED, CONN_UPSTREAM, EXCHANGE_ACTIVE,
    EXCHANGE_AWAIT_CONNECT, EXCHANGE_AWAIT_RESPONSE, EXCHANGE_AWAIT_RETRY, EXCHANGE_BODY_ABORTED,
    EXCHANGE_CONNECT, EXCHANGE_COUNTED, EXCHANGE_FRESH_CONNECTION, EXCHANGE_GRPC, EXCHANGE_IDEMPOTENT,
    EXCHANGE_MAY_REPLAY, EXCHANGE_PROBE, EXCHANGE_RELAY, EXCHANGE_RESPONSE_STARTED, EXCHANGE_STALE_REPLAYED,
    EXCHANGE_TAPPED, EXCHANGE_UPGRADE, FLOW_DONE, FLOW_OPEN, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, IO_WRITABLE, STREAM_ENDED_IN,
    STREAM_LEFT_BEHIND, STREAM_UNPROCESSED, STREAM_WEBSOCKET, Conn, Exchange, Session, Stream, Worker,
)
from meshcore.engine.stream cimport stream_take
from meshcore.engine.sys cimport EAGAIN, EINTR, sys_connect, sys_is_unreachable
from meshcore.engine.tap cimport tap_request
from meshcore.engine.target_tree cimport TREE_MAX_LEAVES, tree_choose, tree_cluster_is_alive
from meshcore.engine.upstream cimport upstream_is_secure, upstream_open_tls, upstream_speaks_http2


cdef enum:
    BODY_ABORTED_WAIT_NS = 1000000000   # for an answer of an endpoint that stopped reading
    KEEP_BODY_BYTES = 32768             # of a request, head included, kept to be sent again
    MAX_LEFT_BEHIND = 8                 # sessions that may end under one request, each taking its turn with it
    MAX_UNREACHABLE = 64                # endpoints one request may try to connect to in vain: those `excluded` tells apart


cdef inline void dispatch(Worker* worker, Exchange* exchange) noexcept nogil:
    """Bring an exchange with a cluster and a request_buffer to an endpoint. May end the exchange."""
    cdef ClusterState* state = exchange.cluster_state
    if state.in_flight >= exchange.cluster.max_requests:
        respond_reason(worker, exchange, REASON_LOAD_SHED)
        return
    state.in_flight += 1
    exchange.flags |= EXCHANGE_COUNTED | EXCHANGE_MAY_REPLAY
    budget_deposit(&state.budget, &exchange.cluster.budget, worker.now_ns)
    dispatch_attempt(worker, exchange)


cdef inline void dispatch_attempt(Worker* worker, Exchange* exchange) noexcept nogil:
    dispatch_attempt_besides(worker, exchange, 0)


cdef inline void dispatch_attempt_besides(Worker* worker, Exchange* exchange, uint64_t full) noexcept nogil:
    """`full`: endpoints known to have no room, as bits; 0 where nobody has looked yet."""
    cdef const ClusterConf* cluster
    cdef EndpointState* endpoint
    cdef Conn* up
    cdef int fd
    cdef int is_http2
    cdef uint8_t reason = dispatch_pick(worker, exchange, full)
    while reason and dispatch_turn(worker, exchange):
        full = 0
        reason = dispatch_pick(worker, exchange, full)
    if reason:
        respond_reason(worker, exchange, reason)
        return
    is_http2 = upstream_speaks_http2(exchange)
    if not reframe(worker, exchange, is_http2):
        respond_reason(worker, exchange, REASON_OUT_OF_MEMORY)
        return
    cluster = exchange.cluster
    endpoint = exchange.endpoint
    exchange.flags |= EXCHANGE_ACTIVE
    if endpoint.breaker.state == BREAKER_HALF_OPEN:
        exchange.flags |= EXCHANGE_PROBE
    exchange.request_sent = 0
    exchange.attempts += 1
    exchange.attempt_ns = worker.now_ns
    endpoint.active += 1
    up = NULL
    if is_http2:
        up = session_lease(worker, endpoint)
    elif not exchange.flags & EXCHANGE_FRESH_CONNECTION:
        up = pool_lease(worker, endpoint, not exchange.flags & EXCHANGE_IDEMPOTENT)
    elif endpoint.idle_head != SLAB_NONE and endpoint.open_connections >= cluster.max_connections:
        up = <Conn*>slab_at(&worker.conns, endpoint.idle_head)
        pool_remove(worker, endpoint, up)
        pool_discard(worker, endpoint, up)
        up = NULL
    if up == NULL:
        if endpoint.open_connections >= cluster.max_connections or (is_http2 and session_is_refusing(endpoint)):
            exchange_note_attempt(worker, exchange, ATTEMPT_ABANDONED, worker.now_ns)
            endpoint.requests -= 1
            exchange.attempts -= 1
            if full == 0:
                full = dispatch_find_full(worker, exchange)
                if full:
                    dispatch_attempt_besides(worker, exchange, full)
                    return
            if not queue_join(worker, exchange):
                respond_reason(worker, exchange, REASON_QUEUE_FULL)
            return
        fd = sys_connect(exchange.address.sockaddr, exchange.address.sockaddr_len)
        if fd >= 0:
            up = conn_open(worker, fd, CONN_UPSTREAM, CONN_AWAIT_CONNECT)
        endpoint.connects += 1
        if up == NULL:
            endpoint.connect_failures += 1
            if sys_is_unreachable(-fd):
                exchange_note_unreachable(worker, exchange)       # else something is short here: no fault of its own
            dispatch_failed(worker, exchange, REASON_UPSTREAM_CONNECT_FAILED)
            return
        up.owner = endpoint
        endpoint.open_connections += 1
        worker.n_upstream += 1
        if is_http2:
            up = dispatch_open_session(worker, exchange, up)
            if up == NULL:
                dispatch_failed(worker, exchange, REASON_UPSTREAM_CONNECT_FAILED)
                return
    exchange.up = up
    up.exchange = exchange
    if is_http2 and exchange.flags & EXCHANGE_UPGRADE:
        (<Stream*>up.channel).flags |= STREAM_WEBSOCKET
    if exchange.tap_mask and not exchange.flags & EXCHANGE_TAPPED:
        exchange.flags |= EXCHANGE_TAPPED
        tap_request(worker, exchange)
    if up.state == CONN_AWAIT_CONNECT:
        exchange.state = EXCHANGE_AWAIT_CONNECT
        conn_deadline(worker, up, worker.now_ns + cluster.connect_timeout_ns)
        return
    up.requests += 1
    exchange.state = EXCHANGE_AWAIT_RESPONSE
    dispatch_send(worker, exchange)


cdef inline Conn* dispatch_open_session(Worker* worker, Exchange* exchange, Conn* conn) noexcept nogil:
    """Make a connection under way a session, and the exchange's its first stream. NULL without memory."""
    cdef const ClusterConf* cluster = exchange.cluster
    cdef Session* session = NULL
    cdef int is_secure = upstream_is_secure(exchange)
    if not is_secure or upstream_open_tls(worker, conn, exchange, 1):
        session = session_open(worker, conn, 1)
    if session == NULL:
        pool_discard(worker, exchange.endpoint, conn)
        return NULL
    session_adopt(session, exchange.endpoint)
    session.idle_timeout_ns = cluster.idle_timeout_ns
    session.max_requests = cluster.max_requests_per_connection
    conn_deadline(worker, conn, worker.now_ns + cluster.connect_timeout_ns + (
        exchange.snapshot.snapshot.limits.tls_handshake_timeout_ns if is_secure else 0))
    return session_request(worker, session)


cdef inline uint64_t dispatch_find_full(Worker* worker, Exchange* exchange) noexcept nogil:
    """The one picked can take nothing more: which of its cluster cannot either, as bits of the first 64? 0: nobody untried is
    known to have room, and waiting is all that is left."""
    cdef const ClusterConf* cluster = exchange.cluster
    cdef EndpointState* endpoint
    cdef uint64_t full = 0
    cdef uint32_t i
    cdef int has_room
    cdef int is_hopeless = cluster.n_endpoints <= 64
    if cluster.is_original_destination or cluster.n_endpoints == 1:
        return 0
    for i in range(cluster.n_endpoints if cluster.n_endpoints < 64 else 64):
        endpoint = worker.endpoints[cluster.endpoints[i].slot]
        exchange.endpoint_index = <int32_t>i          # whoever is picked writes his own
        if upstream_speaks_http2(exchange):
            has_room = session_has_room(endpoint) or (endpoint.open_connections < cluster.max_connections
                                                      and not session_is_refusing(endpoint))
        else:
            has_room = endpoint.idle_head != SLAB_NONE or endpoint.open_connections < cluster.max_connections
        if not has_room or cluster.endpoints[i].weight == 0:
            full |= <uint64_t>1 << i
        elif not exchange.excluded >> i & 1:
            is_hopeless = 0
    return 0 if is_hopeless else full


cdef inline uint8_t dispatch_pick(Worker* worker, Exchange* exchange, uint64_t full) noexcept nogil:
    """Choose the endpoint of the next attempt, if possible none of those that are full. Returns the reason why there is
    none, or 0."""
    cdef const ClusterConf* cluster = exchange.cluster
    cdef uint64_t excluded = exchange.excluded | full
    cdef Destination* destination
    cdef uint8_t reason = 0
    cdef int32_t index = 0
    if cluster.is_original_destination:
        destination = destination_find(worker, exchange, &reason)
        if destination == NULL:
            return reason
        if not balance_admits_only(cluster, &destination.state, worker.now_ns):
            return REASON_ALL_EJECTED
        exchange.endpoint = &destination.state
        exchange.address = &destination.address
    else:
        index = balance_pick(cluster, worker.endpoints, exchange.cluster_state, &worker.rng, worker.now_ns,
                             &excluded)
        if index < 0:
            return REASON_NO_ENDPOINT if index == -1 else REASON_ALL_EJECTED
        exchange.endpoint = worker.endpoints[cluster.endpoints[index].slot]
        exchange.address = &cluster.endpoints[index].address
    exchange.endpoint_index = index
    return 0


cdef inline void dispatch_connected(Worker* worker, Exchange* exchange) noexcept nogil:
    """The connect succeeded: send."""
    cdef Conn* up = exchange.up
    up.state = CONN_IN_EXCHANGE
    up.requests += 1
    exchange.state = EXCHANGE_AWAIT_RESPONSE
    exchange.attempt_ns = worker.now_ns
    if up.io & (IO_READABLE | IO_PEER_CLOSED):
        conn_run_later(worker, up)      # it spoke with the same edge, and there may be no other
    dispatch_send(worker, exchange)


cdef inline void dispatch_send(Worker* worker, Exchange* exchange) noexcept nogil:
    """Send what is left of the request buffer, then go on with the body. Called again on a writable edge."""
    cdef Buffer* buffer = exchange.request_buffer
    cdef Conn* up = exchange.up
    cdef uint32_t left
    cdef long sent
    if buffer != NULL:
        left = buffer.end - buffer.start - exchange.request_sent
        if exchange.flags & EXCHANGE_UPGRADE and exchange.request_sent == 0 and not dispatch_may_tunnel(up):
            respond_reason(worker, exchange, REASON_UPSTREAM_NO_WEBSOCKET)
            return
        if left:
            sent = conn_send_request(worker, up, buffer.data + buffer.start + exchange.request_sent, left,
                                     exchange.request_sent == 0 and exchange.request.state == FLOW_DONE)
            if sent < 0:
                if sent != -EAGAIN and sent != -EINTR:
                    dispatch_unsent(worker, exchange)
                    return
                sent = 0
            exchange.request_sent += <uint32_t>sent
            if <uint32_t>sent < left:
                up.io &= <uint8_t>~IO_WRITABLE
                conn_deadline(worker, up, exchange_idle_deadline(worker, exchange))
                return
    if exchange.request.state == FLOW_DONE and exchange.request.piped_bytes == 0:
        dispatch_await_response(worker, exchange)
    else:
        dispatch_pump(worker, exchange)


cdef inline int dispatch_may_tunnel(const Conn* up) noexcept nogil:
    cdef const Stream* stream
    if not conn_is_stream(up):
        return 1
    stream = <const Stream*>up.channel
    return stream.session == NULL or session_takes_websockets(stream.session)


cdef inline void dispatch_unsent(Worker* worker, Exchange* exchange) noexcept nogil:
    """The kernel refused bytes of the request buffer: this connection is broken."""
    if exchange.flags & EXCHANGE_RESPONSE_STARTED:
        dispatch_abort_body(worker, exchange)         # the answer may still come whole
    else:
        dispatch_failed(worker, exchange, REASON_UPSTREAM_RESET)


cdef inline void dispatch_await_response(Worker* worker, Exchange* exchange) noexcept nogil:
    # The whole request is out: from now on the endpoint has the clock.
    cdef const char* trailers = NULL
    cdef uint32_t trailers_len = 0
    if conn_is_stream(exchange.up) and not exchange.flags & (EXCHANGE_CONNECT | EXCHANGE_UPGRADE):
        flow_trailers(&exchange.request, exchange.down, &trailers, &trailers_len)
        conn_end(worker, exchange.up, trailers, trailers_len)
    if exchange.state == EXCHANGE_AWAIT_RESPONSE:
        # A gRPC server may keep its head until the first message of a stream: the caller's deadline is what counts there.
        conn_deadline(worker, exchange.up, exchange_idle_deadline(worker, exchange) if exchange.flags & EXCHANGE_GRPC
                      else 0 if exchange.route.response_timeout_ns == 0
                      else worker.now_ns + exchange.route.response_timeout_ns)
    else:
        conn_deadline(worker, exchange.up, exchange_idle_deadline(worker, exchange))
    if exchange.total_deadline_ns or exchange.down.timer.deadline_ns:
        conn_deadline(worker, exchange.down, exchange.total_deadline_ns)


cdef inline void dispatch_pump(Worker* worker, Exchange* exchange) noexcept nogil:
    """Relay the request body. Called when the client sent more or the upstream can take more. May end the exchange."""
    cdef const Limits* limits = &exchange.snapshot.snapshot.limits
    cdef Buffer* buffer = exchange.request_buffer
    cdef Conn* down = exchange.down
    cdef uint64_t moved_before = exchange.request.moved_bytes
    cdef int code
    if buffer != NULL:
        if exchange.up == NULL or exchange.request_sent < buffer.end - buffer.start:
            return                      # the head is not out yet: the body waits in the kernel
        if conn_is_stream(exchange.up) and conn_is_stream(down) and dispatch_keep_body(worker, exchange):
            return
        # From here the endpoint gets bytes that are kept nowhere else: this request cannot be sent again.
        exchange.flags &= ~<uint32_t>EXCHANGE_MAY_REPLAY
        if exchange.request.state == FLOW_OPEN:
            buffer_return(&worker.buffers, buffer)
            exchange.request_buffer = NULL
    if exchange.flags & EXCHANGE_BODY_ABORTED or exchange.up == NULL:
        return
    code = flow_pump(worker, &exchange.request, down, exchange.up, limits, exchange.route.max_body_bytes)
    if code == FLOW_FINISHED:
        dispatch_await_response(worker, exchange)
    elif code == FLOW_AWAIT_INPUT and exchange.state == EXCHANGE_RELAY:
        # The answer came early: a client need not go on with its body (RFC 9112 9.5), so its pace is no fault now.
        # What moves either way keeps the exchange from being idle.
        if exchange.request.moved_bytes != moved_before:
            conn_deadline(worker, exchange.up, exchange_idle_deadline(worker, exchange))
    elif code == FLOW_AWAIT_INPUT:
        dispatch_await_body(worker, exchange, moved_before)
    elif code == FLOW_AWAIT_OUTPUT:
        conn_deadline(worker, exchange.up, exchange_idle_deadline(worker, exchange))
        conn_deadline(worker, down, exchange.total_deadline_ns)
    elif code == FLOW_SENDER_CLOSED:
        respond_reason(worker, exchange, REASON_BODY_INCOMPLETE)
    elif code == FLOW_SENDER_FAILED:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
    elif code == FLOW_RECEIVER_FAILED:
        dispatch_abort_body(worker, exchange)
    else:
        respond_reason(worker, exchange, <uint8_t>(code - FLOW_MALFORMED))


cdef inline void dispatch_await_body(Worker* worker, Exchange* exchange, uint64_t moved_before) noexcept nogil:
    # The client has the clock.
    cdef const Limits* limits = &exchange.snapshot.snapshot.limits
    cdef Conn* down = exchange.down
    cdef uint64_t slowest_ns = 0
    if limits.body_min_rate_bytes_per_s and not exchange.flags & EXCHANGE_GRPC:
        # A trickle must not hold a request open: so many bytes a second on average, after a grace.
        slowest_ns = exchange.body_start_ns + limits.body_min_rate_grace_ns \
            + exchange.request.moved_bytes * 1000000000 // limits.body_min_rate_bytes_per_s
    if exchange.request.moved_bytes != moved_before or down.timer.deadline_ns == 0 or slowest_ns:
        conn_deadline(worker, down, exchange_earlier(
            exchange_earlier(exchange_idle_deadline(worker, exchange), slowest_ns),
            exchange.total_deadline_ns))
    conn_deadline(worker, exchange.up, 0)


cdef inline int dispatch_keep_body(Worker* worker, Exchange* exchange) noexcept nogil:
    """Add what came of a body, from one stream to another, to the request buffer, and send that: as long as it is small
    the request can be sent again when the endpoint refuses it (RFC 9113 8.7). 1, or 0: it is not small, nothing was done."""
    cdef Stream* stream = <Stream*>exchange.down.channel
    cdef Buffer* buffer = exchange.request_buffer
    cdef uint64_t moved_before = exchange.request.moved_bytes
    cdef char* body
    cdef uint32_t body_len = 0
    cdef uint32_t used
    cdef int code = FLOW_AWAIT_INPUT
    if not exchange.flags & EXCHANGE_MAY_REPLAY or exchange.state != EXCHANGE_AWAIT_RESPONSE \
            or exchange.down.in_buffer != NULL:
        return 0
    if stream.data != NULL:
        if buffer.end + stream.data.end - stream.data.start > KEEP_BODY_BYTES:
            return 0
        code = flow_take(&exchange.request, stream.data.data + stream.data.start, stream.data.end - stream.data.start,
                         &used, &body, &body_len, &exchange.snapshot.snapshot.limits)
        if code >= FLOW_MALFORMED:
            respond_reason(worker, exchange, <uint8_t>(code - FLOW_MALFORMED))
            return 1
        if exchange.route.max_body_bytes and exchange.request.moved_bytes > exchange.route.max_body_bytes:
            respond_reason(worker, exchange, REASON_BODY_TOO_LARGE)
            return 1
        buffer = buffer_append(&worker.buffers, buffer, body, body_len)
        if buffer == NULL:
            respond_reason(worker, exchange, REASON_OUT_OF_MEMORY)
            return 1
        exchange.request_buffer = buffer
        stream_take(worker, stream, used)
    if stream.flags & STREAM_ENDED_IN:
        if not flow_stream_is_whole(&exchange.request):
            respond_reason(worker, exchange, REASON_BODY_INCOMPLETE)
            return 1
        exchange.request.state = FLOW_DONE
    elif exchange.down.io & IO_FAILED:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
        return 1
    dispatch_await_body(worker, exchange, moved_before)
    if body_len or exchange.request.state == FLOW_DONE:
        dispatch_send(worker, exchange)
    return 1


cdef inline void dispatch_abort_body(Worker* worker, Exchange* exchange) noexcept nogil:
    # The endpoint stopped reading. It may have answered before: let its response, or its reset, decide.
    exchange.flags |= EXCHANGE_BODY_ABORTED
    exchange.down.flags |= CONN_CLOSE_AFTER
    if exchange.request_buffer != NULL:
        buffer_return(&worker.buffers, exchange.request_buffer)
        exchange.request_buffer = NULL
    if exchange.state == EXCHANGE_AWAIT_RESPONSE:
        conn_deadline(worker, exchange.up, worker.now_ns + BODY_ABORTED_WAIT_NS)


cdef inline void dispatch_failed(Worker* worker, Exchange* exchange, uint8_t reason) noexcept nogil:
    """This attempt failed before its final response: try again where that is safe, else answer `reason`.

    After an interim response the endpoint has begun, and the client may have seen it: not sent again."""
    cdef Conn* up = exchange.up
    cdef uint32_t bit = RETRY_RESET
    cdef int unsent = exchange.request_sent == 0
    cdef int stale = up != NULL and up.flags & CONN_REUSED
    if up != NULL and conn_is_stream(up) and (<Stream*>up.channel).flags & STREAM_UNPROCESSED:
        unsent = stale = 1              # RFC 9113 8.7: safe to send again, whatever the method
        if not (<Stream*>up.channel).flags & STREAM_LEFT_BEHIND:
            stale = 0                   # it refused this one: a retry like others, within the budget
            bit = RETRY_CONNECT_FAILURE | RETRY_RESET
        elif exchange.attempts < MAX_LEFT_BEHIND:
            exchange.flags &= ~<uint32_t>EXCHANGE_STALE_REPLAYED      # nobody's fault, and no load anywhere
    if reason == REASON_UPSTREAM_CONNECT_FAILED or reason == REASON_UPSTREAM_CONNECT_TIMEOUT \
            or (exchange.state == EXCHANGE_AWAIT_CONNECT and reason != REASON_UPSTREAM_RESET):    # a TLS handshake failed
        bit = RETRY_CONNECT_FAILURE
        unsent = 1
        stale = 0
        if up != NULL and (reason == REASON_UPSTREAM_CONNECT_FAILED or reason == REASON_UPSTREAM_CONNECT_TIMEOUT):
            exchange_note_unreachable(worker, exchange)
    if exchange.flags & EXCHANGE_RESPONSE_STARTED or exchange.interim_responses \
            or not exchange.flags & EXCHANGE_MAY_REPLAY or not (unsent or exchange.flags & EXCHANGE_IDEMPOTENT):
        respond_reason(worker, exchange, reason)
        return
    if stale and not exchange.flags & EXCHANGE_STALE_REPLAYED:
        exchange.flags |= EXCHANGE_STALE_REPLAYED | EXCHANGE_FRESH_CONNECTION
        exchange.cluster_state.stale_replays += 1
        exchange_note_attempt(worker, exchange, ATTEMPT_ABANDONED, worker.now_ns)
        exchange_release_upstream(worker, exchange, 0)
        dispatch_attempt(worker, exchange)
        return
    dispatch_retry(worker, exchange, reason, bit)


cdef inline void dispatch_retry(Worker* worker, Exchange* exchange, uint8_t reason, uint32_t bit) noexcept nogil:
    """Repeat on another endpoint if the route, the attempts and the budget allow; else answer `reason`."""
    if bit == RETRY_CONNECT_FAILURE and dispatch_reach_another(worker, exchange):
        return
    if not exchange.route.retry_on & bit or exchange.attempts >= exchange.route.max_attempts \
            or (exchange.total_deadline_ns and worker.now_ns >= exchange.total_deadline_ns):
        respond_reason(worker, exchange, reason)
        return
    if not budget_withdraw(&exchange.cluster_state.budget, &exchange.cluster.budget, worker.now_ns):
        exchange.cluster_state.budget_exhausted += 1
        respond_reason(worker, exchange, reason)
        return
    dispatch_again(worker, exchange, ATTEMPT_FAILED)


cdef inline int dispatch_reach_another(Worker* worker, Exchange* exchange) noexcept nogil:
    """Its endpoint could not be connected to: go on to one that may be within reach, if there is one. 1; 0: not so.

    Nothing was sent, so this loads nobody, and each failure takes one endpoint out of all picks for a while: that is the
    bound. What took a whole connect timeout is a retry like others, for the client has waited for it."""
    cdef uint64_t tried = exchange.excluded
    if exchange.flags & EXCHANGE_ACTIVE or not exchange.route.retry_on & RETRY_CONNECT_FAILURE \
            or exchange.route.max_attempts < 2 or exchange.unreachable >= MAX_UNREACHABLE \
            or exchange.cluster.is_original_destination \
            or worker.now_ns - exchange.attempt_ns >= exchange.cluster.connect_timeout_ns \
            or (exchange.total_deadline_ns and worker.now_ns >= exchange.total_deadline_ns):
        return 0
    if exchange.endpoint_index < 64:
        tried |= <uint64_t>1 << exchange.endpoint_index
    if not tree_cluster_is_alive(exchange.cluster, worker.endpoints, worker.now_ns, tried):
        return 0
    exchange.attempts -= 1
    exchange.unreachable += 1
    exchange.excluded = tried
    exchange.endpoint.retries += 1
    exchange.cluster_state.retries += 1
    exchange_release_upstream(worker, exchange, 0)
    dispatch_attempt(worker, exchange)
    return 1


cdef inline void dispatch_again(Worker* worker, Exchange* exchange, int outcome) noexcept nogil:
    """Note the attempt's outcome; the next goes elsewhere. Every condition was checked by the caller."""
    exchange_note_attempt(worker, exchange, outcome, worker.now_ns)
    exchange.endpoint.retries += 1
    exchange.cluster_state.retries += 1
    if exchange.endpoint_index < 64:
        exchange.excluded |= <uint64_t>1 << exchange.endpoint_index
    exchange_release_upstream(worker, exchange, 0)
    if exchange.route.backoff.first_ns:
        dispatch_wait(worker, exchange)
    else:
        dispatch_elsewhere(worker, exchange)


cdef inline void dispatch_wait(Worker* worker, Exchange* exchange) noexcept nogil:
    """Nothing holds the exchange until its backoff is over but its client's connection, whose deadline that is."""
    exchange.backoff_ns = backoff_next_ns(&exchange.route.backoff, exchange.attempts - 1, exchange.backoff_ns, &worker.rng)
    exchange.state = EXCHANGE_AWAIT_RETRY
    exchange.endpoint = NULL
    exchange.address = NULL
    exchange.endpoint_index = -1
    conn_deadline(worker, exchange.down, exchange_earlier(worker.now_ns + exchange.backoff_ns, exchange.total_deadline_ns))


cdef inline void dispatch_elsewhere(Worker* worker, Exchange* exchange) noexcept nogil:
    """The next attempt, at another endpoint if there is one."""
    if exchange.route.tree != NULL \
            and not tree_cluster_is_alive(exchange.cluster, worker.endpoints, worker.now_ns, exchange.excluded):
        dispatch_turn(worker, exchange)
    dispatch_attempt(worker, exchange)


cdef inline int dispatch_turn(Worker* worker, Exchange* exchange) noexcept nogil:
    """This cluster has nobody left for this exchange: go over to another of its route's tree. 1; 0: there is none."""
    cdef ClusterState* state = exchange.cluster_state
    cdef const TargetNode* node
    if exchange.route.tree == NULL or exchange.leaf >= TREE_MAX_LEAVES or exchange.cluster.is_nothing:
        return 0
    exchange.spent |= <uint64_t>1 << exchange.leaf
    node = tree_choose(exchange.route.tree, worker.endpoints, &worker.rng, worker.now_ns, exchange.spent)
    if node.leaf >= TREE_MAX_LEAVES or exchange.spent >> node.leaf & 1 \
            or worker.clusters[node.cluster.slot].in_flight >= node.cluster.max_requests:
        return 0
    state.in_flight -= 1
    exchange.leaf = node.leaf
    exchange.cluster = node.cluster
    exchange.cluster_state = worker.clusters[node.cluster.slot]
    exchange.cluster_state.in_flight += 1
    exchange.excluded = 0
    return 1


# --- the queue of exchanges waiting for a connection ----------------------------------------------------------------

cdef inline void dispatch_serve(Worker* worker, ClusterState* state) noexcept nogil:
    """A connection of this cluster may be free: let those who wait try, oldest first, until one queues again."""
    cdef uint32_t tries = state.queue_len
    cdef Exchange* exchange
    cdef int is_one_for_all
    while tries and state.queue_len:
        tries -= 1
        exchange = <Exchange*>slab_at(&worker.exchanges, state.queue_head)
        # Of an original destination, each waits for its own: that the first found nothing says nothing of the next.
        is_one_for_all = not exchange.cluster.is_original_destination
        queue_leave(worker, exchange)
        conn_deadline(worker, exchange.down, exchange.total_deadline_ns)
        dispatch_attempt(worker, exchange)
        if is_one_for_all and state.queue_len and state.queue_tail == exchange.item.index:
            return                      # it found nothing and went to the back: nothing is free
