# A connection relayed as it is: no protocol is read. One connection is one exchange, from its accept to its end.
#
# What HTTP's exchanges have, it has too: balancing, connect retries, queues, limits, breakers, counters. Its status is
# 200 once an endpoint took it, else that of the reason; nobody is sent it. Before an endpoint is there nothing is read
# from the client: what it says early waits in the kernel, and an endpoint that speaks first is heard at once.

from libc.stdint cimport uint8_t, uint32_t

from meshcore.engine.conn cimport conn_deadline, conn_drop_input, conn_is_plain, conn_peer, conn_send
from meshcore.engine.dispatch cimport dispatch
from meshcore.engine.downstream cimport downstream_abort
from meshcore.engine.exchange cimport exchange_begin, exchange_note_tcp, exchange_observe_latency
from meshcore.engine.flow cimport flow_open
from meshcore.engine.lookup cimport LOOKUP_WAITS, lookup_connection
from meshcore.engine.preface cimport preface_write
from meshcore.engine.reasons cimport (
    REASON_DRAINING, REASON_LOAD_SHED, REASON_NO_ENDPOINT, REASON_ROUTE_NOT_FOUND, REASON_TLS_WRONG_IDENTITY,
    REASON_UPSTREAM_RESET,
)
from meshcore.engine.request cimport request_choose_cluster
from meshcore.engine.respond cimport respond_reason
from meshcore.engine.response cimport response_tunnel_pump
from meshcore.engine.snapshot cimport RouteConf
from meshcore.engine.state cimport (
    CONN_ERROR, CONN_CLOSE_AFTER, CONN_IN_EXCHANGE, EXCHANGE_FRESH_CONNECTION, EXCHANGE_RESPONSE_STARTED,
    EXCHANGE_TCP, EXCHANGE_TUNNEL, FLOW_RAW, LISTENER_REMOVED, Conn, Exchange, ListenerState, Worker,
)
from meshcore.engine.tap cimport tap_capture_tcp


cdef inline void tcp_refuse(Worker* worker, Conn* conn, uint8_t reason) noexcept nogil:
    worker.reasons[reason] += 1
    worker.requests += 1
    downstream_abort(worker, conn)


cdef inline void tcp_begin(Worker* worker, Conn* conn) noexcept nogil:
    """A client that speaks no HTTP: find it an endpoint of its listener's route. May close the connection."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    tcp_begin_on(worker, conn, NULL if listener.conf_index == LISTENER_REMOVED
                 else worker.current.snapshot.listeners[listener.conf_index].tcp_route, NULL, 0)


cdef inline void tcp_begin_on(Worker* worker, Conn* conn, RouteConf* route, const char* name,
                              uint32_t name_len) noexcept nogil:
    """As tcp_begin, on this route of the current snapshot; NULL: there is none for it. `name`: whom the client asked for."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef Exchange* exchange
    cdef uint8_t reason = 0
    conn.requests = 1
    if listener.conf_index == LISTENER_REMOVED:
        tcp_refuse(worker, conn, REASON_DRAINING)
        return
    if conn_peer(conn) != NULL and conn_peer(conn).is_denied:
        tcp_refuse(worker, conn, REASON_TLS_WRONG_IDENTITY)
        return
    if route == NULL:
        tcp_refuse(worker, conn, REASON_ROUTE_NOT_FOUND)
        return
    exchange = exchange_begin(worker, conn, worker.now_ns)
    if exchange == NULL:
        tcp_refuse(worker, conn, REASON_LOAD_SHED)
        return
    worker.requests += 1
    listener.requests += 1
    conn.state = CONN_IN_EXCHANGE
    conn.flags |= CONN_CLOSE_AFTER
    exchange.listener = &worker.current.snapshot.listeners[listener.conf_index]
    exchange.flags |= EXCHANGE_TCP | EXCHANGE_FRESH_CONNECTION
    exchange.route = exchange.listed_route = route
    exchange.route_state = worker.routes[exchange.route.slot]
    if worker.tap_bits:
        tap_capture_tcp(worker, exchange, name, name_len)
    if exchange.route.lookup == NULL:
        tcp_go_on(worker, exchange, 0)
    elif lookup_connection(worker, exchange, &reason) != LOOKUP_WAITS:
        tcp_go_on(worker, exchange, reason)


cdef inline void tcp_go_on(Worker* worker, Exchange* exchange, uint8_t reason) noexcept nogil:
    """Its route is settled; or there is none, for a reason. May close the connection."""
    if reason == 0:
        reason = REASON_ROUTE_NOT_FOUND if exchange.route == NULL \
            else exchange.route.direct.reason if exchange.route.direct != NULL else exchange.route.refuses_for
    if reason:
        respond_reason(worker, exchange, reason)
        return
    if exchange.route.total_timeout_ns:
        exchange.total_deadline_ns = exchange.start_ns + exchange.route.total_timeout_ns
    conn_deadline(worker, exchange.down, exchange.total_deadline_ns)
    request_choose_cluster(worker, exchange, -1)
    if exchange.cluster == NULL:
        respond_reason(worker, exchange, REASON_NO_ENDPOINT)
        return
    dispatch(worker, exchange)


cdef inline void tcp_connected(Worker* worker, Exchange* exchange) noexcept nogil:
    """An endpoint took it: from here on bytes go both ways, and each direction ends by itself."""
    cdef Conn* up = exchange.up
    cdef Conn* down = exchange.down
    cdef uint32_t n
    up.state = CONN_IN_EXCHANGE
    up.requests += 1
    exchange.state = EXCHANGE_TUNNEL
    exchange.flags |= EXCHANGE_RESPONSE_STARTED
    exchange.status = 200
    exchange.first_byte_ns = worker.now_ns
    exchange_observe_latency(exchange, worker.now_ns)
    exchange_note_tcp(worker, exchange, 1, 0)
    flow_open(&exchange.request, FLOW_RAW, FLOW_RAW, 0)
    flow_open(&exchange.response, FLOW_RAW, FLOW_RAW, 0)
    # Over TLS it was sent before the handshake.
    if exchange.cluster.proxy_version and conn_is_plain(up) \
            and conn_send(worker, up, worker.scratch,
                          preface_write(worker.scratch, exchange.down, exchange.cluster.proxy_version)) == CONN_ERROR:
        respond_reason(worker, exchange, REASON_UPSTREAM_RESET)
        return
    if down.in_buffer != NULL:
        # What told that this is no HTTP, decrypted.
        n = down.in_buffer.end - down.in_buffer.start
        exchange.request.moved_bytes = n
        if conn_send(worker, up, down.in_buffer.data + down.in_buffer.start, n) == CONN_ERROR:
            respond_reason(worker, exchange, REASON_UPSTREAM_RESET)
            return
        conn_drop_input(worker, down)
    response_tunnel_pump(worker, exchange)
