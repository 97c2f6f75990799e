# Exchanges that wait for a filter written in Python: parked here, handed over together, picked up when answered.
# Takes no GIL and runs no Python: the engine's filter thread does (see the door).
#
# Facts: taking the GIL can wait five milliseconds for another Python thread, and a filter may be slow. A worker that
# took it would stall every connection it owns. Decision: the exchanges of one wake-up go to the filter thread in one
# push, which takes the GIL once for all it finds; the worker goes on and learns of answers by its eventfd. Cost: two
# thread switches per batch, only for routes that ask for filters. ONE_OWNER: between park and return the filter thread
# owns the hook and the bytes of the head; the worker may only mark the exchange abandoned.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from meshcore.engine.conn cimport conn_deadline, conn_drop_input, conn_is_secure, conn_keep_input, conn_peer
from meshcore.engine.exchange cimport ATTEMPT_ABANDONED, exchange_end
from meshcore.engine.reasons cimport REASON_FILTER_OVERLOADED, REASON_OUT_OF_MEMORY
from meshcore.engine.respond cimport respond_reason
from meshcore.engine.stack cimport StackNode, stack_push
from meshcore.engine.state cimport (
    CONN_CLOSE_AFTER, EXCHANGE_ABANDONED, EXCHANGE_UPGRADE, HOOK_CONTINUE, HOOK_REQUEST, Conn, Exchange, Hook, Worker,
)
from meshcore.engine.sys cimport sys_notify, sys_now_ns


cdef inline void hook_park(Worker* worker, Exchange* exchange, Conn* conn, uint8_t phase, char* base,
                           uint32_t head_bytes, uint32_t total_bytes) noexcept nogil:
    """Keep the bytes of a head (and what came behind it) on `conn`, and queue the exchange for the filter thread."""
    cdef Hook* hook
    if worker.filters_waiting >= exchange.snapshot.snapshot.limits.max_filters_waiting:
        hook_refuse_input(worker, exchange)
        respond_reason(worker, exchange, REASON_FILTER_OVERLOADED)
        return
    if exchange.hook == NULL:
        # Once per exchange slot, kept with it.
        exchange.hook = <Hook*>malloc(sizeof(Hook))
    if exchange.hook == NULL or not conn_keep_input(worker, conn, base, total_bytes):
        hook_refuse_input(worker, exchange)
        respond_reason(worker, exchange, REASON_OUT_OF_MEMORY)
        return
    hook = exchange.hook
    hook.worker = worker
    hook.exchange = exchange
    hook.phase = phase
    hook.verdict = HOOK_CONTINUE
    hook.method = exchange.method
    hook.upgrade = exchange.flags & EXCHANGE_UPGRADE != 0
    hook.cluster_index = -1
    hook.head = conn.in_buffer.data + conn.in_buffer.start
    hook.head_bytes = head_bytes
    hook.replacement = NULL
    hook.replacement_bytes = 0
    hook.snapshot = exchange.snapshot.snapshot
    hook.secure = <uint8_t>conn_is_secure(exchange.down)
    hook.identity_len = 0
    if hook.secure:
        hook.identity_len = conn_peer(exchange.down).identity_len
        memcpy(hook.identity, conn_peer(exchange.down).identity, hook.identity_len)
    hook.node.next = NULL
    if worker.parked == NULL:
        worker.parked = &hook.node
    else:
        worker.parked_last.next = &hook.node
    worker.parked_last = &hook.node
    worker.filters_waiting += 1
    conn_deadline(worker, exchange.down, worker.now_ns + exchange.snapshot.snapshot.limits.filter_timeout_ns)
    if phase != HOOK_REQUEST:
        conn_deadline(worker, exchange.up, 0)


cdef inline void hook_refuse_input(Worker* worker, Exchange* exchange) noexcept nogil:
    # The head was not used up: after this answer nothing on that connection can be trusted to be a request.
    conn_drop_input(worker, exchange.down)
    exchange.down.flags |= CONN_CLOSE_AFTER


cdef inline void hook_hand_over(Worker* worker) noexcept nogil:
    """Give the parked exchanges of this wake-up to the filter thread; wake it once, if it may sleep."""
    cdef StackNode* node = worker.parked
    cdef StackNode* following
    cdef int must_wake = 0
    worker.parked = NULL
    while node != NULL:
        following = node.next
        must_wake |= stack_push(worker.filter_stack, node)
        node = following
    if must_wake:
        sys_notify(worker.filter_fd)


cdef inline void hook_abandon(Worker* worker, Exchange* exchange) noexcept nogil:
    """The client is gone or was answered while the filter thread holds the exchange: let go of the connection only."""
    cdef Conn* down = exchange.down
    exchange.flags |= EXCHANGE_ABANDONED
    if exchange.hook.phase == HOOK_REQUEST:
        # Safety: the hook borrows these bytes until it returns; exchange_end gives them back.
        exchange.request_buffer = down.in_buffer
        down.in_buffer = NULL
    down.exchange = NULL
    exchange.down = NULL


cdef inline void hook_bury(Worker* worker, Exchange* exchange) noexcept nogil:
    """The filter thread returned an abandoned exchange: now it can end."""
    free(exchange.hook.replacement)
    exchange.hook.replacement = NULL
    exchange_end(worker, exchange, ATTEMPT_ABANDONED, sys_now_ns())
