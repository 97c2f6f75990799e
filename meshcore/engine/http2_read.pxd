# Octets of an HTTP/2 connection as frames, each in the state it may come in (RFC 9113 4, 5.1, 6). What they mean to streams is
# http2_in's.
#
# A frame is judged by its head, as soon as that is there, and acted on once it is whole; only DATA, and what is passed over,
# is handed on as it comes. So no verdict depends on how octets are cut (SPLIT_SAME), and no more than one frame is kept. An
# error of the connection is left in session.error_code: then nothing more is read.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp

from meshcore.engine.buffer cimport Buffer, buffer_append, buffer_return
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.hpack_write cimport hpack_limit
from meshcore.engine.http2_control cimport control_answer, control_window
from meshcore.engine.http2_frame cimport (
    FLAG_ACK, FLAG_END_HEADERS, FLAG_END_STREAM, FLAG_PADDED, FLAG_PRIORITY, FRAME_CONTINUATION, FRAME_DATA,
    FRAME_GOAWAY, FRAME_HEAD_BYTES, FRAME_HEADERS, FRAME_MAX_PAYLOAD_BYTES, FRAME_PAYLOAD_BYTES, FRAME_PING,
    FRAME_PRIORITY, FRAME_PUSH_PROMISE, FRAME_RST_STREAM, FRAME_SETTINGS, FRAME_WINDOW_UPDATE, HTTP2_ENHANCE_YOUR_CALM,
    HTTP2_FLOW_CONTROL_ERROR, HTTP2_FRAME_SIZE_ERROR, HTTP2_INTERNAL_ERROR, HTTP2_PREFACE, HTTP2_PROTOCOL_ERROR,
    HTTP2_REFUSED_STREAM, HTTP2_STREAM_CLOSED, PREFACE_BYTES, SETTING_ENABLE_CONNECT_PROTOCOL, SETTING_ENABLE_PUSH,
    SETTING_HEADER_TABLE_SIZE, SETTING_INITIAL_WINDOW_SIZE, SETTING_MAX_CONCURRENT_STREAMS, SETTING_MAX_FRAME_SIZE,
    WINDOW_MAX_BYTES, Frame, frame_read, frame_word,
)
from meshcore.engine.http2_in cimport (
    FRAME_COST_EMPTY, FRAME_COST_PING, FRAME_COST_SETTINGS, FRAME_COST_UNKNOWN, FRAME_COST_WINDOW_UPDATE,
    http2_add_to_block, http2_begin_block, http2_close, http2_on_data, http2_on_end, http2_on_ready, http2_reset,
    session_credit, session_spend,
)
from meshcore.engine.reasons cimport REASON_UPSTREAM_MALFORMED
from meshcore.engine.state cimport STREAM_ENDED_IN, STREAM_HEAD_IN, STREAM_STALLED, Session, Stream
from meshcore.engine.stream cimport (
    stream_find, stream_give_back, stream_mark, stream_may_be_reset, stream_note_reset, stream_was_reset,
)

cdef enum:
    SESSION_WINDOW_BYTES = 1048576      # of a connection: given back as it comes, so only a burst has to fit
    MAX_CONTINUATIONS = 8               # in a row: a head of 128 KiB in frames of the usual size (VU#421644)
    MAX_SETTINGS = 32                   # in one frame; there are a dozen (CVE-2020-11080)


cdef inline int http2_read(Session* session, const uint8_t* at, uint32_t n) noexcept nogil:
    """Take octets that came. 1, or 0: session.error_code says why the connection ends."""
    cdef const uint8_t* found
    while session.preface_left and n:
        if at[0] != <uint8_t>HTTP2_PREFACE[PREFACE_BYTES - session.preface_left]:
            session.error_code = HTTP2_PROTOCOL_ERROR
            return 0
        session.preface_left -= 1
        at += 1
        n -= 1
    while session.error_code == 0:
        if not session.in_frame:
            found = http2_gather(session, &at, &n, FRAME_HEAD_BYTES)
            if found == NULL:
                break
            frame_read(&session.frame, found)
            http2_begin_frame(session)
        elif session.frame.type == FRAME_DATA or session.frame.type > FRAME_CONTINUATION:
            if not http2_read_on(session, &at, &n):
                break
        else:
            found = http2_gather(session, &at, &n, session.frame.length)
            if found == NULL:
                break
            session.in_frame = 0
            http2_act(session, found)
    if session.partial != NULL and session.partial.end == 0:
        buffer_return(&session.worker.buffers, session.partial)
        session.partial = NULL
    return session.error_code == 0


cdef inline const uint8_t* http2_gather(Session* session, const uint8_t** at, uint32_t* n, uint32_t wanted) noexcept nogil:
    """The next `wanted` octets in one piece, good until the next call; NULL while they have not all come."""
    cdef uint32_t held = 0 if session.partial == NULL else session.partial.end
    cdef uint32_t step = wanted - held
    cdef const uint8_t* found = at[0]
    cdef Buffer* grown
    if step > n[0]:
        step = n[0]
    at[0] += step
    n[0] -= step
    if step == wanted:
        return found
    if step:
        grown = buffer_append(&session.worker.buffers, session.partial, <const char*>found, step)
        if grown == NULL:
            session.error_code = HTTP2_INTERNAL_ERROR
            return NULL
        session.partial = grown
    if held + step < wanted:
        return NULL
    session.partial.end = 0             # what lies there is good until something is appended
    return <const uint8_t*>session.partial.data


# --- the head of a frame ----------------------------------------------------------------------------------------------

cdef inline void http2_begin_frame(Session* session) noexcept nogil:
    cdef const Frame* frame = &session.frame
    session.in_frame = 1
    session.payload_left = frame.length
    session.padding_left = FRAME_MAX_PAYLOAD_BYTES if frame.flags & FLAG_PADDED else 0        # not known yet
    if frame.length > FRAME_PAYLOAD_BYTES:
        session.error_code = HTTP2_FRAME_SIZE_ERROR
    elif not session.has_settings and (frame.type != FRAME_SETTINGS or frame.flags & FLAG_ACK):
        session.error_code = HTTP2_PROTOCOL_ERROR     # RFC 9113 3.4
    elif (session.block_id != 0) != (frame.type == FRAME_CONTINUATION) \
            or (session.block_id and frame.id != session.block_id):
        session.error_code = HTTP2_PROTOCOL_ERROR     # RFC 9113 6.10: a block is whole before anything else
    elif not http2_length_is_possible(frame):
        session.error_code = HTTP2_FRAME_SIZE_ERROR
    elif not http2_id_is_possible(session, frame):
        if session.error_code == 0:
            session.error_code = HTTP2_PROTOCOL_ERROR
    else:
        http2_count(session, frame)
        if session.error_code == 0 and frame.type == FRAME_DATA:
            http2_begin_data(session, frame)


cdef inline int http2_length_is_possible(const Frame* frame) noexcept nogil:
    if frame.type == FRAME_HEADERS or frame.type == FRAME_DATA:
        return frame.length >= (1 if frame.flags & FLAG_PADDED else 0) \
            + <uint32_t>(5 if frame.type == FRAME_HEADERS and frame.flags & FLAG_PRIORITY else 0)
    if frame.type == FRAME_SETTINGS:
        return frame.length == 0 if frame.flags & FLAG_ACK else frame.length % 6 == 0
    if frame.type == FRAME_PRIORITY:
        return frame.length == 5
    if frame.type == FRAME_RST_STREAM or frame.type == FRAME_WINDOW_UPDATE:
        return frame.length == 4
    if frame.type == FRAME_PING:
        return frame.length == 8
    return frame.type != FRAME_GOAWAY or frame.length >= 8


cdef inline int http2_id_is_possible(Session* session, const Frame* frame) noexcept nogil:
    """May a frame of this type name this stream now? (RFC 9113 5.1, 5.1.1)"""
    if frame.type == FRAME_SETTINGS or frame.type == FRAME_PING or frame.type == FRAME_GOAWAY:
        return frame.id == 0
    if frame.type == FRAME_WINDOW_UPDATE and frame.id == 0:
        return 1
    if frame.type == FRAME_PUSH_PROMISE:
        return 0                        # clients never may, and servers were told that we take none
    if frame.type > FRAME_CONTINUATION or frame.type == FRAME_CONTINUATION:
        return 1
    if frame.id == 0:
        return 0
    if frame.type == FRAME_PRIORITY:
        return 1
    if session.is_client:
        return frame.id & 1 and frame.id < session.next_id and http2_may_say_more(session, frame)
    if frame.id <= session.last_id:
        return http2_may_say_more(session, frame)
    if frame.type != FRAME_HEADERS or not frame.id & 1:
        return 0
    session.last_id = frame.id
    return 1


cdef inline int http2_may_say_more(Session* session, const Frame* frame) noexcept nogil:
    """A stream was opened once: it takes no heads and bodies behind its end. What was on its way to one we reset is passed
    over, and so is what an endpoint says on any stream that is over."""
    cdef Stream* stream
    if frame.type != FRAME_HEADERS and frame.type != FRAME_DATA:
        return 1
    stream = stream_find(session, frame.id)
    if stream != NULL and not session.is_client and frame.type == FRAME_DATA and frame.length > stream.length_left \
            and not frame.flags & FLAG_PADDED:
        http2_reset(session, frame.id, HTTP2_PROTOCOL_ERROR)          # RFC 9113 8.1.1, however the frame is cut
        return session.error_code == 0
    if stream != NULL and not stream.flags & STREAM_ENDED_IN:
        return 1
    if stream == NULL and (session.is_client or stream_may_be_reset(session, frame.id) or frame.id > session.goaway_id
                           or (frame.type == FRAME_DATA and stream_was_reset(session, -frame.id))):
        return 1
    session.error_code = HTTP2_STREAM_CLOSED
    return 0


cdef inline void http2_count(Session* session, const Frame* frame) noexcept nogil:
    """What this frame costs its sender (see session_spend)."""
    if frame.type == FRAME_DATA:
        if frame.length == 0 and not frame.flags & FLAG_END_STREAM:
            session_spend(session, FRAME_COST_EMPTY, 0)
        else:
            session_credit(session)
    elif frame.type == FRAME_HEADERS:
        session.in_block = 1
        session.n_continuations = 0
    elif frame.type == FRAME_CONTINUATION:
        session.n_continuations += 1
        if session.n_continuations > MAX_CONTINUATIONS:
            session.error_code = HTTP2_ENHANCE_YOUR_CALM
    elif frame.type == FRAME_WINDOW_UPDATE:
        session_spend(session, FRAME_COST_WINDOW_UPDATE, 0)
    elif frame.type == FRAME_PING:
        session_spend(session, FRAME_COST_PING, 0)
    elif frame.type == FRAME_SETTINGS:
        if not frame.flags & FLAG_ACK:
            session_spend(session, FRAME_COST_SETTINGS, 0)
    elif frame.type != FRAME_RST_STREAM:
        session_spend(session, FRAME_COST_UNKNOWN, 0)


# --- DATA, and what is passed over --------------------------------------------------------------------------------------

cdef inline void http2_begin_data(Session* session, const Frame* frame) noexcept nogil:
    """Windows are used by all of a frame, its padding included. The connection's opens again at once, so that a stream nobody
    reads cannot stop its siblings."""
    cdef Stream* stream = stream_find(session, frame.id)
    if <int32_t>frame.length > session.window_bytes:
        session.error_code = HTTP2_FLOW_CONTROL_ERROR
        return
    session.window_bytes -= <int32_t>frame.length
    session.taken_bytes += frame.length
    if session.taken_bytes >= SESSION_WINDOW_BYTES // 2:
        control_window(session, 0, session.taken_bytes)
        session.window_bytes += <int32_t>session.taken_bytes
        session.taken_bytes = 0
    if stream == NULL:
        return
    if session.is_client and not stream.flags & STREAM_HEAD_IN:
        stream.refusal = REASON_UPSTREAM_MALFORMED    # RFC 9113 8.1: a head comes first
        http2_reset(session, frame.id, HTTP2_PROTOCOL_ERROR)
    elif <int32_t>frame.length > stream.window_bytes:
        http2_reset(session, frame.id, HTTP2_FLOW_CONTROL_ERROR)
    else:
        stream.window_bytes -= <int32_t>frame.length


cdef inline int http2_read_on(Session* session, const uint8_t** at, uint32_t* n) noexcept nogil:
    """Hand on what came of the payload. 1, or 0: more has to come first."""
    cdef Stream* stream = NULL
    cdef uint32_t step
    if session.frame.type == FRAME_DATA:
        # Safety: found anew each time, since an exchange may end it between two reads.
        stream = stream_find(session, session.frame.id)
        if session.padding_left == FRAME_MAX_PAYLOAD_BYTES:
            if n[0] == 0:
                return 0
            session.padding_left = at[0][0]
            at[0] += 1
            n[0] -= 1
            if session.padding_left >= session.frame.length:
                session.error_code = HTTP2_PROTOCOL_ERROR
                return 0
            session.payload_left = session.frame.length - 1 - session.padding_left
            if stream != NULL and not session.frame.flags & FLAG_END_STREAM:
                stream_give_back(stream, session.padding_left + 1)
    elif session.padding_left:
        session.padding_left = 0        # of a type we do not know: all of it is payload
    step = session.payload_left if session.payload_left < n[0] else n[0]
    if step and stream != NULL:
        http2_on_data(session, stream, at[0], step)
        stream = NULL if session.error_code else stream_find(session, session.frame.id)
    session.payload_left -= step
    at[0] += step
    n[0] -= step
    step = session.padding_left if session.padding_left < n[0] else n[0]
    session.padding_left -= step
    at[0] += step
    n[0] -= step
    if session.payload_left or session.padding_left:
        return 0
    session.in_frame = 0
    if stream != NULL and session.frame.flags & FLAG_END_STREAM:
        http2_on_end(session, stream)
    return 1


# --- frames that are whole ----------------------------------------------------------------------------------------------

cdef inline void http2_act(Session* session, const uint8_t* payload) noexcept nogil:
    cdef const Frame* frame = &session.frame
    cdef Stream* stream
    if frame.type == FRAME_HEADERS:
        http2_headers(session, frame, payload)
    elif frame.type == FRAME_CONTINUATION:
        http2_add_to_block(session, payload, frame.length, frame.flags & FLAG_END_HEADERS)
    elif frame.type == FRAME_WINDOW_UPDATE:
        http2_window_update(session, frame.id, frame_word(payload) & 0x7FFFFFFF)
    elif frame.type == FRAME_RST_STREAM:
        stream = stream_find(session, frame.id)
        if stream != NULL:
            http2_close(session, stream, frame_word(payload))
        if not session.is_client:
            stream_note_reset(session, -frame.id)
            session_spend(session, 0, 1)
    elif frame.type == FRAME_SETTINGS:
        if not frame.flags & FLAG_ACK:
            http2_settings(session, payload, frame.length)
        elif session.awaits_settings_ack:
            session.awaits_settings_ack = 0
        else:
            session.error_code = HTTP2_PROTOCOL_ERROR
    elif frame.type == FRAME_PING:
        if not frame.flags & FLAG_ACK:
            control_answer(session, FRAME_PING, <const char*>payload, 8)
    elif frame.type == FRAME_GOAWAY:
        http2_goaway(session, <int32_t>(frame_word(payload) & 0x7FFFFFFF))
    elif frame.type == FRAME_PRIORITY and <int32_t>(frame_word(payload) & 0x7FFFFFFF) == frame.id:
        session.error_code = HTTP2_PROTOCOL_ERROR     # RFC 7540 5.3.1; else priorities are passed over


cdef inline void http2_headers(Session* session, const Frame* frame, const uint8_t* payload) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t end = frame.length
    cdef uint32_t padding = 0
    if frame.flags & FLAG_PADDED:
        padding = payload[0]
        at = 1
    if frame.flags & FLAG_PRIORITY:
        if <int32_t>(frame_word(payload + at) & 0x7FFFFFFF) == frame.id:
            session.error_code = HTTP2_PROTOCOL_ERROR
            return
        at += 5
    if padding > end - at:
        session.error_code = HTTP2_PROTOCOL_ERROR
        return
    http2_begin_block(session, frame.id, frame.flags & FLAG_END_STREAM)
    http2_add_to_block(session, payload + at, end - padding - at, frame.flags & FLAG_END_HEADERS)


cdef inline void http2_window_update(Session* session, int32_t id, uint32_t n) noexcept nogil:
    cdef Stream* stream
    if n == 0:
        session.error_code = HTTP2_PROTOCOL_ERROR
    elif id:
        stream = stream_find(session, id)
        if stream == NULL:
            return
        if <int64_t>stream.send_window_bytes + n > WINDOW_MAX_BYTES:
            http2_reset(session, id, HTTP2_FLOW_CONTROL_ERROR)
            return
        stream.send_window_bytes += <int32_t>n
        http2_unstall(session, stream)
    elif <int64_t>session.send_window_bytes + n > WINDOW_MAX_BYTES:
        session.error_code = HTTP2_FLOW_CONTROL_ERROR
    else:
        session.send_window_bytes += <int32_t>n
        if session.is_choked:
            session.is_choked = 0
            stream = session.streams
            while stream != NULL:
                http2_unstall(session, stream)
                stream = stream.next


cdef inline void http2_unstall(Session* session, Stream* stream) noexcept nogil:
    if stream.flags & STREAM_STALLED and stream.send_window_bytes > 0:
        stream.flags &= ~<uint32_t>STREAM_STALLED
        stream_mark(session.worker, stream)


cdef inline void http2_settings(Session* session, const uint8_t* at, uint32_t length) noexcept nogil:
    cdef uint32_t setting
    cdef uint32_t value
    cdef uint32_t i
    if length > MAX_SETTINGS * 6:
        session.error_code = HTTP2_ENHANCE_YOUR_CALM
        return
    session.has_settings = 1
    for i in range(0, length, 6):
        setting = <uint32_t>at[i] << 8 | at[i + 1]
        value = frame_word(at + i + 2)
        if setting == SETTING_HEADER_TABLE_SIZE:
            hpack_limit(&session.writer, value)
        elif setting == SETTING_MAX_CONCURRENT_STREAMS:
            session.max_streams = value
            if session.is_client:
                (<EndpointState*>session.conn.owner).http2_max_streams = value
        elif setting == SETTING_INITIAL_WINDOW_SIZE:
            http2_set_first_window(session, value)
        elif (setting == SETTING_ENABLE_PUSH and value > <uint32_t>(not session.is_client)) \
                or (setting == SETTING_MAX_FRAME_SIZE and not FRAME_PAYLOAD_BYTES <= value <= FRAME_MAX_PAYLOAD_BYTES) \
                or (setting == SETTING_ENABLE_CONNECT_PROTOCOL and (value > 1 or value < session.peer_takes_connect)):
            session.error_code = HTTP2_PROTOCOL_ERROR
        elif setting == SETTING_ENABLE_CONNECT_PROTOCOL:
            session.peer_takes_connect = <uint8_t>value
        if session.error_code:
            return
    control_answer(session, FRAME_SETTINGS, NULL, 0)
    if session.is_client:
        http2_on_ready(session)


cdef inline void http2_set_first_window(Session* session, uint32_t value) noexcept nogil:
    """RFC 9113 6.9.2: streams that are open gain or lose the difference."""
    cdef int64_t gain = <int64_t>value - session.peer_window_bytes
    cdef Stream* stream = session.streams
    if value > <uint32_t>WINDOW_MAX_BYTES:
        session.error_code = HTTP2_FLOW_CONTROL_ERROR
        return
    session.peer_window_bytes = <int32_t>value
    while stream != NULL:
        if stream.id and stream.send_window_bytes + gain > WINDOW_MAX_BYTES:
            session.error_code = HTTP2_FLOW_CONTROL_ERROR
            return
        if stream.id:
            stream.send_window_bytes += <int32_t>gain
            http2_unstall(session, stream)
        stream = stream.next


cdef inline void http2_goaway(Session* session, int32_t last_id) noexcept nogil:
    """The peer takes no more streams; those above `last_id` it has done nothing with (RFC 9113 6.8)."""
    cdef Stream* stream = session.streams
    cdef Stream* following
    if session.peer_goaway_id >= 0 and last_id > session.peer_goaway_id:
        session.error_code = HTTP2_PROTOCOL_ERROR
        return
    session.peer_goaway_id = last_id
    session.is_closing = 1
    while stream != NULL and session.is_client:
        following = stream.next
        if stream.id > last_id:
            http2_close(session, stream, HTTP2_REFUSED_STREAM)
        stream = following
