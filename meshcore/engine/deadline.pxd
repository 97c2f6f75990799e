# What it means that the one deadline of a connection has passed: its state says which it was. Arms none.

from meshcore.engine.certificate cimport TLS_LATE
from meshcore.engine.conn cimport conn_close, conn_deadline, conn_is_stream
from meshcore.engine.dispatch cimport dispatch_elsewhere, dispatch_failed
from meshcore.engine.downstream cimport downstream_close
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.event cimport event_end_tunnel, event_session_lost
from meshcore.engine.hook cimport hook_abandon
from meshcore.engine.lookup cimport lookup_leave
from meshcore.engine.pool cimport pool_discard, pool_remove
from meshcore.engine.preface cimport preface_note_silence
from meshcore.engine.queue cimport queue_leave
from meshcore.engine.reasons cimport (
    REASON_BODY_TIMEOUT, REASON_DEADLINE_EXCEEDED, REASON_DOWNSTREAM_STALLED, REASON_FILTER_TIMEOUT,
    REASON_HEAD_TIMEOUT, REASON_LOOKUP_TIMEOUT, REASON_QUEUE_TIMEOUT, REASON_TOTAL_TIMEOUT, REASON_TUNNEL_TIMEOUT,
    REASON_UPSTREAM_CONNECT_TIMEOUT, REASON_UPSTREAM_IDLE_TIMEOUT, REASON_UPSTREAM_RESET,
    REASON_UPSTREAM_RESPONSE_TIMEOUT, tls_reason,
)
from meshcore.engine.respond cimport respond_gone, respond_reason, respond_unparsed
from meshcore.engine.response cimport response_cut
from meshcore.engine.resume cimport resume_lookup
from meshcore.engine.secure cimport secure_accept_late, secure_give_up
from meshcore.engine.session cimport session_refuse_more, session_stop
from meshcore.engine.state cimport (
    CONN_AWAIT_CONNECT, CONN_AWAIT_HEAD, CONN_AWAIT_HELLO, CONN_AWAIT_PROTOCOL, CONN_AWAIT_TLS, CONN_DOWNSTREAM, CONN_FREE, CONN_IDLE,
    CONN_IN_EXCHANGE, CONN_LISTENER, EXCHANGE_AWAIT_BINDING, EXCHANGE_AWAIT_CONNECTION, EXCHANGE_AWAIT_FILTER,
    EXCHANGE_AWAIT_RESPONSE_FILTER, EXCHANGE_AWAIT_RETRY, EXCHANGE_BODY_ABORTED, EXCHANGE_DEADLINE, EXCHANGE_RELAY, EXCHANGE_TUNNEL,
    FLOW_OPEN, Conn, Exchange, Session, Worker,
)
from meshcore.engine.tcp cimport tcp_begin


cdef inline void deadline_passed(Worker* worker, Conn* conn) noexcept nogil:
    """The one deadline of this connection has passed: its state says which it was."""
    if conn.session != NULL:
        deadline_session(worker, conn)
    elif conn_is_stream(conn) and conn.exchange == NULL:
        conn_close(worker, conn)        # its answer did not leave in time
    elif conn.kind == CONN_DOWNSTREAM:
        if conn.state == CONN_IN_EXCHANGE:
            deadline_exchange(worker, conn.exchange)
        elif conn.state == CONN_AWAIT_HEAD and conn.in_buffer != NULL and conn.out_buffer == NULL:
            respond_unparsed(worker, conn, REASON_HEAD_TIMEOUT)
        elif conn.state == CONN_AWAIT_PROTOCOL:
            preface_note_silence(worker, conn)
            tcp_begin(worker, conn)
        elif conn.state == CONN_AWAIT_HELLO:
            worker.reasons[tls_reason(0, TLS_LATE)] += 1
            downstream_close(worker, conn)
        elif conn.state == CONN_AWAIT_TLS:
            if secure_accept_late(worker, conn):
                tcp_begin(worker, conn)
        else:
            downstream_close(worker, conn)            # idle, lingering or not reading for too long
    elif conn.kind != CONN_LISTENER and conn.kind != CONN_FREE:
        deadline_upstream(worker, conn)


cdef inline void deadline_session(Worker* worker, Conn* conn) noexcept nogil:
    cdef Session* session = conn.session
    if session.is_closing and not session.is_client and not session.has_said_goaway:
        session_refuse_more(worker, session)
    elif conn.out_buffer != NULL or not session.is_ready or session.has_ended:
        event_session_lost(worker, conn)
    else:
        session_stop(worker, session)
        conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.linger_timeout_ns)


cdef inline void deadline_exchange(Worker* worker, Exchange* exchange) noexcept nogil:
    cdef Conn* down = exchange.down
    if exchange.state == EXCHANGE_AWAIT_FILTER or exchange.state == EXCHANGE_AWAIT_RESPONSE_FILTER:
        hook_abandon(worker, exchange)
        respond_unparsed(worker, down, REASON_FILTER_TIMEOUT)
        return
    if exchange.state == EXCHANGE_AWAIT_BINDING:
        lookup_leave(worker, exchange)
        resume_lookup(worker, exchange, NULL, REASON_LOOKUP_TIMEOUT)
        return
    if exchange.state == EXCHANGE_AWAIT_CONNECTION:
        queue_leave(worker, exchange)
        exchange.cluster_state.queue_timeouts += 1
        respond_reason(worker, exchange, REASON_QUEUE_TIMEOUT)
        return
    if exchange.total_deadline_ns and worker.now_ns >= exchange.total_deadline_ns:
        respond_reason(worker, exchange, REASON_DEADLINE_EXCEEDED if exchange.flags & EXCHANGE_DEADLINE
                       else REASON_TOTAL_TIMEOUT)
        return
    if exchange.state == EXCHANGE_AWAIT_RETRY:
        conn_deadline(worker, down, exchange.total_deadline_ns)
        dispatch_elsewhere(worker, exchange)
        return
    if exchange.state == EXCHANGE_TUNNEL:
        return
    if exchange.request.state == FLOW_OPEN and down.out_buffer == NULL and exchange.response.piped_bytes == 0:
        respond_reason(worker, exchange, REASON_BODY_TIMEOUT)
    else:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_STALLED)


cdef inline void deadline_upstream(Worker* worker, Conn* conn) noexcept nogil:
    cdef Exchange* exchange = conn.exchange
    cdef EndpointState* endpoint = <EndpointState*>conn.owner
    if conn.state == CONN_IDLE:
        pool_remove(worker, endpoint, conn)
        pool_discard(worker, endpoint, conn)
    elif exchange == NULL:
        return
    elif conn.state == CONN_AWAIT_TLS:
        secure_give_up(worker, exchange, TLS_LATE)
    elif conn.state == CONN_AWAIT_CONNECT:
        endpoint.connect_failures += 1
        dispatch_failed(worker, exchange, REASON_UPSTREAM_CONNECT_TIMEOUT)
    elif exchange.state == EXCHANGE_TUNNEL:
        exchange.reason = REASON_TUNNEL_TIMEOUT
        event_end_tunnel(worker, exchange)
    elif exchange.state == EXCHANGE_RELAY:
        response_cut(worker, exchange, REASON_UPSTREAM_IDLE_TIMEOUT)
    elif exchange.flags & EXCHANGE_BODY_ABORTED:
        respond_reason(worker, exchange, REASON_UPSTREAM_RESET)
    else:
        respond_reason(worker, exchange, REASON_UPSTREAM_RESPONSE_TIMEOUT)
