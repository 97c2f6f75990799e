# How a connection of a client begins once what must come first is behind it: PROXY header, handshake, the look at its first
# octets. Reads none of these itself: see preface and secure.

from libc.stdint cimport uint8_t

from meshcore.engine.client_hello cimport HELLO_MORE, HELLO_WHOLE, Hello
from meshcore.engine.conn cimport conn_alpn_is_h2, conn_deadline, conn_is_plain
from meshcore.engine.detect cimport DETECT_HTTP1, DETECT_HTTP2, DETECT_MORE, DETECT_TLS
from meshcore.engine.downstream cimport downstream_close
from meshcore.engine.preface cimport (
    preface_await_hello, preface_await_protocol, preface_await_tls, preface_detect, preface_is_looked_at,
    preface_read_hello,
)
from meshcore.engine.reasons cimport REASON_TLS_NO_ALPN
from meshcore.engine.request cimport request_begin_session, request_read
from meshcore.engine.secure cimport secure_accept, secure_route
from meshcore.engine.snapshot cimport ListenerConf, RouteConf
from meshcore.engine.state cimport (
    CONN_AWAIT_HEAD, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, LISTENER_REMOVED, Conn, ListenerState, Worker,
)
from meshcore.engine.tcp cimport tcp_begin, tcp_begin_on


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
    elif conf.relays:
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


cdef inline void begin_detected(Worker* worker, Conn* conn, int protocol) noexcept nogil:
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef const ListenerConf* conf
    if protocol == DETECT_MORE:
        return
    if listener.conf_index == LISTENER_REMOVED:
        tcp_begin(worker, conn)
        return
    conf = &worker.current.snapshot.listeners[listener.conf_index]
    if conf.serves_http and (protocol == DETECT_HTTP1 or (protocol == DETECT_HTTP2 and conf.http2)):
        begin_http(worker, conn)
    elif protocol == DETECT_TLS and conf.tls_routes != NULL and conn_is_plain(conn):
        begin_by_name(worker, conn)
    else:
        tcp_begin(worker, conn)


cdef inline void begin_by_name(Worker* worker, Conn* conn) noexcept nogil:
    """TLS that is not ended here: whom its client asks for tells where it goes."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef ListenerConf* conf
    cdef RouteConf* route
    cdef Hello hello
    cdef int code
    preface_await_hello(worker, conn)
    code = preface_read_hello(worker, conn, &hello)
    if code == HELLO_MORE:
        return
    if listener.conf_index == LISTENER_REMOVED:
        tcp_begin(worker, conn)
        return
    conf = &worker.current.snapshot.listeners[listener.conf_index]
    route = secure_route(conf, code, &hello)
    tcp_begin_on(worker, conn, conf.tcp_route if route == NULL else route, hello.name,
                 hello.name_len if code == HELLO_WHOLE else 0)
