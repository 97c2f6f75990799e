# What a session is given to send: heads submitted, bodies handed out, and what to do when they have left.
# Called at the end of a batch for streams that have something (see stream_mark), and by nghttp2 for the octets.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy

from meshcore.engine.buffer cimport Buffer, buffer_return
from meshcore.engine.http2_fields cimport (
    http2_fields_of_request, http2_fields_of_response, http2_fields_of_trailers, http2_status_of,
)
from meshcore.engine.http2_in cimport http2_note_reset, http2_reset, session_credit, session_spend, session_stream
from meshcore.engine.nghttp2 cimport (
    NGHTTP2_DATA, NGHTTP2_DATA_FLAG_EOF, NGHTTP2_DATA_FLAG_NO_END_STREAM, NGHTTP2_ENHANCE_YOUR_CALM,
    NGHTTP2_ERR_DEFERRED, NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE, NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_NONE,
    NGHTTP2_HEADERS, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_RST_STREAM, nghttp2_data_provider,
    nghttp2_data_source, nghttp2_frame, nghttp2_nv, nghttp2_session, nghttp2_submit_headers, nghttp2_submit_request,
    nghttp2_submit_response, nghttp2_submit_rst_stream, nghttp2_submit_trailer,
)
from meshcore.engine.state cimport (
    IO_FAILED, IO_WRITABLE, STREAM_CLOSED, STREAM_DEFERRED, STREAM_ENDED_IN, STREAM_ENDED_OUT, STREAM_HEAD_OUT_DUE,
    STREAM_RESET_WHEN_OUT, STREAM_SENT, STREAM_UNPROCESSED, STREAM_WEBSOCKET, Conn, Session, Stream, Worker,
)
from meshcore.engine.stream cimport stream_set_ready

cdef extern from * nogil:
    """
    /* Length of the head that `text` begins with, its empty line included. Heads are whole and well-formed here. */
    static unsigned mc_head_length(const char* text, unsigned len) {
        const char* end = (const char*)memmem(text, len, "\\r\\n\\r\\n", 4);
        return end ? (unsigned)(end - text) + 4 : len;
    }
    """
    uint32_t http2_head_length "mc_head_length"(const char* text, uint32_t len)


cdef inline void http2_submit(Worker* worker, Session* session, Stream* stream) noexcept nogil:
    """Give the session what this stream has, as far as it is heads; bodies are fetched by http2_on_read."""
    cdef Conn* conn = stream.conn
    cdef Buffer* buffer
    cdef uint32_t len
    while conn.out_buffer != NULL and stream.flags & STREAM_HEAD_OUT_DUE and not stream.flags & STREAM_CLOSED:
        buffer = conn.out_buffer
        len = http2_head_length(buffer.data + buffer.start, buffer.end - buffer.start)
        if not http2_submit_head(session, stream, buffer.data + buffer.start, len,
                                 stream.flags & STREAM_ENDED_OUT and len == buffer.end - buffer.start
                                 and stream.trailers_out == NULL):
            return
        buffer.start += len
        if buffer.start == buffer.end:
            buffer_return(&worker.buffers, buffer)
            conn.out_buffer = NULL
            stream_set_ready(worker, stream, IO_WRITABLE)


cdef inline int http2_submit_head(Session* session, Stream* stream, char* text, uint32_t len, int is_all) noexcept nogil:
    """1, or 0: the stream is lost."""
    cdef nghttp2_session* h2 = <nghttp2_session*>session.h2
    cdef nghttp2_nv fields[256]
    cdef nghttp2_data_provider body
    cdef uint32_t n
    cdef uint32_t status
    cdef int32_t code
    body.source.ptr = stream
    body.read_callback = http2_on_read
    if session.is_client:
        n = http2_fields_of_request(text, len, session.is_secure, stream.flags & STREAM_WEBSOCKET != 0, fields)
        code = nghttp2_submit_request(h2, NULL, fields, n, NULL if is_all else &body, stream) if n else -1
        if code < 0:
            # No ids are left, or the endpoint said GOAWAY: it has seen nothing of this.
            session.is_closing = 1
            stream.flags |= STREAM_UNPROCESSED
            stream_set_ready(session.worker, stream, IO_FAILED)
            return 0
        stream.id = code
        stream.flags &= ~<uint32_t>STREAM_HEAD_OUT_DUE
        return 1
    n = http2_fields_of_response(text, len, fields)
    status = http2_status_of(text, len)
    if n and status < 200 and status != 101:
        return nghttp2_submit_headers(h2, NGHTTP2_FLAG_NONE, stream.id, NULL, fields, n, NULL) >= 0
    code = nghttp2_submit_response(h2, stream.id, fields, n, NULL if is_all else &body) if n else -1
    stream.flags &= ~<uint32_t>STREAM_HEAD_OUT_DUE
    if code < 0:
        http2_reset(session, stream.id, NGHTTP2_INTERNAL_ERROR)
        return 0
    return 1


cdef inline ssize_t http2_on_read(nghttp2_session* h2, int32_t id, uint8_t* out, size_t room, uint32_t* data_flags,
                                  nghttp2_data_source* source, void* data) noexcept nogil:
    """The session can send up to `room` body octets of this stream."""
    cdef Session* session = <Session*>data
    cdef Worker* worker = session.worker
    # Safety: a Stream lives until on_stream_close, and no body is asked for after that.
    cdef Stream* stream = <Stream*>source.ptr
    cdef Conn* conn = stream.conn
    cdef Buffer* buffer
    cdef uint32_t n = 0
    if conn == NULL:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    buffer = conn.out_buffer
    if buffer != NULL:
        n = buffer.end - buffer.start
        if n > room:
            n = <uint32_t>room
        memcpy(out, buffer.data + buffer.start, n)
        buffer.start += n
        if buffer.start == buffer.end:
            buffer_return(&worker.buffers, buffer)
            conn.out_buffer = NULL
            stream_set_ready(worker, stream, IO_WRITABLE)
    if conn.out_buffer == NULL and stream.flags & STREAM_ENDED_OUT:
        data_flags[0] |= NGHTTP2_DATA_FLAG_EOF
        if stream.trailers_out != NULL:
            data_flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
            http2_submit_trailers(h2, stream)
    elif n == 0:
        stream.flags |= STREAM_DEFERRED
        return NGHTTP2_ERR_DEFERRED
    return n


cdef inline void http2_submit_trailers(nghttp2_session* h2, Stream* stream) noexcept nogil:
    cdef nghttp2_nv fields[256]
    cdef Buffer* text = stream.trailers_out
    cdef uint32_t n = http2_fields_of_trailers(text.data + text.start, text.end - text.start, fields)
    nghttp2_submit_trailer(h2, stream.id, fields, n)


cdef inline int http2_on_frame_send(nghttp2_session* h2, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Session* session = <Session*>data
    cdef Stream* stream
    if frame.hd.type == NGHTTP2_DATA:
        session_credit(session)
    if frame.hd.type == NGHTTP2_RST_STREAM:
        http2_note_reset(session, frame.hd.stream_id)
        # A reset the peer provoked counts as one it sent.
        if session.is_client or frame.rst_stream.error_code == NGHTTP2_NO_ERROR \
                or frame.rst_stream.error_code == NGHTTP2_INTERNAL_ERROR:
            return 0
        if session_spend(session, 0, 1):
            session.error_code = NGHTTP2_ENHANCE_YOUR_CALM            # session_flush ends it; here nothing may fail
        return 0
    if session.is_client:
        if frame.hd.type == NGHTTP2_HEADERS:
            stream = session_stream(h2, frame.hd.stream_id)
            if stream != NULL:
                stream.flags |= STREAM_SENT
    elif frame.hd.flags & NGHTTP2_FLAG_END_STREAM \
            and (frame.hd.type == NGHTTP2_DATA or frame.hd.type == NGHTTP2_HEADERS):
        stream = session_stream(h2, frame.hd.stream_id)
        if stream != NULL and stream.flags & STREAM_RESET_WHEN_OUT and not stream.flags & STREAM_ENDED_IN:
            # RFC 9113 8.1: the answer is complete, and the rest of the request is not wanted.
            nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_NO_ERROR)
    return 0
