# Handshakes: when one begins, how many go on at a time, and what follows when it succeeds, fails or takes too long. Encrypts
# nothing: see tls; trusts nobody: see certificate.
#
# Nothing of HTTP is read or sent before a handshake is over, and what fails ends there: no connection falls back to plaintext
# unless its listener says that TLS is optional. A handshake costs a hundred requests' worth of CPU, so a wake-up makes a few
# steps of them and then serves everybody else (those that wait are in the run list), and a worker has only so many open.

from libc.stdint cimport uint8_t

from meshcore.engine.client_hello cimport HELLO_MORE, HELLO_WHOLE, Hello
from meshcore.engine.certificate cimport TLS_LATE, TLS_NO_ALPN, TLS_PLAINTEXT, TLS_SOUND
from meshcore.engine.conn cimport (
    conn_alpn_is_h2, conn_deadline, conn_flush, conn_is_stream, conn_peer, conn_run_later, conn_send,
)
from meshcore.engine.detect cimport DETECT_MORE, DETECT_TLS
from meshcore.engine.dispatch cimport dispatch_failed
from meshcore.engine.downstream cimport downstream_abort, downstream_close, downstream_refuse
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.preface cimport preface_look_for_tls, preface_read_hello, preface_write
from meshcore.engine.reasons cimport (
    REASON_OUT_OF_MEMORY, REASON_TLS_HANDSHAKES_SHED, REASON_UPSTREAM_RESET, tls_reason,
)
from meshcore.engine.routes cimport RouteTable, routes_find
from meshcore.engine.snapshot cimport ListenerConf, RouteConf
from meshcore.engine.state cimport (
    CONN_AWAIT_TLS, CONN_ERROR, EXCHANGE_TCP, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, IO_WRITABLE,
    LISTENER_REMOVED, TRANSPORT_SOCKET, Conn, Exchange, ListenerState, Session, Stream,
    Worker,
)
from meshcore.engine.tcp cimport tcp_begin_on
from meshcore.engine.upstream cimport upstream_is_secure, upstream_open_tls
from meshcore.engine.tls cimport TLS_DONE, TLS_FAILED, TLS_MORE, tls_detach, tls_handshake, tls_is_resumed, tls_open

cdef enum:
    SECURE_STEPS = 8                    # of handshakes per wake-up: about two milliseconds


# --- clients ----------------------------------------------------------------------------------------------------------

cdef inline int secure_accept(Worker* worker, Conn* conn) noexcept nogil:
    """A client that owes a handshake. 1: the connection begins, with TLS or where it is optional without; 0: not yet, or gone."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef int code
    if conn.out_buffer != NULL and conn.io & (IO_WRITABLE | IO_FAILED) and conn_flush(worker, conn) == CONN_ERROR:
        downstream_close(worker, conn)
        return 0
    if not conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        return 0
    if conn.transport == TRANSPORT_SOCKET:
        code = secure_look(worker, conn, listener)
        if code != DETECT_TLS:
            return code != DETECT_MORE
    if worker.tls_steps >= SECURE_STEPS:
        conn_run_later(worker, conn)
        return 0
    worker.tls_steps += 1
    code = tls_handshake(worker, conn)
    if code == TLS_MORE:
        return 0
    if code != TLS_DONE:
        secure_refuse(worker, conn, tls_reason(0, conn_peer(conn).failure))
        return 0
    listener.tls_handshakes += 1
    listener.tls_resumed += tls_is_resumed(conn)
    if listener.conf_index == LISTENER_REMOVED:
        downstream_close(worker, conn)
        return 0
    return 1


cdef inline int secure_look(Worker* worker, Conn* conn, ListenerState* listener) noexcept nogil:
    """The first octets: DETECT_TLS and a handshake is open, DETECT_MORE: wait or gone; else the connection begins as it is."""
    cdef ListenerConf* conf
    cdef int code
    if listener.conf_index == LISTENER_REMOVED:
        downstream_close(worker, conn)
        return DETECT_MORE
    conf = &worker.current.snapshot.listeners[listener.conf_index]
    code = preface_look_for_tls(worker, conn)
    if code == DETECT_MORE:
        return code
    if code != DETECT_TLS:
        if conf.tls_is_optional:
            listener.tls_plaintext += 1
            return code
        secure_drop(worker, conn, tls_reason(0, TLS_PLAINTEXT))
    elif conf.tls_routes != NULL and secure_passes_by(worker, conn, conf):
        return DETECT_MORE
    elif worker.tls_handshakes >= worker.current.snapshot.limits.max_tls_handshakes:
        secure_drop(worker, conn, REASON_TLS_HANDSHAKES_SHED)
    elif not tls_open(worker, conn, conf.tls, NULL):
        secure_drop(worker, conn, REASON_OUT_OF_MEMORY)
    else:
        return code
    return DETECT_MORE


cdef inline int secure_passes_by(Worker* worker, Conn* conn, const ListenerConf* conf) noexcept nogil:
    """Does a client ask for somebody whose TLS is not ended here? 1: it went there, or its hello is not whole, or it is gone."""
    cdef Hello hello
    cdef RouteConf* route
    cdef int code = preface_read_hello(worker, conn, &hello)
    if code == HELLO_MORE:
        return 1
    route = secure_route(conf, code, &hello)
    if route != NULL:
        tcp_begin_on(worker, conn, route, hello.name, hello.name_len)
    return route != NULL


cdef inline RouteConf* secure_route(const ListenerConf* conf, int code, const Hello* hello) noexcept nogil:
    """The route of a client that asks for this name; NULL: none is for it."""
    return routes_find(<const RouteTable*>conf.tls_routes, hello.name, hello.name_len, b"/", 1, 1, NULL) \
        if code == HELLO_WHOLE else NULL


cdef inline void secure_drop(Worker* worker, Conn* conn, uint8_t reason) noexcept nogil:
    """Close without a word."""
    worker.reasons[reason] += 1
    (<ListenerState*>conn.owner).tls_failures += 1
    downstream_abort(worker, conn)


cdef inline void secure_refuse(Worker* worker, Conn* conn, uint8_t reason) noexcept nogil:
    """Close after the alert, which says why, was heard: what the client still sends is read and thrown away."""
    worker.reasons[reason] += 1
    (<ListenerState*>conn.owner).tls_failures += 1
    tls_detach(worker, conn)
    if conn.io & IO_FAILED:
        downstream_close(worker, conn)
    else:
        downstream_refuse(worker, conn)


cdef inline int secure_accept_late(Worker* worker, Conn* conn) noexcept nogil:
    """The time for a handshake is over. 1: the connection begins all the same, its client waits for the server to speak."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef const ListenerConf* conf
    if conn.transport == TRANSPORT_SOCKET and listener.conf_index != LISTENER_REMOVED:
        conf = &worker.current.snapshot.listeners[listener.conf_index]
        if conf.tls_is_optional and conf.relays:
            listener.tls_plaintext += 1
            return 1
    worker.reasons[tls_reason(0, TLS_LATE)] += 1
    listener.tls_failures += 1
    downstream_close(worker, conn)
    return 0


# --- endpoints --------------------------------------------------------------------------------------------------------

cdef inline int secure_connect(Worker* worker, Exchange* exchange) noexcept nogil:
    """An endpoint took the connection: begin the handshake where there is to be one. 1: the connection is ready."""
    cdef Conn* up = exchange.up
    if conn_is_stream(up) or not upstream_is_secure(exchange):
        return 1                        # a stream's session has done it: see secure_session
    # A PROXY header is for whoever looks at the connection, TLS for who is behind.
    if exchange.flags & EXCHANGE_TCP and exchange.cluster.proxy_version \
            and conn_send(worker, up, worker.scratch,
                          preface_write(worker.scratch, exchange.down, exchange.cluster.proxy_version)) == CONN_ERROR:
        dispatch_failed(worker, exchange, REASON_UPSTREAM_RESET)
        return 0
    if not upstream_open_tls(worker, up, exchange, 0):
        dispatch_failed(worker, exchange, REASON_OUT_OF_MEMORY)
        return 0
    up.state = CONN_AWAIT_TLS
    conn_deadline(worker, up, worker.now_ns + exchange.snapshot.snapshot.limits.tls_handshake_timeout_ns)
    return secure_go_on(worker, exchange)


cdef inline int secure_go_on(Worker* worker, Exchange* exchange) noexcept nogil:
    """An endpoint's handshake may go on. 1: it is over, and the connection ready; 0: not yet, or the attempt failed."""
    cdef Conn* up = exchange.up
    cdef EndpointState* endpoint = <EndpointState*>up.owner
    cdef int code
    if up.out_buffer != NULL and up.io & (IO_WRITABLE | IO_FAILED):
        conn_flush(worker, up)          # where it fails, the next read does
    code = tls_handshake(worker, up)
    if code == TLS_MORE:
        return 0
    if code == TLS_DONE and conn_alpn_is_h2(up):
        code = TLS_FAILED               # it was offered by mistake: nobody here would understand what comes
    if code != TLS_DONE:
        secure_give_up(worker, exchange, conn_peer(up).failure if conn_peer(up).failure else TLS_NO_ALPN)
        return 0
    endpoint.tls_handshakes += 1
    endpoint.tls_resumed += tls_is_resumed(up)
    return 1


cdef inline void secure_give_up(Worker* worker, Exchange* exchange, uint8_t failure) noexcept nogil:
    """This endpoint is not to be talked to: another may be, nothing was sent yet."""
    cdef EndpointState* endpoint = <EndpointState*>exchange.up.owner
    endpoint.tls_failures += 1
    endpoint.connect_failures += 1
    dispatch_failed(worker, exchange, REASON_UPSTREAM_RESET if failure == TLS_SOUND else tls_reason(1, failure))


cdef inline int secure_session(Worker* worker, Session* session) noexcept nogil:
    """The handshake of an HTTP/2 session with an endpoint may go on. 1: over; 0: not yet; -1: the session is lost, and its
    streams have been told why."""
    cdef Conn* conn = session.conn
    cdef EndpointState* endpoint = <EndpointState*>conn.owner
    cdef Stream* stream
    cdef uint8_t reason
    cdef int code
    if conn.out_buffer != NULL and conn.io & (IO_WRITABLE | IO_FAILED):
        conn_flush(worker, conn)
    code = tls_handshake(worker, conn)
    if code == TLS_MORE:
        return 0
    if code == TLS_DONE and conn_alpn_is_h2(conn):
        endpoint.tls_handshakes += 1
        endpoint.tls_resumed += tls_is_resumed(conn)
        session.is_secure = 1
        return 1
    endpoint.tls_failures += 1
    # RFC 9113 3.2: over TLS, HTTP/2 is what ALPN says it is.
    reason = tls_reason(1, conn_peer(conn).failure if conn_peer(conn).failure else TLS_NO_ALPN)
    stream = session.streams
    while stream != NULL:
        stream.refusal = reason
        stream = stream.next
    return -1
