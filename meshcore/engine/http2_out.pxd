# What a session sends: control frames, then each stream's head, body and trailers, as far as windows and one send go. Called
# when its streams have something (see stream_mark), and writes into the worker's one block for it.

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from meshcore.engine.buffer cimport Buffer, buffer_return
from meshcore.engine.conn cimport conn_send
from meshcore.engine.hpack_write cimport (
    Http2Field, hpack_begin, hpack_write,
)
from meshcore.engine.http2_fields cimport (
    HTTP2_MAX_FIELDS, http2_fields_of_request, http2_fields_of_response, http2_fields_of_trailers, http2_status_of,
)
from meshcore.engine.http2_frame cimport (
    FLAG_END_STREAM, FRAME_DATA, FRAME_HEAD_BYTES, FRAME_PAYLOAD_BYTES, HTTP2_INTERNAL_ERROR, HTTP2_NO_ERROR, frame_put,
    frame_put_block,
)
from meshcore.engine.http2_in cimport http2_close_if_over, http2_reset, session_credit
from meshcore.engine.state cimport (
    CONN_ERROR, IO_FAILED, IO_WRITABLE, STREAM_ALL_SENT, STREAM_CLOSED, STREAM_DIRTY, STREAM_ENDED_IN, STREAM_ENDED_OUT,
    STREAM_HEAD_OUT_DUE, STREAM_LEFT_BEHIND, STREAM_RESET_WHEN_OUT, STREAM_SENT, STREAM_STALLED, STREAM_UNPROCESSED,
    STREAM_WEBSOCKET, Conn, Session, Stream, Worker,
)
from meshcore.engine.stream cimport stream_mark, stream_set_id, stream_set_ready

cdef enum:
    OUT_BYTES = 65536                   # gathered for one send
    OUT_ROOM_BYTES = 262144             # beyond them: one stream's turn, its head the largest that is possible
    LAST_OWN_ID = 0x7FFFFFFF


cdef struct Http2Out:                   # what is gathered
    char* at
    uint32_t n


cdef inline int http2_write(Worker* worker, Session* session) noexcept nogil:
    """Send what there is. 1, or 0: the connection is broken."""
    cdef Http2Out out
    cdef Stream* stream
    out.at = worker.session_out
    out.n = 0
    while True:
        http2_write_control(worker, session, &out)
        while session.dirty != NULL and not session.has_ended and out.n < OUT_BYTES:
            stream = session.dirty
            session.dirty = stream.dirty_next
            stream.flags &= ~<uint32_t>STREAM_DIRTY
            http2_write_stream(worker, session, stream, &out)
        http2_write_control(worker, session, &out)    # resets behind what they end
        if out.n == 0:
            return 1
        if conn_send(worker, session.conn, out.at, out.n) == CONN_ERROR:
            return 0
        out.n = 0
        if session.conn.out_buffer != NULL:
            return 1


cdef inline void http2_write_control(Worker* worker, Session* session, Http2Out* out) noexcept nogil:
    cdef Buffer* control = session.control
    if control == NULL:
        return
    memcpy(out.at + out.n, control.data + control.start, control.end - control.start)
    out.n += control.end - control.start
    buffer_return(&worker.buffers, control)
    session.control = NULL
    session.n_answers = 0


cdef inline void http2_write_stream(Worker* worker, Session* session, Stream* stream, Http2Out* out) noexcept nogil:
    """One stream's turn: its heads, and one frame of its body."""
    cdef Conn* conn = stream.conn
    cdef Buffer* buffer = conn.out_buffer
    cdef uint32_t used = 0
    while buffer != NULL and stream.flags & STREAM_HEAD_OUT_DUE and buffer.start < buffer.end:
        if not http2_write_head(session, stream, out, buffer.data + buffer.start, buffer.end - buffer.start, &used):
            return
        buffer.start += used
    if stream.flags & STREAM_HEAD_OUT_DUE == 0 and buffer != NULL and buffer.start < buffer.end:
        http2_write_data(session, stream, out, buffer)
    if buffer != NULL and buffer.start == buffer.end:
        buffer_return(&worker.buffers, buffer)
        buffer = conn.out_buffer = NULL
        if not stream.flags & STREAM_ENDED_OUT:
            stream_set_ready(worker, stream, IO_WRITABLE)
    if buffer == NULL and stream.flags & (STREAM_ENDED_OUT | STREAM_HEAD_OUT_DUE) == STREAM_ENDED_OUT:
        http2_write_end(session, stream, out)
    elif buffer != NULL and not stream.flags & STREAM_STALLED:
        stream_mark(worker, stream)     # the rest in its next turn


# --- heads ------------------------------------------------------------------------------------------------------------

cdef inline int http2_write_head(Session* session, Stream* stream, Http2Out* out, char* text, uint32_t len,
                                 uint32_t* used) noexcept nogil:
    """The head that `text` begins with: `used` octets of it. 1, or 0: the stream is lost."""
    cdef Http2Field fields[256]
    cdef uint32_t n
    cdef uint32_t status = 0
    cdef int is_all
    if session.is_client:
        if session.peer_goaway_id >= 0 or session.next_id < 0:
            # No ids are left, or the endpoint said GOAWAY: it has seen nothing of this.
            session.is_closing = 1
            stream.flags |= STREAM_UNPROCESSED
            stream_set_ready(session.worker, stream, IO_FAILED)
            return 0
        if session.n_begun >= session.max_streams:
            # Its endpoint has thought better of how many it takes: this one goes elsewhere, or waits.
            stream.flags |= STREAM_UNPROCESSED | STREAM_LEFT_BEHIND
            stream_set_ready(session.worker, stream, IO_FAILED)
            return 0
        n = http2_fields_of_request(text, len, session.is_secure, stream.flags & STREAM_WEBSOCKET != 0, fields, used)
        if n:
            stream_set_id(session, stream, session.next_id)
            session.next_id = session.next_id + 2 if session.next_id < LAST_OWN_ID else -1
            stream.flags |= STREAM_SENT
    else:
        n = http2_fields_of_response(text, len, fields, used)
        status = http2_status_of(text, len)
    if n == 0:
        http2_lose(session, stream)
        return 0
    if session.is_client or status >= 200 or status == 101:
        stream.flags &= ~<uint32_t>STREAM_HEAD_OUT_DUE
    is_all = stream.flags & (STREAM_ENDED_OUT | STREAM_HEAD_OUT_DUE) == STREAM_ENDED_OUT and used[0] == len \
        and stream.trailers_out == NULL
    http2_write_block(session, stream, out, fields, n, FLAG_END_STREAM if is_all else 0)
    if is_all:
        stream.flags |= STREAM_ALL_SENT
    return 1


cdef inline void http2_lose(Session* session, Stream* stream) noexcept nogil:
    """Its head has more fields than we send."""
    if stream.id:
        http2_reset(session, stream.id, HTTP2_INTERNAL_ERROR)
        return
    stream.flags |= STREAM_UNPROCESSED
    stream_set_ready(session.worker, stream, IO_FAILED)


cdef inline void http2_write_block(Session* session, Stream* stream, Http2Out* out, const Http2Field* fields, uint32_t n,
                                   uint32_t flags) noexcept nogil:
    # Safety: heads are at most 96 KiB of text (SCRATCH_BYTES), and a field takes fewer octets here than a line of text does, but
    # for its lengths and the names of pseudo-header fields: there is room for twice as much.
    cdef char* begin = out.at + out.n
    cdef char* end = hpack_begin(&session.writer, begin + FRAME_HEAD_BYTES)
    cdef uint32_t i
    for i in range(n):
        end = hpack_write(&session.writer, end, &fields[i])
    end = frame_put_block(begin, <uint32_t>(end - begin) - FRAME_HEAD_BYTES, flags, stream.id)
    out.n = <uint32_t>(end - out.at)


# --- bodies and ends ----------------------------------------------------------------------------------------------------

cdef inline void http2_write_data(Session* session, Stream* stream, Http2Out* out, Buffer* buffer) noexcept nogil:
    cdef uint32_t n = buffer.end - buffer.start
    cdef char* at = out.at + out.n
    cdef int is_all
    if stream.send_window_bytes <= 0 or session.send_window_bytes <= 0:
        stream.flags |= STREAM_STALLED
        if session.send_window_bytes <= 0:
            session.is_choked = 1
        return
    if n > FRAME_PAYLOAD_BYTES:
        n = FRAME_PAYLOAD_BYTES
    if n > <uint32_t>stream.send_window_bytes:
        n = <uint32_t>stream.send_window_bytes
    if n > <uint32_t>session.send_window_bytes:
        n = <uint32_t>session.send_window_bytes
    stream.send_window_bytes -= <int32_t>n
    session.send_window_bytes -= <int32_t>n
    is_all = stream.flags & STREAM_ENDED_OUT and n == buffer.end - buffer.start and stream.trailers_out == NULL
    memcpy(frame_put(at, n, FRAME_DATA, FLAG_END_STREAM if is_all else 0, stream.id), buffer.data + buffer.start, n)
    out.n += FRAME_HEAD_BYTES + n
    buffer.start += n
    session_credit(session)
    if is_all:
        stream.flags |= STREAM_ALL_SENT


cdef inline void http2_write_end(Session* session, Stream* stream, Http2Out* out) noexcept nogil:
    """All of it was said: say so, where its last frame has not, and part from it when the peer has said all too."""
    cdef Http2Field fields[256]
    cdef Buffer* text = stream.trailers_out
    cdef uint32_t n = 0
    if not stream.flags & STREAM_ALL_SENT:
        if text != NULL:
            n = http2_fields_of_trailers(text.data + text.start, text.end - text.start, fields)
        if n:
            http2_write_block(session, stream, out, fields, n, FLAG_END_STREAM)
        else:
            frame_put(out.at + out.n, 0, FRAME_DATA, FLAG_END_STREAM, stream.id)
            out.n += FRAME_HEAD_BYTES
            session_credit(session)
        stream.flags |= STREAM_ALL_SENT
    if stream.flags & STREAM_RESET_WHEN_OUT and not stream.flags & STREAM_ENDED_IN and not session.is_client:
        # RFC 9113 8.1: the answer is complete, and the rest of the request is not wanted.
        http2_reset(session, stream.id, HTTP2_NO_ERROR)
    else:
        http2_close_if_over(session, stream)
