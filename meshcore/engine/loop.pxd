# One worker: wait, act on events, timers and commands, until told to stop. Owns the order of things in a wake-up.
#
# A wake-up: read the clock once (NOW_ONCE); commands; events, in batches (see batch); answered filters; timers;
# connections that asked to run again; queues that may have a free connection; hand parked exchanges to the filter
# thread. Memory freed in a batch may be reused in it: a stale event is recognised by its token's generation.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from meshcore.engine.batch cimport (
    batch_add_read, batch_begin, batch_close, batch_expect_many, batch_open, batch_read,
)
from meshcore.engine.buffer cimport buffer_return
from meshcore.engine.conn cimport conn_close, conn_deadline, conn_keep_received, conn_run_later
from meshcore.engine.deadline cimport deadline_passed
from meshcore.engine.destination cimport destination_apply
from meshcore.engine.dispatch cimport dispatch_serve
from meshcore.engine.downstream cimport downstream_part
from meshcore.engine.endpoint cimport ClusterState, EndpointState
from meshcore.engine.event cimport (
    event_act, event_end_batch, event_flush_sessions, event_may_read_ahead, event_run,
)
from meshcore.engine.flow cimport flow_close
from meshcore.engine.hook cimport hook_bury, hook_hand_over
from meshcore.engine.listener cimport listener_close, listener_open
from meshcore.engine.lookup cimport lookup_distrust
from meshcore.engine.mailbox cimport (
    COMMAND_APPLY, COMMAND_BIND, COMMAND_DRAIN, COMMAND_STOP, COMMAND_TAP_CLOSE, COMMAND_TAP_OPEN, COMMAND_TRUST, Command,
)
from meshcore.engine.openssl cimport SSL_CTX, SSL_CTX_free, SSL_CTX_get_ex_data, rules_index
from meshcore.engine.pool cimport pool_close_idle
from meshcore.engine.resume cimport resume_bound, resume_hook
from meshcore.engine.session cimport session_drain, session_end, session_next_dirty, session_retire
from meshcore.engine.slab cimport SLAB_CHUNK_ITEMS, SLAB_NONE, SlabItem, slab_at, slab_find, slab_return
from meshcore.engine.snapshot cimport ClusterConf, Snapshot
from meshcore.engine.stack cimport StackNode, stack_take
from meshcore.engine.state cimport (
    BATCH_EVENTS, CONN_AWAIT_HEAD, CONN_DOWNSTREAM, CONN_FREE, CONN_QUEUED, EXCHANGE_ABANDONED, IO_FAILED,
    IO_PEER_CLOSED, IO_READABLE, LISTENER_REMOVED, Conn, Exchange, Hook, ListenerState, Received,
    SnapshotRef, Worker,
)
from meshcore.engine.sys cimport (
    EAGAIN, atomic_add_u32, atomic_load_ptr, atomic_store_u32, epoll_event, epoll_wait, sys_drain_notify, sys_now_ns, sys_wall_ns,
)
from meshcore.engine.tap cimport tap_release
from meshcore.engine.tls_context cimport TlsRules
from meshcore.engine.timer cimport TimerNode, timer_expired, timer_wait_ms

cdef enum:
    EVENTS_PER_WAIT = 256
    FIRST_REQUEST_GRACE_NS = 1000000000 # of a connection that has asked nothing when its listener goes away


cdef inline void loop_run(Worker* worker) noexcept nogil:
    """Run until COMMAND_STOP. Then every socket is closed, and `stopped` is set last."""
    cdef epoll_event events[256]
    cdef int n
    cdef int first
    cdef int timeout_ms
    cdef int woken
    worker.now_ns = sys_now_ns()
    batch_open(&worker.batch)
    while not worker.stopping:
        timeout_ms = 0 if worker.run_head != SLAB_NONE or worker.ready_streams != NULL \
            or worker.dirty_sessions != NULL else timer_wait_ms(&worker.timers, worker.now_ns)
        n = epoll_wait(worker.epoll_fd, events, EVENTS_PER_WAIT, timeout_ms)
        worker.now_ns = sys_now_ns()
        worker.wall_offset_ns = sys_wall_ns() - worker.now_ns
        worker.wakeups += 1
        worker.tls_steps = 0
        if atomic_load_ptr(&worker.mailbox.head) != NULL:
            loop_commands(worker)       # first: who sends a request after a command was posted may count on it
        woken = 0
        first = 0
        while first < n:
            woken |= loop_batch(worker, events + first, min(n - first, <int>BATCH_EVENTS))
            first += BATCH_EVENTS
            if first < n:
                worker.now_ns = sys_now_ns()          # a batch may have moved megabytes
        if woken:
            sys_drain_notify(worker.wake_fd)
            loop_commands(worker)
            batch_begin(&worker.batch, BATCH_EVENTS)
            loop_filters(worker)
            event_flush_sessions(worker)
            event_end_batch(worker)
        loop_timers(worker)
        loop_run_list(worker)
        if worker.serve_queues:
            loop_queues(worker)
        event_flush_sessions(worker)
        if worker.parked != NULL:
            hook_hand_over(worker)
    loop_close_all(worker)
    batch_close(&worker.batch)
    atomic_store_u32(&worker.stopped, 1)


cdef inline int loop_batch(Worker* worker, const epoll_event* events, int n) noexcept nogil:
    """Act on up to BATCH_EVENTS events: read, act, send. 1 when one of them was a call to the mailbox."""
    cdef SlabItem* item
    cdef int woken = 0
    cdef int i
    batch_begin(&worker.batch, n)
    for i in range(n):
        if events[i].data.u64 == 0:
            continue
        item = slab_find(&worker.conns, events[i].data.u64)
        if item == NULL:
            continue
        if (<Conn*>item).session != NULL:
            batch_expect_many(&worker.batch)
        if event_may_read_ahead(<Conn*>item, events[i].events):
            batch_add_read(&worker.batch, <Conn*>item)
    batch_read(&worker.batch)
    for i in range(n):
        if events[i].data.u64 == 0:
            woken = 1
            continue
        item = slab_find(&worker.conns, events[i].data.u64)
        if item != NULL:
            event_act(worker, <Conn*>item, events[i].events)
    loop_keep_untaken(worker)
    event_flush_sessions(worker)
    event_end_batch(worker)
    return woken


cdef inline void loop_keep_untaken(Worker* worker) noexcept nogil:
    # What was read ahead and then not asked for (its connection went another way meanwhile) is kept as if asked for.
    cdef Received* received
    cdef Conn* conn
    cdef uint32_t i
    for i in range(worker.batch.n_received):
        received = &worker.batch.received[i]
        conn = received.conn
        if conn == NULL:
            continue
        received.conn = NULL
        conn.received_slot = 0
        if received.n > 0 and conn_keep_received(worker, conn, received.at, <uint32_t>received.n):
            conn_run_later(worker, conn)
        elif received.n != -EAGAIN:
            conn.io |= IO_READABLE | IO_PEER_CLOSED if received.n == 0 else IO_FAILED
            conn_run_later(worker, conn)


cdef inline void loop_timers(Worker* worker) noexcept nogil:
    cdef TimerNode* node = timer_expired(&worker.timers, worker.now_ns)
    while node != NULL:
        # Safety: every TimerNode of the wheel is Conn.timer.
        deadline_passed(worker, <Conn*>(<char*>node - <size_t>&(<Conn*>NULL).timer))
        node = timer_expired(&worker.timers, worker.now_ns)


cdef inline void loop_run_list(Worker* worker) noexcept nogil:
    """Connections that stopped early or have pipelined input: one turn each; who asks again waits for the next wake-up."""
    cdef uint32_t index = worker.run_head
    cdef Conn* conn
    worker.run_head = worker.run_tail = SLAB_NONE
    while index != SLAB_NONE:
        conn = <Conn*>slab_at(&worker.conns, index)
        index = conn.run_next
        conn.flags &= <uint8_t>~CONN_QUEUED
        if conn.kind == CONN_FREE:
            slab_return(&worker.conns, &conn.item)
        else:
            event_run(worker, conn)


cdef inline void loop_queues(Worker* worker) noexcept nogil:
    """Each queue once: one that is served may empty itself, and be filled again behind our back."""
    cdef ClusterState* state = worker.queued_clusters
    cdef ClusterState* following
    worker.serve_queues = 0
    while state != NULL:
        # Safety: serving a queue takes exchanges out of it alone; what joins the list joins at its head.
        following = state.queued_next
        dispatch_serve(worker, state)
        state = following


cdef inline void loop_filters(Worker* worker) noexcept nogil:
    cdef StackNode* node = stack_take(&worker.returned_hooks)
    cdef StackNode* following
    cdef Hook* hook
    while node != NULL:
        following = node.next
        hook = <Hook*>node
        worker.filters_waiting -= 1
        if hook.exchange.flags & EXCHANGE_ABANDONED:
            hook_bury(worker, hook.exchange)
        else:
            resume_hook(worker, hook)
        node = following


# --- commands -------------------------------------------------------------------------------------------------------

cdef inline void loop_commands(Worker* worker) noexcept nogil:
    cdef StackNode* node = stack_take(&worker.mailbox)
    cdef StackNode* following
    cdef Command* command
    while node != NULL:
        following = node.next           # read before `done`: Python frees the command then
        command = <Command*>node
        if command.kind == COMMAND_APPLY:
            loop_apply(worker, command.snapshot)
        elif command.kind == COMMAND_BIND:
            loop_bind(worker, command)
        elif command.kind == COMMAND_TRUST:
            loop_trust(worker, command)
        elif command.kind == COMMAND_TAP_OPEN:
            worker.taps[command.tap_index] = command.tap
            worker.tap_since[command.tap_index] = worker.next_stream
            worker.tap_bits |= <uint32_t>1 << command.tap_index
        elif command.kind == COMMAND_TAP_CLOSE:
            worker.tap_bits &= ~(<uint32_t>1 << command.tap_index)
            worker.taps[command.tap_index] = NULL
        elif command.kind == COMMAND_DRAIN:
            loop_drain(worker)
        elif command.kind == COMMAND_STOP:
            worker.stopping = 1
        atomic_store_u32(&command.done, 1)
        node = following


cdef inline void loop_apply(Worker* worker, SnapshotRef* following) noexcept nogil:
    """Make a snapshot the current one. What it shares with the old one keeps its state (UNCHANGED_UNTOUCHED)."""
    cdef SnapshotRef* old = worker.current
    cdef Snapshot* snapshot = following.snapshot
    cdef ClusterConf* cluster
    cdef ListenerState* listener
    cdef EndpointState* endpoint
    cdef uint32_t i
    cdef uint32_t j
    for i in range(snapshot.n_clusters):
        cluster = &snapshot.clusters[i]
        for j in range(cluster.n_endpoints):
            worker.endpoints[cluster.endpoints[j].slot].slot_version = snapshot.version
    following.is_current = 1
    worker.current = following
    worker.buffers.limit_bytes = snapshot.limits.buffer_memory_bytes
    for i in range(snapshot.n_listeners):
        listener = worker.listeners[snapshot.listeners[i].slot]
        listener.conf_index = i
        listener.version = snapshot.version
        if listener.fd >= 0 and not worker.draining:
            listener_open(worker, listener)
    if old == NULL:
        return
    old.is_current = 0
    for i in range(old.snapshot.n_listeners):
        listener = worker.listeners[old.snapshot.listeners[i].slot]
        if listener.version != snapshot.version:
            listener_close(worker, listener)
            listener.conf_index = LISTENER_REMOVED
            loop_close_idle(worker, listener)
    for i in range(old.snapshot.n_clusters):
        cluster = &old.snapshot.clusters[i]
        for j in range(cluster.n_endpoints):
            endpoint = worker.endpoints[cluster.endpoints[j].slot]
            if endpoint.slot_version != snapshot.version and endpoint.bindings == 0:
                pool_close_idle(worker, endpoint)
                session_retire(worker, endpoint)
    destination_apply(worker, old.snapshot.version)
    if old.exchanges == 0:
        atomic_add_u32(old.workers_left, <uint32_t>-1)
    worker.serve_queues = 1


cdef inline void loop_bind(Worker* worker, Command* command) noexcept nogil:
    cdef uint32_t i
    for i in range(command.n_binds):
        resume_bound(worker, &command.binds[i])


cdef inline void loop_trust(Worker* worker, Command* command) noexcept nogil:
    """A shared context is replaced: the next handshake goes by the new one."""
    cdef SSL_CTX* old = worker.tls_contexts[command.context]
    cdef uint64_t trust = (<const TlsRules*>SSL_CTX_get_ex_data(command.tls, rules_index(NULL))).trust
    cdef int is_distrusted = old != NULL and worker.tls_trusts[command.context] != trust
    worker.tls_contexts[command.context] = command.tls
    worker.tls_trusts[command.context] = trust
    if is_distrusted:
        lookup_distrust(worker, <uint16_t>(command.context + 1))
    SSL_CTX_free(old)


cdef inline void loop_drain(Worker* worker) noexcept nogil:
    """No new connections; idle ones end now, the others after their response."""
    cdef uint32_t i
    worker.draining = 1
    for i in range(worker.current.snapshot.n_listeners):
        listener_close(worker, worker.listeners[worker.current.snapshot.listeners[i].slot])
    loop_close_idle(worker, NULL)


cdef inline void loop_close_idle(Worker* worker, ListenerState* only) noexcept nogil:
    # A connection with input on its way is not idle: that request is answered, with `connection: close`.
    cdef uint32_t index = worker.downstream_head
    cdef Conn* conn
    while index != SLAB_NONE:
        conn = <Conn*>slab_at(&worker.conns, index)
        index = conn.pool_next
        if only != NULL and conn.owner != only:
            continue
        if conn.session != NULL:
            session_drain(worker, conn.session)
        if conn.state != CONN_AWAIT_HEAD or conn.in_buffer != NULL or conn.io & IO_READABLE:
            continue
        if conn.requests:
            downstream_part(worker, conn)             # what it has not taken of its last answer is flushed first
        else:
            # Just accepted: its first request may be on the way. A short while decides.
            conn_deadline(worker, conn, worker.now_ns + FIRST_REQUEST_GRACE_NS)


cdef inline void loop_close_all(Worker* worker) noexcept nogil:
    cdef uint32_t i
    cdef Conn* conn
    for i in range(worker.conns.n_chunks * SLAB_CHUNK_ITEMS):
        conn = <Conn*>slab_at(&worker.conns, i)
        if conn.kind == CONN_FREE:
            continue
        if conn.session != NULL:
            session_end(worker, conn.session)
        if conn.kind == CONN_DOWNSTREAM and conn.exchange != NULL:
            loop_drop_exchange(worker, conn.exchange)
        conn_close(worker, conn)
    session_next_dirty(worker)          # gives back those that ended while in its list


cdef inline void loop_drop_exchange(Worker* worker, Exchange* exchange) noexcept nogil:
    # Stopping: only what it holds matters now, nobody reads what it would have noted.
    if exchange.request_buffer != NULL:
        buffer_return(&worker.buffers, exchange.request_buffer)
    tap_release(worker, exchange)
    flow_close(worker, &exchange.request)
    flow_close(worker, &exchange.response)
