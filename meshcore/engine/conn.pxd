# One socket: open, read, write, flush, close. Knows edges, buffers and batches; knows neither HTTP nor exchanges.
#
# Facts about edge-triggered epoll: an edge is told once; it may be told for bytes already read; after a read shorter
# than asked for, the next byte makes a new edge. Consequence: every fd is added once with IN|OUT|RDHUP|ET, never
# modified; `io` remembers an edge until it is used up; a short read uses it up without a probing second read
# (saves 0.3 us a request). Only an announced end of input (RDHUP) must be read down to its zero. Cost: a reader that
# stops early (backpressure) must be woken by whoever made it stop. Keeps DRAIN_TO_AGAIN and ARMED_OR_EMPTY: output is
# either all written, or held back until the end of the batch, or in out_buffer with the writable edge outstanding.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libc.stdlib cimport free

from meshcore.engine.batch cimport batch_hold, batch_received, batch_withdraw
from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return, buffer_take
from meshcore.engine.slab cimport SLAB_NONE, SlabItem, slab_at, slab_return, slab_take
from meshcore.engine.state cimport (
    BATCH_SEND_MAX_BYTES, READ_BYTES, CONN_DOWNSTREAM, CONN_FREE, CONN_QUEUED, IO_FAILED, IO_PEER_CLOSED, IO_READABLE,
    IO_WRITABLE, CONN_RESET, CONN_SHUT,
    Conn, ListenerState, Received, Send, Worker,
)
from meshcore.engine.sys cimport (
    EAGAIN, EINTR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, SHUT_WR, sys_close, sys_epoll_add, sys_recv,
    sys_reset_on_close, sys_send, sys_send2, sys_shutdown,
)
from meshcore.engine.timer cimport timer_clear, timer_node_init, timer_set

cdef enum ConnCode:
    CONN_OK = 0
    CONN_BLOCKED = 1                    # the rest waits in out_buffer
    CONN_AGAIN = 2                      # nothing to read now
    CONN_EOF = 3
    CONN_ERROR = 4


cdef inline Conn* conn_open(Worker* worker, int fd, uint8_t kind, uint8_t state) noexcept nogil:
    """Adopt a non-blocking fd and watch it. On failure closes the fd and returns NULL."""
    cdef Conn* conn = <Conn*>slab_take(&worker.conns)
    if conn == NULL:
        sys_close(fd)
        return NULL
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
    conn.received_slot = conn.send_slot = 0
    timer_node_init(&conn.timer)
    if sys_epoll_add(worker.epoll_fd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn_token(conn)) != 0:
        sys_close(fd)
        conn.kind = CONN_FREE
        slab_return(&worker.conns, &conn.item)
        return NULL
    return conn


cdef inline void conn_close(Worker* worker, Conn* conn) noexcept nogil:
    """Close the socket and give back everything. The pointer is dead; stale events miss by generation."""
    if conn.send_slot:
        conn_release_held(worker, conn)
    if conn.received_slot:
        conn_drop_received(worker, conn)
    if conn.flags & CONN_RESET:
        sys_reset_on_close(conn.fd)
    sys_close(conn.fd)                  # leaves the epoll set by itself: nobody dup'ed it
    timer_clear(&worker.timers, &conn.timer)
    conn_drop_input(worker, conn)
    if conn.out_buffer != NULL:
        buffer_return(&worker.buffers, conn.out_buffer)
        conn.out_buffer = NULL
    conn.kind = CONN_FREE
    conn.exchange = NULL
    if not conn.flags & CONN_QUEUED:    # else the run list still threads through it, and gives it back
        slab_return(&worker.conns, &conn.item)


cdef inline uint64_t conn_token(const Conn* conn) noexcept nogil:
    return <uint64_t>conn.item.generation << 32 | conn.item.index


cdef inline int conn_recv(Worker* worker, Conn* conn, char* at, uint32_t room, uint32_t* n) noexcept nogil:
    """Read once, `room` bytes at most. CONN_OK with *n > 0, or CONN_AGAIN, CONN_EOF, CONN_ERROR."""
    cdef Received* received
    cdef long got
    if conn.received_slot == 0:
        return conn_note_read(conn, sys_recv(conn.fd, at, room, 0), room, n)
    received = batch_received(&worker.batch, conn)
    got = received.n
    if got > <long>room:
        memcpy(at, received.at, room)
        received.at += room
        received.n -= <int32_t>room
        received.room -= room
        return conn_note_read(conn, room, room, n)
    if got > 0:
        memcpy(at, received.at, got)
    conn_drop_received(worker, conn)
    return conn_note_read(conn, got, received.room, n)


cdef inline int conn_recv_anywhere(Worker* worker, Conn* conn, char** at, uint32_t* n) noexcept nogil:
    """As conn_recv, where it does not matter where the bytes lie: *at says where, until the next read of anything."""
    cdef Received* received
    if conn.received_slot == 0:
        at[0] = worker.read_buffer
        return conn_note_read(conn, sys_recv(conn.fd, at[0], READ_BYTES, 0), READ_BYTES, n)
    received = batch_received(&worker.batch, conn)
    at[0] = received.at
    conn_drop_received(worker, conn)
    return conn_note_read(conn, received.n, received.room, n)


cdef inline int conn_note_read(Conn* conn, long got, uint32_t room, uint32_t* n) noexcept nogil:
    """What the answer `got` to a read of `room` bytes means."""
    if got > 0:
        n[0] = <uint32_t>got
        conn_note_received(conn, <uint64_t>got)
        if <uint32_t>got < room and not conn.io & (IO_PEER_CLOSED | IO_FAILED):
            conn.io &= <uint8_t>~IO_READABLE
        return CONN_OK
    n[0] = 0
    if got == 0:
        conn.io = (conn.io | IO_PEER_CLOSED) & <uint8_t>~IO_READABLE
        return CONN_EOF
    if got == -EAGAIN or got == -EINTR:
        if got == -EAGAIN:
            conn.io &= <uint8_t>~IO_READABLE
        return CONN_AGAIN
    conn.io = (conn.io | IO_FAILED) & <uint8_t>~IO_READABLE
    return CONN_ERROR


cdef inline int conn_send(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Write, at the end of the batch or now, keeping what the kernel does not take.

    CONN_OK all written or held back, CONN_BLOCKED, or CONN_ERROR.
    """
    cdef int code
    if conn.out_buffer != NULL:
        return conn_keep(worker, conn, at, n)
    if batch_hold(&worker.batch, conn, at, n, 0):
        return CONN_OK
    if conn.send_slot:
        code = conn_settle(worker, conn)
        if code != CONN_OK:
            return code if code == CONN_ERROR else conn_keep(worker, conn, at, n)
    return conn_note_send(worker, conn, at, n, sys_send(conn.fd, at, n, 0))


cdef inline int conn_send2(Worker* worker, Conn* conn, const char* a, uint32_t a_len,
                           const char* b, uint32_t b_len) noexcept nogil:
    """Write two pieces in one call. Returns as conn_send."""
    cdef long sent
    cdef int code
    if b_len == 0:
        return conn_send(worker, conn, a, a_len)
    if conn.out_buffer != NULL:
        code = conn_keep(worker, conn, a, a_len)
        return code if code == CONN_ERROR else conn_keep(worker, conn, b, b_len)
    if conn.send_slot or a_len + b_len <= BATCH_SEND_MAX_BYTES:
        code = conn_send(worker, conn, a, a_len)
        return code if code == CONN_ERROR else conn_send(worker, conn, b, b_len)
    sent = sys_send2(conn.fd, a, a_len, b, b_len)
    if sent < 0:
        if sent != -EAGAIN and sent != -EINTR:
            conn.io |= IO_FAILED
            return CONN_ERROR
        sent = 0
    conn_note_sent(conn, <uint64_t>sent)
    if sent == <long>a_len + <long>b_len:
        return CONN_OK
    conn.io &= <uint8_t>~IO_WRITABLE
    if sent < <long>a_len:
        code = conn_keep(worker, conn, a + sent, a_len - <uint32_t>sent)
        return code if code == CONN_ERROR else conn_keep(worker, conn, b, b_len)
    return conn_keep(worker, conn, b + (sent - a_len), b_len - <uint32_t>(sent - a_len))


cdef inline int conn_keep(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    # Bounded by its callers: nobody reads more towards a connection whose out_buffer is not empty.
    cdef Buffer* buffer = buffer_append(&worker.buffers, conn.out_buffer, at, n)
    if buffer == NULL:
        return CONN_ERROR
    conn.out_buffer = buffer
    return CONN_BLOCKED


cdef inline int conn_flush(Worker* worker, Conn* conn) noexcept nogil:
    """Write what is kept. CONN_OK when nothing is left, CONN_BLOCKED, or CONN_ERROR."""
    cdef Buffer* buffer = conn.out_buffer
    cdef long sent
    while buffer != NULL:
        sent = sys_send(conn.fd, buffer.data + buffer.start, buffer.end - buffer.start, 0)
        if sent < 0:
            if sent == -EAGAIN:
                conn.io &= <uint8_t>~IO_WRITABLE
                return CONN_BLOCKED
            if sent == -EINTR:
                continue
            conn.io |= IO_FAILED
            return CONN_ERROR
        conn_note_sent(conn, <uint64_t>sent)
        buffer.start += <uint32_t>sent
        if buffer.start == buffer.end:
            buffer_return(&worker.buffers, buffer)
            conn.out_buffer = NULL
            return CONN_OK
    return CONN_OK


cdef inline int conn_settle(Worker* worker, Conn* conn) noexcept nogil:
    """Send now what is held back: something else is to be done with this socket. CONN_OK, CONN_BLOCKED, CONN_ERROR."""
    cdef Send* send
    cdef long sent
    if conn.send_slot == 0:
        return CONN_OK
    send = batch_withdraw(&worker.batch, conn)
    sent = sys_send(conn.fd, send.at, send.n, 0)
    return conn_note_send(worker, conn, send.at, send.n, sent)


cdef inline int conn_note_send(Worker* worker, Conn* conn, const char* at, uint32_t n, long sent) noexcept nogil:
    """What the answer `sent` to a send of `n` bytes means: count them, keep the rest."""
    if sent < 0:
        if sent != -EAGAIN and sent != -EINTR:
            conn.io |= IO_FAILED
            return CONN_ERROR
        sent = 0
    conn_note_sent(conn, <uint64_t>sent)
    if sent == <long>n:
        return CONN_OK
    conn.io &= <uint8_t>~IO_WRITABLE
    return conn_keep(worker, conn, at + sent, n - <uint32_t>sent)


cdef inline void conn_release_held(Worker* worker, Conn* conn) noexcept nogil:
    # Closing. A request nobody waits for any more is not sent; anything else was said to be.
    cdef Send* send = batch_withdraw(&worker.batch, conn)
    cdef long sent
    if not send.is_request:
        sent = sys_send(conn.fd, send.at, send.n, 0)
        if sent > 0:
            conn_note_sent(conn, <uint64_t>sent)


cdef inline void conn_drop_received(Worker* worker, Conn* conn) noexcept nogil:
    batch_received(&worker.batch, conn).conn = NULL
    conn.received_slot = 0


cdef inline void conn_note_sent(Conn* conn, uint64_t n) noexcept nogil:
    """Count bytes the kernel took towards a client. A verb that bypasses conn_send (splice) calls this itself."""
    if conn.kind == CONN_DOWNSTREAM:
        (<ListenerState*>conn.owner).bytes_out += n


cdef inline void conn_note_received(Conn* conn, uint64_t n) noexcept nogil:
    """Count bytes a client sent. A verb that bypasses conn_recv (splice) calls this itself."""
    if conn.kind == CONN_DOWNSTREAM:
        (<ListenerState*>conn.owner).bytes_in += n


cdef inline void conn_shut(Conn* conn) noexcept nogil:
    """Close our sending side. Call with out_buffer empty and nothing held back."""
    if not conn.flags & CONN_SHUT:
        conn.flags |= CONN_SHUT
        sys_shutdown(conn.fd, SHUT_WR)


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
