# Accepting: from a listening socket to downstream connections. Binding is Python's, closing ours.
#
# One SO_REUSEPORT socket per worker: the kernel spreads connections, workers share nothing. The listening socket is
# the one fd watched level-triggered: after a bounded number of accepts others get their turn, and what is left tells
# again. A listener that leaves the configuration is accepted empty before it is closed: what the kernel has already
# promised a client is served.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.conn cimport conn_close, conn_deadline, conn_list_add, conn_open, conn_token
from meshcore.engine.grpc cimport GRPC_NONE
from meshcore.engine.grpc_web cimport GRPC_WEB_NONE
from meshcore.engine.intercept cimport intercept_take
from meshcore.engine.preface cimport preface_await_protocol, preface_await_tls, preface_is_looked_at
from meshcore.engine.reasons cimport REASON_INTERCEPT_LOOP, REASON_LOAD_SHED, reason_name, reason_status, reason_text
from meshcore.engine.respond cimport respond_date, respond_refusal_text
from meshcore.engine.slab cimport slab_take
from meshcore.engine.snapshot cimport ListenerConf
from meshcore.engine.state cimport (
    CONN_AWAIT_HEAD, CONN_AWAIT_PREFACE, CONN_DOWNSTREAM, CONN_LISTENER, LISTENER_REMOVED, TRANSPORT_SOCKET, Conn,
    ListenerState, Worker,
)
from meshcore.engine.sys cimport (
    ECONNABORTED, EINTR, EMFILE, ENFILE, EPOLLIN, sockaddr_storage, sys_accept, sys_close, sys_dup,
    sys_epoll_add, sys_ipv4_text, sys_is_loopback, sys_own_address, sys_peer_raw, sys_reset_on_close, sys_send,
    sys_tune_listener, sys_tune_loopback,
)
from meshcore.engine.tcp cimport tcp_begin, tcp_refuse
from meshcore.engine.timer cimport timer_node_init

cdef enum:
    ACCEPTS_PER_TURN = 64


cdef inline int listener_open(Worker* worker, ListenerState* listener) noexcept nogil:
    """Watch listener.fd, which is now the worker's. 1, or 0."""
    cdef Conn* conn = <Conn*>slab_take(&worker.conns)
    if conn == NULL:
        return 0
    conn.fd = listener.fd
    listener.fd = -1
    conn.kind = CONN_LISTENER
    conn.state = 0
    conn.io = 0
    conn.flags = 0
    conn.received_slot = conn.send_slot = 0
    conn.original_family = 0
    conn.transport = TRANSPORT_SOCKET
    conn.channel = NULL
    conn.exchange = NULL
    conn.in_buffer = conn.out_buffer = NULL
    conn.parser = NULL
    conn.owner = listener
    timer_node_init(&conn.timer)
    if sys_epoll_add(worker.epoll_fd, conn.fd, EPOLLIN, conn_token(conn)) != 0:
        conn_close(worker, conn)
        return 0
    listener.conn = conn
    listener_note_address(listener, conn.fd)
    listener.is_loopback = <uint8_t>sys_tune_listener(conn.fd)
    return 1


cdef inline void listener_note_address(ListenerState* listener, int fd) noexcept nogil:
    # As bound: the configuration may have asked for any port.
    cdef sockaddr_storage own
    cdef uint32_t i
    listener.family = 0
    if sys_own_address(fd, &own):
        listener.family = <uint8_t>own.ss_family
        sys_peer_raw(&own, listener.host, &listener.port)
        listener.is_any_host = 1
        for i in range(16):
            if listener.host[i]:
                listener.is_any_host = 0


cdef inline void listener_close(Worker* worker, ListenerState* listener) noexcept nogil:
    """Accept what waits, then close."""
    cdef uint64_t before = listener.accepted + listener.refused
    if listener.conn == NULL:
        return
    # Turns end when one got nowhere: an accept that keeps failing must not keep the worker here.
    while listener_accept(worker, listener.conn) and listener.accepted + listener.refused != before:
        before = listener.accepted + listener.refused
    conn_close(worker, listener.conn)
    listener.conn = NULL


cdef inline int listener_accept(Worker* worker, Conn* conn) noexcept nogil:
    """Accept a bounded number of connections. 1 when there may be more."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef sockaddr_storage peer
    cdef Conn* down
    cdef uint32_t i
    cdef int fd
    for i in range(<uint32_t>ACCEPTS_PER_TURN):
        fd = sys_accept(conn.fd, &peer)
        if fd < 0:
            if fd == -EMFILE or fd == -ENFILE:
                return listener_refuse_one(worker, conn)
            if fd == -ECONNABORTED or fd == -EINTR:
                continue                # the client gave up meanwhile
            return 0                    # nobody waits; or no memory, and the level tells again
        if worker.spare_fd < 0:
            worker.spare_fd = sys_dup(worker.wake_fd)
        worker.accepted += 1
        listener.accepted += 1
        if worker.n_downstream >= worker.current.snapshot.limits.max_connections:
            listener_shed(worker, listener, fd)
            continue
        down = conn_open(worker, fd, CONN_DOWNSTREAM, CONN_AWAIT_HEAD)
        if down == NULL:
            listener.refused += 1
            continue
        if not listener.is_loopback and sys_is_loopback(&peer):
            sys_tune_loopback(fd)       # one call a connection, for clients of this machine only
        down.owner = listener
        down.peer_text_len = <uint8_t>sys_ipv4_text(&peer, down.peer_text)
        sys_peer_raw(&peer, down.peer_address, &down.peer_port)
        listener.active += 1
        worker.n_downstream += 1
        conn_list_add(worker, &worker.downstream_head, down)
        conn_deadline(worker, down, worker.now_ns + worker.current.snapshot.limits.head_timeout_ns)
        if listener.conf_index != LISTENER_REMOVED:
            listener_greet(worker, down, &worker.current.snapshot.listeners[listener.conf_index])
    return 1


cdef inline void listener_greet(Worker* worker, Conn* down, const ListenerConf* conf) noexcept nogil:
    """What comes first on a new connection that may not begin with a request."""
    if conf.interception and not intercept_take(worker, down, conf):
        tcp_refuse(worker, down, REASON_INTERCEPT_LOOP)
    elif conf.proxy_versions:
        down.state = CONN_AWAIT_PREFACE
    elif conf.tls != NULL:
        preface_await_tls(worker, down)
    elif preface_is_looked_at(down, conf):
        preface_await_protocol(worker, down, conf)
    elif conf.relays:
        tcp_begin(worker, down)


cdef inline void listener_shed(Worker* worker, ListenerState* listener, int fd) noexcept nogil:
    # Over the connection limit: a clear status, at the price of one send and one close.
    cdef uint32_t n = respond_refusal_text(worker.scratch, reason_status[REASON_LOAD_SHED],
                                           reason_name[REASON_LOAD_SHED], reason_text[REASON_LOAD_SHED], 1, GRPC_NONE,
                                           GRPC_WEB_NONE, 0, respond_date(worker))
    worker.reasons[REASON_LOAD_SHED] += 1
    listener.refused += 1
    worker.refused_connections += 1
    if listener.conf_index != LISTENER_REMOVED \
            and (worker.current.snapshot.listeners[listener.conf_index].relays
                 or worker.current.snapshot.listeners[listener.conf_index].tls != NULL):
        sys_reset_on_close(fd)          # perhaps no answer it could read
    elif sys_send(fd, worker.scratch, n, 0) > 0:
        listener.bytes_out += n
    sys_close(fd)


cdef inline int listener_refuse_one(Worker* worker, Conn* conn) noexcept nogil:
    # Out of descriptors: a level-triggered listener would spin. The spare one lets us take a client and refuse it.
    cdef sockaddr_storage peer
    cdef int fd
    if worker.spare_fd < 0:
        return 0
    sys_close(worker.spare_fd)
    fd = sys_accept(conn.fd, &peer)
    if fd >= 0:
        listener_shed(worker, <ListenerState*>conn.owner, fd)
    worker.spare_fd = sys_dup(worker.wake_fd)
    return fd >= 0
