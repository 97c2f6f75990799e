# One direction's body: from the connection that sends it to the one that receives it, re-framed on the way.
# Decides nothing about the exchange; says what happened and lets its caller act.
#
# Backpressure is the absence of reading: while the receiver has unsent output (or a full pipe), the sender's bytes
# stay in the kernel, and TCP tells the other end. So the most a direction ever holds is one read.
# Chunked bodies are decoded in place and encoded anew (never passed on raw); lengths are counted, not parsed;
# long lengths go by splice without entering user space.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.base64 cimport BASE64_MALFORMED, base64_begin, base64_decode, base64_encode, base64_end
from meshcore.engine.conn cimport (
    conn_end, conn_is_full, conn_is_plain, conn_keep_input, conn_recv, conn_run_later, conn_send, conn_send2, conn_settle,
)
from meshcore.engine.framing cimport (
    CHUNK_DONE, CHUNK_MORE, chunk_decode_at, chunk_free, chunk_reset, chunk_trailers, chunk_write_header,
)
from meshcore.engine.grpc_web cimport GRPC_WEB_FRAME_BYTES, GRPC_WEB_TEXT, grpc_web_write_frame
from meshcore.engine.pipe cimport PIPE_BYTES, pipe_lease, pipe_return
from meshcore.engine.reasons cimport REASON_BAD_FRAMING, REASON_BAD_GRPC_WEB, REASON_BODY_TOO_LARGE
from meshcore.engine.snapshot cimport Limits
from meshcore.engine.socket cimport socket_note_received, socket_note_sent
from meshcore.engine.state cimport (
    CONN_EOF, CONN_ERROR, CONN_OK, FLOW_CHUNKED, FLOW_DONE, FLOW_EMPTY, FLOW_LENGTH, FLOW_OPEN, FLOW_RAW, FLOW_STREAM,
    FLOW_UNKNOWN_BYTES, FLOW_UNTIL_CLOSE, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, IO_WRITABLE, READ_BYTES,
    READ_LARGE_BYTES, Conn, Flow, Stream, Worker,
)
from meshcore.engine.sys cimport EAGAIN, EINTR, MSG_PEEK, sys_recv, sys_splice

cdef enum FlowCode:
    FLOW_AWAIT_INPUT = 0                # the sender has nothing more now
    FLOW_AWAIT_OUTPUT = 1               # the receiver must drain first
    FLOW_FINISHED = 2                   # the last byte was handed on (perhaps into out_buffer)
    FLOW_SENDER_CLOSED = 3              # before the body's end
    FLOW_SENDER_FAILED = 4
    FLOW_RECEIVER_FAILED = 5
    FLOW_GO_ON = 6                      # of one step inside a turn: nothing blocks yet
    FLOW_MALFORMED = 16                 # + reason

cdef enum:
    SPLICE_MIN_BYTES = 131072           # below, two copies are cheaper than two more system calls
    SPLICE_RAW_BYTES = 32768            # a raw direction that brings less at a time is copied again
    FLOW_TURN_BYTES = 1048576           # then others get their turn
    FLOW_WEB_TRAILERS_BYTES = 65536     # as base64, they have to fit into scratch


cdef inline void flow_open(Flow* flow, uint8_t framing_in, uint8_t framing_out, uint64_t length) noexcept nogil:
    flow.framing_in = framing_in
    flow.framing_out = framing_out
    flow.remaining_bytes = length
    flow.moved_bytes = 0
    flow.piped_bytes = 0
    flow.is_bulk = 0
    flow.decodes = flow.grpc_web = 0
    base64_begin(&flow.base64)
    flow.pipe.read_fd = flow.pipe.write_fd = -1
    flow.state = FLOW_OPEN
    if framing_in == FLOW_EMPTY or (framing_in == FLOW_LENGTH and length == 0):
        flow.state = FLOW_DONE
    if framing_in == FLOW_CHUNKED:
        chunk_reset(&flow.decoder)
    if framing_in == FLOW_RAW:
        flow.capture_bytes = 0          # no body, and no end of it


cdef inline void flow_close(Worker* worker, Flow* flow) noexcept nogil:
    """Give back what the direction holds."""
    pipe_return(worker, flow)
    if flow.framing_in == FLOW_CHUNKED:
        chunk_free(&flow.decoder)
    flow.framing_in = FLOW_EMPTY
    flow.state = FLOW_DONE


cdef inline int flow_take(Flow* flow, char* data, uint32_t n, uint32_t* used, char** body, uint32_t* body_len,
                          const Limits* limits) noexcept nogil:
    """Split input into body bytes, in place: sets what was used of `data` and where the body bytes lie.

    FLOW_AWAIT_INPUT, FLOW_FINISHED (this was the end), or FLOW_MALFORMED + reason.
    """
    cdef int code = flow_split(flow, data, n, used, body, body_len, limits)
    if flow.decodes and code < FLOW_MALFORMED:
        body_len[0] = base64_decode(&flow.base64, body[0], body_len[0])
        if body_len[0] == BASE64_MALFORMED or (code == FLOW_FINISHED and flow.base64.place):
            body_len[0] = 0
            return FLOW_MALFORMED + REASON_BAD_GRPC_WEB
    if flow.capture_bytes and code < FLOW_MALFORMED:
        flow_capture(flow, body[0], body_len[0])
    return code


cdef inline void flow_capture(Flow* flow, const char* body, uint32_t body_len) noexcept nogil:
    # A copy for who taps bodies, as far as its room goes.
    cdef uint32_t n = body_len if body_len < flow.capture_bytes else flow.capture_bytes
    memcpy(flow.captured.data + flow.captured.end, body, n)
    flow.captured.end += n
    flow.capture_bytes -= n


cdef inline int flow_split(Flow* flow, char* data, uint32_t n, uint32_t* used, char** body, uint32_t* body_len,
                           const Limits* limits) noexcept nogil:
    cdef uint32_t body_at
    cdef int code
    body[0] = data
    if flow.framing_in == FLOW_LENGTH:
        used[0] = n if n < flow.remaining_bytes else <uint32_t>flow.remaining_bytes
        body_len[0] = used[0]
        flow.remaining_bytes -= used[0]
        flow.moved_bytes += used[0]
        if flow.remaining_bytes == 0:
            flow.state = FLOW_DONE
            return FLOW_FINISHED
        return FLOW_AWAIT_INPUT
    if flow.framing_in == FLOW_CHUNKED:
        code = chunk_decode_at(&flow.decoder, data, n, &body_at, body_len, used, limits)
        body[0] = data + body_at
        flow.moved_bytes += body_len[0]
        if code == CHUNK_MORE:
            return FLOW_AWAIT_INPUT
        if code == CHUNK_DONE:
            flow.state = FLOW_DONE
            return FLOW_FINISHED
        return code                     # reason + 16 there as here
    used[0] = body_len[0] = n
    flow.moved_bytes += n
    if flow.framing_in == FLOW_STREAM and flow.remaining_bytes != FLOW_UNKNOWN_BYTES:
        if n > flow.remaining_bytes:
            return FLOW_MALFORMED + REASON_BAD_FRAMING              # RFC 9113 8.1.1
        flow.remaining_bytes -= n
    return FLOW_AWAIT_INPUT


cdef inline void flow_trailers(Flow* flow, const Conn* sender, const char** trailers, uint32_t* len) noexcept nogil:
    """The trailers that came, if they are wanted, as "name: value CRLF" lines; borrowed, perhaps none."""
    cdef const Stream* stream
    trailers[0] = NULL
    len[0] = 0
    if not flow.trailers_wanted:
        return
    if flow.framing_in == FLOW_CHUNKED:
        chunk_trailers(&flow.decoder, trailers, len)
    elif flow.framing_in == FLOW_STREAM:
        stream = <const Stream*>sender.channel
        if stream.trailers_in != NULL:
            trailers[0] = stream.trailers_in.data + stream.trailers_in.start
            len[0] = stream.trailers_in.end - stream.trailers_in.start


cdef inline uint32_t flow_frame(Flow* flow, char** body, uint32_t body_len) noexcept nogil:
    """Put the outgoing framing around body bytes in place: HEADROOM before and TAILROOM after must be writable.

    Moves *body back over the chunk header. Returns the framed length. The last chunk is flow_frame_end's.
    """
    cdef uint32_t header
    if flow.framing_out != FLOW_CHUNKED or body_len == 0:
        return body_len
    header = chunk_write_header(body[0], body_len)
    body[0][body_len] = c"\r"
    body[0][body_len + 1] = c"\n"
    body[0] -= header
    return header + body_len + 2


cdef inline uint32_t flow_frame_end(Flow* flow, const Conn* sender, char* at, const char** trailers,
                                    uint32_t* trailers_len) noexcept nogil:
    """Write what ends the body. When *trailers_len is not 0, the trailers follow, and a CRLF. Returns the length."""
    trailers[0] = NULL
    trailers_len[0] = 0
    if flow.framing_out != FLOW_CHUNKED:
        return 0
    if not flow.grpc_web:
        flow_trailers(flow, sender, trailers, trailers_len)
    memcpy(at, b"0\r\n\r\n", 5)
    return 3 if trailers_len[0] else 5


cdef inline int flow_send(Worker* worker, Flow* flow, const Conn* sender, Conn* receiver, char* body,
                          uint32_t body_len, int is_last) noexcept nogil:
    """Frame and send body bytes, and the end of the body when this is it. CONN_OK, CONN_BLOCKED or CONN_ERROR."""
    if flow.grpc_web:
        return flow_send_web(worker, flow, sender, receiver, body, body_len, is_last)
    return flow_send_framed(worker, flow, sender, receiver, body, body_len, is_last)


cdef inline int flow_send_web(Worker* worker, Flow* flow, const Conn* sender, Conn* receiver, const char* body,
                              uint32_t body_len, int is_last) noexcept nogil:
    # In scratch, a chunk's head before it: as it is or as base64, and at the end the trailers as one more frame.
    cdef char* out = worker.scratch + 64
    cdef const char* trailers = NULL
    cdef char frame[GRPC_WEB_FRAME_BYTES]
    cdef uint32_t trailers_len = 0
    cdef uint32_t n = flow_put_web(flow, out, body, body_len)
    cdef int code
    if not is_last:
        return flow_send_framed(worker, flow, sender, receiver, out, n, 0)
    code = flow_send_framed(worker, flow, sender, receiver, out, n, 0) if n else CONN_OK
    if code == CONN_ERROR:
        return code
    flow_trailers(flow, sender, &trailers, &trailers_len)
    if trailers_len == 0 or trailers_len > FLOW_WEB_TRAILERS_BYTES:
        trailers = b"grpc-status: 2\r\n"             # a call that tells nothing of its end, or more than fits
        trailers_len = 16
    grpc_web_write_frame(frame, trailers_len)
    n = flow_put_web(flow, out, frame, GRPC_WEB_FRAME_BYTES)
    n += flow_put_web(flow, out + n, trailers, trailers_len)
    if flow.grpc_web == GRPC_WEB_TEXT:
        n += base64_end(&flow.base64, out + n)
    return flow_send_framed(worker, flow, sender, receiver, out, n, 1)


cdef inline uint32_t flow_put_web(Flow* flow, char* out, const char* at, uint32_t n) noexcept nogil:
    if flow.grpc_web == GRPC_WEB_TEXT:
        return base64_encode(&flow.base64, out, at, n)
    memcpy(out, at, n)
    return n


cdef inline int flow_send_framed(Worker* worker, Flow* flow, const Conn* sender, Conn* receiver, char* body,
                                 uint32_t body_len, int is_last) noexcept nogil:
    cdef uint32_t framed = flow_frame(flow, &body, body_len)
    cdef const char* trailers = NULL
    cdef uint32_t trailers_len = 0
    cdef int code
    if flow.framing_out == FLOW_STREAM:
        code = conn_send(worker, receiver, body, body_len) if body_len else CONN_OK
        if is_last and code != CONN_ERROR:
            if not flow.grpc_web:
                flow_trailers(flow, sender, &trailers, &trailers_len)
            conn_end(worker, receiver, trailers, trailers_len)
        return code
    if is_last:
        framed += flow_frame_end(flow, sender, body + framed, &trailers, &trailers_len)
        if trailers_len:
            code = conn_send2(worker, receiver, body, framed, trailers, trailers_len)
            if code == CONN_ERROR:
                return code
            return conn_send(worker, receiver, b"\r\n", 2)
    if framed == 0:
        return CONN_OK
    return conn_send(worker, receiver, body, framed)


cdef inline int flow_pump(Worker* worker, Flow* flow, Conn* sender, Conn* receiver, const Limits* limits,
                          uint64_t max_body_bytes) noexcept nogil:
    """Move bytes until one side blocks, the body ends, or this turn is used up (then the sender runs again later)."""
    cdef uint32_t n
    cdef uint32_t used
    cdef uint32_t body_len
    cdef uint32_t room
    cdef uint64_t spliced
    cdef uint64_t turn = 0              # bytes read: framing costs time as the body does
    cdef char* body
    cdef int code
    cdef int sent
    if flow.state == FLOW_DONE and flow.piped_bytes == 0:
        return FLOW_FINISHED
    while True:
        if conn_is_full(receiver):
            return FLOW_AWAIT_OUTPUT
        if flow.piped_bytes or flow_may_splice(flow, sender, receiver):
            spliced = flow.moved_bytes
            code = flow_splice(worker, flow, sender, receiver)
            turn += flow.moved_bytes - spliced
            if code != FLOW_GO_ON:
                return code
            if flow.state == FLOW_DONE and flow.piped_bytes == 0:
                return FLOW_FINISHED
        else:
            if not sender.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
                return FLOW_AWAIT_INPUT
            room = READ_LARGE_BYTES if flow.moved_bytes > READ_BYTES and not flow.grpc_web else READ_BYTES
            code = conn_recv(worker, sender, worker.read_buffer, room, &n)
            if code == CONN_EOF:
                return flow_end_of_input(worker, flow, sender, receiver)
            if code == CONN_ERROR:
                return FLOW_SENDER_FAILED
            if code != CONN_OK:
                return FLOW_AWAIT_INPUT
            code = flow_take(flow, worker.read_buffer, n, &used, &body, &body_len, limits)
            if code >= FLOW_MALFORMED:
                return code
            if max_body_bytes and flow.moved_bytes > max_body_bytes:
                return FLOW_MALFORMED + REASON_BODY_TOO_LARGE
            # Kept before flow_send writes the framing behind the body: the end of a chunked body may be shorter in
            # this read than the last chunk we write, and what follows it is the next message.
            if code == FLOW_FINISHED and used < n \
                    and not conn_keep_input(worker, sender, worker.read_buffer + used, n - used):
                return FLOW_SENDER_FAILED
            sent = flow_send(worker, flow, sender, receiver, body, body_len, code == FLOW_FINISHED)
            if sent == CONN_ERROR:
                return FLOW_RECEIVER_FAILED
            if code == FLOW_FINISHED:
                return FLOW_FINISHED
            flow.is_bulk = n == room
            turn += n
        if turn > FLOW_TURN_BYTES:
            conn_run_later(worker, sender)
            return FLOW_AWAIT_INPUT


cdef inline int flow_may_splice(const Flow* flow, const Conn* sender, const Conn* receiver) noexcept nogil:
    # By length: when enough is to come. Raw: when the last read came back full, as long as it goes on like that.
    if flow.capture_bytes or sender.in_buffer != NULL or not conn_is_plain(sender) or not conn_is_plain(receiver):
        return 0
    if flow.framing_in == FLOW_RAW:
        return flow.is_bulk
    return flow.framing_in == FLOW_LENGTH and flow.framing_out == FLOW_LENGTH \
        and flow.remaining_bytes >= SPLICE_MIN_BYTES


cdef inline int flow_end_of_input(Worker* worker, Flow* flow, const Conn* sender, Conn* receiver) noexcept nogil:
    cdef int sent
    if flow.framing_in == FLOW_RAW:
        flow.state = FLOW_DONE
        return FLOW_FINISHED
    if flow.framing_in != FLOW_UNTIL_CLOSE and not flow_stream_is_whole(flow):
        return FLOW_SENDER_CLOSED
    flow.state = FLOW_DONE
    sent = flow_send(worker, flow, sender, receiver, worker.read_buffer, 0, 1)
    return FLOW_RECEIVER_FAILED if sent == CONN_ERROR else FLOW_FINISHED


cdef inline int flow_stream_is_whole(const Flow* flow) noexcept nogil:
    return flow.framing_in == FLOW_STREAM and not (flow.decodes and flow.base64.place) \
        and (flow.remaining_bytes == 0 or flow.remaining_bytes == FLOW_UNKNOWN_BYTES)


cdef inline int flow_splice(Worker* worker, Flow* flow, Conn* sender, Conn* receiver) noexcept nogil:
    # One step by splice: FLOW_GO_ON, or the reason to stop.
    cdef long moved
    cdef uint64_t want
    cdef int settled
    cdef char probe
    if flow.piped_bytes == 0:
        if not sender.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
            return FLOW_AWAIT_INPUT
        if flow.pipe.write_fd < 0 and not pipe_lease(worker, &flow.pipe):
            if flow.framing_in == FLOW_RAW:
                flow.is_bulk = 0        # no descriptors left: copy, and ask again after the next full read
            else:
                flow.framing_out = FLOW_UNTIL_CLOSE   # the same; both framings mean "bytes as they are"
            return FLOW_GO_ON
        want = PIPE_BYTES
        if flow.framing_in == FLOW_LENGTH and flow.remaining_bytes < PIPE_BYTES:
            want = flow.remaining_bytes
        moved = sys_splice(sender.fd, flow.pipe.write_fd, want)
        if moved == 0:
            sender.io |= IO_PEER_CLOSED
            return flow_end_of_input(worker, flow, sender, receiver)
        if moved < 0:
            if moved == -EAGAIN:
                sender.io &= <uint8_t>~IO_READABLE
                if sender.io & (IO_PEER_CLOSED | IO_FAILED):
                    # The end may have come without a fresh edge: ask once, by a read that takes nothing else.
                    moved = sys_recv(sender.fd, &probe, 1, MSG_PEEK)
                    if moved == 0:
                        return flow_end_of_input(worker, flow, sender, receiver)
                    if moved < 0 and moved != -EAGAIN:
                        return FLOW_SENDER_FAILED
                return FLOW_AWAIT_INPUT
            if moved == -EINTR:
                return FLOW_GO_ON
            return FLOW_SENDER_FAILED
        socket_note_received(sender, <uint64_t>moved)
        flow.piped_bytes = <uint32_t>moved
        flow.moved_bytes += <uint64_t>moved
        if flow.framing_in == FLOW_RAW:
            flow.is_bulk = moved >= SPLICE_RAW_BYTES
        else:
            flow.remaining_bytes -= <uint64_t>moved
            if flow.remaining_bytes == 0:
                flow.state = FLOW_DONE
    if receiver.send_slot:
        settled = conn_settle(worker, receiver)
        if settled != CONN_OK:
            return FLOW_RECEIVER_FAILED if settled == CONN_ERROR else FLOW_AWAIT_OUTPUT
    while flow.piped_bytes:
        moved = sys_splice(flow.pipe.read_fd, receiver.fd, flow.piped_bytes)
        if moved < 0:
            if moved == -EAGAIN:
                receiver.io &= <uint8_t>~IO_WRITABLE
                return FLOW_AWAIT_OUTPUT
            if moved == -EINTR:
                continue
            receiver.io |= IO_FAILED
            return FLOW_RECEIVER_FAILED
        socket_note_sent(receiver, <uint64_t>moved)
        flow.piped_bytes -= <uint32_t>moved
    return FLOW_GO_ON
