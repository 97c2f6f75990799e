# What an epoll event, a turn in the run list or a send that failed late means for a connection in its state. Decides who acts; acts itself only by calling request, dispatch, response and downstream.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from meshcore.engine.batch cimport batch_clear, batch_end, batch_withdraw
from meshcore.engine.begin cimport begin_after_header, begin_by_name, begin_detected, begin_plain
from meshcore.engine.conn cimport (
    conn_close, conn_deadline, conn_flush, conn_has_input, conn_is_disturbed, conn_is_plain, conn_is_stream,
    conn_recv_anywhere, conn_run_later, conn_settle, conn_token,
)
from meshcore.engine.dispatch cimport (
    dispatch_abort_body, dispatch_connected, dispatch_failed, dispatch_pump, dispatch_send, dispatch_unsent,
)
from meshcore.engine.downstream cimport (
    downstream_abort, downstream_close, downstream_flushed, downstream_linger, downstream_refuse,
)
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.exchange cimport ATTEMPT_SUCCEEDED, exchange_end, exchange_idle_deadline
from meshcore.engine.hook cimport hook_abandon
from meshcore.engine.http2_control cimport control_mark
from meshcore.engine.listener cimport listener_accept
from meshcore.engine.lookup cimport lookup_leave
from meshcore.engine.pool cimport pool_discard, pool_remove
from meshcore.engine.preface cimport preface_detect, preface_read
from meshcore.engine.queue cimport queue_leave
from meshcore.engine.reasons cimport (
    REASON_DOWNSTREAM_CLOSED, REASON_UPSTREAM_CONNECT_FAILED, REASON_UPSTREAM_RESET, REASON_UPSTREAM_TRUNCATED,
)
from meshcore.engine.request cimport request_read
from meshcore.engine.respond cimport respond_gone, respond_reason, respond_unparsed
from meshcore.engine.response cimport response_cut, response_pump, response_read, response_tunnel_pump
from meshcore.engine.secure cimport secure_accept, secure_connect, secure_go_on, secure_session
from meshcore.engine.session cimport (
    session_end, session_feed, session_flush, session_next_dirty, session_refuse_more, session_stop,
)
from meshcore.engine.slab cimport slab_find, slab_return
from meshcore.engine.snapshot cimport Limits
from meshcore.engine.socket cimport socket_note_send
from meshcore.engine.state cimport (
    CONN_AWAIT_CONNECT, CONN_AWAIT_HEAD, CONN_AWAIT_HELLO, CONN_AWAIT_PREFACE, CONN_AWAIT_PROTOCOL, CONN_AWAIT_TLS,
    CONN_DOWNSTREAM, CONN_EOF, CONN_ERROR, CONN_FREE, CONN_IDLE, CONN_IN_EXCHANGE, CONN_LINGERING, CONN_LISTENER, CONN_OK, CONN_REUSED,
    CONN_UPSTREAM, EXCHANGE_AWAIT_BINDING, EXCHANGE_AWAIT_CONNECT, EXCHANGE_AWAIT_CONNECTION, EXCHANGE_AWAIT_FILTER,
    EXCHANGE_AWAIT_RESPONSE, EXCHANGE_AWAIT_RESPONSE_FILTER, EXCHANGE_BODY_ABORTED, EXCHANGE_RELAY, EXCHANGE_TCP,
    EXCHANGE_TUNNEL, FLOW_OPEN, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, IO_WRITABLE, STREAM_CLOSED, STREAM_ENDED_IN,
    STREAM_READY, STREAM_UNLISTED, Conn, Exchange, Send, Session, Stream, Worker,
)
from meshcore.engine.sys cimport (
    EAGAIN, EINTR, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, sys_now_ns, sys_socket_error,
)
from meshcore.engine.tcp cimport tcp_connected


cdef enum:
    SESSION_TURN_BYTES = 262144         # read of one session before others get their turn
    SESSION_ROUNDS = 4


cdef inline int event_may_read_ahead(Conn* conn, uint32_t events) noexcept nogil:
    """Will acting on these events begin with one read of a head?"""
    if events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) != EPOLLIN or conn.in_buffer != NULL:
        return 0
    if conn.session != NULL:
        return conn.session.is_connected
    if conn.kind == CONN_DOWNSTREAM:
        return conn.state == CONN_AWAIT_HEAD and conn.out_buffer == NULL
    return conn.kind == CONN_UPSTREAM and conn.state == CONN_IN_EXCHANGE and conn.exchange != NULL \
        and conn.exchange.state == EXCHANGE_AWAIT_RESPONSE


cdef inline void event_act(Worker* worker, Conn* conn, uint32_t events) noexcept nogil:
    """Note the edges and act on them."""
    if conn.kind == CONN_FREE:
        return
    if conn.kind == CONN_LISTENER:
        listener_accept(worker, conn)
        return
    if events & (EPOLLIN | EPOLLRDHUP):
        conn.io |= IO_READABLE
    if events & EPOLLOUT:
        conn.io |= IO_WRITABLE
    if events & EPOLLRDHUP:
        conn.io |= IO_PEER_CLOSED
    if events & (EPOLLERR | EPOLLHUP):
        conn.io |= IO_FAILED | IO_READABLE
    event_run(worker, conn)


cdef inline void event_run(Worker* worker, Conn* conn) noexcept nogil:
    """Do what this connection's state and edges allow."""
    if conn.session != NULL:
        event_session(worker, conn)
    elif conn_is_stream(conn) and conn.exchange == NULL:
        event_stream(worker, conn)
    elif conn.kind == CONN_DOWNSTREAM:
        event_downstream(worker, conn)
    elif conn.kind != CONN_LISTENER:
        event_upstream(worker, conn)


cdef inline void event_downstream(Worker* worker, Conn* conn) noexcept nogil:
    if conn.state == CONN_IN_EXCHANGE:
        event_downstream_exchange(worker, conn, conn.exchange)
        return
    if conn.out_buffer != NULL and conn.state == CONN_AWAIT_HEAD:
        # The last response is still on its way out: the next request waits for it.
        if not conn.io & (IO_WRITABLE | IO_FAILED):
            return
        if conn_flush(worker, conn) == CONN_ERROR:
            downstream_close(worker, conn)
            return
        if conn.out_buffer != NULL:
            conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.keep_alive_timeout_ns)
            return
    if conn.state == CONN_AWAIT_HEAD:
        if conn.in_buffer != NULL or conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
            request_read(worker, conn)
    elif conn.state == CONN_AWAIT_PREFACE:
        if conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED) and preface_read(worker, conn):
            begin_after_header(worker, conn)
    elif conn.state == CONN_AWAIT_PROTOCOL:
        if conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
            begin_detected(worker, conn, preface_detect(worker, conn))
    elif conn.state == CONN_AWAIT_HELLO:
        if conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
            begin_by_name(worker, conn)
    elif conn.state == CONN_AWAIT_TLS:
        if secure_accept(worker, conn):
            begin_plain(worker, conn)
    elif conn.state == CONN_LINGERING:
        downstream_linger(worker, conn)
    elif conn.io & (IO_WRITABLE | IO_FAILED):
        downstream_flushed(worker, conn)


cdef inline void event_downstream_exchange(Worker* worker, Conn* conn, Exchange* exchange) noexcept nogil:
    if exchange.state == EXCHANGE_AWAIT_FILTER or exchange.state == EXCHANGE_AWAIT_RESPONSE_FILTER:
        if conn.io & IO_FAILED:
            hook_abandon(worker, exchange)
            worker.reasons[REASON_DOWNSTREAM_CLOSED] += 1
            downstream_close(worker, conn)
        return
    if exchange.state == EXCHANGE_AWAIT_BINDING:
        if conn.io & IO_FAILED:
            event_give_up(worker, exchange, REASON_DOWNSTREAM_CLOSED)
        return
    if conn.out_buffer != NULL and conn.io & (IO_WRITABLE | IO_FAILED):
        if conn_flush(worker, conn) == CONN_ERROR:
            respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
            return
    if exchange.state == EXCHANGE_TUNNEL:
        response_tunnel_pump(worker, exchange)
        return
    if exchange.state == EXCHANGE_RELAY:
        response_pump(worker, exchange)
        if conn.exchange != exchange:
            return
    if exchange.request.state == FLOW_OPEN and conn.io & (IO_READABLE | IO_PEER_CLOSED) \
            and (exchange.state == EXCHANGE_AWAIT_RESPONSE or exchange.state == EXCHANGE_RELAY):
        dispatch_pump(worker, exchange)
        if conn.exchange != exchange:
            return
    if conn.io & IO_FAILED:
        # Reset, or closed both ways: nobody is left to answer.
        event_give_up(worker, exchange, REASON_DOWNSTREAM_CLOSED)


cdef inline void event_give_up(Worker* worker, Exchange* exchange, uint8_t reason) noexcept nogil:
    if exchange.state == EXCHANGE_AWAIT_CONNECTION:
        queue_leave(worker, exchange)
    elif exchange.state == EXCHANGE_AWAIT_BINDING:
        lookup_leave(worker, exchange)
    respond_gone(worker, exchange, reason)


cdef inline void event_upstream(Worker* worker, Conn* conn) noexcept nogil:
    cdef Exchange* exchange = conn.exchange
    cdef EndpointState* endpoint = <EndpointState*>conn.owner
    if conn.state == CONN_IDLE:
        if conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED) and conn_is_disturbed(worker, conn):
            # Closed by the endpoint, or bytes nobody asked for: never matched to a later request.
            pool_remove(worker, endpoint, conn)
            pool_discard(worker, endpoint, conn)
            if worker.queued_exchanges:
                worker.serve_queues = 1
        return
    if exchange == NULL:
        return
    if conn.state == CONN_AWAIT_CONNECT:
        if not conn.io & (IO_WRITABLE | IO_FAILED):
            return
        if conn_is_stream(conn) and conn.io & IO_FAILED:
            # Its session found no endpoint, or one that takes fewer streams than wait.
            dispatch_failed(worker, exchange, REASON_UPSTREAM_CONNECT_FAILED
                            if (<Stream*>conn.channel).session == NULL else REASON_UPSTREAM_RESET)
        elif not conn_is_stream(conn) and (sys_socket_error(conn.fd) != 0 or conn.io & IO_FAILED):
            endpoint.connect_failures += 1
            dispatch_failed(worker, exchange, REASON_UPSTREAM_CONNECT_FAILED)
        elif secure_connect(worker, exchange):
            event_connected(worker, exchange)
        return
    if conn.state == CONN_AWAIT_TLS:
        if secure_go_on(worker, exchange):
            event_connected(worker, exchange)
        return
    if exchange.state == EXCHANGE_AWAIT_RESPONSE_FILTER:
        return
    if conn.send_slot and not event_upstream_is_sound(worker, conn, exchange):
        return
    if exchange.state == EXCHANGE_TUNNEL:
        if conn.out_buffer != NULL and conn_flush(worker, conn) == CONN_ERROR:
            event_end_tunnel(worker, exchange)
            return
        response_tunnel_pump(worker, exchange)
        return
    if conn.io & IO_WRITABLE and not event_upstream_writable(worker, conn, exchange):
        return
    if not conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        return
    if exchange.state == EXCHANGE_AWAIT_RESPONSE:
        response_read(worker, exchange)
    elif exchange.state == EXCHANGE_RELAY:
        response_pump(worker, exchange)


# --- HTTP/2 ---------------------------------------------------------------------------------------------------------

cdef inline void event_session(Worker* worker, Conn* conn) noexcept nogil:
    """Let a session read, and its streams' exchanges act on what came."""
    cdef Session* session = conn.session
    cdef char* at
    cdef uint32_t n
    cdef uint32_t turn = 0
    cdef int code
    if not session.is_connected:
        if not conn.io & (IO_WRITABLE | IO_FAILED):
            return
        if (conn.io & IO_FAILED and conn_is_plain(conn)) or sys_socket_error(conn.fd) != 0:
            event_session_lost(worker, conn)
            return
        if not conn_is_plain(conn):
            code = secure_session(worker, session)
            if code != 1:
                if code < 0:
                    event_session_lost(worker, conn)
                return
        session.is_connected = 1
        control_mark(session)
    if conn.out_buffer != NULL and conn.io & (IO_WRITABLE | IO_FAILED):
        code = conn_flush(worker, conn)
        if code == CONN_ERROR:
            event_session_lost(worker, conn)
            return
        if code == CONN_OK:
            control_mark(session)
        if session.is_stalled:
            session.is_stalled = session.is_idle = 0  # it reads: the clock begins anew
            conn_deadline(worker, conn, 0)
            event_session_stall(worker, session)
    while conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED) and not session.has_ended:
        code = conn_recv_anywhere(worker, conn, &at, &n)
        if code == CONN_EOF or code == CONN_ERROR:
            event_session_lost(worker, conn)
            return
        if code != CONN_OK:
            break
        session_feed(worker, session, at, n)
        event_run_ready(worker)
        turn += n
        if turn > SESSION_TURN_BYTES:
            conn_run_later(worker, conn)
            break
    if conn.io & IO_FAILED:
        event_session_lost(worker, conn)


cdef inline void event_stream(Worker* worker, Conn* conn) noexcept nogil:
    """A stream without an exchange: its request has come, or its answer is on the way out."""
    cdef Stream* stream = <Stream*>conn.channel
    if conn.state != CONN_AWAIT_HEAD or stream.flags & STREAM_CLOSED:
        if stream.flags & STREAM_CLOSED:
            conn_close(worker, conn)
    elif stream.refusal:
        respond_unparsed(worker, conn, stream.refusal)
    elif stream.length_left == 0 and not stream.flags & STREAM_ENDED_IN:
        # It says that it has no body, and might yet send one: until it has ended this is no request.
        conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.head_timeout_ns)
    else:
        request_read(worker, conn)


cdef inline void event_run_ready(Worker* worker) noexcept nogil:
    """Run the connections of streams that have something for their exchange."""
    cdef Stream* stream = worker.ready_streams
    while stream != NULL:
        worker.ready_streams = stream.ready_next
        stream.flags &= ~<uint32_t>STREAM_READY
        if stream.flags & STREAM_UNLISTED:
            slab_return(&worker.streams, &stream.item)
        elif stream.conn != NULL:
            stream.conn.io |= stream.ready_io
            stream.ready_io = 0
            if stream.refusal and stream.conn.kind == CONN_UPSTREAM and stream.conn.exchange != NULL:
                event_refused_response(worker, stream)
            else:
                event_run(worker, stream.conn)
        stream = worker.ready_streams


cdef inline void event_refused_response(Worker* worker, Stream* stream) noexcept nogil:
    cdef Exchange* exchange = stream.conn.exchange
    cdef uint8_t reason = stream.refusal
    stream.refusal = 0
    if exchange.state == EXCHANGE_AWAIT_RESPONSE_FILTER:
        return
    if exchange.state == EXCHANGE_RELAY:
        response_cut(worker, exchange, reason)
    elif exchange.state == EXCHANGE_AWAIT_CONNECT:
        dispatch_failed(worker, exchange, reason)     # its session found no endpoint it could trust
    else:
        respond_reason(worker, exchange, reason)


cdef inline void event_flush_sessions(Worker* worker) noexcept nogil:
    """Send what streams have, and let those that can send more do so; a few rounds, the loop comes back for the rest."""
    cdef Session* session
    cdef uint32_t i
    for i in range(<uint32_t>SESSION_ROUNDS):
        session = session_next_dirty(worker)
        while session != NULL:
            if session_flush(worker, session):
                event_session_deadline(worker, session)
            else:
                event_session_over(worker, session.conn)
            session = session_next_dirty(worker)
        if worker.ready_streams == NULL:
            return
        event_run_ready(worker)


cdef inline void event_session_lost(Worker* worker, Conn* conn) noexcept nogil:
    """The connection is broken: every stream of it hears so, and it is closed."""
    if conn.session.is_client and not conn.session.is_ready:
        (<EndpointState*>conn.owner).connect_failures += 1
    session_end(worker, conn.session)
    if conn.kind == CONN_DOWNSTREAM:
        downstream_close(worker, conn)
    else:
        pool_discard(worker, <EndpointState*>conn.owner, conn)
        worker.serve_queues = worker.queued_exchanges != 0


cdef inline void event_session_over(Worker* worker, Conn* conn) noexcept nogil:
    """Nothing more is to be said on it: part so that the peer can still read what was."""
    if conn.io & IO_FAILED or conn.kind == CONN_UPSTREAM:
        event_session_lost(worker, conn)
        return
    session_end(worker, conn.session)
    downstream_refuse(worker, conn)


cdef inline void event_session_deadline(Worker* worker, Session* session) noexcept nogil:
    """While streams run their own deadlines count; without any, the connection's: nothing but a stream extends it."""
    cdef const Limits* limits = &worker.current.snapshot.limits
    if not session.is_ready:
        return                          # connecting
    if session.is_stalled:
        return                          # streams that come and go do not move what waits before them
    if session.n_streams:
        if session.is_idle or not session.has_begun:
            session.is_idle = 0
            session.has_begun = 1
            conn_deadline(worker, session.conn, 0)
    elif session.is_closing:
        if not session.is_client and not session.has_said_goaway:
            session_refuse_more(worker, session)      # what is on its way now lies above the last stream it names
        session_stop(worker, session)
    elif not session.is_idle and session.has_begun:
        session.is_idle = 1
        conn_deadline(worker, session.conn, worker.now_ns + (session.idle_timeout_ns if session.is_client
                                                             else limits.keep_alive_timeout_ns))
    if session.in_block and session.conn.timer.deadline_ns == 0:
        conn_deadline(worker, session.conn, worker.now_ns + limits.head_timeout_ns)
        session.is_idle = 1             # as far as its deadline goes
    event_session_stall(worker, session)


cdef inline void event_session_stall(Worker* worker, Session* session) noexcept nogil:
    """A peer that takes nothing of what waits for it holds memory and a socket: streams end by their deadlines, but the
    resets that say so wait behind it."""
    if session.conn.out_buffer != NULL and session.conn.timer.deadline_ns == 0:
        session.is_stalled = 1
        conn_deadline(worker, session.conn, worker.now_ns + (
            session.idle_timeout_ns if session.is_client
            else worker.current.snapshot.limits.keep_alive_timeout_ns))


cdef inline void event_connected(Worker* worker, Exchange* exchange) noexcept nogil:
    if exchange.flags & EXCHANGE_TCP:
        tcp_connected(worker, exchange)
    else:
        dispatch_connected(worker, exchange)


cdef inline int event_upstream_is_sound(Worker* worker, Conn* conn, Exchange* exchange) noexcept nogil:
    """What came from an endpoint before our bytes left is no answer to them. 1: go on; 0: the exchange goes elsewhere.

    A reused connection with something to read was closed by the endpoint, or brings bytes nobody asked for: the request
    still held back is certainly unsent, whatever its method. A fresh one may be refused before it was asked.
    """
    if not conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        return 1
    if not conn.flags & CONN_REUSED or exchange.state != EXCHANGE_AWAIT_RESPONSE \
            or not worker.batch.sends[conn.send_slot - 1].is_request:
        if conn_settle(worker, conn) == CONN_ERROR:
            conn.io |= IO_READABLE
        return 1
    if not conn.io & IO_FAILED and not conn_has_input(worker, conn):
        conn.io &= <uint8_t>~IO_READABLE              # an edge of bytes already read
        return 1
    batch_withdraw(&worker.batch, conn)
    exchange.request_sent = 0
    dispatch_failed(worker, exchange, REASON_UPSTREAM_RESET)
    return 0


cdef inline int event_upstream_writable(Worker* worker, Conn* conn, Exchange* exchange) noexcept nogil:
    """The endpoint takes more of the request. 1 when the exchange still holds this connection."""
    if exchange.request_buffer != NULL \
            and exchange.request_sent < exchange.request_buffer.end - exchange.request_buffer.start:
        dispatch_send(worker, exchange)
        return conn.exchange == exchange
    if conn.out_buffer != NULL and conn_flush(worker, conn) == CONN_ERROR:
        exchange.flags |= EXCHANGE_BODY_ABORTED
    if exchange.request.state == FLOW_OPEN or exchange.request.piped_bytes:
        dispatch_pump(worker, exchange)
    return conn.exchange == exchange


cdef inline void event_end_tunnel(Worker* worker, Exchange* exchange) noexcept nogil:
    cdef Conn* down = exchange.down
    exchange_end(worker, exchange, ATTEMPT_SUCCEEDED, sys_now_ns())
    downstream_close(worker, down)


# --- sends held back ------------------------------------------------------------------------------------------------

cdef inline void event_end_batch(Worker* worker) noexcept nogil:
    """Make the sends held back, and act on those the kernel did not take whole."""
    cdef uint64_t tokens[240]
    cdef uint8_t is_request[240]
    cdef Send* send
    cdef Conn* conn
    cdef uint32_t n = batch_end(&worker.batch)
    cdef uint32_t n_left = 0
    cdef uint32_t i
    for i in range(n):
        send = &worker.batch.sends[i]
        send.conn.send_slot = 0
        if not event_note_sent(worker, send, worker.batch.results[i]):
            tokens[n_left] = conn_token(send.conn)
            is_request[n_left] = send.is_request
            n_left += 1
    batch_clear(&worker.batch)          # from here on sends are made at once
    for i in range(n_left):
        conn = <Conn*>slab_find(&worker.conns, tokens[i])
        if conn != NULL and conn.kind != CONN_FREE:
            event_unsent(worker, conn, is_request[i])


cdef inline int event_note_sent(Worker* worker, Send* send, int32_t result) noexcept nogil:
    """1: all of it was taken."""
    cdef int code
    if not send.is_request:
        code = socket_note_send(worker, send.conn, send.at, send.n, result)
        if code == CONN_ERROR:
            send.conn.io |= IO_FAILED   # also where the rest found no memory: what follows it must not be sent
        return code == CONN_OK
    if result == <int32_t>send.n:
        return 1
    send.conn.exchange.request_sent = <uint32_t>result if result > 0 else 0
    if result >= 0 or result == -EAGAIN or result == -EINTR:
        send.conn.io &= <uint8_t>~IO_WRITABLE
    else:
        send.conn.io |= IO_FAILED
    return 0


cdef inline void event_unsent(Worker* worker, Conn* conn, int is_request) noexcept nogil:
    """A send that was taken for made was not, or not whole."""
    cdef Exchange* exchange = conn.exchange
    if conn.session != NULL:
        event_session(worker, conn)
        return
    if not conn.io & IO_FAILED:
        # The rest waits: whoever feeds this connection is to take note.
        if conn.kind != CONN_UPSTREAM or exchange == NULL or exchange.state == EXCHANGE_TUNNEL:
            event_run(worker, conn)
        elif is_request:
            conn_deadline(worker, conn, exchange_idle_deadline(worker, exchange))
        else:
            dispatch_pump(worker, exchange)
    elif exchange == NULL or exchange.state == EXCHANGE_AWAIT_FILTER \
            or exchange.state == EXCHANGE_AWAIT_RESPONSE_FILTER:
        if conn.kind == CONN_DOWNSTREAM and exchange == NULL:
            downstream_abort(worker, conn)
        else:
            event_run(worker, conn)
    elif conn.kind == CONN_DOWNSTREAM or exchange.state == EXCHANGE_TUNNEL:
        event_give_up(worker, exchange, REASON_DOWNSTREAM_CLOSED if conn.kind == CONN_DOWNSTREAM
                      else REASON_UPSTREAM_TRUNCATED)
    elif is_request:
        dispatch_unsent(worker, exchange)
    else:
        dispatch_abort_body(worker, exchange)
