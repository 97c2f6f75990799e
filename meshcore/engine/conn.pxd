# One connection: open, read, write, flush, close, whatever its bytes travel in. Knows neither HTTP nor exchanges.
#
# What a connection's bytes travel in (its transport) is chosen here and nowhere above: a socket as it is, TLS over one, or one
# stream of an HTTP/2 session, which has no socket of its own.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from meshcore.engine.batch cimport batch_forget, batch_hold
from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.slab cimport SLAB_NONE, slab_at, slab_return, slab_take
from meshcore.engine.socket cimport (
    socket_drop_received, socket_flush, socket_recv, socket_recv_anywhere, socket_release_held, socket_send,
    socket_send2, socket_settle,
)
from meshcore.engine.state cimport (
    CONN_BLOCKED, CONN_ERROR, CONN_FREE, CONN_QUEUED, CONN_RESET, CONN_SHUT, READ_BYTES, STREAM_FULL_BYTES, TRANSPORT_SOCKET,
    TRANSPORT_STREAM, TRANSPORT_TLS, Conn, Stream, Worker,
)
from meshcore.engine.stream cimport (
    stream_end, stream_flush, stream_has_input, stream_part, stream_recv, stream_recv_anywhere, stream_send,
)
from meshcore.engine.sys cimport (
    EAGAIN, ECONNRESET, EPIPE, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, MSG_PEEK, SHUT_WR, sys_close, sys_epoll_add, sys_recv,
    sys_reset_on_close, sys_send, sys_shutdown,
)
from meshcore.engine.timer cimport timer_clear, timer_node_init, timer_set
from meshcore.engine.tls cimport (
    TLS_ALPN_HTTP2, tls_close, tls_has_input, tls_keep_received, tls_of, tls_recv, tls_say_end, tls_send, tls_send2,
)
from meshcore.engine.tls_context cimport Peer


cdef inline Conn* conn_open(Worker* worker, int fd, uint8_t kind, uint8_t state) noexcept nogil:
    """Adopt a non-blocking fd and watch it. On failure closes the fd and returns NULL."""
    cdef Conn* conn = <Conn*>slab_take(&worker.conns)
    if conn == NULL:
        sys_close(fd)
        return NULL
    conn_clear(conn, fd, kind, state)
    if sys_epoll_add(worker.epoll_fd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn_token(conn)) != 0:
        sys_close(fd)
        conn.kind = CONN_FREE
        slab_return(&worker.conns, &conn.item)
        return NULL
    return conn


cdef inline void conn_close(Worker* worker, Conn* conn) noexcept nogil:
    """Close the socket and give back everything. The pointer is dead; stale events miss by generation."""
    if conn.transport == TRANSPORT_STREAM:
        if conn.channel != NULL:
            stream_part(worker, conn)
    else:
        if conn.transport == TRANSPORT_TLS:
            tls_close(worker, conn)
        if conn.send_slot:
            socket_release_held(worker, conn)
        if conn.received_slot:
            socket_drop_received(worker, conn)
        if conn.flags & CONN_RESET:
            sys_reset_on_close(conn.fd)
        batch_forget(&worker.batch, conn)
        sys_close(conn.fd)              # leaves the epoll set by itself: nobody dup'ed it
    timer_clear(&worker.timers, &conn.timer)
    conn_drop_input(worker, conn)
    if conn.out_buffer != NULL:
        buffer_return(&worker.buffers, conn.out_buffer)
        conn.out_buffer = NULL
    conn.kind = CONN_FREE
    conn.exchange = NULL
    if not conn.flags & CONN_QUEUED:    # else the run list still threads through it, and gives it back
        slab_return(&worker.conns, &conn.item)


cdef inline Conn* conn_open_stream(Worker* worker, uint8_t kind, uint8_t state) noexcept nogil:
    """A connection that will be a stream of a session: the caller sets `channel`. NULL without memory."""
    cdef Conn* conn = <Conn*>slab_take(&worker.conns)
    if conn != NULL:
        conn_clear(conn, -1, kind, state)
        conn.transport = TRANSPORT_STREAM
    return conn


cdef inline void conn_clear(Conn* conn, int fd, uint8_t kind, uint8_t state) noexcept nogil:
    conn.fd = fd
    conn.kind = kind
    conn.state = state
    conn.io = 0
    conn.flags = 0
    conn.requests = 0
    conn.exchange = NULL
    conn.in_buffer = NULL
    conn.out_buffer = NULL
    conn.parser = NULL
    conn.owner = NULL
    conn.pool_next = conn.pool_prev = SLAB_NONE
    conn.peer_text_len = 0
    conn.original_family = 0
    conn.received_slot = conn.send_slot = conn.ring_reads = 0
    conn.transport = TRANSPORT_SOCKET
    conn.channel = NULL
    conn.session = NULL
    timer_node_init(&conn.timer)


cdef inline uint64_t conn_token(const Conn* conn) noexcept nogil:
    return <uint64_t>conn.item.generation << 32 | conn.item.index


# --- bytes, whatever lies under them ----------------------------------------------------------------------------------

cdef inline int conn_is_stream(const Conn* conn) noexcept nogil:
    """Does it say by itself where a message ends, so that bodies need no framing?"""
    return conn.transport == TRANSPORT_STREAM


cdef inline int conn_is_full(const Conn* conn) noexcept nogil:
    """Has it so much to send that no more should be read for it?"""
    if conn.transport == TRANSPORT_STREAM:
        return conn.out_buffer != NULL and conn.out_buffer.end - conn.out_buffer.start >= STREAM_FULL_BYTES
    return conn.out_buffer != NULL


cdef inline int conn_is_plain(const Conn* conn) noexcept nogil:
    """Are its bytes those of a socket, so that the kernel may move them by itself?"""
    return conn.transport == TRANSPORT_SOCKET


cdef inline int conn_recv(Worker* worker, Conn* conn, char* at, uint32_t room, uint32_t* n) noexcept nogil:
    """Read once, `room` bytes at most. CONN_OK with *n > 0, or CONN_AGAIN, CONN_EOF, CONN_ERROR."""
    if conn.transport == TRANSPORT_STREAM:
        return stream_recv(worker, conn, at, room, n)
    if conn.transport == TRANSPORT_TLS:
        return tls_recv(worker, conn, at, room, n)
    return socket_recv(worker, conn, at, room, n)


cdef inline int conn_recv_anywhere(Worker* worker, Conn* conn, char** at, uint32_t* n) noexcept nogil:
    """As conn_recv, where it does not matter where the bytes lie: *at says where, until the next read of anything."""
    if conn.transport == TRANSPORT_STREAM:
        return stream_recv_anywhere(worker, conn, at, n)
    if conn.transport == TRANSPORT_TLS:
        at[0] = worker.read_buffer
        return tls_recv(worker, conn, at[0], READ_BYTES, n)
    return socket_recv_anywhere(worker, conn, at, n)


cdef inline int conn_has_input(Worker* worker, Conn* conn) noexcept nogil:
    """Ask whether a read would bring something, be it the end, without taking it."""
    cdef char byte
    if conn.transport == TRANSPORT_STREAM:
        return stream_has_input(conn)
    if conn.transport == TRANSPORT_TLS:
        return tls_has_input(worker, conn)
    return sys_recv(conn.fd, &byte, 1, MSG_PEEK) != -EAGAIN


cdef inline int conn_is_disturbed(Worker* worker, Conn* conn) noexcept nogil:
    """An idle connection became readable: does that end it? Under TLS it may be a message of the protocol's own."""
    return conn.transport != TRANSPORT_TLS or tls_has_input(worker, conn)


cdef inline int conn_send(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Write, at the end of the batch or now, keeping what is not taken.

    CONN_OK all written or held back, CONN_BLOCKED, or CONN_ERROR.
    """
    if conn.transport == TRANSPORT_STREAM:
        return stream_send(worker, conn, at, n)
    if conn.transport == TRANSPORT_TLS:
        return tls_send(worker, conn, at, n)
    return socket_send(worker, conn, at, n)


cdef inline int conn_send2(Worker* worker, Conn* conn, const char* a, uint32_t a_len,
                           const char* b, uint32_t b_len) noexcept nogil:
    """Write two pieces in one call. Returns as conn_send."""
    if conn.transport == TRANSPORT_STREAM:
        if stream_send(worker, conn, a, a_len) == CONN_ERROR:
            return CONN_ERROR
        return stream_send(worker, conn, b, b_len) if b_len else CONN_BLOCKED
    if conn.transport == TRANSPORT_TLS:
        return tls_send2(worker, conn, a, a_len, b, b_len)
    return socket_send2(worker, conn, a, a_len, b, b_len)


cdef inline long conn_send_request(Worker* worker, Conn* conn, const char* at, uint32_t n, int is_whole) noexcept nogil:
    """Write bytes their owner keeps until all of them are out: how many were taken, or a negated errno.

    `is_whole`: nothing was sent before and nothing follows; it may be held back, and withdrawn, as one.
    """
    if conn.transport == TRANSPORT_STREAM:
        return -EPIPE if stream_send(worker, conn, at, n) == CONN_ERROR else <long>n
    if conn.transport == TRANSPORT_TLS:
        return conn_send_sealed(worker, conn, at, n)
    if is_whole and batch_hold(&worker.batch, conn, at, n, 1):
        return n
    return sys_send(conn.fd, at, n, 0)


cdef inline long conn_send_sealed(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    # Encrypted bytes cannot be taken back: all of them are taken, at once, and what the kernel refuses is in out_buffer.
    if tls_send(worker, conn, at, n) == CONN_ERROR:
        return -ECONNRESET
    if conn.send_slot and socket_settle(worker, conn) == CONN_ERROR:
        return -ECONNRESET
    return n


cdef inline int conn_flush(Worker* worker, Conn* conn) noexcept nogil:
    """Write what is kept. CONN_OK when nothing is left, CONN_BLOCKED, or CONN_ERROR."""
    if conn.transport == TRANSPORT_STREAM:
        return stream_flush(conn)
    return socket_flush(worker, conn)


cdef inline int conn_settle(Worker* worker, Conn* conn) noexcept nogil:
    """Send now what is held back: something else is to be done with this socket. CONN_OK, CONN_BLOCKED, CONN_ERROR."""
    return socket_settle(worker, conn)


cdef inline void conn_shut(Worker* worker, Conn* conn) noexcept nogil:
    """Close our sending side. Call with out_buffer empty and nothing held back."""
    if conn.flags & CONN_SHUT:
        return
    conn.flags |= CONN_SHUT
    if conn.transport == TRANSPORT_STREAM:
        stream_end(worker, conn, NULL, 0)
        return
    if conn.transport == TRANSPORT_TLS:
        tls_say_end(worker, conn, tls_of(conn))
    sys_shutdown(conn.fd, SHUT_WR)


cdef inline void conn_end(Worker* worker, Conn* conn, const char* trailers, uint32_t n) noexcept nogil:
    """The message is complete with these trailers ("name: value CRLF" lines). On a socket its framing has said so."""
    if conn.transport == TRANSPORT_STREAM:
        stream_end(worker, conn, trailers, n)


# --- who is at the other end ---------------------------------------------------------------------------------------------

cdef inline const Conn* conn_carrier(const Conn* conn) noexcept nogil:
    """The connection with the socket: a stream's is its session's. NULL when that is gone."""
    if conn.transport != TRANSPORT_STREAM:
        return conn
    if conn.channel == NULL or (<Stream*>conn.channel).session == NULL:
        return NULL
    return (<Stream*>conn.channel).session.conn


cdef inline int conn_is_secure(const Conn* conn) noexcept nogil:
    """Did a handshake succeed on what carries it?"""
    cdef const Peer* peer = conn_peer(conn)
    return peer != NULL and peer.is_established


cdef inline const Peer* conn_peer(const Conn* conn) noexcept nogil:
    """What the handshake found out; NULL for a connection without one."""
    cdef const Conn* carrier = conn_carrier(conn)
    return &tls_of(carrier).peer if carrier != NULL and carrier.transport == TRANSPORT_TLS else NULL


cdef inline int conn_alpn_is_h2(const Conn* conn) noexcept nogil:
    """Did both sides agree on HTTP/2? Known once the handshake is over."""
    return conn.transport == TRANSPORT_TLS and tls_of(conn).alpn == TLS_ALPN_HTTP2


# --- what a connection holds --------------------------------------------------------------------------------------------

cdef inline void conn_drop_input(Worker* worker, Conn* conn) noexcept nogil:
    if conn.in_buffer != NULL:
        buffer_return(&worker.buffers, conn.in_buffer)
        conn.in_buffer = NULL
    if conn.parser != NULL:
        free(conn.parser)
        conn.parser = NULL


cdef inline int conn_keep_input(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Keep bytes to be read later as if they had not been read. `at` may point into in_buffer. 1, or 0: no memory."""
    cdef Buffer* held = conn.in_buffer
    cdef Buffer* buffer
    if held != NULL and at >= held.data and at <= held.data + held.end:
        held.start = <uint32_t>(at - held.data)
        held.end = held.start + n
        if n == 0:
            conn_drop_input(worker, conn)
        return 1
    if n == 0:
        return 1
    buffer = buffer_append(&worker.buffers, held, at, n)
    if buffer == NULL:
        return 0
    conn.in_buffer = buffer
    return 1


cdef inline int conn_keep_received(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Keep bytes of the socket that were read ahead and not asked for. 1, or 0: no memory."""
    if conn.transport == TRANSPORT_TLS:
        return tls_keep_received(worker, conn, at, n)
    return conn_keep_input(worker, conn, at, n)


cdef inline void conn_deadline(Worker* worker, Conn* conn, uint64_t deadline_ns) noexcept nogil:
    timer_set(&worker.timers, &conn.timer, deadline_ns)


cdef inline void conn_run_later(Worker* worker, Conn* conn) noexcept nogil:
    """Have the loop come back to this connection after the current batch of events."""
    cdef Conn* last
    if conn.flags & CONN_QUEUED:
        return
    conn.flags |= CONN_QUEUED
    conn.run_next = SLAB_NONE
    if worker.run_tail == SLAB_NONE:
        worker.run_head = conn.item.index
    else:
        last = <Conn*>slab_at(&worker.conns, worker.run_tail)
        last.run_next = conn.item.index
    worker.run_tail = conn.item.index


cdef inline void conn_list_add(Worker* worker, uint32_t* head, Conn* conn) noexcept nogil:
    """Put a connection first in a list threaded through pool_next/pool_prev."""
    conn.pool_prev = SLAB_NONE
    conn.pool_next = head[0]
    if head[0] != SLAB_NONE:
        (<Conn*>slab_at(&worker.conns, head[0])).pool_prev = conn.item.index
    head[0] = conn.item.index


cdef inline void conn_list_remove(Worker* worker, uint32_t* head, Conn* conn) noexcept nogil:
    if conn.pool_prev != SLAB_NONE:
        (<Conn*>slab_at(&worker.conns, conn.pool_prev)).pool_next = conn.pool_next
    else:
        head[0] = conn.pool_next
    if conn.pool_next != SLAB_NONE:
        (<Conn*>slab_at(&worker.conns, conn.pool_next)).pool_prev = conn.pool_prev
    conn.pool_next = conn.pool_prev = SLAB_NONE
