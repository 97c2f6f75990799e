# What frames mean to streams: header blocks, body octets, ends, and what a peer may make us do for nothing. Acts on streams
# only: exchanges hear of it later, from the ready list (see stream).
#
# Everything a peer can make us do without giving us work is counted against two buckets, whoever it is (session_spend):
# frames that carry nothing, and streams reset, by it or by us for what it did (CVE-2023-44487, CVE-2025-8671,
# CVE-2019-9512 ff.). A bucket run dry ends the connection with ENHANCE_YOUR_CALM. Lengths of header blocks are bounded
# while they are decoded, CONTINUATION frames by their number (http2_read). An error of the connection is left in
# session.error_code, and nothing more is read.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.conn cimport conn_close, conn_open_stream
from meshcore.engine.hpack_read cimport HPACK_BROKEN, HPACK_FIELD, HPACK_MORE, HPACK_TOO_LARGE, HpackField, hpack_read
from meshcore.engine.http2_control cimport control_reset
from meshcore.engine.http2_frame cimport (
    HTTP2_COMPRESSION_ERROR, HTTP2_ENHANCE_YOUR_CALM, HTTP2_INTERNAL_ERROR, HTTP2_NO_ERROR, HTTP2_PROTOCOL_ERROR,
    HTTP2_REFUSED_STREAM,
)
from meshcore.engine.http2_head cimport (
    BLOCK_HAS_LENGTH, BLOCK_REQUEST, BLOCK_RESPONSE, BLOCK_TRAILERS, block_begin, block_end, block_field, block_free,
)
from meshcore.engine.reasons cimport (
    REASON_HEAD_TOO_LARGE, REASON_MALFORMED_HEAD, REASON_OUT_OF_MEMORY, REASON_UPSTREAM_HEAD_TOO_LARGE,
    REASON_UPSTREAM_MALFORMED,
)
from meshcore.engine.state cimport (
    CONN_AWAIT_HEAD, CONN_DOWNSTREAM, FLOW_UNKNOWN_BYTES, IO_FAILED, IO_READABLE, IO_WRITABLE, STREAM_CLOSED,
    STREAM_ENDED_IN, STREAM_HEAD_IN, STREAM_HEAD_TAKEN, STREAM_LEFT_BEHIND, STREAM_SENT, STREAM_UNPROCESSED,
    STREAM_ALL_SENT, STREAM_WEBSOCKET, Conn, Session, Stream, Worker,
)
from meshcore.engine.stream cimport (
    stream_drop_head, stream_find, stream_may_be_reset, stream_note_reset, stream_open, stream_set_id, stream_set_ready,
    stream_unlink,
)

cdef enum:
    FRAMES_BURST = 4000                 # tokens for frames that carry nothing
    FRAMES_PER_S = 200
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


cdef inline void session_spend(Session* session, uint32_t frames, uint32_t resets) noexcept nogil:
    """Take tokens. Without enough the connection ends."""
    if session.frames < frames or session.resets < resets:
        session_refill(session)
        if session.frames < frames or session.resets < resets:
            session.error_code = HTTP2_ENHANCE_YOUR_CALM
            return
    session.frames -= frames
    session.resets -= resets


cdef inline void session_credit(Session* session) noexcept nogil:
    session.frames += FRAME_CREDIT_DATA
    if session.frames > FRAMES_BURST:
        session.frames = FRAMES_BURST


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

cdef inline void http2_begin_block(Session* session, int32_t id, int ends) noexcept nogil:
    cdef Stream* stream = stream_find(session, id)
    cdef uint32_t limit = session.worker.current.snapshot.limits.head_size_bytes
    cdef int kind = BLOCK_REQUEST
    if stream != NULL:
        kind = BLOCK_RESPONSE if session.is_client and not stream.flags & STREAM_HEAD_IN else BLOCK_TRAILERS
    if kind == BLOCK_TRAILERS:
        limit = session.worker.current.snapshot.limits.trailer_size_bytes
    block_begin(&session.block, kind, limit)
    if kind == BLOCK_RESPONSE:
        session.block.is_websocket = stream.flags & STREAM_WEBSOCKET != 0
    session.block_stream = stream
    session.block_id = id
    session.block_ends = ends != 0
    # For a stream that is over, or that nobody will serve: read for the tables' sake only.
    session.block_is_passed_over = stream == NULL and (session.is_client or id > session.goaway_id
                                                       or stream_may_be_reset(session, id))
    if session.block_is_passed_over and not session.is_client:
        session_spend(session, FRAME_COST_UNKNOWN, 0)
    session.reader.has_begun = 0


cdef inline void http2_add_to_block(Session* session, const uint8_t* at, uint32_t n, int is_last) noexcept nogil:
    """A HEADERS or CONTINUATION frame's part of the block."""
    cdef Worker* worker = session.worker
    cdef const uint8_t* end = at + n
    cdef HpackField field
    cdef Buffer* rest = session.block_rest
    cdef int code
    if rest != NULL:
        rest = buffer_append(&worker.buffers, rest, <const char*>at, n)
        if rest == NULL:
            session.error_code = HTTP2_INTERNAL_ERROR
            return
        session.block_rest = rest
        at = <const uint8_t*>rest.data + rest.start
        end = <const uint8_t*>rest.data + rest.end
    code = hpack_read(&session.reader, &at, end, worker.session_out, &field)
    while code == HPACK_FIELD:
        if not session.block_is_passed_over:
            block_field(&worker.buffers, &session.block, field.name, field.name_len, field.value, field.value_len,
                        NULL if field.entry == NULL else &field.entry.hash, &worker.rng)
        code = hpack_read(&session.reader, &at, end, worker.session_out, &field)
    if code == HPACK_BROKEN or code == HPACK_TOO_LARGE or (code == HPACK_MORE and is_last):
        session.error_code = HTTP2_ENHANCE_YOUR_CALM if code == HPACK_TOO_LARGE else HTTP2_COMPRESSION_ERROR
        return
    if code == HPACK_MORE and rest == NULL:
        session.block_rest = buffer_append(&worker.buffers, NULL, <const char*>at, <uint32_t>(end - at))
        if session.block_rest == NULL:
            session.error_code = HTTP2_INTERNAL_ERROR
            return
    elif code == HPACK_MORE:
        rest.start = <uint32_t>(at - <const uint8_t*>rest.data)
    elif rest != NULL:
        buffer_return(&worker.buffers, rest)
        session.block_rest = NULL
    if is_last:
        http2_end_block(session)


cdef inline void http2_end_block(Session* session) noexcept nogil:
    """A header block is complete: what it begins or ends."""
    cdef Worker* worker = session.worker
    cdef int is_request = session.block.kind == BLOCK_REQUEST
    cdef int32_t id = session.block_id
    cdef int ends = session.block_ends
    cdef uint8_t reason
    session.in_block = 0
    session.block_id = 0
    if not session.block_is_passed_over:
        reason = block_end(&worker.buffers, &session.block, ends, is_request and not ends, &worker.rng)
        if not is_request:
            if session.block.kind == BLOCK_RESPONSE:
                http2_on_response(session, session.block_stream, ends, reason)
            else:
                http2_on_trailers(session, session.block_stream, ends, reason)
        elif reason != REASON_MALFORMED_HEAD:
            http2_on_request(session, id, ends, reason)
        else:
            worker.reasons[reason] += 1
            worker.requests += 1
            http2_reset(session, id, HTTP2_PROTOCOL_ERROR)
    block_free(&worker.buffers, &session.block)
    session.block_stream = NULL


cdef inline void http2_on_request(Session* session, int32_t id, int ends, uint8_t reason) noexcept nogil:
    cdef Worker* worker = session.worker
    cdef Conn* down
    cdef Stream* stream
    if session.n_streams >= session.max_peer_streams:
        http2_reset(session, id, HTTP2_REFUSED_STREAM)
        return
    down = conn_open_stream(worker, CONN_DOWNSTREAM, CONN_AWAIT_HEAD)
    if down == NULL:
        http2_reset(session, id, HTTP2_REFUSED_STREAM)
        return
    stream = stream_open(worker, session, down)
    if stream == NULL:
        conn_close(worker, down)
        http2_reset(session, id, HTTP2_REFUSED_STREAM)
        return
    stream_set_id(session, stream, id)
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
    http2_close_if_over(session, stream)


cdef inline void http2_on_trailers(Session* session, Stream* stream, int ends, uint8_t reason) noexcept nogil:
    if reason or not ends or (not session.is_client and stream.length_left
                              and stream.length_left != FLOW_UNKNOWN_BYTES):
        http2_reset(session, stream.id, HTTP2_PROTOCOL_ERROR)       # RFC 9113 8.1: a second block ends its stream
        return
    stream.trailers_in = session.block.text
    session.block.text = NULL
    stream.flags |= STREAM_ENDED_IN
    stream_set_ready(session.worker, stream, IO_READABLE)
    http2_close_if_over(session, stream)


# --- bodies and ends --------------------------------------------------------------------------------------------------

cdef inline void http2_on_data(Session* session, Stream* stream, const uint8_t* at, uint32_t n) noexcept nogil:
    """Body octets. The stream's window opens again when they were taken."""
    cdef Worker* worker = session.worker
    cdef Buffer* grown
    if stream.length_left != FLOW_UNKNOWN_BYTES:
        if n > stream.length_left:
            http2_reset(session, stream.id, HTTP2_PROTOCOL_ERROR)     # RFC 9113 8.1.1: none of it is handed on
            return
        stream.length_left -= n
    grown = buffer_append(&worker.buffers, stream.data, <const char*>at, n)
    if grown == NULL:
        stream.refusal = REASON_OUT_OF_MEMORY
        http2_reset(session, stream.id, HTTP2_INTERNAL_ERROR)
        return
    stream.data = grown
    stream_set_ready(worker, stream, IO_READABLE)


cdef inline void http2_on_end(Session* session, Stream* stream) noexcept nogil:
    """The peer has said all on a stream that was open."""
    if not session.is_client and stream.length_left and stream.length_left != FLOW_UNKNOWN_BYTES:
        http2_reset(session, stream.id, HTTP2_PROTOCOL_ERROR)         # RFC 9113 8.1.1
        return
    stream.flags |= STREAM_ENDED_IN
    stream_set_ready(session.worker, stream, IO_READABLE)
    http2_close_if_over(session, stream)


cdef inline void http2_reset(Session* session, int32_t id, uint32_t code) noexcept nogil:
    """Reset a stream that exists, or that is not to. A reset the peer provoked counts as one it sent."""
    cdef Stream* stream = stream_find(session, id)
    stream_note_reset(session, id)
    control_reset(session, id, code)
    if not session.is_client and code != HTTP2_NO_ERROR and code != HTTP2_INTERNAL_ERROR:
        session_spend(session, 0, 1)
    if stream != NULL:
        http2_close(session, stream, code)


cdef inline void http2_close_if_over(Session* session, Stream* stream) noexcept nogil:
    """Both sides may have said all."""
    if stream.flags & STREAM_ENDED_IN and stream.flags & STREAM_ALL_SENT:
        http2_close(session, stream, HTTP2_NO_ERROR)


cdef inline void http2_close(Session* session, Stream* stream, uint32_t code) noexcept nogil:
    """The session knows this stream no more; its connection hears of it."""
    cdef uint8_t io = IO_READABLE
    stream_unlink(stream)
    stream.session = NULL
    stream.flags |= STREAM_CLOSED
    stream.error_code = code
    if session.is_client and not stream.flags & STREAM_HEAD_IN \
            and (code == HTTP2_REFUSED_STREAM or not stream.flags & STREAM_SENT):
        stream.flags |= STREAM_UNPROCESSED            # RFC 9113 8.7
        if session.is_closing or not stream.flags & STREAM_SENT:
            stream.flags |= STREAM_LEFT_BEHIND
    if code != HTTP2_NO_ERROR and not (session.is_client and stream.flags & STREAM_ENDED_IN):
        io |= IO_FAILED
    stream_set_ready(session.worker, stream, io)
