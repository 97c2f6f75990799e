# What a session says while it reads: header blocks, body octets, ends. Called by nghttp2, and acts on streams only:
# exchanges hear of it later, from the ready list (see stream).
#
# Everything a peer can make us do without giving us work is counted against two buckets, whoever it is (session_spend):
# frames that carry nothing, and streams reset, by it or by us for what it did (CVE-2023-44487, CVE-2025-8671,
# CVE-2019-9512 ff.). A bucket run dry ends the connection with ENHANCE_YOUR_CALM. Lengths of header blocks are bounded
# while they are decoded, CONTINUATION frames and settings by nghttp2 itself.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.buffer cimport Buffer, buffer_append
from meshcore.engine.conn cimport conn_open_stream
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.http2_head cimport (
    BLOCK_HAS_LENGTH, BLOCK_REQUEST, BLOCK_RESPONSE, BLOCK_TRAILERS, block_begin, block_end, block_field, block_free,
)
from meshcore.engine.nghttp2 cimport (
    NGHTTP2_CONTINUATION, NGHTTP2_DATA, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_ERR_CALLBACK_FAILURE, NGHTTP2_FLAG_ACK,
    NGHTTP2_FLAG_END_STREAM, NGHTTP2_FLAG_NONE, NGHTTP2_FLAG_PADDED, NGHTTP2_GOAWAY, NGHTTP2_HEADERS,
    NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR, NGHTTP2_PING, NGHTTP2_PRIORITY, NGHTTP2_PROTOCOL_ERROR,
    NGHTTP2_PUSH_PROMISE, NGHTTP2_REFUSED_STREAM, NGHTTP2_RST_STREAM, NGHTTP2_SETTINGS,
    NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, NGHTTP2_STREAM_CLOSED, NGHTTP2_WINDOW_UPDATE, nghttp2_frame,
    nghttp2_frame_hd, nghttp2_session, nghttp2_session_consume_connection, nghttp2_session_consume_stream,
    nghttp2_session_get_remote_settings, nghttp2_session_get_stream_user_data, nghttp2_session_set_stream_user_data,
    nghttp2_submit_rst_stream,
)
from meshcore.engine.reasons cimport (
    REASON_HEAD_TOO_LARGE, REASON_MALFORMED_HEAD, REASON_OUT_OF_MEMORY, REASON_UPSTREAM_HEAD_TOO_LARGE,
    REASON_UPSTREAM_MALFORMED,
)
from meshcore.engine.state cimport (
    CONN_AWAIT_HEAD, CONN_DOWNSTREAM, FLOW_UNKNOWN_BYTES, IO_FAILED, IO_READABLE, IO_WRITABLE, STREAM_CLOSED,
    STREAM_ENDED_IN, STREAM_HEAD_IN, STREAM_HEAD_TAKEN, STREAM_LEFT_BEHIND, STREAM_SENT, STREAM_UNPROCESSED,
    STREAM_WEBSOCKET, Conn, Session, Stream, Worker,
)
from meshcore.engine.stream cimport (
    stream_drop_head, stream_forget, stream_mark_session, stream_open, stream_set_ready, stream_unlink,
)

cdef enum:
    FRAMES_BURST = 4000                 # tokens for frames that carry nothing
    FRAMES_PER_S = 200
    RESETS_REMEMBERED = 32
    MAX_CONTINUATIONS = 8               # in a row: a head of 128 KiB in frames of the usual size
    LAST_STREAM_ID = 0x7FFFFFFF
    RESETS_REFILL_S = 6                 # a burst of resets is forgotten after so long: 33 a second of 200

cdef enum FrameCost:                    # tokens; the dearer, the more work for us and the rarer in honest traffic
    FRAME_COST_WINDOW_UPDATE = 1
    FRAME_COST_PING = 4
    FRAME_COST_UNKNOWN = 5
    FRAME_COST_EMPTY = 20
    FRAME_COST_SETTINGS = 20
    FRAME_CREDIT_DATA = 2               # honest peers send window updates and pings for what they are sent


cdef inline void session_refill(Session* session) noexcept nogil:
    cdef uint32_t resets = session.worker.current.snapshot.limits.http2_max_resets
    cdef uint64_t passed_ms = (session.worker.now_ns - session.refilled_ns) // 1000000
    cdef uint64_t n
    if passed_ms < 10:
        return
    session.refilled_ns = session.worker.now_ns
    n = session.frames + passed_ms * FRAMES_PER_S // 1000
    session.frames = <uint32_t>n if n < FRAMES_BURST else FRAMES_BURST
    n = session.resets + passed_ms * resets // (RESETS_REFILL_S * 1000)
    session.resets = <uint32_t>n if n < resets else resets


cdef inline int session_spend(Session* session, uint32_t frames, uint32_t resets) noexcept nogil:
    """Take tokens. 0, or what a callback returns to end the connection."""
    if session.frames < frames or session.resets < resets:
        session_refill(session)
        if session.frames < frames or session.resets < resets:
            session.error_code = NGHTTP2_ENHANCE_YOUR_CALM
            return NGHTTP2_ERR_CALLBACK_FAILURE
    session.frames -= frames
    session.resets -= resets
    return 0


cdef inline void session_credit(Session* session) noexcept nogil:
    session.frames += FRAME_CREDIT_DATA
    if session.frames > FRAMES_BURST:
        session.frames = FRAMES_BURST


cdef inline Stream* session_stream(nghttp2_session* h2, int32_t id) noexcept nogil:
    return <Stream*>nghttp2_session_get_stream_user_data(h2, id)


# --- frames -----------------------------------------------------------------------------------------------------------

cdef inline int http2_on_begin_frame(nghttp2_session* h2, const nghttp2_frame_hd* hd, void* data) noexcept nogil:
    cdef Session* session = <Session*>data
    if not session.is_client and not http2_stream_is_known(session, h2, hd):
        return NGHTTP2_ERR_CALLBACK_FAILURE
    if hd.type == NGHTTP2_DATA:
        if hd.length == 0 and not hd.flags & NGHTTP2_FLAG_END_STREAM:
            return session_spend(session, FRAME_COST_EMPTY, 0)
        session_credit(session)
        return 0
    if hd.type == NGHTTP2_HEADERS or hd.type == NGHTTP2_RST_STREAM or hd.type == NGHTTP2_CONTINUATION:
        return 0
    if hd.type == NGHTTP2_WINDOW_UPDATE:
        return session_spend(session, FRAME_COST_WINDOW_UPDATE, 0)
    if hd.type == NGHTTP2_PING:
        return session_spend(session, FRAME_COST_PING, 0)
    if hd.type == NGHTTP2_SETTINGS:
        return 0 if hd.flags & NGHTTP2_FLAG_ACK else session_spend(session, FRAME_COST_SETTINGS, 0)
    if hd.type == NGHTTP2_PUSH_PROMISE and session.is_client:
        session.error_code = NGHTTP2_PROTOCOL_ERROR   # we said that we take none
        return NGHTTP2_ERR_CALLBACK_FAILURE
    return session_spend(session, FRAME_COST_UNKNOWN, 0)


cdef inline int http2_stream_is_known(Session* session, nghttp2_session* h2, const nghttp2_frame_hd* hd) noexcept nogil:
    """RFC 9113 5.1, 5.1.1: a client opens streams in order, and says no more on one that has ended. nghttp2 passes over
    that, since it does not remember; what was on its way to a stream we reset is passed over here too."""
    cdef Stream* stream
    if hd.type == NGHTTP2_PRIORITY and hd.stream_id == 0:
        session.error_code = NGHTTP2_PROTOCOL_ERROR
        return 0
    if (hd.type != NGHTTP2_HEADERS and hd.type != NGHTTP2_DATA) or hd.stream_id == 0:
        return 1
    if hd.stream_id > session.last_id:
        if hd.type == NGHTTP2_HEADERS:
            session.last_id = hd.stream_id
        return 1
    stream = session_stream(h2, hd.stream_id)
    if stream != NULL and hd.type == NGHTTP2_DATA and hd.length > stream.length_left \
            and not hd.flags & NGHTTP2_FLAG_PADDED and not http2_was_reset(session, hd.stream_id):
        http2_reset(session, hd.stream_id, NGHTTP2_PROTOCOL_ERROR)    # RFC 9113 8.1.1, however the frame is cut
    if stream != NULL or http2_was_reset(session, hd.stream_id) \
            or (hd.type == NGHTTP2_DATA and http2_was_reset(session, -hd.stream_id)):
        return 1
    session.error_code = NGHTTP2_STREAM_CLOSED
    return 0


cdef inline int http2_was_reset(const Session* session, int32_t id) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>RESETS_REMEMBERED):
        if session.reset_ids[i] == id:
            return 1
    return 0


cdef inline void http2_note_reset(Session* session, int32_t id) noexcept nogil:
    """We reset this stream (or are about to): its client cannot know yet. Negative: the client reset it, and may have DATA
    of it in the same write; whether that is seen before or behind the reset must not matter."""
    if not http2_was_reset(session, id):
        session.reset_ids[session.n_resets % RESETS_REMEMBERED] = id
        session.n_resets += 1


cdef inline int http2_on_frame_recv(nghttp2_session* h2, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Session* session = <Session*>data
    cdef Stream* stream
    cdef int ends = frame.hd.flags & NGHTTP2_FLAG_END_STREAM
    if frame.hd.type == NGHTTP2_HEADERS:
        return http2_on_block(session, frame.hd.stream_id, ends)
    if frame.hd.type == NGHTTP2_DATA:
        stream = session_stream(h2, frame.hd.stream_id)
        if ends and stream != NULL and not session.is_client and stream.length_left != FLOW_UNKNOWN_BYTES \
                and stream.length_left:
            http2_reset(session, frame.hd.stream_id, NGHTTP2_PROTOCOL_ERROR)          # RFC 9113 8.1.1
        elif ends and stream != NULL:
            stream.flags |= STREAM_ENDED_IN
            stream_set_ready(session.worker, stream, IO_READABLE)
    elif frame.hd.type == NGHTTP2_RST_STREAM and not session.is_client:
        http2_note_reset(session, -frame.hd.stream_id)
        return session_spend(session, 0, 1)
    elif frame.hd.type == NGHTTP2_SETTINGS and not frame.hd.flags & NGHTTP2_FLAG_ACK:
        session.max_streams = nghttp2_session_get_remote_settings(h2, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
        if session.is_client:
            (<EndpointState*>session.conn.owner).http2_max_streams = session.max_streams
            http2_on_ready(session)
    elif frame.hd.type == NGHTTP2_GOAWAY:
        session.is_closing = 1
    return 0


cdef inline void http2_on_ready(Session* session) noexcept nogil:
    """The endpoint has said how many streams it takes: those that wait begin, and who is too many goes elsewhere."""
    cdef Stream* stream = session.streams
    cdef uint32_t n = 0
    session.worker.serve_queues = 1
    if session.is_ready:
        return
    session.is_ready = 1
    while stream != NULL:
        n += 1
        if n > session.max_streams:
            stream.flags |= STREAM_UNPROCESSED | STREAM_LEFT_BEHIND
            stream_set_ready(session.worker, stream, IO_FAILED)
        else:
            stream_set_ready(session.worker, stream, IO_WRITABLE)
        stream = stream.next


# --- header blocks ----------------------------------------------------------------------------------------------------

cdef inline int http2_on_begin_headers(nghttp2_session* h2, const nghttp2_frame* frame, void* data) noexcept nogil:
    cdef Session* session = <Session*>data
    cdef Stream* stream = session_stream(h2, frame.hd.stream_id)
    cdef uint32_t limit = session.worker.current.snapshot.limits.head_size_bytes
    cdef int kind = BLOCK_REQUEST
    if stream != NULL:
        kind = BLOCK_RESPONSE if session.is_client and not stream.flags & STREAM_HEAD_IN else BLOCK_TRAILERS
    if kind == BLOCK_TRAILERS:
        limit = session.worker.current.snapshot.limits.trailer_size_bytes
    block_free(&session.worker.buffers, &session.block)
    block_begin(&session.block, kind, limit)
    if kind == BLOCK_RESPONSE:
        session.block.is_websocket = stream.flags & STREAM_WEBSOCKET != 0
    session.block_stream = stream
    session.in_block = 1
    return 0


cdef inline int http2_on_header(nghttp2_session* h2, const nghttp2_frame* frame, const uint8_t* name, size_t name_len,
                                const uint8_t* value, size_t value_len, uint8_t flags, void* data) noexcept nogil:
    cdef Session* session = <Session*>data
    block_field(&session.worker.buffers, &session.block, <const char*>name, <uint32_t>name_len, <const char*>value,
                <uint32_t>value_len, &session.worker.rng)
    return 0


cdef inline int http2_on_block(Session* session, int32_t id, int ends) noexcept nogil:
    """A header block is complete: what it begins or ends."""
    cdef Worker* worker = session.worker
    cdef int is_request = session.block.kind == BLOCK_REQUEST
    cdef uint8_t reason = block_end(&worker.buffers, &session.block, ends, is_request and not ends, &worker.rng)
    session.in_block = 0
    if is_request:
        if session.is_client:
            reason = REASON_MALFORMED_HEAD            # for a stream we gave up
        elif reason != REASON_MALFORMED_HEAD:
            http2_on_request(session, id, ends, reason)
        else:
            worker.reasons[reason] += 1
            worker.requests += 1
            http2_reset(session, id, NGHTTP2_PROTOCOL_ERROR)
    elif session.block_stream != NULL and session.block_stream.conn != NULL:
        if session.block.kind == BLOCK_RESPONSE:
            http2_on_response(session, session.block_stream, ends, reason)
        else:
            http2_on_trailers(session, session.block_stream, ends, reason)
    block_free(&worker.buffers, &session.block)
    session.block_stream = NULL
    return 0


cdef inline void http2_on_request(Session* session, int32_t id, int ends, uint8_t reason) noexcept nogil:
    cdef Worker* worker = session.worker
    cdef Conn* down
    cdef Stream* stream = NULL
    down = conn_open_stream(worker, CONN_DOWNSTREAM, CONN_AWAIT_HEAD)
    if down != NULL:
        stream = stream_open(worker, session, down)
    if stream == NULL:
        http2_reset(session, id, NGHTTP2_REFUSED_STREAM)
        return
    stream.id = id
    nghttp2_session_set_stream_user_data(<nghttp2_session*>session.h2, id, stream)
    down.channel = stream
    down.owner = session.conn.owner
    down.peer_port = session.conn.peer_port
    down.peer_text_len = session.conn.peer_text_len
    memcpy(down.peer_text, session.conn.peer_text, 16)
    memcpy(down.peer_address, session.conn.peer_address, 16)
    down.original_family = session.conn.original_family
    down.original_port = session.conn.original_port
    memcpy(down.original_address, session.conn.original_address, 16)
    session.conn.requests += 1
    if session.conn.requests == worker.current.snapshot.limits.max_requests_per_connection or id == LAST_STREAM_ID:
        session.wants_drain = 1
    if session.block.seen & BLOCK_HAS_LENGTH:
        stream.length_left = session.block.length
    stream.head = session.block.text
    session.block.text = NULL
    stream.refusal = reason
    stream.flags |= STREAM_HEAD_IN | (STREAM_ENDED_IN if ends else 0)
    stream_set_ready(worker, stream, IO_READABLE | IO_WRITABLE)


cdef inline void http2_on_response(Session* session, Stream* stream, int ends, uint8_t reason) noexcept nogil:
    cdef Worker* worker = session.worker
    cdef int is_final = session.block.status >= 200
    cdef Buffer* grown
    if reason == 0 and ends and not is_final:
        reason = REASON_MALFORMED_HEAD
    if reason == 0 and stream.head != NULL and not stream.flags & STREAM_HEAD_TAKEN:
        # Behind an interim response that nobody has looked at yet.
        grown = buffer_append(&worker.buffers, stream.head, session.block.text.data, session.block.text.end)
        if grown == NULL or grown.end > 2 * session.block.limit_bytes:
            reason = REASON_HEAD_TOO_LARGE
        if grown != NULL:
            stream.head = grown
    elif reason == 0:
        stream_drop_head(worker, stream)
        stream.head = session.block.text
        session.block.text = NULL
    if reason:
        stream.refusal = REASON_UPSTREAM_HEAD_TOO_LARGE if reason != REASON_MALFORMED_HEAD \
            else REASON_UPSTREAM_MALFORMED
    if is_final:
        session.has_served = 1
        stream.flags |= STREAM_HEAD_IN | (STREAM_ENDED_IN if ends else 0)
    stream_set_ready(worker, stream, IO_READABLE)


cdef inline void http2_on_trailers(Session* session, Stream* stream, int ends, uint8_t reason) noexcept nogil:
    if reason or not ends or (not session.is_client and stream.length_left
                              and stream.length_left != FLOW_UNKNOWN_BYTES):
        http2_reset(session, stream.id, NGHTTP2_PROTOCOL_ERROR)       # RFC 9113 8.1: a second block ends its stream
        return
    stream.trailers_in = session.block.text
    session.block.text = NULL
    stream.flags |= STREAM_ENDED_IN
    stream_set_ready(session.worker, stream, IO_READABLE)


cdef inline void http2_reset(Session* session, int32_t id, uint32_t code) noexcept nogil:
    http2_note_reset(session, id)
    nghttp2_submit_rst_stream(<nghttp2_session*>session.h2, NGHTTP2_FLAG_NONE, id, code)
    stream_mark_session(session.worker, session)


# --- bodies -----------------------------------------------------------------------------------------------------------

cdef inline int http2_on_data(nghttp2_session* h2, uint8_t flags, int32_t id, const uint8_t* at, size_t n,
                              void* data) noexcept nogil:
    """Body octets. The connection's window opens again at once, so that a stream nobody reads cannot stop its siblings;
    the stream's own when its octets were taken."""
    cdef Session* session = <Session*>data
    cdef Worker* worker = session.worker
    cdef Stream* stream = session_stream(h2, id)
    cdef Buffer* grown
    nghttp2_session_consume_connection(h2, n)
    stream_mark_session(worker, session)
    if stream == NULL or stream.conn == NULL or (not session.is_client and http2_was_reset(session, id)):
        nghttp2_session_consume_stream(h2, id, n)
        return 0
    if stream.length_left != FLOW_UNKNOWN_BYTES:
        if n > stream.length_left:
            http2_reset(session, id, NGHTTP2_PROTOCOL_ERROR)          # RFC 9113 8.1.1: none of it is handed on
            return 0
        stream.length_left -= n
    grown = buffer_append(&worker.buffers, stream.data, <const char*>at, <uint32_t>n)
    if grown == NULL:
        stream.refusal = REASON_OUT_OF_MEMORY
        http2_reset(session, id, NGHTTP2_INTERNAL_ERROR)
        return 0
    stream.data = grown
    stream_set_ready(worker, stream, IO_READABLE)
    return 0


cdef inline int http2_on_stream_close(nghttp2_session* h2, int32_t id, uint32_t code, void* data) noexcept nogil:
    cdef Session* session = <Session*>data
    cdef Stream* stream = session_stream(h2, id)
    cdef uint8_t io = IO_READABLE
    if stream == NULL:
        return 0
    nghttp2_session_set_stream_user_data(h2, id, NULL)
    if stream.conn == NULL:
        stream_forget(session.worker, stream)
        return 0
    stream.flags |= STREAM_CLOSED
    stream.error_code = code
    stream_unlink(stream)
    stream.session = NULL
    if session.is_client and not stream.flags & STREAM_HEAD_IN \
            and (code == NGHTTP2_REFUSED_STREAM or not stream.flags & STREAM_SENT):
        stream.flags |= STREAM_UNPROCESSED            # RFC 9113 8.7
        if session.is_closing or not stream.flags & STREAM_SENT:
            stream.flags |= STREAM_LEFT_BEHIND
    if code != NGHTTP2_NO_ERROR and not (session.is_client and stream.flags & STREAM_ENDED_IN):
        io |= IO_FAILED
    stream_set_ready(session.worker, stream, io)
    return 0
