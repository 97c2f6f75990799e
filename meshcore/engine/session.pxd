# One HTTP/2 connection: opening, reading, sending, draining, ending. Its frames are http2_read's and http2_out's, its streams
# stream's; which request goes where is nobody's business here.
#
# What streams of one batch have to send leaves together, in one send a session (session_flush): system calls, not
# header compression, are what HTTP/2 costs. Output that the kernel does not take stays in out_buffer, and the session
# makes no more of it until that is gone.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from meshcore.engine.buffer cimport buffer_return
from meshcore.engine.conn cimport conn_close, conn_deadline, conn_is_secure, conn_open_stream
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.hpack_read cimport HPACK_SCRATCH_BYTES
from meshcore.engine.hpack_table cimport hpack_table_free, hpack_table_init
from meshcore.engine.hpack_write cimport hpack_writer_init
from meshcore.engine.http2_control cimport control_goaway, control_mark, control_say, control_window
from meshcore.engine.http2_frame cimport (
    FRAME_HEAD_BYTES, FRAME_SETTINGS, HTTP2_NO_ERROR, HTTP2_PREFACE, PREFACE_BYTES, SETTING_ENABLE_CONNECT_PROTOCOL,
    SETTING_ENABLE_PUSH, SETTING_INITIAL_WINDOW_SIZE, SETTING_MAX_CONCURRENT_STREAMS, SETTING_MAX_HEADER_LIST_SIZE,
    SETTING_NO_RFC7540_PRIORITIES, WINDOW_FIRST_BYTES, WINDOW_MAX_BYTES, frame_put, frame_put_setting,
)
from meshcore.engine.http2_head cimport block_free
from meshcore.engine.http2_in cimport FRAMES_BURST
from meshcore.engine.http2_out cimport OUT_BYTES, OUT_ROOM_BYTES, http2_write
from meshcore.engine.http2_read cimport SESSION_WINDOW_BYTES, http2_read
from meshcore.engine.snapshot cimport Limits
from meshcore.engine.state cimport (
    CONN_AWAIT_CONNECT, CONN_IN_EXCHANGE, CONN_IN_SESSION, CONN_REUSED, CONN_UPSTREAM, IO_FAILED, IO_READABLE,
    STREAM_CLOSED, STREAM_DIRTY, STREAM_LEFT_BEHIND, STREAM_SENT, STREAM_UNPROCESSED, Conn, Session, Stream, Worker,
)
from meshcore.engine.stream cimport stream_open, stream_set_ready

cdef enum:
    SESSION_MAX_STREAMS_BEFORE_SETTINGS = 100
    SESSION_NOTICE_NS = 1000000000      # between "no more, soon" and "no more": a round trip and a half of any path


# --- what all sessions of a worker share ------------------------------------------------------------------------------

cdef inline int session_worker_init(Worker* worker) noexcept nogil:
    """1, or 0 without memory."""
    # Fields are decoded where frames are gathered, at other times; pages never used stay untouched.
    cdef uint32_t size = OUT_BYTES + OUT_ROOM_BYTES
    worker.session_out = <char*>malloc(size if size > HPACK_SCRATCH_BYTES else HPACK_SCRATCH_BYTES)
    return worker.session_out != NULL


cdef inline void session_worker_free(Worker* worker) noexcept nogil:
    free(worker.session_out)


# --- beginning --------------------------------------------------------------------------------------------------------

cdef inline Session* session_open(Worker* worker, Conn* conn, int is_client) noexcept nogil:
    """Make `conn` a session's. NULL without memory: the connection is as it was."""
    cdef const Limits* limits = &worker.current.snapshot.limits
    cdef Session* session = <Session*>calloc(1, sizeof(Session))
    if session == NULL:
        return NULL
    session.worker = worker
    session.conn = conn
    session.is_client = <uint8_t>is_client
    session.is_secure = <uint8_t>conn_is_secure(conn)
    session.max_streams = SESSION_MAX_STREAMS_BEFORE_SETTINGS
    session.max_peer_streams = 0 if is_client else limits.http2_max_streams
    session.preface_left = 0 if is_client else PREFACE_BYTES
    if is_client and (<EndpointState*>conn.owner).http2_max_streams:
        session.max_streams = (<EndpointState*>conn.owner).http2_max_streams
    session.frames = FRAMES_BURST
    session.resets = limits.http2_max_resets
    session.refilled_ns = worker.now_ns
    session.send_window_bytes = session.peer_window_bytes = WINDOW_FIRST_BYTES
    session.window_bytes = SESSION_WINDOW_BYTES
    session.stream_window_bytes = <int32_t>limits.http2_stream_window_bytes
    session.awaits_settings_ack = 1
    session.next_id = 1
    session.goaway_id = WINDOW_MAX_BYTES
    session.peer_goaway_id = -1
    hpack_table_init(&session.reader.table)
    hpack_writer_init(&session.writer)
    conn.session = session
    conn.state = CONN_IN_SESSION
    if not is_client:
        session.is_connected = session.is_ready = 1
    session_greet(session, limits)
    return session


cdef inline void session_greet(Session* session, const Limits* limits) noexcept nogil:
    """What each side says first (RFC 9113 3.4), and our window for the connection."""
    cdef char greeting[64]
    cdef char* payload = greeting + FRAME_HEAD_BYTES
    cdef char* at
    if session.is_client:
        memcpy(greeting, HTTP2_PREFACE, PREFACE_BYTES)
        payload += PREFACE_BYTES
    at = frame_put_setting(payload, SETTING_INITIAL_WINDOW_SIZE, limits.http2_stream_window_bytes)
    at = frame_put_setting(at, SETTING_MAX_HEADER_LIST_SIZE, limits.head_size_bytes)
    at = frame_put_setting(at, SETTING_NO_RFC7540_PRIORITIES, 1)
    if session.is_client:
        at = frame_put_setting(at, SETTING_ENABLE_PUSH, 0)
    else:
        at = frame_put_setting(at, SETTING_ENABLE_CONNECT_PROTOCOL, 1)
        at = frame_put_setting(at, SETTING_MAX_CONCURRENT_STREAMS, limits.http2_max_streams)
    frame_put(payload - FRAME_HEAD_BYTES, <uint32_t>(at - payload), FRAME_SETTINGS, 0, 0)
    control_say(session, greeting, <uint32_t>(at - greeting))
    control_window(session, 0, SESSION_WINDOW_BYTES - WINDOW_FIRST_BYTES)


cdef inline Conn* session_lease(Worker* worker, EndpointState* endpoint) noexcept nogil:
    """A new stream on a session of this endpoint that has room, or NULL."""
    cdef Session* session = <Session*>endpoint.sessions
    while session != NULL:
        if not session.is_closing and session.n_streams < session.max_streams:
            return session_request(worker, session)
        session = session.next
    return NULL


cdef inline int session_has_room(EndpointState* endpoint) noexcept nogil:
    """Would session_lease find one?"""
    cdef Session* session = <Session*>endpoint.sessions
    while session != NULL and (session.is_closing or session.n_streams >= session.max_streams):
        session = session.next
    return session != NULL


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
    return session.peer_takes_connect


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
    control_mark(session)               # its deadlines may have changed, if nothing else
    if http2_read(session, <const uint8_t*>at, n):
        return 1
    session_fail(session)
    return 0


cdef inline int session_flush(Worker* worker, Session* session) noexcept nogil:
    """Send what its streams have. 1, or 0: the connection is broken, or has nothing left to live for."""
    if not session.is_connected or session.conn.out_buffer != NULL:
        return 1
    if session.wants_drain:
        session.wants_drain = 0
        session_drain(worker, session)
    if session.error_code and not session.has_ended:
        session_fail(session)
    if not http2_write(worker, session):
        return 0
    return not session.has_ended or session.conn.out_buffer != NULL


# --- the end ----------------------------------------------------------------------------------------------------------

cdef inline int32_t session_last_served(const Session* session) noexcept nogil:
    """Streams above it came when none were taken any more, and were passed over: no GOAWAY may name them (RFC 9113 6.8)."""
    return session.last_id if session.last_id < session.goaway_id else session.goaway_id


cdef inline void session_fail(Session* session) noexcept nogil:
    """The connection ends for session.error_code: the peer is told, and no more is read."""
    session.is_closing = session.has_ended = 1
    control_goaway(session, session_last_served(session), session.error_code)


cdef inline void session_drain(Worker* worker, Session* session) noexcept nogil:
    """No further streams; those that run finish (RFC 9113 6.8: first a notice, for requests on their way)."""
    if session.is_closing:
        return
    session.is_closing = 1
    if not session.is_client:
        if session.n_streams:
            control_goaway(session, WINDOW_MAX_BYTES, HTTP2_NO_ERROR)
            conn_deadline(worker, session.conn, worker.now_ns + SESSION_NOTICE_NS)
            session.is_stalled = 0
        else:
            session_refuse_more(worker, session)
    control_mark(session)


cdef inline void session_retire(Worker* worker, EndpointState* endpoint) noexcept nogil:
    """The endpoint left the configuration: its sessions end when their streams have."""
    cdef Session* session = <Session*>endpoint.sessions
    while session != NULL:
        session_drain(worker, session)
        session = session.next


cdef inline void session_refuse_more(Worker* worker, Session* session) noexcept nogil:
    """The grace after the notice is over: streams that come now are not served."""
    session.goaway_id = session.last_id
    control_goaway(session, session.last_id, HTTP2_NO_ERROR)
    session.has_said_goaway = 1


cdef inline void session_stop(Worker* worker, Session* session) noexcept nogil:
    """Say goodbye and read no more: with the goodbye's leaving the session is over."""
    if session.has_ended:
        return
    session.is_closing = session.has_ended = 1
    control_goaway(session, session_last_served(session), HTTP2_NO_ERROR)


cdef inline void session_end(Worker* worker, Session* session) noexcept nogil:
    """The connection is lost or done: every stream hears of it. The socket is the caller's to close."""
    cdef Stream* stream
    cdef EndpointState* endpoint = <EndpointState*>session.conn.owner
    session_free_buffers(worker, session)
    while session.streams != NULL:
        stream = session.streams
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
    session.conn = NULL
    if not session.is_dirty:            # else the list of dirty sessions threads through it: session_next_dirty
        free(session)


cdef inline void session_free_buffers(Worker* worker, Session* session) noexcept nogil:
    block_free(&worker.buffers, &session.block)
    if session.control != NULL:
        buffer_return(&worker.buffers, session.control)
    if session.partial != NULL:
        buffer_return(&worker.buffers, session.partial)
    if session.block_rest != NULL:
        buffer_return(&worker.buffers, session.block_rest)
    session.control = session.partial = session.block_rest = NULL
    hpack_table_free(&session.reader.table)
    hpack_table_free(&session.writer.table)


cdef inline Session* session_next_dirty(Worker* worker) noexcept nogil:
    """Take a session off the list of those with something to send, or NULL."""
    cdef Session* session = worker.dirty_sessions
    while session != NULL:
        worker.dirty_sessions = session.dirty_next
        session.is_dirty = 0
        if session.conn != NULL:
            return session
        free(session)
        session = worker.dirty_sessions
    return NULL
