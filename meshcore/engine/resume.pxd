# An exchange comes back from a Python filter, or its name is bound: go on as was said. The verdict's bytes pass the strict
# parser again, so a filter can no more send something malformed than a client can.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from meshcore.engine.binding cimport BindingRef
from meshcore.engine.buffer cimport Buffer, buffer_return, buffer_take
from meshcore.engine.conn cimport conn_deadline, conn_drop_input, conn_keep_input, conn_run_later
from meshcore.engine.exchange cimport exchange_drop_binding
from meshcore.engine.head cimport (
    HEAD_DONE, METHOD_CONNECT, METHOD_HEAD, Head, head_parser_reset, method_is_idempotent,
)
from meshcore.engine.http1 cimport head_parse_request
from meshcore.engine.http1 cimport head_parse_response
from meshcore.engine.reasons cimport REASON_FILTER_ERROR, REASON_FILTER_RESPONSE, REASON_OUT_OF_MEMORY
from meshcore.engine.lookup cimport Bind, lookup_bind, lookup_take
from meshcore.engine.request cimport request_forward, request_look_up
from meshcore.engine.respond cimport respond_bytes, respond_reason
from meshcore.engine.response cimport response_begin
from meshcore.engine.state cimport (
    CONN_CLOSE_AFTER, EXCHANGE_FILTERED, EXCHANGE_IDEMPOTENT, EXCHANGE_RESPONSE_FILTERED, EXCHANGE_TCP,
    EXCHANGE_UPGRADE, FLOW_DONE, HOOK_ERROR, HOOK_REPLACE_HEAD, HOOK_REQUEST, HOOK_RESPOND, Conn, Exchange, Hook, Worker,
)
from meshcore.engine.tcp cimport tcp_go_on


cdef inline void resume_hook(Worker* worker, Hook* hook) noexcept nogil:
    cdef Exchange* exchange = hook.exchange
    cdef Conn* conn = exchange.down if hook.phase == HOOK_REQUEST else exchange.up
    cdef char* replacement = hook.replacement
    cdef uint32_t total
    cdef int code
    hook.replacement = NULL
    conn_deadline(worker, exchange.down, exchange.total_deadline_ns)
    if hook.verdict == HOOK_RESPOND:
        resume_consume(worker, hook, conn)
        respond_bytes(worker, exchange, REASON_FILTER_RESPONSE, hook.status, replacement, hook.answer_head_bytes,
                      replacement + hook.answer_head_bytes, hook.replacement_bytes - hook.answer_head_bytes)
        free(replacement)
        return
    if hook.verdict == HOOK_ERROR:
        resume_consume(worker, hook, conn)
        exchange.route_state.filter_errors += 1
        respond_reason(worker, exchange, REASON_FILTER_ERROR)
        return
    if hook.verdict == HOOK_REPLACE_HEAD:
        code = resume_replace_head(worker, conn, replacement, hook.replacement_bytes, hook.head_bytes)
        free(replacement)
        if not code:
            conn_drop_input(worker, conn)
            exchange.down.flags |= CONN_CLOSE_AFTER
            respond_reason(worker, exchange, REASON_OUT_OF_MEMORY)
            return
    total = conn.in_buffer.end - conn.in_buffer.start
    if hook.phase == HOOK_REQUEST:
        exchange.flags |= EXCHANGE_FILTERED
        head_parser_reset(worker.parser, worker.llhttp, 0)
        code = head_parse_request(worker.parser, conn.in_buffer.data + conn.in_buffer.start, total, worker.head,
                                  &exchange.snapshot.snapshot.limits)
        if code == HEAD_DONE and resume_may_be(exchange, worker.head):
            if exchange.route.lookup != NULL and hook.cluster_index < 0:
                request_look_up(worker, exchange, worker.head, total)
            else:
                request_forward(worker, exchange, worker.head, total, hook.cluster_index, 0)
            return
    else:
        exchange.flags |= EXCHANGE_RESPONSE_FILTERED
        # Edges that came meanwhile were noted and not acted on: the request's body may go on.
        conn_run_later(worker, conn)
        conn_run_later(worker, exchange.down)
        head_parser_reset(worker.parser, worker.llhttp, 1)
        code = head_parse_response(worker.parser, conn.in_buffer.data + conn.in_buffer.start, total, worker.head,
                                   &exchange.snapshot.snapshot.limits, exchange.method,
                                   exchange.flags & EXCHANGE_UPGRADE != 0)
        if code == HEAD_DONE:
            response_begin(worker, exchange, worker.head, conn.in_buffer.data + conn.in_buffer.start
                           + worker.head.size_bytes, total - worker.head.size_bytes)
            return
    # The filter wrote a head no strict parser takes.
    conn_drop_input(worker, conn)
    exchange.down.flags |= CONN_CLOSE_AFTER
    exchange.route_state.filter_errors += 1
    respond_reason(worker, exchange, REASON_FILTER_ERROR)


cdef inline void resume_lookup(Worker* worker, Exchange* exchange, BindingRef* binding, uint8_t reason) noexcept nogil:
    """An exchange waited for its name: go on with what it is bound to, or, without that, end for a reason."""
    cdef Conn* conn = exchange.down
    cdef Head* head = worker.head
    cdef uint32_t total
    if exchange.flags & EXCHANGE_TCP:
        if binding != NULL:
            lookup_take(worker, exchange, binding, NULL)
        tcp_go_on(worker, exchange, reason)
        return
    conn_deadline(worker, conn, 0)
    total = conn.in_buffer.end - conn.in_buffer.start
    head_parser_reset(worker.parser, worker.llhttp, 0)
    # It was whole and sound when it began to wait.
    head_parse_request(worker.parser, conn.in_buffer.data + conn.in_buffer.start, total, head,
                       &exchange.snapshot.snapshot.limits)
    if binding != NULL:
        lookup_take(worker, exchange, binding, head)
    request_forward(worker, exchange, head, total, -1, reason)


cdef inline void resume_bound(Worker* worker, const Bind* bind) noexcept nogil:
    """A name is bound: its exchanges go on, oldest first."""
    cdef Exchange* exchange = lookup_bind(worker, bind)
    cdef Exchange* following
    if bind.ref != NULL:
        bind.ref.exchanges += 1         # held while they are served, one of which may bring another answer
    while exchange != NULL:
        following = exchange.queue_next
        exchange.queue_next = exchange.queue_prev = NULL
        resume_lookup(worker, exchange, bind.ref, 0)
        exchange = following
    if bind.ref != NULL:
        exchange_drop_binding(bind.ref)


cdef inline void resume_consume(Worker* worker, Hook* hook, Conn* conn) noexcept nogil:
    # The request is answered here: its head is used up. A body makes the answer close the connection, so nothing of it
    # is ever taken for a next request.
    cdef Buffer* buffer = conn.in_buffer
    if hook.phase != HOOK_REQUEST:
        return
    if hook.exchange.request.state == FLOW_DONE:
        conn_keep_input(worker, conn, buffer.data + buffer.start + hook.head_bytes,
                        buffer.end - buffer.start - hook.head_bytes)
    else:
        conn_drop_input(worker, conn)


cdef inline int resume_may_be(Exchange* exchange, const Head* head) noexcept nogil:
    """Take over the method a filter chose. 0 for a change between HEAD or CONNECT and another: the client, who does not
    know of it, would take the answer's body, or its lack of one, for something else."""
    if head.method == exchange.method:
        return 1
    if head.method == METHOD_HEAD or head.method == METHOD_CONNECT or exchange.method == METHOD_HEAD \
            or exchange.method == METHOD_CONNECT:
        return 0
    exchange.method = head.method
    exchange.flags &= ~<uint32_t>EXCHANGE_IDEMPOTENT
    if method_is_idempotent(head.method):
        exchange.flags |= EXCHANGE_IDEMPOTENT
    return 1


cdef inline int resume_replace_head(Worker* worker, Conn* conn, const char* head, uint32_t head_bytes,
                                    uint32_t old_head_bytes) noexcept nogil:
    cdef Buffer* old = conn.in_buffer
    cdef uint32_t rest = old.end - old.start - old_head_bytes
    cdef Buffer* buffer = buffer_take(&worker.buffers, head_bytes + rest)
    if buffer == NULL:
        return 0
    memcpy(buffer.data, head, head_bytes)
    memcpy(buffer.data + head_bytes, old.data + old.start + old_head_bytes, rest)
    buffer.end = head_bytes + rest
    buffer_return(&worker.buffers, old)
    conn.in_buffer = buffer
    return 1
