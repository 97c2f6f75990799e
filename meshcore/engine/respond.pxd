# Responses the proxy makes itself: to refuse, to report an upstream's failure, to answer a direct route.
# Ends the exchange; forwards nothing.
#
# Every one carries its reason in `x-mesh-reason`, the same word as in tap, metrics and log, so that the proxy's 503 is
# never mistaken for the application's.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr

from meshcore.engine.conn cimport conn_is_stream, conn_send, conn_send2
from meshcore.engine.date cimport DATE_LINE_BYTES, date_line
from meshcore.engine.downstream cimport (
    downstream_abort, downstream_close, downstream_next, downstream_part, downstream_refuse,
)
from meshcore.engine.exchange cimport ATTEMPT_ABANDONED, ATTEMPT_FAILED, exchange_end
from meshcore.engine.grpc cimport GRPC_NONE, grpc_status_of_http
from meshcore.engine.grpc_web cimport GRPC_WEB_BINARY, GRPC_WEB_NONE, GRPC_WEB_TEXT
from meshcore.engine.octets cimport octets_equal_lower
from meshcore.engine.reasons cimport (
    FAULT_DOWNSTREAM, FAULT_UPSTREAM, REASON_LOAD_SHED, reason_fault, reason_name,
    reason_status, reason_text,
)
from meshcore.engine.snapshot cimport DirectResponse
from meshcore.engine.state cimport (
    CONN_CLOSE_AFTER, CONN_ERROR, EXCHANGE_GRPC, EXCHANGE_GRPC_WEB, EXCHANGE_GRPC_WEB_TEXT,
    EXCHANGE_HEAD_METHOD, EXCHANGE_MINOR_0, EXCHANGE_RESPONSE_STARTED,
    EXCHANGE_TCP, FLOW_DONE, Conn, Exchange, Worker,
)
from meshcore.engine.sys cimport sys_now_ns

cdef extern from * nogil:
    """
    static unsigned mc_put(char* out, const char* text) {
        unsigned n = (unsigned)strlen(text);
        memcpy(out, text, n);
        return n;
    }
    /* The words of the reason table are upper case with underscores. */
    static unsigned mc_put_lower(char* out, const char* text) {
        unsigned n = 0;
        for (; text[n]; n++) out[n] = (char)(text[n] >= 'A' && text[n] <= 'Z' ? text[n] + 32 : text[n]);
        return n;
    }
    static unsigned mc_put_number(char* out, unsigned long v) {
        char digits[20];
        unsigned n = 0, i;
        do { digits[n++] = (char)('0' + v % 10); v /= 10; } while (v);
        for (i = 0; i < n; i++) out[i] = digits[n - 1 - i];
        return n;
    }
    static unsigned mc_put_status_line(char* out, unsigned status) {
        unsigned n = mc_put(out, "HTTP/1.1 ");
        n += mc_put_number(out + n, status);
        out[n++] = ' ';
        n += mc_put(out + n, mc_status_phrase(status));
        out[n++] = '\\r'; out[n++] = '\\n';
        return n;
    }
    /* As in a URL: how Linkerd writes the message of l5d-err. */
    static unsigned mc_put_encoded(char* out, const char* text) {
        static const char hex[] = "0123456789ABCDEF";
        unsigned n = 0;
        for (; *text; text++) {
            unsigned char c = (unsigned char)*text;
            if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) { out[n++] = (char)c; continue; }
            out[n++] = '%'; out[n++] = hex[c >> 4]; out[n++] = hex[c & 15];
        }
        return n;
    }
    /* grpc: the status a gRPC caller is told, which reads no other (see grpc); 255 for the others. web: GrpcWeb. named: the request had a
       name, so its caller may be used to Linkerd. */
    static unsigned mc_refusal(char* out, unsigned status, const char* name, const char* text, int close, unsigned grpc,
                               unsigned web, int named, const char* date) {
        unsigned n = mc_put_status_line(out, grpc == 255 ? status : 200);
        if (grpc != 255) {
            n += mc_put(out + n, web ? "content-type: application/grpc-web" : "content-type: application/grpc");
            if (web == 2) n += mc_put(out + n, "-text");
            n += mc_put(out + n, web ? "+proto\\r\\ngrpc-status: " : "\\r\\ngrpc-status: ");
            n += mc_put_number(out + n, grpc);
            n += mc_put(out + n, "\\r\\ngrpc-message: ");
            n += mc_put(out + n, text);
            n += mc_put(out + n, "\\r\\n");
        }
        n += mc_put(out + n, date);
        n += mc_put(out + n, "x-mesh-reason: ");
        n += mc_put_lower(out + n, name);
        n += mc_put(out + n, "\\r\\nl5d-proxy-error: ");
        n += mc_put(out + n, text);
        if (named) {
            n += mc_put(out + n, "\\r\\nl5d-err: ");
            n += mc_put_encoded(out + n, text);
        }
        n += mc_put(out + n, grpc == 255 ? "\\r\\ncontent-length: 0\\r\\n" : "\\r\\n");
        if (status == 405) n += mc_put(out + n, "allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\\r\\n");
        if (close) n += mc_put(out + n, "l5d-proxy-connection: close\\r\\nconnection: close\\r\\n");
        n += mc_put(out + n, "\\r\\n");
        return n;
    }
    """
    uint32_t respond_refusal_text "mc_refusal"(char* out, uint32_t status, const char* name, const char* text, int close,
                                               uint32_t grpc_status, uint32_t grpc_web, int is_named, const char* date)
    uint32_t respond_status_line "mc_put_status_line"(char* out, uint32_t status)
    uint32_t mc_put(char* out, const char* text)


cdef inline const char* respond_date(Worker* worker) noexcept nogil:
    """The line that says when an answer was made (RFC 9110 6.6.1), good until the next second."""
    return date_line(&worker.date, (worker.now_ns + worker.wall_offset_ns) // 1000000000)


cdef inline int respond_has_date(const char* head, uint32_t len) noexcept nogil:
    """Did who wrote this head date it?"""
    cdef const char* line = <const char*>memchr(head, 10, len)
    while line != NULL and head + len - line > 6:
        if octets_equal_lower(line + 1, b"date", 4) and line[5] == 58:
            return 1
        line = <const char*>memchr(line + 1, 10, <size_t>(head + len - line - 1))
    return 0


cdef inline void respond_unparsed(Worker* worker, Conn* conn, uint8_t reason) noexcept nogil:
    """Refuse a request that never became an exchange: its head is malformed, too large or late."""
    cdef uint32_t n = respond_refusal_text(worker.scratch, reason_status[reason], reason_name[reason],
                                           reason_text[reason], 1, GRPC_NONE, GRPC_WEB_NONE, 0, respond_date(worker))
    worker.reasons[reason] += 1
    worker.requests += 1
    if conn_send(worker, conn, worker.scratch, n) == CONN_ERROR:
        downstream_close(worker, conn)
        return
    downstream_refuse(worker, conn)


cdef inline void respond_reason(Worker* worker, Exchange* exchange, uint8_t reason) noexcept nogil:
    """Answer with the reason's status and end the exchange. After the first response byte: cut the connection."""
    respond_status(worker, exchange, reason, reason_status[reason])


cdef inline void respond_status(Worker* worker, Exchange* exchange, uint8_t reason, uint16_t status) noexcept nogil:
    cdef Conn* down = exchange.down
    cdef uint64_t now_ns = sys_now_ns()
    cdef int outcome = ATTEMPT_FAILED if reason_fault[reason] == FAULT_UPSTREAM else ATTEMPT_ABANDONED
    cdef int request_read = exchange.request.state == FLOW_DONE
    cdef int must_close
    cdef uint32_t n
    exchange.reason = reason
    if exchange.flags & (EXCHANGE_RESPONSE_STARTED | EXCHANGE_TCP):
        if exchange.status == 0:
            exchange.status = status
        exchange_end(worker, exchange, outcome, now_ns)
        downstream_abort(worker, down)
        return
    exchange.status = status
    must_close = not request_read or down.flags & CONN_CLOSE_AFTER or worker.draining \
        or exchange.flags & EXCHANGE_MINOR_0 or reason_fault[reason] == FAULT_DOWNSTREAM \
        or reason_fault[reason] == FAULT_UPSTREAM or reason == REASON_LOAD_SHED       # as linkerd2-proxy closes
    if exchange.flags & EXCHANGE_GRPC:
        exchange.grpc_status = grpc_status_of_http(status)
        must_close |= not conn_is_stream(down)        # without a length, its end is the connection's
    n = respond_refusal_text(worker.scratch, status, reason_name[reason], reason_text[reason], must_close,
                             exchange.grpc_status, GRPC_WEB_TEXT if exchange.flags & EXCHANGE_GRPC_WEB_TEXT
                             else GRPC_WEB_BINARY if exchange.flags & EXCHANGE_GRPC_WEB else GRPC_WEB_NONE, exchange.binding != NULL,
                             respond_date(worker))
    exchange_end(worker, exchange, outcome, now_ns)
    if conn_send(worker, down, worker.scratch, n) == CONN_ERROR:
        downstream_close(worker, down)
    elif not request_read:
        downstream_refuse(worker, down)
    elif must_close:
        downstream_part(worker, down)
    else:
        downstream_next(worker, down)


cdef inline void respond_direct(Worker* worker, Exchange* exchange, const DirectResponse* direct) noexcept nogil:
    """Answer with the route's own response."""
    respond_bytes(worker, exchange, direct.reason, direct.status, direct.head.at, direct.head.len,
                  direct.body.at, direct.body.len)


cdef inline void respond_bytes(Worker* worker, Exchange* exchange, uint8_t reason, uint16_t status,
                               const char* head, uint32_t head_len, const char* body, uint32_t body_len) noexcept nogil:
    """Send a ready response: `head` up to its last field's CRLF, content-length included."""
    cdef Conn* down = exchange.down
    cdef uint64_t now_ns = sys_now_ns()
    cdef int request_read = exchange.request.state == FLOW_DONE
    cdef int must_close = not request_read or down.flags & CONN_CLOSE_AFTER or worker.draining \
        or exchange.flags & EXCHANGE_MINOR_0
    cdef char end[DATE_LINE_BYTES + 24]
    cdef uint32_t end_len = 0
    cdef int code
    if not respond_has_date(head, head_len):
        end_len = mc_put(end, respond_date(worker))
    end_len += mc_put(end + end_len, b"connection: close\r\n\r\n" if must_close else b"\r\n")
    code = conn_send2(worker, down, head, head_len, end, end_len)
    if exchange.flags & EXCHANGE_HEAD_METHOD:
        body_len = 0                    # RFC 9110 9.3.2
    if code != CONN_ERROR and body_len:
        code = conn_send(worker, down, body, body_len)
    exchange.reason = reason
    exchange.status = status
    exchange.response.moved_bytes = body_len
    exchange_end(worker, exchange, ATTEMPT_ABANDONED, now_ns)
    if code == CONN_ERROR:
        downstream_close(worker, down)
    elif not request_read:
        downstream_refuse(worker, down)
    elif must_close:
        downstream_part(worker, down)
    else:
        downstream_next(worker, down)


cdef inline void respond_gone(Worker* worker, Exchange* exchange, uint8_t reason) noexcept nogil:
    """The client went away (or must be cut off): end the exchange, answer nobody."""
    cdef Conn* down = exchange.down
    exchange.reason = reason
    if exchange.status == 0:
        exchange.status = reason_status[reason]
    exchange_end(worker, exchange, ATTEMPT_ABANDONED, sys_now_ns())
    downstream_abort(worker, down)
