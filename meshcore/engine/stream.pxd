# One stream of an HTTP/2 session as the transport of a connection: buffers between an exchange and its session.
# Knows no frames: what is sent waits here until the session takes it, what came until the exchange does.
#
# An exchange sees the bytes of HTTP/1: a head as text, then the body as it is, then the end (FLOW_STREAM; no chunks).
# Nothing here calls the exchange: a stream that has something for it joins the worker's ready list, one with something
# to send its session's, and the loop comes to both. What a peer may send ahead is bounded by the stream's window, which
# opens again only for octets that were taken.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.http2_control cimport control_mark, control_reset, control_window
from meshcore.engine.http2_frame cimport HTTP2_CANCEL, HTTP2_INTERNAL_ERROR, WINDOW_FIRST_BYTES
from meshcore.engine.slab cimport slab_return, slab_take
from meshcore.engine.state cimport (
    CONN_AGAIN, CONN_BLOCKED, CONN_EOF, CONN_ERROR, CONN_OK, CONN_UPSTREAM, FLOW_UNKNOWN_BYTES, IO_FAILED,
    IO_PEER_CLOSED, IO_READABLE, STREAM_CLOSED, STREAM_DIRTY, STREAM_ENDED_IN, STREAM_ENDED_OUT,
    STREAM_HEAD_OUT_DUE, STREAM_HEAD_TAKEN, STREAM_READY, STREAM_UNLISTED, Conn, Session, Stream, Worker,
)


cdef enum:
    STREAM_RESETS_REMEMBERED = 32


cdef inline Stream* stream_open(Worker* worker, Session* session, Conn* conn) noexcept nogil:
    """A stream for `conn`, in its session's list. NULL without memory."""
    cdef Stream* stream = <Stream*>slab_take(&worker.streams)
    if stream == NULL:
        return NULL
    stream.session = session
    stream.conn = conn
    stream.id = 0
    stream.flags = STREAM_HEAD_OUT_DUE
    stream.ready_io = 0
    stream.refusal = 0
    stream.error_code = 0
    stream.length_left = FLOW_UNKNOWN_BYTES
    stream.head = stream.data = stream.trailers_in = stream.trailers_out = NULL
    stream.dirty_next = stream.ready_next = stream.place_next = NULL
    stream.taken_bytes = 0
    stream.prev = NULL
    stream.next = session.streams
    if session.streams != NULL:
        session.streams.prev = stream
    session.streams = stream
    session.n_streams += 1
    return stream


cdef inline void stream_set_id(Session* session, Stream* stream, int32_t id) noexcept nogil:
    """Its first HEADERS came or go: from here on it has windows, and is found."""
    cdef Stream** place = &session.places[<uint32_t>id >> 1 & 63]
    stream.id = id
    stream.send_window_bytes = session.peer_window_bytes
    # Until it has acknowledged ours, the peer may go by the window of the protocol (RFC 9113 6.9.2).
    stream.window_bytes = session.stream_window_bytes
    if session.awaits_settings_ack and stream.window_bytes < WINDOW_FIRST_BYTES:
        stream.window_bytes = WINDOW_FIRST_BYTES
    stream.place_next = place[0]
    place[0] = stream
    session.n_begun += 1


cdef inline Stream* stream_find(const Session* session, int32_t id) noexcept nogil:
    """The stream of an id, or NULL: it is closed, or was never open."""
    cdef Stream* stream = session.places[<uint32_t>id >> 1 & 63]
    while stream != NULL and stream.id != id:
        stream = stream.place_next
    return stream


# --- reading ----------------------------------------------------------------------------------------------------------

cdef inline int stream_recv(Worker* worker, Conn* conn, char* at, uint32_t room, uint32_t* n) noexcept nogil:
    """As conn_recv: the head first, then the body."""
    cdef Stream* stream = <Stream*>conn.channel
    cdef Buffer* source
    stream_drop_head(worker, stream)
    source = stream.head if stream.head != NULL else stream.data
    if source == NULL:
        return stream_recv_nothing(conn, stream, n)
    n[0] = source.end - source.start
    if n[0] > room:
        n[0] = room
    memcpy(at, source.data + source.start, n[0])
    if source == stream.data:
        stream_take(worker, stream, n[0])
        return CONN_OK
    source.start += n[0]
    if source.start == source.end:
        stream.flags |= STREAM_HEAD_TAKEN
        stream_drop_head(worker, stream)
    return CONN_OK


cdef inline int stream_recv_anywhere(Worker* worker, Conn* conn, char** at, uint32_t* n) noexcept nogil:
    """As conn_recv_anywhere: a head is lent where it lies, a body copied."""
    cdef Stream* stream = <Stream*>conn.channel
    stream_drop_head(worker, stream)
    if stream.head == NULL:
        at[0] = worker.read_buffer
        return stream_recv(worker, conn, at[0], 65536, n)
    at[0] = stream.head.data + stream.head.start
    n[0] = stream.head.end - stream.head.start
    stream.flags |= STREAM_HEAD_TAKEN
    return CONN_OK


cdef inline int stream_recv_nothing(Conn* conn, Stream* stream, uint32_t* n) noexcept nogil:
    n[0] = 0
    conn.io &= <uint8_t>~IO_READABLE
    if stream.flags & STREAM_ENDED_IN:
        conn.io |= IO_PEER_CLOSED
        return CONN_EOF
    if conn.io & IO_FAILED or stream.flags & STREAM_CLOSED:
        conn.io |= IO_FAILED
        return CONN_ERROR
    return CONN_AGAIN


cdef inline int stream_has_input(Conn* conn) noexcept nogil:
    cdef Stream* stream = <Stream*>conn.channel
    return stream.data != NULL or stream.flags & (STREAM_ENDED_IN | STREAM_CLOSED) != 0


cdef inline void stream_drop_head(Worker* worker, Stream* stream) noexcept nogil:
    if stream.flags & STREAM_HEAD_TAKEN:
        stream.flags &= ~<uint32_t>STREAM_HEAD_TAKEN
        buffer_return(&worker.buffers, stream.head)
        stream.head = NULL


cdef inline void stream_take(Worker* worker, Stream* stream, uint32_t n) noexcept nogil:
    """Take the first `n` octets of its data: the exchange has handed them on, the peer may send as many again."""
    stream.data.start += n
    if stream.data.start == stream.data.end:
        buffer_return(&worker.buffers, stream.data)
        stream.data = NULL
    if stream.session != NULL and not stream.flags & (STREAM_CLOSED | STREAM_ENDED_IN):
        stream_give_back(stream, n)


cdef inline void stream_give_back(Stream* stream, uint32_t n) noexcept nogil:
    """The peer may send `n` octets again. It hears of it by the half window: small bodies need no frame of ours."""
    stream.taken_bytes += n
    if stream.taken_bytes >= <uint32_t>stream.session.stream_window_bytes // 2 and stream.taken_bytes:
        stream.window_bytes += <int32_t>stream.taken_bytes
        control_window(stream.session, stream.id, stream.taken_bytes)
        stream.taken_bytes = 0


# --- writing ----------------------------------------------------------------------------------------------------------

cdef inline int stream_send(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """As conn_send: a head whole in one call, then body octets. They are taken by the session at the end of the batch."""
    cdef Stream* stream = <Stream*>conn.channel
    cdef Buffer* buffer
    if stream.session == NULL or stream.flags & (STREAM_CLOSED | STREAM_ENDED_OUT):
        return CONN_ERROR
    buffer = buffer_append(&worker.buffers, conn.out_buffer, at, n)
    if buffer == NULL:
        return CONN_ERROR
    conn.out_buffer = buffer
    stream_mark(worker, stream)
    return CONN_BLOCKED


cdef inline int stream_flush(const Conn* conn) noexcept nogil:
    """As conn_flush: nothing can be done here but say how far it is."""
    cdef const Stream* stream = <const Stream*>conn.channel
    if stream.session == NULL:
        return CONN_ERROR
    return CONN_OK if conn.out_buffer == NULL else CONN_BLOCKED


cdef inline void stream_end(Worker* worker, Conn* conn, const char* trailers, uint32_t n) noexcept nogil:
    """Nothing follows but these trailers ("name: value CRLF" lines; they may be none)."""
    cdef Stream* stream = <Stream*>conn.channel
    if stream.session == NULL or stream.flags & (STREAM_CLOSED | STREAM_ENDED_OUT):
        return
    if n:
        stream.trailers_out = buffer_append(&worker.buffers, NULL, trailers, n)
    stream.flags |= STREAM_ENDED_OUT
    stream_mark(worker, stream)


cdef inline void stream_mark(Worker* worker, Stream* stream) noexcept nogil:
    """It has something to send."""
    cdef Session* session = stream.session
    if not stream.flags & STREAM_DIRTY:
        stream.flags |= STREAM_DIRTY
        stream.dirty_next = NULL
        if session.dirty == NULL:
            session.dirty = stream
        else:
            session.dirty_last.dirty_next = stream
        session.dirty_last = stream
    control_mark(session)


cdef inline void stream_set_ready(Worker* worker, Stream* stream, uint8_t io) noexcept nogil:
    """Have the loop run its connection, with these edges."""
    stream.ready_io |= io
    if stream.flags & STREAM_READY:
        return
    stream.flags |= STREAM_READY
    stream.ready_next = NULL
    if worker.ready_streams == NULL:
        worker.ready_streams = stream
    else:
        worker.ready_last.ready_next = stream
    worker.ready_last = stream


# --- the end ----------------------------------------------------------------------------------------------------------

cdef inline void stream_part(Worker* worker, Conn* conn) noexcept nogil:
    """Its connection is given up. What was not complete by then is reset, so that nobody takes it for complete."""
    cdef Stream* stream = <Stream*>conn.channel
    conn.channel = NULL
    stream.conn = NULL
    if stream.flags & STREAM_CLOSED or stream.session == NULL or stream.id == 0:
        stream_forget(worker, stream)
        return
    stream_note_reset(stream.session, stream.id)
    control_reset(stream.session, stream.id, HTTP2_CANCEL if conn.kind == CONN_UPSTREAM else HTTP2_INTERNAL_ERROR)
    stream_forget(worker, stream)


cdef inline int stream_was_reset(const Session* session, int32_t id) noexcept nogil:
    """Negative ids: by the peer."""
    cdef uint32_t i
    for i in range(<uint32_t>STREAM_RESETS_REMEMBERED):
        if session.reset_ids[i] == id:
            return 1
    return 0


cdef inline int stream_may_be_reset(const Session* session, int32_t id) noexcept nogil:
    """Did we reset this stream, as far as is remembered? Of older ones it may be so: what their client had on its way comes in
    any case, and ending the connection for it would take those with it that are in order."""
    return id <= session.forgotten_id or stream_was_reset(session, id)


cdef inline void stream_note_reset(Session* session, int32_t id) noexcept nogil:
    """We reset this stream (or are about to): its client cannot know yet. Negative: the client reset it, and may have DATA
    of it in the same write; whether that is seen before or behind the reset must not matter."""
    cdef int32_t* place = &session.reset_ids[session.n_resets % STREAM_RESETS_REMEMBERED]
    if not stream_was_reset(session, id):
        if place[0] > session.forgotten_id:
            session.forgotten_id = place[0]
        place[0] = id
        session.n_resets += 1


cdef inline void stream_forget(Worker* worker, Stream* stream) noexcept nogil:
    """Neither an exchange nor a session knows it any more."""
    cdef Session* session = stream.session
    stream_drop_buffers(worker, stream)
    if session != NULL:
        stream_unlink(stream)
        stream.session = NULL
    if stream.flags & STREAM_READY:
        stream.flags |= STREAM_UNLISTED               # the ready list threads through it, and gives it back
    else:
        slab_return(&worker.streams, &stream.item)


cdef inline void stream_unlink(Stream* stream) noexcept nogil:
    cdef Session* session = stream.session
    cdef Stream** place = &session.places[<uint32_t>stream.id >> 1 & 63]
    cdef Stream* before = NULL
    cdef Stream* at
    while place[0] != NULL and place[0] != stream:
        place = &place[0].place_next
    if place[0] == stream:
        place[0] = stream.place_next
        session.n_begun -= 1
    if stream.prev != NULL:
        stream.prev.next = stream.next
    else:
        session.streams = stream.next
    if stream.next != NULL:
        stream.next.prev = stream.prev
    session.n_streams -= 1
    if session.block_stream == stream:
        session.block_stream = NULL
        session.block_is_passed_over = 1
    if stream.flags & STREAM_DIRTY:
        at = session.dirty
        while at != stream:
            before = at
            at = at.dirty_next
        if before == NULL:
            session.dirty = stream.dirty_next
        else:
            before.dirty_next = stream.dirty_next
        if session.dirty_last == stream:
            session.dirty_last = before
        stream.flags &= ~<uint32_t>STREAM_DIRTY


cdef inline void stream_drop_buffers(Worker* worker, Stream* stream) noexcept nogil:
    stream.flags &= ~<uint32_t>STREAM_HEAD_TAKEN
    if stream.head != NULL:
        buffer_return(&worker.buffers, stream.head)
    if stream.data != NULL:
        buffer_return(&worker.buffers, stream.data)
    if stream.trailers_in != NULL:
        buffer_return(&worker.buffers, stream.trailers_in)
    if stream.trailers_out != NULL:
        buffer_return(&worker.buffers, stream.trailers_out)
    stream.head = stream.data = stream.trailers_in = stream.trailers_out = NULL
