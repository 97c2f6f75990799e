# One socket's reads and writes, plain: what the kernel said, what is kept, what is held back for the batch. Knows edges
# and buffers; what the bytes are for, and what may lie over them (see conn), is not its business.
#
# Facts about edge-triggered epoll: an edge is told once; it may be told for bytes already read; after a read shorter
# than asked for, the next byte makes a new edge. Consequence: every fd is added once with IN|OUT|RDHUP|ET, never
# modified; `io` remembers an edge until it is used up; a short read uses it up without a probing second read
# (saves 0.3 us a request). Only an announced end of input (RDHUP) must be read down to its zero. Cost: a reader that
# stops early (backpressure) must be woken by whoever made it stop. Keeps DRAIN_TO_AGAIN and ARMED_OR_EMPTY: output is
# either all written, or held back until the end of the batch, or in out_buffer with the writable edge outstanding.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.batch cimport batch_hold, batch_received, batch_withdraw
from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.state cimport (
    BATCH_SEND_MAX_BYTES, CONN_AGAIN, CONN_BLOCKED, CONN_DOWNSTREAM, CONN_EOF, CONN_ERROR, CONN_OK, IO_FAILED,
    IO_PEER_CLOSED, IO_READABLE, IO_WRITABLE, READ_BYTES, Conn, ListenerState, Received, Send, Worker,
)
from meshcore.engine.sys cimport EAGAIN, EINTR, sys_recv, sys_send, sys_send2


cdef inline int socket_recv(Worker* worker, Conn* conn, char* at, uint32_t room, uint32_t* n) noexcept nogil:
    """Read once, `room` bytes at most. CONN_OK with *n > 0, or CONN_AGAIN, CONN_EOF, CONN_ERROR."""
    cdef Received* received
    cdef long got
    if conn.received_slot == 0:
        return socket_note_read(conn, sys_recv(conn.fd, at, room, 0), room, n)
    received = batch_received(&worker.batch, conn)
    got = received.n
    if got > <long>room:
        memcpy(at, received.at, room)
        received.at += room
        received.n -= <int32_t>room
        received.room -= room
        return socket_note_read(conn, room, room, n)
    if got > 0:
        memcpy(at, received.at, got)
    socket_drop_received(worker, conn)
    return socket_note_read(conn, got, received.room, n)


cdef inline int socket_recv_anywhere(Worker* worker, Conn* conn, char** at, uint32_t* n) noexcept nogil:
    """As socket_recv, where it does not matter where the bytes lie: *at says where, until the next read of anything."""
    cdef Received* received
    if conn.received_slot == 0:
        at[0] = worker.read_buffer
        return socket_note_read(conn, sys_recv(conn.fd, at[0], READ_BYTES, 0), READ_BYTES, n)
    received = batch_received(&worker.batch, conn)
    at[0] = received.at
    socket_drop_received(worker, conn)
    return socket_note_read(conn, received.n, received.room, n)


cdef inline int socket_note_read(Conn* conn, long got, uint32_t room, uint32_t* n) noexcept nogil:
    """What the answer `got` to a read of `room` bytes means."""
    if got > 0:
        n[0] = <uint32_t>got
        socket_note_received(conn, <uint64_t>got)
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


cdef inline int socket_send(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """Write, at the end of the batch or now, keeping what the kernel does not take.

    CONN_OK all written or held back, CONN_BLOCKED, or CONN_ERROR.
    """
    cdef int code
    if conn.out_buffer != NULL:
        return socket_keep(worker, conn, at, n)
    if batch_hold(&worker.batch, conn, at, n, 0):
        return CONN_OK
    if conn.send_slot:
        code = socket_settle(worker, conn)
        if code != CONN_OK:
            return code if code == CONN_ERROR else socket_keep(worker, conn, at, n)
    return socket_note_send(worker, conn, at, n, sys_send(conn.fd, at, n, 0))


cdef inline int socket_send2(Worker* worker, Conn* conn, const char* a, uint32_t a_len,
                           const char* b, uint32_t b_len) noexcept nogil:
    """Write two pieces in one call. Returns as socket_send."""
    cdef long sent
    cdef int code
    if b_len == 0:
        return socket_send(worker, conn, a, a_len)
    if conn.out_buffer != NULL:
        code = socket_keep(worker, conn, a, a_len)
        return code if code == CONN_ERROR else socket_keep(worker, conn, b, b_len)
    if conn.send_slot or a_len + b_len <= BATCH_SEND_MAX_BYTES:
        code = socket_send(worker, conn, a, a_len)
        return code if code == CONN_ERROR else socket_send(worker, conn, b, b_len)
    sent = sys_send2(conn.fd, a, a_len, b, b_len)
    if sent < 0:
        if sent != -EAGAIN and sent != -EINTR:
            conn.io |= IO_FAILED
            return CONN_ERROR
        sent = 0
    socket_note_sent(conn, <uint64_t>sent)
    if sent == <long>a_len + <long>b_len:
        return CONN_OK
    conn.io &= <uint8_t>~IO_WRITABLE
    if sent < <long>a_len:
        code = socket_keep(worker, conn, a + sent, a_len - <uint32_t>sent)
        return code if code == CONN_ERROR else socket_keep(worker, conn, b, b_len)
    return socket_keep(worker, conn, b + (sent - a_len), b_len - <uint32_t>(sent - a_len))


cdef inline int socket_keep(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    # Bounded by its callers: nobody reads more towards a connection whose out_buffer is not empty.
    cdef Buffer* buffer = buffer_append(&worker.buffers, conn.out_buffer, at, n)
    if buffer == NULL:
        return CONN_ERROR
    conn.out_buffer = buffer
    return CONN_BLOCKED


cdef inline int socket_flush(Worker* worker, Conn* conn) noexcept nogil:
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
        socket_note_sent(conn, <uint64_t>sent)
        buffer.start += <uint32_t>sent
        if buffer.start == buffer.end:
            buffer_return(&worker.buffers, buffer)
            conn.out_buffer = NULL
            return CONN_OK
    return CONN_OK


cdef inline int socket_settle(Worker* worker, Conn* conn) noexcept nogil:
    """Send now what is held back: something else is to be done with this socket. CONN_OK, CONN_BLOCKED, CONN_ERROR."""
    cdef Send* send
    cdef long sent
    if conn.send_slot == 0:
        return CONN_OK
    send = batch_withdraw(&worker.batch, conn)
    sent = sys_send(conn.fd, send.at, send.n, 0)
    return socket_note_send(worker, conn, send.at, send.n, sent)


cdef inline int socket_note_send(Worker* worker, Conn* conn, const char* at, uint32_t n, long sent) noexcept nogil:
    """What the answer `sent` to a send of `n` bytes means: count them, keep the rest."""
    if sent < 0:
        if sent != -EAGAIN and sent != -EINTR:
            conn.io |= IO_FAILED
            return CONN_ERROR
        sent = 0
    socket_note_sent(conn, <uint64_t>sent)
    if sent == <long>n:
        return CONN_OK
    conn.io &= <uint8_t>~IO_WRITABLE
    return socket_keep(worker, conn, at + sent, n - <uint32_t>sent)


cdef inline void socket_release_held(Worker* worker, Conn* conn) noexcept nogil:
    # Closing. A request nobody waits for any more is not sent; anything else was said to be.
    cdef Send* send = batch_withdraw(&worker.batch, conn)
    cdef long sent
    if not send.is_request:
        sent = sys_send(conn.fd, send.at, send.n, 0)
        if sent > 0:
            socket_note_sent(conn, <uint64_t>sent)


cdef inline void socket_drop_received(Worker* worker, Conn* conn) noexcept nogil:
    batch_received(&worker.batch, conn).conn = NULL
    conn.received_slot = 0


cdef inline void socket_note_sent(Conn* conn, uint64_t n) noexcept nogil:
    """Count bytes the kernel took towards a client. A verb that bypasses this room (splice) calls this itself."""
    if conn.kind == CONN_DOWNSTREAM:
        (<ListenerState*>conn.owner).bytes_out += n


cdef inline void socket_note_received(Conn* conn, uint64_t n) noexcept nogil:
    """Count bytes a client sent. A verb that bypasses this room (splice) calls this itself."""
    if conn.kind == CONN_DOWNSTREAM:
        (<ListenerState*>conn.owner).bytes_in += n
