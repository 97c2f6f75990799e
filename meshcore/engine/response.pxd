# From the first byte of an upstream's answer to the end of the exchange: parse, forward, relay, finish.
# The request's way out lies in dispatch.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from meshcore.engine.budget cimport budget_withdraw
from meshcore.engine.buffer cimport buffer_return
from meshcore.engine.conn cimport (
    conn_deadline, conn_drop_input, conn_is_stream, conn_keep_input, conn_peer, conn_run_later, conn_send, conn_send2,
    conn_settle, conn_shut,
)
from meshcore.engine.dispatch cimport dispatch_again, dispatch_failed
from meshcore.engine.downstream cimport downstream_abort, downstream_close, downstream_next, downstream_refuse
from meshcore.engine.exchange cimport (
    ATTEMPT_FAILED, ATTEMPT_SUCCEEDED, exchange_earlier, exchange_end, exchange_idle_deadline,
    exchange_note_tcp, exchange_observe_latency, exchange_request_is_out,
)
from meshcore.engine.fields cimport FIELD_DATE
from meshcore.engine.flow cimport (
    FLOW_AWAIT_INPUT, FLOW_AWAIT_OUTPUT, FLOW_FINISHED, FLOW_MALFORMED, FLOW_RECEIVER_FAILED, FLOW_SENDER_CLOSED,
    FLOW_SENDER_FAILED, flow_open, flow_pump, flow_send, flow_take, flow_trailers,
)
from meshcore.engine.framing cimport chunk_trailers, chunk_write_header
from meshcore.engine.grpc cimport (
    GRPC_CANCELLED, GRPC_DEADLINE_EXCEEDED, GRPC_NONE, GRPC_RESOURCE_EXHAUSTED, GRPC_UNAVAILABLE, grpc_is_failure,
    grpc_pushes_back, grpc_status_of_head, grpc_status_of_trailers,
)
from meshcore.engine.grpc_web cimport GRPC_WEB_BINARY, GRPC_WEB_NONE, GRPC_WEB_TEXT, grpc_web_may_answer
from meshcore.engine.head cimport (
    FRAMING_CHUNKED, FRAMING_LENGTH, FRAMING_NONE, FRAMING_UNTIL_CLOSE, HEAD_DONE, HEAD_MORE, Head, head_has,
    head_parser_reset,
)
from meshcore.engine.hook cimport hook_park
from meshcore.engine.http1 cimport head_parse_response
from meshcore.engine.input cimport (
    INPUT_EOF, INPUT_ERROR, INPUT_NO_MEMORY, INPUT_READY, input_keep_partial, input_parser, input_read,
)
from meshcore.engine.reasons cimport (
    REASON_DOWNSTREAM_CLOSED, REASON_UPSTREAM_HEAD_TOO_LARGE, REASON_UPSTREAM_MALFORMED, REASON_UPSTREAM_RESET,
    REASON_UPSTREAM_TRUNCATED, tls_reason,
)
from meshcore.engine.respond cimport respond_date, respond_gone, respond_reason
from meshcore.engine.rewrite cimport ResponseInfo, rewrite_response
from meshcore.engine.snapshot cimport (
    RETRY_502, RETRY_503, RETRY_504, RETRY_CANCELLED, RETRY_DEADLINE_EXCEEDED, RETRY_RESOURCE_EXHAUSTED,
    RETRY_UNAVAILABLE, UPSTREAM_HOP, Limits,
)
from meshcore.engine.state cimport (
    CONN_CLOSE_AFTER, CONN_DOUBTFUL, CONN_ERROR, CONN_OK, CONN_SHUT, EXCHANGE_AWAIT_RESPONSE,
    EXCHANGE_AWAIT_RESPONSE_FILTER, EXCHANGE_CONNECT, EXCHANGE_GRPC,
    EXCHANGE_GRPC_WEB, EXCHANGE_GRPC_WEB_TEXT, EXCHANGE_HEAD_METHOD, EXCHANGE_IDEMPOTENT,
    EXCHANGE_KEEP_UPSTREAM, EXCHANGE_MAY_REPLAY, EXCHANGE_MINOR_0, EXCHANGE_RELAY, EXCHANGE_RESPONSE_FILTERED,
    EXCHANGE_RESPONSE_STARTED, EXCHANGE_RESTORED, EXCHANGE_TCP, EXCHANGE_TUNNEL, EXCHANGE_UPGRADE, FLOW_CHUNKED, FLOW_DONE, FLOW_EMPTY,
    FLOW_LENGTH,
    FLOW_OPEN, FLOW_RAW, FLOW_STREAM, FLOW_UNKNOWN_BYTES, FLOW_UNTIL_CLOSE, HOOK_RESPONSE, IO_FAILED, IO_READABLE,
    SCRATCH_BYTES, STREAM_ENDED_IN, Conn, Exchange, Stream, Worker,
)
from meshcore.engine.sys cimport sys_now_ns
from meshcore.engine.tap cimport tap_response
from meshcore.engine.tls_context cimport Peer
from meshcore.engine.upstream cimport upstream_conf, upstream_marks
from meshcore.engine.websocket cimport WEBSOCKET_ACCEPT_BYTES, websocket_accept

cdef enum:
    COPY_BODY_BYTES = 16384             # behind a head: one copy and one call up to here, two pieces above


cdef inline void response_read(Worker* worker, Exchange* exchange) noexcept nogil:
    """The upstream has something to say, and its response head is not here yet."""
    cdef Conn* up = exchange.up
    cdef char* at
    cdef uint32_t n
    cdef int code = input_read(worker, up, &at, &n)
    if code == INPUT_READY:
        response_parse(worker, exchange, at, n)
        if up.exchange == exchange and exchange.state == EXCHANGE_AWAIT_RESPONSE and up.io & IO_READABLE:
            conn_run_later(worker, up)
    elif code == INPUT_EOF or code == INPUT_ERROR:
        if up.in_buffer != NULL:
            respond_reason(worker, exchange, REASON_UPSTREAM_RESET)     # it had begun to answer: no retry
        else:
            dispatch_failed(worker, exchange, response_end_reason(up))
    elif code == INPUT_NO_MEMORY:
        respond_reason(worker, exchange, REASON_UPSTREAM_HEAD_TOO_LARGE)


cdef inline uint8_t response_end_reason(const Conn* up) noexcept nogil:
    # An endpoint that does not like our certificate says so in its first record: under TLS 1.3 the handshake is over by then.
    cdef const Peer* peer = conn_peer(up)
    return tls_reason(1, peer.failure) if peer != NULL and peer.failure else REASON_UPSTREAM_RESET


cdef inline void response_parse(Worker* worker, Exchange* exchange, char* at, uint32_t n) noexcept nogil:
    """Parse as many heads as there are (interim ones, then the final one) and act on each."""
    cdef Conn* up = exchange.up
    cdef Head* head = worker.head
    cdef const Limits* limits = &exchange.snapshot.snapshot.limits
    cdef int code
    while True:
        code = head_parse_response(input_parser(worker, up, 1), at, n, head, limits, exchange.method,
                                   exchange.flags & EXCHANGE_UPGRADE != 0)
        if code == HEAD_MORE:
            if up.parser == NULL:
                if not input_keep_partial(worker, up, at, n):
                    respond_reason(worker, exchange, REASON_UPSTREAM_HEAD_TOO_LARGE)
                    return
                head_parser_reset(up.parser, worker.llhttp, 1)
                at = up.in_buffer.data + up.in_buffer.start
                continue
            return
        if code != HEAD_DONE:
            respond_reason(worker, exchange, <uint8_t>(code - 16))
            return
        if up.parser != NULL:
            free(up.parser)
            up.parser = NULL
        if head.status >= 200 or head.status == 101:
            response_begin(worker, exchange, head, at + head.size_bytes, n - head.size_bytes)
            return
        if not response_interim(worker, exchange, head):
            return
        at += head.size_bytes
        n -= head.size_bytes
        if not conn_keep_input(worker, up, at, n) or n == 0:
            return
        at = up.in_buffer.data + up.in_buffer.start


cdef inline int response_interim(Worker* worker, Exchange* exchange, const Head* head) noexcept nogil:
    # A 1xx: on to a client that knows them (RFC 9110 15.2), bounded, since each costs us and an endpoint may loop.
    cdef ResponseInfo info
    cdef uint32_t n
    exchange.interim_responses += 1
    if exchange.interim_responses > exchange.snapshot.snapshot.limits.max_interim_responses:
        respond_reason(worker, exchange, REASON_UPSTREAM_MALFORMED)
        return 0
    if exchange.flags & EXCHANGE_MINOR_0:
        return 1
    response_info(worker, exchange, &info)
    info.interim = 1
    n = rewrite_response(head, exchange.route, &info, worker.scratch, SCRATCH_BYTES)
    if n and conn_send(worker, exchange.down, worker.scratch, n) == CONN_ERROR:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
        return 0
    return 1


cdef inline void response_info(Worker* worker, Exchange* exchange, ResponseInfo* info) noexcept nogil:
    info.forwarding = &exchange.snapshot.snapshot.forwarding
    info.framing = FRAMING_NONE
    info.content_length = 0
    info.close = 0
    info.minor_version = 0 if exchange.flags & EXCHANGE_MINOR_0 else 1
    info.upgrade = 0
    info.interim = 0
    info.is_http2 = conn_is_stream(exchange.up) and not upstream_marks(exchange)
    info.date = NULL
    info.websocket_accept = NULL
    info.grpc_web = GRPC_WEB_NONE
    info.tells_reason = exchange.flags & EXCHANGE_RESTORED != 0
    info.takes_reason = upstream_conf(exchange).speaks == UPSTREAM_HOP and conn_is_stream(exchange.up)


cdef inline void response_begin(Worker* worker, Exchange* exchange, Head* head, char* rest, uint32_t n) noexcept nogil:
    """The final head is here, with `n` bytes behind it: retry, park for a filter, or forward."""
    cdef uint64_t now_ns = worker.now_ns
    cdef uint32_t bit = 0
    exchange.status = head.status
    if exchange.first_byte_ns == 0 or not exchange.flags & EXCHANGE_RESPONSE_FILTERED:
        exchange.first_byte_ns = now_ns
        exchange_observe_latency(exchange, now_ns)
    if head.status >= 502 and head.status <= 504 and not exchange.flags & EXCHANGE_RESPONSE_FILTERED:
        bit = RETRY_502 if head.status == 502 else RETRY_503 if head.status == 503 else RETRY_504
        if exchange.route.retry_on & bit and exchange.flags & EXCHANGE_MAY_REPLAY \
                and exchange.flags & EXCHANGE_IDEMPOTENT and exchange.attempts < exchange.route.max_attempts \
                and budget_withdraw(&exchange.cluster_state.budget, &exchange.cluster.budget, worker.now_ns):
            dispatch_again(worker, exchange, ATTEMPT_FAILED)
            return
    elif exchange.flags & EXCHANGE_GRPC and exchange.route.retry_on >= RETRY_CANCELLED \
            and response_asks_again(worker, exchange, head):
        return
    if exchange.request_buffer != NULL and head.status != 101 and exchange_request_is_out(exchange):
        buffer_return(&worker.buffers, exchange.request_buffer)
        exchange.request_buffer = NULL
    exchange.flags &= ~<uint32_t>EXCHANGE_MAY_REPLAY
    if exchange.listed_route.filters & 2 and not exchange.flags & EXCHANGE_RESPONSE_FILTERED and head.status != 101:
        exchange.state = EXCHANGE_AWAIT_RESPONSE_FILTER
        hook_park(worker, exchange, exchange.up, HOOK_RESPONSE, <char*>head.base, head.size_bytes,
                  head.size_bytes + n)
        return
    response_forward(worker, exchange, head, rest, n, now_ns)


cdef inline int response_asks_again(Worker* worker, Exchange* exchange, const Head* head) noexcept nogil:
    """Send a call again that ended with its head, with a status that the route retries. 1: it is under way.

    gRFC A6: a head that something follows commits the call, for its client may be waiting for just that. Whether a call
    may be repeated at all is what the route says: gRPC methods tell nothing of it."""
    cdef const Stream* stream = <const Stream*>exchange.up.channel
    cdef uint8_t status = grpc_status_of_head(head)
    if status == GRPC_NONE or not conn_is_stream(exchange.up) or not stream.flags & STREAM_ENDED_IN \
            or stream.data != NULL or exchange.flags & EXCHANGE_RESPONSE_FILTERED or not exchange.flags & EXCHANGE_MAY_REPLAY \
            or exchange.attempts >= exchange.route.max_attempts:
        return 0
    if not exchange.route.retry_on & response_retry_bit(status) or grpc_pushes_back(head) \
            or (exchange.total_deadline_ns and worker.now_ns >= exchange.total_deadline_ns):
        return 0
    if not budget_withdraw(&exchange.cluster_state.budget, &exchange.cluster.budget, worker.now_ns):
        exchange.cluster_state.budget_exhausted += 1
        return 0
    dispatch_again(worker, exchange, ATTEMPT_FAILED if grpc_is_failure(status) else ATTEMPT_SUCCEEDED)
    return 1


cdef inline uint32_t response_retry_bit(uint8_t status) noexcept nogil:
    if status == GRPC_CANCELLED:
        return RETRY_CANCELLED
    if status == GRPC_DEADLINE_EXCEEDED:
        return RETRY_DEADLINE_EXCEEDED
    if status == GRPC_RESOURCE_EXHAUSTED:
        return RETRY_RESOURCE_EXHAUSTED
    return RETRY_UNAVAILABLE if status == GRPC_UNAVAILABLE else 0


cdef inline void response_forward(Worker* worker, Exchange* exchange, Head* head, char* rest, uint32_t n,
                                  uint64_t now_ns) noexcept nogil:
    """Send the edited head with the body bytes that came along, and open the response's flow."""
    cdef Conn* down = exchange.down
    cdef Conn* up = exchange.up
    cdef const Limits* limits = &exchange.snapshot.snapshot.limits
    cdef ResponseInfo info
    cdef uint32_t head_len
    cdef uint32_t used = 0
    cdef uint32_t body_len = 0
    cdef char* body = rest
    cdef int code = FLOW_FINISHED
    cdef int sent
    cdef int framing_in = FLOW_EMPTY
    cdef int framing_out = FLOW_EMPTY
    if head.status == 101 or (exchange.flags & EXCHANGE_CONNECT and head.status < 300):
        if exchange_request_is_out(exchange):
            response_tunnel(worker, exchange, head, rest, n)
        else:
            respond_reason(worker, exchange, REASON_UPSTREAM_MALFORMED)     # it cannot have read what it agrees to
        return
    response_info(worker, exchange, &info)
    if exchange.flags & EXCHANGE_GRPC_WEB and grpc_web_may_answer(head):
        info.grpc_web = GRPC_WEB_TEXT if exchange.flags & EXCHANGE_GRPC_WEB_TEXT else GRPC_WEB_BINARY
        if head.framing == FRAMING_LENGTH:
            head.framing = FRAMING_CHUNKED            # it will be longer
    if head.framing == FRAMING_LENGTH:
        framing_in = framing_out = FLOW_LENGTH
        info.framing = FRAMING_LENGTH
        info.content_length = head.content_length
    elif head.framing == FRAMING_CHUNKED or head.framing == FRAMING_UNTIL_CLOSE:
        framing_in = FLOW_CHUNKED if head.framing == FRAMING_CHUNKED else FLOW_UNTIL_CLOSE
        if exchange.flags & EXCHANGE_MINOR_0:
            framing_out = FLOW_UNTIL_CLOSE            # RFC 9112 7.1: no chunks to HTTP/1.0
            info.framing = FRAMING_UNTIL_CLOSE
            down.flags |= CONN_CLOSE_AFTER
        else:
            framing_out = FLOW_CHUNKED
            info.framing = FRAMING_CHUNKED
    if conn_is_stream(up):
        response_frame_of_stream(exchange, head, &info, &framing_in, &framing_out)
    if framing_out == FLOW_CHUNKED and conn_is_stream(down):
        framing_out = FLOW_STREAM
    if exchange.request.state != FLOW_DONE or worker.draining:
        # An early answer: the rest of the request is not worth a connection in an unclear state.
        down.flags |= CONN_CLOSE_AFTER
    info.close = down.flags & CONN_CLOSE_AFTER != 0
    if not head_has(head, FIELD_DATE):
        info.date = respond_date(worker)
    head_len = rewrite_response(head, exchange.route, &info, worker.scratch, SCRATCH_BYTES - COPY_BODY_BYTES - 64)
    if head_len == 0:
        respond_reason(worker, exchange, REASON_UPSTREAM_HEAD_TOO_LARGE)
        return
    flow_open(&exchange.response, framing_in, framing_out,
              FLOW_UNKNOWN_BYTES if framing_in == FLOW_STREAM and not head.has_length else head.content_length)
    exchange.response.trailers_wanted = 1
    if exchange.flags & EXCHANGE_GRPC:
        exchange.grpc_status = grpc_status_of_head(head)
        if exchange.grpc_status == GRPC_NONE:
            exchange.response.grpc_web = info.grpc_web                  # else its head has said how it ended
    if head.keep_alive and framing_in != FLOW_UNTIL_CLOSE:
        exchange.flags |= EXCHANGE_KEEP_UPSTREAM
        if framing_in == FLOW_EMPTY and head.has_length and head.content_length:
            # A body was announced where there is none. Should it come all the same, it must not meet the next request.
            if not exchange.flags & EXCHANGE_HEAD_METHOD:
                exchange.flags &= ~<uint32_t>EXCHANGE_KEEP_UPSTREAM
            up.flags |= CONN_DOUBTFUL
    if exchange.tap_mask:
        tap_response(worker, exchange, head, now_ns)
    if exchange.response.state == FLOW_OPEN:
        code = FLOW_AWAIT_INPUT
        if n:
            code = flow_take(&exchange.response, rest, n, &used, &body, &body_len, limits)
        elif framing_in == FLOW_STREAM and response_has_ended(exchange):
            # A gRPC call without messages must end with its head (trailers-only).
            exchange.response.state = FLOW_DONE
            code = FLOW_FINISHED
    exchange.flags |= EXCHANGE_RESPONSE_STARTED
    exchange.state = EXCHANGE_RELAY
    sent = response_send_first(worker, exchange, head_len, body, body_len, code == FLOW_FINISHED)
    if sent == CONN_ERROR:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
        return
    if used < n:
        # Bytes nobody asked for: this connection's next response could not be trusted (response-queue poisoning).
        exchange.flags &= ~<uint32_t>EXCHANGE_KEEP_UPSTREAM
    conn_drop_input(worker, up)
    if code == FLOW_FINISHED:
        response_finish(worker, exchange, now_ns)     # head and end came in one read: one time for both
    elif code >= FLOW_MALFORMED:
        # The head went out all the same: how bytes were sliced must not decide what a client sees (SPLIT_SAME).
        response_cut(worker, exchange, REASON_UPSTREAM_MALFORMED)
    else:
        response_pump(worker, exchange)


cdef inline void response_frame_of_stream(Exchange* exchange, const Head* head, ResponseInfo* info, int* framing_in,
                                          int* framing_out) noexcept nogil:
    cdef const Stream* stream = <const Stream*>exchange.up.channel
    # A stream says by itself when it ends; a length it gave is only checked, and told on to who needs one.
    if framing_in[0] == FLOW_EMPTY:
        return
    framing_in[0] = FLOW_STREAM
    if head.has_length or conn_is_stream(exchange.down) or not stream.flags & STREAM_ENDED_IN or stream.data != NULL \
            or (info.grpc_web and stream.trailers_in != NULL):
        return
    # Ended with its head: to HTTP/1, a body of no octets.
    framing_in[0] = framing_out[0] = FLOW_EMPTY
    info.framing = FRAMING_LENGTH
    info.content_length = 0


cdef inline int response_has_ended(const Exchange* exchange) noexcept nogil:
    cdef const Stream* stream = <const Stream*>exchange.up.channel
    return stream.flags & STREAM_ENDED_IN and stream.data == NULL and exchange.response.remaining_bytes == FLOW_UNKNOWN_BYTES


cdef inline int response_send_first(Worker* worker, Exchange* exchange, uint32_t head_len, char* body,
                                    uint32_t body_len, int is_last) noexcept nogil:
    # The edited head lies in scratch. A short body joins it there for one plain send.
    cdef Conn* down = exchange.down
    cdef char* behind = worker.scratch + head_len
    cdef int code
    if exchange.response.framing_out == FLOW_STREAM or exchange.response.grpc_web:
        code = conn_send(worker, down, worker.scratch, head_len)
        return code if code == CONN_ERROR \
            else flow_send(worker, &exchange.response, exchange.up, down, body, body_len, is_last)
    if exchange.response.framing_out == FLOW_CHUNKED:
        code = conn_send(worker, down, worker.scratch, head_len) if body_len > COPY_BODY_BYTES else CONN_OK
        if code == CONN_ERROR:
            return code
        if body_len > COPY_BODY_BYTES:
            return flow_send(worker, &exchange.response, exchange.up, down, body, body_len, is_last)
        return response_send_chunked(worker, exchange, head_len, body, body_len, is_last)
    if body_len == 0:
        return conn_send(worker, down, worker.scratch, head_len)
    if body_len <= COPY_BODY_BYTES:
        memcpy(behind, body, body_len)
        return conn_send(worker, down, worker.scratch, head_len + body_len)
    return conn_send2(worker, down, worker.scratch, head_len, body, body_len)


cdef inline int response_send_chunked(Worker* worker, Exchange* exchange, uint32_t head_len, char* body,
                                      uint32_t body_len, int is_last) noexcept nogil:
    # Head, one chunk and the last chunk in one send: place the chunk's header between head and body in scratch.
    cdef char* out = worker.scratch + head_len
    cdef char framed[32]
    cdef uint32_t header
    cdef const char* trailers = NULL
    cdef uint32_t trailers_len = 0
    if body_len:
        header = chunk_write_header(framed + 32, body_len)
        memcpy(out, framed + 32 - header, header)
        out += header
        memcpy(out, body, body_len)
        out += body_len
        memcpy(out, b"\r\n", 2)
        out += 2
    if is_last:
        if exchange.response.framing_in == FLOW_CHUNKED and exchange.response.trailers_wanted:
            chunk_trailers(&exchange.response.decoder, &trailers, &trailers_len)
        memcpy(out, b"0\r\n", 3)
        out += 3
        if trailers_len:
            if conn_send2(worker, exchange.down, worker.scratch, <uint32_t>(out - worker.scratch),
                          trailers, trailers_len) == CONN_ERROR:
                return CONN_ERROR
            return conn_send(worker, exchange.down, b"\r\n", 2)
        memcpy(out, b"\r\n", 2)
        out += 2
    return conn_send(worker, exchange.down, worker.scratch, <uint32_t>(out - worker.scratch))


cdef inline void response_pump(Worker* worker, Exchange* exchange) noexcept nogil:
    """Relay the response body. Called when the upstream sent more or the client can take more. May end the exchange."""
    cdef int code = flow_pump(worker, &exchange.response, exchange.up, exchange.down,
                              &exchange.snapshot.snapshot.limits, 0)
    if code == FLOW_FINISHED:
        response_finish(worker, exchange, sys_now_ns())
    elif code == FLOW_AWAIT_INPUT:
        conn_deadline(worker, exchange.up, exchange_idle_deadline(worker, exchange))
        conn_deadline(worker, exchange.down, exchange.total_deadline_ns)
    elif code == FLOW_AWAIT_OUTPUT:
        conn_deadline(worker, exchange.up, 0)
        conn_deadline(worker, exchange.down, exchange_earlier(exchange.total_deadline_ns,
                                                              exchange_idle_deadline(worker, exchange)))
    elif code == FLOW_RECEIVER_FAILED:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
    elif code == FLOW_SENDER_CLOSED or code == FLOW_SENDER_FAILED:
        response_cut(worker, exchange, REASON_UPSTREAM_TRUNCATED)
    else:
        response_cut(worker, exchange, REASON_UPSTREAM_MALFORMED)


cdef inline void response_cut(Worker* worker, Exchange* exchange, uint8_t reason) noexcept nogil:
    """The response cannot be completed after it began: make that visible to the client."""
    cdef Conn* down = exchange.down
    cdef int by_close = exchange.response.framing_out == FLOW_UNTIL_CLOSE
    exchange.reason = reason
    exchange_end(worker, exchange, ATTEMPT_FAILED, sys_now_ns())
    if by_close or down.out_buffer != NULL:
        downstream_abort(worker, down)
    else:
        downstream_close(worker, down)                # a missing last chunk or length shows by itself


cdef inline int response_grpc_failed(Exchange* exchange) noexcept nogil:
    """Note how the call ended, by its trailers or, without messages, its head."""
    cdef const char* trailers
    cdef uint32_t len
    if exchange.grpc_status == GRPC_NONE:
        flow_trailers(&exchange.response, exchange.up, &trailers, &len)
        exchange.grpc_status = grpc_status_of_trailers(trailers, len)
    return grpc_is_failure(exchange.grpc_status)


cdef inline void response_finish(Worker* worker, Exchange* exchange, uint64_t now_ns) noexcept nogil:
    """The whole response was handed on: note it, free everything, let the client go on."""
    cdef Conn* down = exchange.down
    cdef int outcome = ATTEMPT_SUCCEEDED if exchange.status < 500 else ATTEMPT_FAILED
    cdef int request_read = exchange.request.state == FLOW_DONE
    if exchange.flags & EXCHANGE_GRPC and response_grpc_failed(exchange):
        outcome = ATTEMPT_FAILED
    exchange_end(worker, exchange, outcome, now_ns)
    if request_read:
        downstream_next(worker, down)
    else:
        downstream_refuse(worker, down)


# --- tunnels: Upgrade answered with 101, CONNECT answered with 2xx --------------------------------------------------

cdef inline void response_tunnel(Worker* worker, Exchange* exchange, Head* head, char* rest, uint32_t n) noexcept nogil:
    """Both sides now exchange opaque bytes, each direction closed on its own."""
    cdef Conn* down = exchange.down
    cdef ResponseInfo info
    cdef uint32_t head_len
    cdef char accept[WEBSOCKET_ACCEPT_BYTES + 1]
    response_info(worker, exchange, &info)
    info.upgrade = 1
    if exchange.request_buffer != NULL:
        if conn_is_stream(exchange.up) and not conn_is_stream(down) and websocket_accept(
                exchange.request_buffer.data + exchange.request_buffer.start, exchange.request_sent, accept):
            info.websocket_accept = accept
        buffer_return(&worker.buffers, exchange.request_buffer)
        exchange.request_buffer = NULL
    head_len = rewrite_response(head, exchange.route, &info, worker.scratch, SCRATCH_BYTES)
    if head_len == 0:
        respond_reason(worker, exchange, REASON_UPSTREAM_HEAD_TOO_LARGE)
        return
    exchange.flags |= EXCHANGE_RESPONSE_STARTED
    exchange.state = EXCHANGE_TUNNEL
    down.flags |= CONN_CLOSE_AFTER
    flow_open(&exchange.request, FLOW_RAW, FLOW_RAW, 0)
    flow_open(&exchange.response, FLOW_RAW, FLOW_RAW, 0)
    if exchange.tap_mask:
        tap_response(worker, exchange, head, exchange.first_byte_ns)
    exchange.response.moved_bytes = n
    if conn_send2(worker, down, worker.scratch, head_len, rest, n) == CONN_ERROR:
        respond_gone(worker, exchange, REASON_DOWNSTREAM_CLOSED)
        return
    conn_drop_input(worker, exchange.up)
    if down.in_buffer != NULL:
        # The client did not wait for the answer: what it sent belongs to the tunnel.
        n = down.in_buffer.end - down.in_buffer.start
        exchange.request.moved_bytes = n
        if conn_send(worker, exchange.up, down.in_buffer.data + down.in_buffer.start, n) == CONN_ERROR:
            respond_gone(worker, exchange, REASON_UPSTREAM_TRUNCATED)
            return
        conn_drop_input(worker, down)
    response_tunnel_pump(worker, exchange)


cdef inline void response_tunnel_pump(Worker* worker, Exchange* exchange) noexcept nogil:
    """Move what can be moved either way; pass on the end of each direction; finish when both have ended."""
    cdef Conn* down = exchange.down
    cdef Conn* up = exchange.up
    cdef const Limits* limits = &exchange.snapshot.snapshot.limits
    cdef uint64_t idle_ns = exchange.route.tunnel_idle_timeout_ns
    cdef int to_up = flow_pump(worker, &exchange.request, down, up, limits, 0)
    cdef int to_down = flow_pump(worker, &exchange.response, up, down, limits, 0)
    if exchange.flags & EXCHANGE_TCP:
        exchange_note_tcp(worker, exchange, 0, 0)
    if to_up >= FLOW_SENDER_CLOSED or to_down >= FLOW_SENDER_CLOSED:
        exchange_end(worker, exchange, ATTEMPT_SUCCEEDED, sys_now_ns())
        downstream_abort(worker, down)
        return
    if to_up == FLOW_FINISHED:
        conn_settle(worker, up)
    if to_down == FLOW_FINISHED:
        conn_settle(worker, down)
    if response_tunnel_is_dead(down, to_up == FLOW_FINISHED):
        exchange_end(worker, exchange, ATTEMPT_SUCCEEDED, sys_now_ns())
        downstream_abort(worker, down)
        return
    if response_tunnel_is_dead(up, to_down == FLOW_FINISHED) and down.out_buffer == NULL:
        exchange_end(worker, exchange, ATTEMPT_SUCCEEDED, sys_now_ns())
        downstream_close(worker, down)
        return
    if to_up == FLOW_FINISHED and up.out_buffer == NULL:
        conn_shut(worker, up)
    if to_down == FLOW_FINISHED and down.out_buffer == NULL:
        conn_shut(worker, down)
    if to_up == FLOW_FINISHED and to_down == FLOW_FINISHED and up.out_buffer == NULL and down.out_buffer == NULL:
        exchange_end(worker, exchange, ATTEMPT_SUCCEEDED, sys_now_ns())
        downstream_close(worker, down)
        return
    conn_deadline(worker, up, worker.now_ns + idle_ns if idle_ns else 0)
    conn_deadline(worker, down, exchange.total_deadline_ns)


cdef inline int response_tunnel_is_dead(const Conn* conn, int has_finished) noexcept nogil:
    # HUP or ERR from a side that had already finished, while ours is open to it: nobody reads there any more, and no
    # read will ever tell.
    return has_finished and conn.io & IO_FAILED and not conn.flags & CONN_SHUT
