# How a connection of a client begins once what must come first is behind it: PROXY header, handshake, the look at its first
# octets. Reads none of these itself: see preface and secure.

from libc.stdint cimport uint8_t

from meshcore.engine.conn cimport conn_alpn_is_h2, conn_deadline
from meshcore.engine.detect cimport DETECT_HTTP1, DETECT_HTTP2, DETECT_MORE
from meshcore.engine.downstream cimport downstream_close
from meshcore.engine.preface cimport preface_await_protocol, preface_await_tls, preface_detect, preface_is_looked_at
from meshcore.engine.reasons cimport REASON_TLS_NO_ALPN
from meshcore.engine.request cimport request_begin_session, request_read
from meshcore.engine.secure cimport secure_accept
from meshcore.engine.snapshot cimport ListenerConf
from meshcore.engine.state cimport (
    CONN_AWAIT_HEAD, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, LISTENER_REMOVED, Conn, ListenerState, Worker,
)
from meshcore.engine.tcp cimport tcp_begin


cdef inline void begin_after_header(Worker* worker, Conn* conn) noexcept nogil:
    # The PROXY header is taken: from here on as any connection. preface_read has seen that the listener is there.
    if worker.current.snapshot.listeners[(<ListenerState*>conn.owner).conf_index].tls != NULL:
        preface_await_tls(worker, conn)
        conn.io |= IO_READABLE          # what followed the header may have come with its edge
        if secure_accept(worker, conn):
            begin_plain(worker, conn)
    else:
        begin_plain(worker, conn)


cdef inline void begin_plain(Worker* worker, Conn* conn) noexcept nogil:
    """What the listener expects before a request, PROXY header and handshake, is behind us."""
    cdef ListenerConf* conf = &worker.current.snapshot.listeners[(<ListenerState*>conn.owner).conf_index]
    if conn_alpn_is_h2(conn):
        begin_agreed(worker, conn)
    elif preface_is_looked_at(conn, conf):
        preface_await_protocol(worker, conn, conf)
        begin_detected(worker, conn, preface_detect(worker, conn))
    elif conf.tcp_route != NULL:
        tcp_begin(worker, conn)
    else:
        begin_http(worker, conn)


cdef inline void begin_http(Worker* worker, Conn* conn) noexcept nogil:
    conn.state = CONN_AWAIT_HEAD
    conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.head_timeout_ns)
    if conn.in_buffer != NULL or conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        request_read(worker, conn)


cdef inline void begin_agreed(Worker* worker, Conn* conn) noexcept nogil:
    # RFC 9113 3.2: HTTP/2 from the first octet, and nothing else.
    conn.state = CONN_AWAIT_HEAD
    conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.head_timeout_ns)
    if not request_begin_session(worker, conn, NULL, 0):
        worker.reasons[REASON_TLS_NO_ALPN] += 1
        downstream_close(worker, conn)


cdef inline int begin_serves_http2(Worker* worker, Conn* conn) noexcept nogil:
    cdef ListenerState* listener = <ListenerState*>conn.owner
    return listener.conf_index != LISTENER_REMOVED and worker.current.snapshot.listeners[listener.conf_index].http2


cdef inline void begin_detected(Worker* worker, Conn* conn, int protocol) noexcept nogil:
    if protocol == DETECT_HTTP1 or (protocol == DETECT_HTTP2 and begin_serves_http2(worker, conn)):
        begin_http(worker, conn)
    elif protocol != DETECT_MORE:
        tcp_begin(worker, conn)
