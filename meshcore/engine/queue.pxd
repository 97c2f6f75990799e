# Exchanges that wait for a connection, per cluster, oldest first: joining and leaving. Answers none, and serves none.

from meshcore.engine.conn cimport conn_deadline
from meshcore.engine.endpoint cimport ClusterState
from meshcore.engine.exchange cimport exchange_earlier
from meshcore.engine.slab cimport slab_at
from meshcore.engine.state cimport EXCHANGE_AWAIT_CONNECTION, Exchange, Worker


cdef inline int queue_join(Worker* worker, Exchange* exchange) noexcept nogil:
    """1; 0: it is full."""
    cdef ClusterState* state = exchange.cluster_state
    cdef Exchange* last
    exchange.endpoint = NULL
    exchange.address = NULL
    exchange.endpoint_index = -1
    if state.queue_len >= exchange.cluster.max_queue:
        state.queue_overflow += 1
        return 0
    exchange.state = EXCHANGE_AWAIT_CONNECTION
    exchange.queue_next = NULL
    exchange.queue_prev = NULL
    if state.queue_len == 0:
        state.queue_head = exchange.item.index
        queue_list(worker, state)
    else:
        last = <Exchange*>slab_at(&worker.exchanges, state.queue_tail)
        last.queue_next = exchange
        exchange.queue_prev = last
    state.queue_tail = exchange.item.index
    state.queue_len += 1
    worker.queued_exchanges += 1
    conn_deadline(worker, exchange.down, exchange_earlier(worker.now_ns + exchange.cluster.queue_timeout_ns,
                                                          exchange.total_deadline_ns))
    return 1


cdef inline void queue_leave(Worker* worker, Exchange* exchange) noexcept nogil:
    """Take an exchange out of its queue, wherever it stands."""
    cdef ClusterState* state = exchange.cluster_state
    if exchange.queue_prev != NULL:
        exchange.queue_prev.queue_next = exchange.queue_next
    elif exchange.queue_next != NULL:
        state.queue_head = exchange.queue_next.item.index
    if exchange.queue_next != NULL:
        exchange.queue_next.queue_prev = exchange.queue_prev
    elif exchange.queue_prev != NULL:
        state.queue_tail = exchange.queue_prev.item.index
    exchange.queue_next = exchange.queue_prev = NULL
    state.queue_len -= 1
    worker.queued_exchanges -= 1
    if state.queue_len == 0:
        queue_unlist(worker, state)


cdef inline void queue_list(Worker* worker, ClusterState* state) noexcept nogil:
    state.queued_prev = NULL
    state.queued_next = worker.queued_clusters
    if state.queued_next != NULL:
        state.queued_next.queued_prev = state
    worker.queued_clusters = state


cdef inline void queue_unlist(Worker* worker, ClusterState* state) noexcept nogil:
    if state.queued_prev != NULL:
        state.queued_prev.queued_next = state.queued_next
    else:
        worker.queued_clusters = state.queued_next
    if state.queued_next != NULL:
        state.queued_next.queued_prev = state.queued_prev
    state.queued_next = state.queued_prev = NULL
