# A downstream connection between exchanges: waiting, going on to the next request, or parting politely.
# Parses nothing: see request.
#
# Parting: a connection whose input was read to its end is closed at once (one system call). One that may still be
# sent bytes is shut on our side first and drained for a bounded while: closing with unread input makes the kernel send
# RST, and the client may lose the answer that told it why (RFC 9112 9.6).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from meshcore.engine.conn cimport (
    conn_close, conn_deadline, conn_drop_input, conn_flush, conn_has_input, conn_is_stream, conn_list_remove, conn_recv,
    conn_run_later, conn_settle, conn_shut,
)
from meshcore.engine.state cimport (
    CONN_AWAIT_FLUSH, CONN_AWAIT_HEAD, CONN_CLOSE_AFTER, CONN_EOF, CONN_ERROR, CONN_LINGERING, CONN_OK, CONN_RESET,
    IO_FAILED, IO_PEER_CLOSED, IO_READABLE, LISTENER_REMOVED, READ_BYTES, STREAM_ENDED_IN, STREAM_ENDED_OUT,
    STREAM_RESET_WHEN_OUT, TRANSPORT_TLS, Conn, ListenerState, Stream, Worker,
)
from meshcore.engine.stream cimport stream_end


cdef inline void downstream_close(Worker* worker, Conn* conn) noexcept nogil:
    """Close now. What was not flushed is lost."""
    if conn_is_stream(conn):
        if (<Stream*>conn.channel).flags & STREAM_ENDED_OUT and conn.state != CONN_AWAIT_FLUSH \
                and not conn.flags & CONN_RESET:
            downstream_part_stream(worker, conn)      # all is said: only its leaving is waited for
        else:
            conn_close(worker, conn)
        return
    (<ListenerState*>conn.owner).active -= 1
    worker.n_downstream -= 1
    conn_list_remove(worker, &worker.downstream_head, conn)
    conn_close(worker, conn)


cdef inline void downstream_abort(Worker* worker, Conn* conn) noexcept nogil:
    """Close so that the client cannot take what it has for complete."""
    conn.flags |= CONN_RESET
    downstream_close(worker, conn)


cdef inline void downstream_part(Worker* worker, Conn* conn) noexcept nogil:
    """No further request here: flush, then close or linger."""
    if conn_is_stream(conn):
        downstream_part_stream(worker, conn)
        return
    conn.flags |= CONN_CLOSE_AFTER
    if conn.send_slot and conn_settle(worker, conn) == CONN_ERROR:
        downstream_close(worker, conn)
        return
    if conn.out_buffer != NULL:
        conn.state = CONN_AWAIT_FLUSH
        conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.keep_alive_timeout_ns)
        return
    if conn.io & IO_FAILED or (conn.io & IO_PEER_CLOSED and not conn.io & IO_READABLE):
        downstream_close(worker, conn)
        return
    if not conn.io & IO_READABLE and conn.in_buffer == NULL and conn.requests and not conn.flags & CONN_RESET \
            and conn.state != CONN_LINGERING:
        # Everything the client sent was read: nothing is left for the kernel to answer with RST.
        downstream_close(worker, conn)
        return
    conn_drop_input(worker, conn)
    conn.flags &= <uint8_t>~CONN_RESET
    conn.state = CONN_LINGERING
    conn.requests = 0                   # from here on: bytes thrown away
    conn_shut(worker, conn)
    conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.linger_timeout_ns)
    downstream_linger(worker, conn)


cdef inline void downstream_part_stream(Worker* worker, Conn* conn) noexcept nogil:
    """The answer is complete: the stream ends with what is still on its way out."""
    cdef Stream* stream = <Stream*>conn.channel
    conn.exchange = NULL
    if stream.session == NULL:
        conn_close(worker, conn)
        return
    stream_end(worker, conn, NULL, 0)
    if not stream.flags & STREAM_ENDED_IN:
        stream.flags |= STREAM_RESET_WHEN_OUT
    conn_drop_input(worker, conn)
    conn.state = CONN_AWAIT_FLUSH
    conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.keep_alive_timeout_ns)


cdef inline void downstream_refuse(Worker* worker, Conn* conn) noexcept nogil:
    """As downstream_part, when the client certainly has more to say: always linger."""
    conn.io |= IO_READABLE
    downstream_part(worker, conn)


cdef inline void downstream_linger(Worker* worker, Conn* conn) noexcept nogil:
    """Throw input away until the client closes, the limit or the deadline."""
    cdef uint32_t n
    cdef int code
    while conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        code = conn_recv(worker, conn, worker.read_buffer, READ_BYTES, &n)
        if code == CONN_EOF or code == CONN_ERROR:
            downstream_close(worker, conn)
            return
        if code != CONN_OK:
            return
        conn.requests += n
        if conn.requests > worker.current.snapshot.limits.linger_bytes:
            downstream_close(worker, conn)
            return


cdef inline void downstream_next(Worker* worker, Conn* conn) noexcept nogil:
    """The response is out (or in out_buffer): wait for the next request, or part."""
    conn.exchange = NULL
    if conn_is_stream(conn):
        downstream_part_stream(worker, conn)
        return
    if conn.flags & CONN_CLOSE_AFTER or worker.draining \
            or (<ListenerState*>conn.owner).conf_index == LISTENER_REMOVED:
        if conn.transport == TRANSPORT_TLS and conn.io & IO_READABLE:
            conn_has_input(worker, conn)    # its handshake may have read to the end: then the edge is used up
        downstream_part(worker, conn)
        return
    conn.state = CONN_AWAIT_HEAD
    conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.keep_alive_timeout_ns)
    if conn.in_buffer != NULL or conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        conn_run_later(worker, conn)


cdef inline void downstream_flushed(Worker* worker, Conn* conn) noexcept nogil:
    """The writable edge of a connection that only waits to be flushed."""
    cdef int code = conn_flush(worker, conn)
    if code == CONN_ERROR:
        downstream_close(worker, conn)
    elif code == CONN_OK:
        downstream_part(worker, conn)
    else:
        conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.keep_alive_timeout_ns)
