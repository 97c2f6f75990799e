# What a session has to say besides heads and bodies: its control frames, in the order they were asked for, and its windows.
# They wait in one buffer of the session, which leaves before anything else of it; nothing here sends.
#
# What a peer can have us say is bounded where it asks for it (see http2_in): answers it does not read, and resets it provokes.

from libc.stdint cimport int32_t, uint32_t

from meshcore.engine.buffer cimport Buffer, buffer_append
from meshcore.engine.http2_frame cimport (
    FLAG_ACK, FRAME_GOAWAY, FRAME_HEAD_BYTES, FRAME_PING, FRAME_RST_STREAM, FRAME_SETTINGS, FRAME_WINDOW_UPDATE,
    HTTP2_ENHANCE_YOUR_CALM, HTTP2_INTERNAL_ERROR, frame_put, frame_put_word,
)
from meshcore.engine.state cimport Session, Worker

cdef enum:
    CONTROL_MAX_ANSWERS = 100           # to PING and SETTINGS, waiting to leave
    CONTROL_MAX_BYTES = 65536           # as much as one send gathers


cdef inline void control_mark(Session* session) noexcept nogil:
    """It has something to send."""
    cdef Worker* worker = session.worker
    if not session.is_dirty:
        session.is_dirty = 1
        session.dirty_next = worker.dirty_sessions
        worker.dirty_sessions = session


cdef inline void control_say(Session* session, const char* frames, uint32_t n) noexcept nogil:
    """Have these octets sent. Where they find no room the session ends: it could not keep its word."""
    cdef Buffer* grown
    control_mark(session)
    if session.control != NULL and session.control.end + n > CONTROL_MAX_BYTES:
        if session.error_code == 0:
            session.error_code = HTTP2_ENHANCE_YOUR_CALM
        return
    grown = buffer_append(&session.worker.buffers, session.control, frames, n)
    if grown != NULL:
        session.control = grown
    elif session.error_code == 0:
        session.error_code = HTTP2_INTERNAL_ERROR


cdef inline void control_reset(Session* session, int32_t id, uint32_t code) noexcept nogil:
    cdef char frame[13]
    frame_put_word(frame_put(frame, 4, FRAME_RST_STREAM, 0, id), code)
    control_say(session, frame, FRAME_HEAD_BYTES + 4)


cdef inline void control_window(Session* session, int32_t id, uint32_t n) noexcept nogil:
    """The peer may send `n` octets more; of the whole connection where `id` is 0."""
    cdef char frame[13]
    frame_put_word(frame_put(frame, 4, FRAME_WINDOW_UPDATE, 0, id), n)
    control_say(session, frame, FRAME_HEAD_BYTES + 4)


cdef inline void control_goaway(Session* session, int32_t last_id, uint32_t code) noexcept nogil:
    cdef char frame[17]
    frame_put_word(frame_put_word(frame_put(frame, 8, FRAME_GOAWAY, 0, 0), <uint32_t>last_id), code)
    control_say(session, frame, FRAME_HEAD_BYTES + 8)


cdef inline void control_answer(Session* session, uint32_t type, const char* payload, uint32_t n) noexcept nogil:
    """Acknowledge a PING (with its eight octets) or SETTINGS (with none)."""
    cdef char frame[17]
    cdef uint32_t i
    session.n_answers += 1
    if session.n_answers > CONTROL_MAX_ANSWERS:
        session.error_code = HTTP2_ENHANCE_YOUR_CALM
        return
    frame_put(frame, n, type, FLAG_ACK, 0)
    for i in range(n):
        frame[FRAME_HEAD_BYTES + i] = payload[i]
    control_say(session, frame, FRAME_HEAD_BYTES + n)
