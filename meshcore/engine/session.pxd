# One HTTP/2 connection: opening, reading, sending, draining, ending. Its frames are nghttp2's, its streams stream's;
# which request goes where is nobody's business here.
#
# What streams of one batch have to send leaves together, in one send a session (session_flush): system calls, not
# header compression, are what HTTP/2 costs. Output that the kernel does not take stays in out_buffer, and the session
# makes no more of it until that is gone.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from meshcore.engine.cells cimport cells_calloc, cells_free, cells_malloc, cells_realloc, cells_release
from meshcore.engine.conn cimport conn_close, conn_deadline, conn_is_secure, conn_open_stream, conn_send
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.http2_head cimport block_free
from meshcore.engine.http2_in cimport (
    FRAMES_BURST, MAX_CONTINUATIONS, http2_on_begin_frame, http2_on_begin_headers, http2_on_data, http2_on_frame_recv,
    http2_on_header, http2_on_stream_close, http2_was_reset, session_stream,
)
from meshcore.engine.http2_out cimport http2_on_frame_send, http2_submit
from meshcore.engine.nghttp2 cimport (
    NGHTTP2_CONTINUATION, NGHTTP2_DATA, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_ERR_FLOODED,
    NGHTTP2_ERR_TOO_MANY_CONTINUATIONS, NGHTTP2_ERR_TOO_MANY_SETTINGS, NGHTTP2_FLAG_NONE, NGHTTP2_NO_ERROR,
    NGHTTP2_PROTOCOL_ERROR, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, NGHTTP2_SETTINGS_ENABLE_PUSH,
    NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
    NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, NGHTTP2_STREAM_CLOSED, nghttp2_mem,
    nghttp2_option, nghttp2_option_del, nghttp2_option_new, nghttp2_option_set_max_continuations,
    nghttp2_option_set_max_outbound_ack, nghttp2_option_set_no_auto_window_update,
    nghttp2_option_set_no_closed_streams, nghttp2_option_set_no_http_messaging, nghttp2_session,
    nghttp2_session_callbacks, nghttp2_session_callbacks_del, nghttp2_session_callbacks_new,
    nghttp2_session_callbacks_set_on_begin_frame_callback, nghttp2_session_callbacks_set_on_begin_headers_callback,
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback, nghttp2_session_callbacks_set_on_frame_recv_callback,
    nghttp2_session_callbacks_set_on_frame_send_callback, nghttp2_session_callbacks_set_on_header_callback,
    nghttp2_session_callbacks_set_on_stream_close_callback, nghttp2_session_client_new3, nghttp2_session_del,
    nghttp2_session_get_last_proc_stream_id, nghttp2_session_get_remote_settings, nghttp2_session_mem_recv, nghttp2_session_mem_send,
    nghttp2_session_server_new3, nghttp2_session_set_local_window_size, nghttp2_session_terminate_session,
    nghttp2_session_want_read, nghttp2_session_want_write, nghttp2_settings_entry, nghttp2_submit_goaway,
    nghttp2_submit_settings, nghttp2_submit_shutdown_notice,
)
from meshcore.engine.snapshot cimport Limits
from meshcore.engine.state cimport (
    CONN_AWAIT_CONNECT, CONN_ERROR, CONN_IN_EXCHANGE, CONN_IN_SESSION, CONN_REUSED, CONN_UPSTREAM, IO_FAILED,
    IO_READABLE, STREAM_CLOSED, STREAM_DIRTY, STREAM_LEFT_BEHIND, STREAM_SENT, STREAM_UNPROCESSED, Conn, Session,
    Stream, Worker,
)
from meshcore.engine.stream cimport stream_forget, stream_mark_session, stream_open, stream_set_ready

cdef enum:
    SESSION_WINDOW_BYTES = 1048576      # of a connection: consumed as it comes, so only a burst has to fit
    SESSION_OUT_BYTES = 65536           # gathered for one send
    SESSION_FRAME_ROOM_BYTES = 17000    # of which one frame takes so much
    SESSION_MAX_ACKS = 100              # PING and SETTINGS answers that may wait to leave
    SESSION_MAX_STREAMS_BEFORE_SETTINGS = 100
    SESSION_NOTICE_NS = 1000000000      # between "no more, soon" and "no more": a round trip and a half of any path


# --- what all sessions of a worker share ------------------------------------------------------------------------------

cdef inline int session_worker_init(Worker* worker) noexcept nogil:
    """1, or 0 without memory."""
    cdef nghttp2_session_callbacks* callbacks = NULL
    cdef nghttp2_option* option = NULL
    worker.session_out = <char*>malloc(SESSION_OUT_BYTES + SESSION_FRAME_ROOM_BYTES)
    if worker.session_out == NULL or nghttp2_session_callbacks_new(&callbacks) != 0:
        return 0
    worker.http2_callbacks = callbacks
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, http2_on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, http2_on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, http2_on_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, http2_on_frame_recv)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, http2_on_data)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, http2_on_stream_close)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, http2_on_frame_send)
    if nghttp2_option_new(&option) != 0:
        return 0
    worker.http2_options = option
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_no_http_messaging(option, 1)   # http2_head is stricter, and has a reason for each refusal
    nghttp2_option_set_no_closed_streams(option, 1)
    nghttp2_option_set_max_outbound_ack(option, SESSION_MAX_ACKS)
    nghttp2_option_set_max_continuations(option, 0x7FFFFFFF)          # counted by session_counts
    return 1


cdef inline void session_worker_free(Worker* worker) noexcept nogil:
    if worker.http2_callbacks != NULL:
        nghttp2_session_callbacks_del(<nghttp2_session_callbacks*>worker.http2_callbacks)
    if worker.http2_options != NULL:
        nghttp2_option_del(<nghttp2_option*>worker.http2_options)
    free(worker.session_out)
    cells_free(&worker.http2_cells)


# --- beginning --------------------------------------------------------------------------------------------------------

cdef inline Session* session_open(Worker* worker, Conn* conn, int is_client) noexcept nogil:
    """Make `conn` a session's. NULL without memory: the connection is as it was."""
    cdef const Limits* limits = &worker.current.snapshot.limits
    cdef Session* session = <Session*>calloc(1, sizeof(Session))
    cdef nghttp2_session* h2 = NULL
    cdef nghttp2_settings_entry settings[5]
    cdef nghttp2_mem memory
    cdef int code
    if session == NULL:
        return NULL
    memory.mem_user_data = &worker.http2_cells        # copied by the session
    memory.malloc = cells_malloc
    memory.free = cells_release
    memory.calloc = cells_calloc
    memory.realloc = cells_realloc
    if is_client:
        code = nghttp2_session_client_new3(&h2, <nghttp2_session_callbacks*>worker.http2_callbacks, session,
                                           <nghttp2_option*>worker.http2_options, &memory)
    else:
        code = nghttp2_session_server_new3(&h2, <nghttp2_session_callbacks*>worker.http2_callbacks, session,
                                           <nghttp2_option*>worker.http2_options, &memory)
    if code != 0:
        free(session)
        return NULL
    session.h2 = h2
    session.worker = worker
    session.conn = conn
    session.is_client = <uint8_t>is_client
    session.is_secure = <uint8_t>conn_is_secure(conn)
    session.max_streams = SESSION_MAX_STREAMS_BEFORE_SETTINGS
    session.preface_left = 0 if is_client else 24
    if is_client and (<EndpointState*>conn.owner).http2_max_streams:
        session.max_streams = (<EndpointState*>conn.owner).http2_max_streams
    session.frames = FRAMES_BURST
    session.resets = limits.http2_max_resets
    session.refilled_ns = worker.now_ns
    settings[0].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[0].value = limits.http2_stream_window_bytes
    settings[1].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[1].value = limits.head_size_bytes
    settings[2].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH if is_client else NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL
    settings[2].value = 0 if is_client else 1
    settings[3].settings_id = NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES
    settings[3].value = 1
    settings[4].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[4].value = limits.http2_max_streams
    nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, settings, 4 if is_client else 5)
    nghttp2_session_set_local_window_size(h2, NGHTTP2_FLAG_NONE, 0, SESSION_WINDOW_BYTES)
    conn.session = session
    conn.state = CONN_IN_SESSION
    if not is_client:
        session.is_connected = session.is_ready = 1
        stream_mark_session(worker, session)
    return session


cdef inline Conn* session_lease(Worker* worker, EndpointState* endpoint) noexcept nogil:
    """A new stream on a session of this endpoint that has room, or NULL."""
    cdef Session* session = <Session*>endpoint.sessions
    while session != NULL:
        if not session.is_closing and session.n_streams < session.max_streams:
            return session_request(worker, session)
        session = session.next
    return NULL


cdef inline int session_is_refusing(EndpointState* endpoint) noexcept nogil:
    """Does the endpoint take no streams at all on a session it has? Then another session would be no better."""
    cdef Session* session = <Session*>endpoint.sessions
    while session != NULL:
        if session.is_ready and session.max_streams == 0:
            return 1
        session = session.next
    return 0


cdef inline int session_takes_websockets(const Session* session) noexcept nogil:
    """Has the endpoint said that it knows extended CONNECT (RFC 8441 3)? Only of a session that is ready."""
    return nghttp2_session_get_remote_settings(<nghttp2_session*>session.h2, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1


cdef inline Conn* session_request(Worker* worker, Session* session) noexcept nogil:
    """A connection that is a new stream of this session. NULL without memory."""
    cdef Conn* conn = conn_open_stream(worker, CONN_UPSTREAM,
                                       CONN_IN_EXCHANGE if session.is_ready else CONN_AWAIT_CONNECT)
    cdef Stream* stream
    if conn == NULL:
        return NULL
    conn.owner = session.conn.owner
    stream = stream_open(worker, session, conn)
    conn.channel = stream
    if stream == NULL:
        conn_close(worker, conn)
        return NULL
    if session.has_served:
        conn.flags |= CONN_REUSED
    session.conn.requests += 1
    if session.conn.requests == session.max_requests:
        session.is_closing = 1          # RFC 9113 5.1.1: no GOAWAY is needed to open no more
    return conn


cdef inline void session_adopt(Session* session, EndpointState* endpoint) noexcept nogil:
    """Keep a session with its endpoint, for requests to come."""
    session.next = <Session*>endpoint.sessions
    if session.next != NULL:
        session.next.prev = session
    endpoint.sessions = session


# --- reading and sending ----------------------------------------------------------------------------------------------

cdef inline int session_feed(Worker* worker, Session* session, const char* at, uint32_t n) noexcept nogil:
    """Let the session read. 1, or 0: it is at its end, and what it has to say about that is to be flushed."""
    cdef ssize_t code
    stream_mark_session(worker, session)
    if session_counts(session, <const uint8_t*>at, n):
        code = nghttp2_session_mem_recv(<nghttp2_session*>session.h2, <const uint8_t*>at, n)
        if code >= 0:
            return 1
    else:
        code = NGHTTP2_ERR_TOO_MANY_CONTINUATIONS
    if session.error_code == 0:
        session.error_code = NGHTTP2_ENHANCE_YOUR_CALM if code == NGHTTP2_ERR_FLOODED \
            or code == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS or code == NGHTTP2_ERR_TOO_MANY_SETTINGS \
            else NGHTTP2_PROTOCOL_ERROR
    session.is_closing = session.has_ended = 1
    nghttp2_session_terminate_session(<nghttp2_session*>session.h2, session.error_code)
    return 0


cdef inline int session_counts(Session* session, const uint8_t* at, uint32_t n) noexcept nogil:
    """Follow the frames in what came, for what nghttp2 counts by reads and not by frames: CONTINUATION, of which a block
    may have so many (VU#421644); and for what it passes over in silence: DATA on a stream that has ended. 0: the end."""
    cdef uint32_t i = 0
    cdef uint32_t step
    if session.preface_left:
        i = session.preface_left if session.preface_left < n else n
        session.preface_left -= <uint8_t>i
    while i < n:
        if session.frame_left:
            step = session.frame_left if session.frame_left < n - i else n - i
            session.frame_left -= step
            i += step
            continue
        session.frame_head[session.frame_head_len] = at[i]
        session.frame_head_len += 1
        i += 1
        if session.frame_head_len < 9:
            continue
        session.frame_head_len = 0
        session.frame_left = <uint32_t>session.frame_head[0] << 16 | <uint32_t>session.frame_head[1] << 8 \
            | session.frame_head[2]
        if session.frame_head[3] != NGHTTP2_CONTINUATION:
            session.n_continuations = 0
            if session.frame_head[3] == NGHTTP2_DATA and not session.is_client and not session_awaits_data(session):
                session.error_code = NGHTTP2_STREAM_CLOSED
                return 0
        else:
            session.n_continuations += 1
            if session.n_continuations > MAX_CONTINUATIONS:
                return 0
    return 1


cdef inline int session_awaits_data(const Session* session) noexcept nogil:
    # Of streams that nghttp2 has not come to yet (their HEADERS may stand before this in the same read) nothing is said.
    cdef int32_t id = (<int32_t>session.frame_head[5] & 0x7F) << 24 | <int32_t>session.frame_head[6] << 16 \
        | <int32_t>session.frame_head[7] << 8 | session.frame_head[8]
    return id == 0 or id > session.last_id or (session.in_block and id == session.last_id) \
        or session_stream(<nghttp2_session*>session.h2, id) != NULL or http2_was_reset(session, id) or http2_was_reset(session, -id)


cdef inline int session_flush(Worker* worker, Session* session) noexcept nogil:
    """Send what its streams have. 1, or 0: the connection is broken, or has nothing left to live for."""
    cdef nghttp2_session* h2 = <nghttp2_session*>session.h2
    cdef Conn* conn = session.conn
    cdef Stream* stream
    cdef const uint8_t* frames
    cdef ssize_t n
    cdef uint32_t held = 0
    if not session.is_connected or conn.out_buffer != NULL:
        return 1
    if session.wants_drain:
        session.wants_drain = 0
        session_drain(worker, session)
    while session.dirty != NULL:
        stream = session.dirty
        session.dirty = stream.dirty_next
        stream.flags &= ~<uint32_t>STREAM_DIRTY
        if stream.conn != NULL:
            http2_submit(worker, session, stream)
    while conn.out_buffer == NULL:
        if session.error_code and not session.has_ended:
            session.is_closing = session.has_ended = 1
            nghttp2_session_terminate_session(h2, session.error_code)
        n = nghttp2_session_mem_send(h2, &frames)
        if n < 0:
            return 0
        if n:
            memcpy(worker.session_out + held, frames, n)
            held += <uint32_t>n
        if held and (n == 0 or held >= SESSION_OUT_BYTES):
            if conn_send(worker, conn, worker.session_out, held) == CONN_ERROR:
                return 0
            held = 0
        if n == 0:
            break
    return conn.out_buffer != NULL or nghttp2_session_want_read(h2) or nghttp2_session_want_write(h2)


# --- the end ----------------------------------------------------------------------------------------------------------

cdef inline void session_drain(Worker* worker, Session* session) noexcept nogil:
    """No further streams; those that run finish (RFC 9113 6.8: first a notice, for requests on their way)."""
    if session.is_closing:
        return
    session.is_closing = 1
    if not session.is_client:
        if session.n_streams:
            nghttp2_submit_shutdown_notice(<nghttp2_session*>session.h2)
            conn_deadline(worker, session.conn, worker.now_ns + SESSION_NOTICE_NS)
            session.is_stalled = 0
        else:
            session_refuse_more(worker, session)
    stream_mark_session(worker, session)


cdef inline void session_retire(Worker* worker, EndpointState* endpoint) noexcept nogil:
    """The endpoint left the configuration: its sessions end when their streams have."""
    cdef Session* session = <Session*>endpoint.sessions
    while session != NULL:
        session_drain(worker, session)
        session = session.next


cdef inline void session_refuse_more(Worker* worker, Session* session) noexcept nogil:
    """The grace after the notice is over: streams that come now are not served."""
    cdef nghttp2_session* h2 = <nghttp2_session*>session.h2
    nghttp2_submit_goaway(h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2), NGHTTP2_NO_ERROR,
                          NULL, 0)
    session.has_said_goaway = 1
    stream_mark_session(worker, session)


cdef inline void session_stop(Worker* worker, Session* session) noexcept nogil:
    """Say goodbye and read no more: with the goodbye's leaving the session is over."""
    session.is_closing = session.has_ended = 1
    nghttp2_session_terminate_session(<nghttp2_session*>session.h2, NGHTTP2_NO_ERROR)
    stream_mark_session(worker, session)


cdef inline void session_end(Worker* worker, Session* session) noexcept nogil:
    """The connection is lost or done: every stream hears of it. The socket is the caller's to close."""
    cdef Stream* stream
    cdef EndpointState* endpoint = <EndpointState*>session.conn.owner
    # Safety: nghttp2_session_del does not call on_stream_close.
    nghttp2_session_del(<nghttp2_session*>session.h2)
    block_free(&worker.buffers, &session.block)
    while session.streams != NULL:
        stream = session.streams
        if stream.conn == NULL:
            stream_forget(worker, stream)
            continue
        session.streams = stream.next
        if stream.next != NULL:
            stream.next.prev = NULL
        stream.session = NULL
        stream.flags = (stream.flags | STREAM_CLOSED) & ~<uint32_t>STREAM_DIRTY
        if session.is_client and not stream.flags & STREAM_SENT:
            stream.flags |= STREAM_UNPROCESSED | STREAM_LEFT_BEHIND
        stream_set_ready(worker, stream, IO_FAILED | IO_READABLE)
    if session.is_client:
        if session.prev != NULL:
            session.prev.next = session.next
        elif endpoint.sessions == session:
            endpoint.sessions = session.next
        if session.next != NULL:
            session.next.prev = session.prev
    session.conn.session = NULL
    session.h2 = NULL
    session.conn = NULL
    if not session.is_dirty:            # else the list of dirty sessions threads through it: session_next_dirty
        free(session)


cdef inline Session* session_next_dirty(Worker* worker) noexcept nogil:
    """Take a session off the list of those with something to send, or NULL."""
    cdef Session* session = worker.dirty_sessions
    while session != NULL:
        worker.dirty_sessions = session.dirty_next
        session.is_dirty = 0
        if session.h2 != NULL:
            return session
        free(session)
        session = worker.dirty_sessions
    return NULL
