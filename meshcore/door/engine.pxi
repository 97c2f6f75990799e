# The engine as Python sees it: start and stop workers, apply a plan, read statistics, open taps.
# Holds the workers' memory; what they do with it is the rooms' business.

import threading as _threading
import time as _time

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from meshcore.engine.batch cimport BATCH_MEMORY_BYTES, batch_free, batch_init
from meshcore.engine.buffer cimport buffer_pool_free
from meshcore.engine.binding cimport binding_table_free, binding_table_init
from meshcore.engine.destination cimport destination_sum
from meshcore.engine.endpoint cimport Destination
from meshcore.engine.histogram_pool cimport histogram_pool_return
from meshcore.engine.loop cimport loop_run
from meshcore.engine.mailbox cimport \
    COMMAND_APPLY, COMMAND_DRAIN, COMMAND_STOP, COMMAND_TAP_CLOSE, COMMAND_TAP_OPEN, Command, mailbox_post
from meshcore.engine.pipe cimport pipe_close_idle
from meshcore.engine.reasons cimport REASON_COUNT, reason_fault, reason_name, reason_status, reason_text
from meshcore.engine.ring cimport ring_advance, ring_free, ring_init, ring_peek
from meshcore.engine.session cimport session_worker_free, session_worker_init
from meshcore.engine.slab cimport SLAB_NONE, slab_at, slab_free, slab_init
from meshcore.engine.snapshot cimport Limits
from meshcore.engine.stack cimport Stack, StackNode, stack_push, stack_take
from meshcore.engine.state cimport \
    DESTINATION_BUCKETS, MAX_DESTINATIONS, MAX_TLS_CONTEXTS, READ_BYTES, READ_LARGE_BYTES, SCRATCH_BYTES, Conn, Exchange, Hook, \
    ListenerState, RouteState, Stream, Worker
from meshcore.engine.tap_session cimport MAX_TAPS, TapSession
from meshcore.engine.sys cimport \
    EFD_CLOEXEC, EFD_NONBLOCK, EPOLL_CLOEXEC, EPOLLET, EPOLLIN, atomic_load_u32, epoll_create1, eventfd, sys_close, \
    sys_drain_notify, sys_dup, sys_epoll_add, sys_notify, sys_now_ns, sys_wall_ns
from meshcore.engine.tap cimport TAP_RING_SLOTS, TapRecord
from meshcore.engine.timer cimport timer_wheel_init

cdef enum:
    READ_MARGIN = 64                    # before and behind the read buffer: room for chunk framing in place
    MAX_WORKERS = 256
    MAX_CONNS = 1048576
    MAX_LABELS = 1048576


def reasons() -> list[tuple[str, int, str, str]]:
    """Every reason the proxy may give: (name, status, whose fault, text)."""
    faults = ("nobody", "downstream", "internal", "upstream")
    return [(reason_name[i].decode().lower(), reason_status[i], faults[reason_fault[i]], reason_text[i].decode())
            for i in range(REASON_COUNT)]


cdef class Engine:
    """Worker threads below the GIL. One per Proxy; not restartable."""
    cdef Worker** workers
    cdef readonly uint32_t n_workers
    cdef Stack filter_stack
    cdef int filter_fd
    cdef Stack lookup_stack
    cdef int lookup_fd
    cdef bint has_filters               # their thread may be reading filter_fd
    cdef dict slots
    cdef list handles                   # live snapshots, the current one last
    cdef uint64_t version
    cdef uint64_t seed
    cdef list threads
    cdef object lock
    cdef list readers                   # weak references to `Counts`: they remember by slot
    cdef readonly double started_unix_s
    cdef readonly bint running

    def __cinit__(self, uint32_t workers, bint io_uring=True):
        if not 0 < workers <= MAX_WORKERS:
            raise ValueError(f"workers must be 1..{MAX_WORKERS}, got {workers}")
        self.filter_stack.head = NULL
        self.filter_fd = eventfd(0, EFD_CLOEXEC)
        self.lookup_stack.head = NULL
        self.lookup_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        self.seed = int.from_bytes(_os.urandom(8), "little")
        self.workers = <Worker**>calloc(workers, sizeof(Worker*))
        self.n_workers = workers
        self.slots = {"endpoints": _Slots("endpoints", MAX_ENDPOINTS), "clusters": _Slots("clusters", MAX_CLUSTERS),
                      "routes": _Slots("routes", MAX_ROUTES), "listeners": _Slots("listeners", MAX_LISTENERS),
                      "labels": _Slots("sets of labels", MAX_LABELS)}
        self.handles = []
        self.readers = []
        self.threads = []
        self.lock = _threading.RLock()
        for i in range(workers):
            self.workers[i] = self._new_worker(i)
            self.workers[i].batch.is_ring_wanted = io_uring

    cdef Worker* _new_worker(self, uint32_t index) except NULL:
        cdef Worker* worker = <Worker*>calloc(1, sizeof(Worker))
        if worker == NULL:
            raise MemoryError
        worker.index = index
        worker.n_workers = self.n_workers
        worker.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        worker.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if worker.epoll_fd < 0 or worker.wake_fd < 0:
            raise OSError("the engine cannot get file descriptors; raise `ulimit -n`")
        worker.spare_fd = sys_dup(worker.wake_fd)
        sys_epoll_add(worker.epoll_fd, worker.wake_fd, EPOLLIN | EPOLLET, 0)
        worker.now_ns = sys_now_ns()
        worker.wall_offset_ns = sys_wall_ns() - worker.now_ns
        timer_wheel_init(&worker.timers, worker.now_ns)
        rng_seed(&worker.rng, self.seed + index + 1)
        worker.llhttp = &llhttp_library
        worker.parser = <HeadParser*>calloc(1, sizeof(HeadParser))
        worker.head = <Head*>calloc(1, sizeof(Head))
        worker.read_buffer = <char*>malloc(READ_LARGE_BYTES + 2 * READ_MARGIN)
        worker.scratch = <char*>malloc(SCRATCH_BYTES)
        worker.endpoints = <EndpointState**>calloc(MAX_ENDPOINTS, sizeof(void*))
        worker.clusters = <ClusterState**>calloc(MAX_CLUSTERS, sizeof(void*))
        worker.routes = <RouteState**>calloc(MAX_ROUTES, sizeof(void*))
        worker.listeners = <ListenerState**>calloc(MAX_LISTENERS, sizeof(void*))
        worker.destinations.entries = <Destination**>calloc(MAX_DESTINATIONS, sizeof(void*))
        worker.destinations.buckets = <Destination**>calloc(DESTINATION_BUCKETS, sizeof(void*))
        worker.destinations.seed = rng_next(&worker.rng)
        worker.run_head = worker.run_tail = SLAB_NONE
        worker.downstream_head = SLAB_NONE
        worker.filter_stack = &self.filter_stack
        worker.filter_fd = self.filter_fd
        worker.lookup_stack = &self.lookup_stack
        worker.lookup_fd = self.lookup_fd
        if not slab_init(&worker.conns, sizeof(Conn), MAX_CONNS) \
                or not slab_init(&worker.exchanges, sizeof(Exchange), MAX_CONNS) \
                or not slab_init(&worker.streams, sizeof(Stream), MAX_CONNS) or not session_worker_init(worker) \
                or worker.parser == NULL or worker.head == NULL or worker.read_buffer == NULL \
                or worker.scratch == NULL or worker.endpoints == NULL or worker.clusters == NULL \
                or worker.routes == NULL or worker.listeners == NULL or worker.destinations.entries == NULL \
                or worker.destinations.buckets == NULL or not batch_init(&worker.batch) \
                or not binding_table_init(&worker.bindings, self.seed):
            raise MemoryError
        worker.read_buffer += READ_MARGIN
        worker.tls_in = <char*>malloc(READ_BYTES)
        worker.tls_pipe.out = <char*>malloc(TLS_OUT_BYTES)
        worker.tls_pipe.out_room = TLS_OUT_BYTES
        worker.tls_bio = pipe_bio(&worker.tls_pipe)
        if worker.tls_in == NULL or worker.tls_pipe.out == NULL or worker.tls_bio == NULL:
            raise MemoryError
        return worker

    def __dealloc__(self):
        cdef uint32_t i
        if self.workers != NULL:
            for i in range(self.n_workers):
                if self.workers[i] != NULL:
                    _free_worker(self.workers[i])
            free(self.workers)
        if self.filter_fd >= 0:
            sys_close(self.filter_fd)
        if self.lookup_fd >= 0:
            sys_close(self.lookup_fd)
        _free_asks(stack_take(&self.lookup_stack))

    # --- life ---------------------------------------------------------------------------------------------------

    def apply(self, dict plan, dict sockets) -> None:
        """Make `plan` the configuration of every worker; returns when all have taken it.

        sockets: (listener name, address) -> one listening fd per worker, for listeners that are new. The engine owns
        them from now on. Nothing changes when this raises.
        """
        cdef SnapshotHandle handle
        cdef Command* commands
        cdef uint32_t i
        with self.lock:
            self._reap()
            self.version += 1
            plan = {**plan, "version": self.version}
            handle = _build_snapshot(plan, self.slots, self.seed, self.n_workers)
            for kind, slot in handle.fresh:
                self._make_state(kind, slot)
            for name, address, slot in handle.listeners:
                for i, fd in enumerate(sockets.get((name, address), ())):
                    self.workers[i].listeners[<uint32_t>slot].fd = fd
            self.handles.append(handle)
            commands = <Command*>calloc(self.n_workers, sizeof(Command))
            if commands == NULL:
                raise MemoryError
            for i in range(self.n_workers):
                commands[i].kind = COMMAND_APPLY
                commands[i].snapshot = &handle.refs[i]
                mailbox_post(self.workers[i], &commands[i])
            if not self.running:
                self._start_threads()
            self._wait(commands)
            self._reap()

    cdef _start_threads(self):
        self.started_unix_s = _time.time()
        self.running = True
        for i in range(self.n_workers):
            thread = _threading.Thread(target=self._run, args=(i,), name=f"meshcore-worker-{i}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def _run(self, uint32_t index) -> None:
        with nogil:
            loop_run(self.workers[index])

    cdef _wait(self, Command* commands):
        # Safety: commands are freed only when every worker has set `done`, the last thing it does with one.
        cdef uint32_t i
        for i in range(self.n_workers):
            while not atomic_load_u32(&commands[i].done):
                if atomic_load_u32(&self.workers[i].stopped):
                    break
                _time.sleep(0.0002)
        free(commands)

    cdef _post_all(self, uint8_t kind, TapSession* tap, uint32_t tap_index):
        cdef Command* commands
        cdef uint32_t i
        if not self.running:
            return
        commands = <Command*>calloc(self.n_workers, sizeof(Command))
        if commands == NULL:
            raise MemoryError
        for i in range(self.n_workers):
            commands[i].kind = kind
            commands[i].tap = tap
            commands[i].tap_index = tap_index
            mailbox_post(self.workers[i], &commands[i])
        self._wait(commands)

    def drain(self) -> None:
        """Close the listeners and every idle connection; exchanges under way finish. Returns at once: see `busy`."""
        with self.lock:
            self._post_all(COMMAND_DRAIN, NULL, 0)

    def busy(self) -> int:
        """Downstream connections still open."""
        return sum(self.workers[i].n_downstream for i in range(self.n_workers))

    def stop(self) -> None:
        """End every worker now. Connections are closed as they are."""
        with self.lock:
            if not self.running:
                return
            self._post_all(COMMAND_STOP, NULL, 0)
            for thread in self.threads:
                thread.join()
            self.running = False
            self._close_descriptors()

    cdef _close_descriptors(self):
        # Safety: no worker runs any more. What is still posted to one is noticed by `stopped`, not by its descriptor.
        for i in range(self.n_workers):
            _close_worker(self.workers[i])
        if not self.has_filters:
            sys_close(self.filter_fd)
            self.filter_fd = -1
        sys_close(self.lookup_fd)
        self.lookup_fd = -1

    def slots_of(self, str kind) -> dict:
        """Key -> slot of everything a live snapshot names: 'routes' and 'clusters' by name."""
        with self.lock:
            return dict(self.slots[kind].by_key)

    def slots_version(self, str kind) -> int:
        """Changes whenever slots_of does."""
        return self.slots[kind].changes

    def set_unhealthy(self, str cluster, str address, bint unhealthy) -> None:
        """What health checks found of an endpoint. One that no live snapshot names is none of ours any more."""
        cdef SnapshotHandle handle
        cdef uint32_t slot
        cdef uint32_t i
        with self.lock:
            # Older snapshots too: exchanges that began with one still pick.
            for handle in self.handles:
                found = handle.endpoint_slots.get((cluster, address))
                if found is None:
                    continue
                slot = found
                for i in range(self.n_workers):
                    # Safety: one byte, which workers only read; under the lock a live snapshot's slots have their states.
                    self.workers[i].endpoints[slot].unhealthy = unhealthy

    cdef SnapshotHandle _current(self):
        return self.handles[len(self.handles) - 1]

    cdef _reap(self):
        # A snapshot no worker holds any more gives back its memory and its slots. The current one is the last.
        cdef SnapshotHandle handle
        kept = []
        for handle in self.handles:
            if handle.version != self.version and handle.is_unused() and not self._has_clients(handle) \
                    and not self._has_sessions(handle):
                handle.release()
            else:
                kept.append(handle)
        self.handles = kept

    cdef bint _has_clients(self, SnapshotHandle handle):
        # Connections outlive the listener that accepted them, and point at its state: its slot must not be reused yet.
        cdef uint32_t i
        for name, address, slot in handle.listeners:
            if self.slots["listeners"].is_held_once((name, address)):
                for i in range(self.n_workers):
                    if self.workers[i].listeners[<uint32_t>slot].active:
                        return True
        return False

    cdef bint _has_sessions(self, _SlotHolder handle):
        # An HTTP/2 connection outlives its last exchange by a goodbye, and points at the state of its endpoint.
        cdef uint32_t i
        for kind, key in handle.held:
            if kind is self.slots["endpoints"] and kind.is_held_once(key):
                for i in range(self.n_workers):
                    if self.workers[i].endpoints[<uint32_t>kind.by_key[key]].open_connections:
                        return True
        return False

    cdef _make_state(self, kind, uint32_t slot):
        cdef uint32_t i
        cdef Worker* worker
        _forget(self.readers, kind, slot)
        for i in range(self.n_workers):
            worker = self.workers[i]
            # Safety: the slot is named by no live snapshot, so no worker reads its state until this plan is applied.
            if kind == "endpoints":
                if worker.endpoints[slot] != NULL:
                    histogram_pool_return(&worker.histograms, &worker.endpoints[slot].latency)
                    SSL_SESSION_free(<SSL_SESSION*>worker.endpoints[slot].tls_session)
                _renew(<void**>&worker.endpoints[slot], sizeof(EndpointState))
                worker.endpoints[slot].idle_head = SLAB_NONE
            elif kind == "clusters":
                if worker.clusters[slot] != NULL:
                    histogram_pool_return(&worker.histograms, &worker.clusters[slot].latency)
                _renew(<void**>&worker.clusters[slot], sizeof(ClusterState))
            elif kind == "routes":
                if worker.routes[slot] != NULL:
                    histogram_pool_return(&worker.histograms, &worker.routes[slot].latency)
                _renew(<void**>&worker.routes[slot], sizeof(RouteState))
            else:
                _renew(<void**>&worker.listeners[slot], sizeof(ListenerState))
                worker.listeners[slot].slot = slot
                worker.listeners[slot].fd = -1

    # --- statistics ---------------------------------------------------------------------------------------------

    def stats(self) -> dict:
        """Everything counted so far, summed over workers, of what the current configuration names."""
        cdef SnapshotHandle handle
        with self.lock:
            handle = self.handles[len(self.handles) - 1]
            return {
                "started_unix_s": self.started_unix_s,
                "version": self.version,
                "snapshots": len(self.handles),
                "workers": [self._worker_stats(self.workers[i]) for i in range(self.n_workers)],
                "listeners": [self._listener_stats(name, address, slot) for name, address, slot in handle.listeners],
                "routes": [self._route_stats(name, slot) for name, slot in handle.routes],
                "clusters": [self._cluster_stats(name, slot, rows) for name, slot, rows in handle.clusters],
                "reasons": {reason_name[i].decode().lower(): sum(self.workers[w].reasons[i]
                                                                 for w in range(self.n_workers))
                            for i in range(1, REASON_COUNT)},
                "folded_latency": self._folded(),
            }

    cdef bytes _folded(self):
        # Samples of all who came when there were max_latency_histograms already.
        cdef Histogram* total = _new_histogram()
        for i in range(self.n_workers):
            if self.workers[i].histograms.folded != NULL:
                histogram_merge_into(total, self.workers[i].histograms.folded)
        return _histogram_bytes(total)

    cdef _return_histograms(self, _SlotHolder handle):
        # Under the lock, before its release: what nobody else names needs no memory for its numbers any more.
        cdef uint32_t slot
        cdef uint32_t i
        for kind, key in handle.held:
            if kind.kind in ("endpoints", "clusters", "routes") and kind.is_held_once(key):
                slot = kind.by_key[key]
                _forget(self.readers, kind.kind, slot)
                for i in range(self.n_workers):
                    if kind.kind == "endpoints":
                        histogram_pool_return(&self.workers[i].histograms, &self.workers[i].endpoints[slot].latency)
                    elif kind.kind == "clusters":
                        histogram_pool_return(&self.workers[i].histograms, &self.workers[i].clusters[slot].latency)
                    else:
                        histogram_pool_return(&self.workers[i].histograms, &self.workers[i].routes[slot].latency)

    cdef dict _worker_stats(self, Worker* worker):
        return {
            "index": worker.index, "connections": worker.n_downstream, "upstream_connections": worker.n_upstream,
            "accepted": worker.accepted, "refused_connections": worker.refused_connections,
            "requests": worker.requests, "wakeups": worker.wakeups, "batched_calls": worker.batch.calls,
            "in_flight": worker.exchanges.in_use, "tls_handshaking": worker.tls_handshakes,
            "filters_waiting": worker.filters_waiting, "lookups_waiting": worker.lookups_waiting,
            "names": worker.bindings.n_names, "histograms": atomic_load_u32(&worker.histograms.made),
            "folded": 0 if worker.histograms.folded == NULL else worker.histograms.folded.count, "buffers_bytes": worker.buffers.in_use_bytes,
            "memory_bytes": worker.buffers.in_use_bytes + worker.conns.n_chunks * 256 * sizeof(Conn)
            + worker.exchanges.n_chunks * 256 * sizeof(Exchange) + worker.streams.n_chunks * 256 * sizeof(Stream)
            + sizeof(Worker) + READ_LARGE_BYTES + SCRATCH_BYTES
            + BATCH_MEMORY_BYTES + worker.destinations.n_entries * sizeof(Destination)
            + atomic_load_u32(&worker.histograms.made) * <size_t>sizeof(Histogram),
            "tap_dropped": worker.tap_ring.dropped,
        }

    cdef dict _listener_stats(self, name, address, uint32_t slot):
        row = {"name": name, "address": address, "accepted": 0, "active": 0, "requests": 0, "refused": 0,
               "bytes_in": 0, "bytes_out": 0, "tls_handshakes": 0, "tls_resumed": 0, "tls_failures": 0,
               "tls_plaintext": 0}
        cdef ListenerState* state
        for i in range(self.n_workers):
            state = self.workers[i].listeners[slot]
            row["accepted"] += state.accepted
            row["active"] += state.active
            row["requests"] += state.requests
            row["refused"] += state.refused
            row["bytes_in"] += state.bytes_in
            row["bytes_out"] += state.bytes_out
            row["tls_handshakes"] += state.tls_handshakes
            row["tls_resumed"] += state.tls_resumed
            row["tls_failures"] += state.tls_failures
            row["tls_plaintext"] += state.tls_plaintext
        return row

    cdef dict _route_stats(self, name, uint32_t slot):
        cdef RouteState* state
        cdef Histogram* total = _new_histogram()
        requests = errors = failed = secure = 0
        classes = [0] * 6
        calls = [0] * 17
        for i in range(self.n_workers):
            state = self.workers[i].routes[slot]
            requests += state.requests
            errors += state.filter_errors
            secure += state.secure
            failed += state.grpc_failed
            for j in range(17):
                calls[j] += state.grpc_status[j]
            for j in range(6):
                classes[j] += state.status_class[j]
            if state.latency != NULL:
                histogram_merge_into(total, state.latency)
        return {"name": name, "requests": requests, "filter_errors": errors, "secure": secure,
                "status_class": classes, "grpc_status": calls, "grpc_failed": failed, "latency": _histogram_bytes(total)}

    cdef dict _cluster_stats(self, name, uint32_t slot, list rows):
        cdef ClusterState* state
        cdef Histogram* total = _new_histogram()
        out = {"name": name, "in_flight": 0, "queue_len": 0, "requests": 0, "successes": 0, "failures": 0,
               "retries": 0, "budget_exhausted": 0, "queue_overflow": 0, "queue_timeouts": 0, "stale_replays": 0}
        classes = [0] * 6
        for i in range(self.n_workers):
            state = self.workers[i].clusters[slot]
            out["in_flight"] += state.in_flight
            out["queue_len"] += state.queue_len
            out["requests"] += state.requests
            out["successes"] += state.successes
            out["failures"] += state.failures
            out["retries"] += state.retries
            out["budget_exhausted"] += state.budget_exhausted
            out["queue_overflow"] += state.queue_overflow
            out["queue_timeouts"] += state.queue_timeouts
            out["stale_replays"] += state.stale_replays
            for j in range(6):
                classes[j] += state.status_class[j]
            if state.latency != NULL:
                histogram_merge_into(total, state.latency)
        out["status_class"] = classes
        out["latency"] = _histogram_bytes(total)
        out["endpoints"] = [self._endpoint_stats(*row) for row in rows]
        return out

    def _endpoint_stats(self, address, weight, uint32_t slot, labels) -> dict:
        cdef EndpointState sum
        cdef EndpointState* state = &sum
        cdef Histogram* total = _new_histogram()
        cdef uint64_t now_ns = sys_now_ns()
        out = {"address": address, "weight": weight, "active": 0, "idle": 0, "open_connections": 0, "requests": 0,
               "successes": 0, "failures": 0, "connects": 0, "connect_failures": 0, "retries": 0, "ejections": 0,
               "ejected": False, "ewma_ms": 0.0, "bytes_in": 0, "bytes_out": 0, "destinations": 0, "tls_handshakes": 0,
               "tls_resumed": 0, "tls_failures": 0}
        measured = 0
        for i in range(self.n_workers):
            out["destinations"] += destination_sum(self.workers[i], slot, state)
            out["active"] += state.active
            out["idle"] += state.n_idle
            out["open_connections"] += state.open_connections
            out["requests"] += state.requests
            out["successes"] += state.successes
            out["failures"] += state.failures
            out["connects"] += state.connects
            out["connect_failures"] += state.connect_failures
            out["retries"] += state.retries
            out["ejections"] += state.ejections
            out["bytes_in"] += state.bytes_in
            out["bytes_out"] += state.bytes_out
            out["tls_handshakes"] += state.tls_handshakes
            out["tls_resumed"] += state.tls_resumed
            out["tls_failures"] += state.tls_failures
            out["ejected"] = out["ejected"] or breaker_is_ejected(&state.breaker, now_ns)
            if state.ewma.stamp_ns:
                measured += 1
                out["ewma_ms"] += state.ewma.cost_ns / 1e6
            if state.latency != NULL:
                histogram_merge_into(total, state.latency)
        if measured:
            out["ewma_ms"] /= measured
        out["latency"] = _histogram_bytes(total)
        out["labels"] = dict(labels or ())
        return out


cdef int _renew(void** at, size_t size_bytes) except -1:
    if at[0] == NULL:
        at[0] = calloc(1, size_bytes)
        if at[0] == NULL:
            raise MemoryError
    else:
        memset(at[0], 0, size_bytes)
    return 0


cdef Histogram* _new_histogram() except NULL:
    cdef Histogram* histogram = <Histogram*>calloc(1, sizeof(Histogram))
    if histogram == NULL:
        raise MemoryError
    return histogram


cdef bytes _histogram_bytes(Histogram* histogram):
    # Without a sample, nothing: 10,000 idle routes would fill 140 MB with zeros.
    raw = PyBytes_FromStringAndSize(<char*>histogram, sizeof(Histogram) if histogram.count else 0)
    free(histogram)
    return raw


cdef void _free_worker(Worker* worker):
    # Safety: its thread has ended, or never began.
    cdef uint32_t i
    cdef Exchange* exchange
    for i in range(<uint32_t>MAX_ENDPOINTS):
        if worker.endpoints != NULL and worker.endpoints[i] != NULL:
            free(worker.endpoints[i].latency)
            SSL_SESSION_free(<SSL_SESSION*>worker.endpoints[i].tls_session)
            free(worker.endpoints[i])
    for i in range(<uint32_t>MAX_CLUSTERS):
        if worker.clusters != NULL and worker.clusters[i] != NULL:
            free(worker.clusters[i].latency)
            free(worker.clusters[i])
    for i in range(<uint32_t>MAX_ROUTES):
        if worker.routes != NULL and worker.routes[i] != NULL:
            free(worker.routes[i].latency)
            free(worker.routes[i])
    for i in range(<uint32_t>MAX_LISTENERS):
        if worker.listeners != NULL:
            free(worker.listeners[i])
    for i in range(worker.exchanges.n_chunks * 256):
        exchange = <Exchange*>slab_at(&worker.exchanges, i)
        free(exchange.hook)
    free(worker.histograms.folded)
    free(worker.endpoints)
    free(worker.clusters)
    free(worker.routes)
    free(worker.listeners)
    for i in range(worker.destinations.n_entries):
        SSL_SESSION_free(<SSL_SESSION*>worker.destinations.entries[i].state.tls_session)
        free(worker.destinations.entries[i])
    free(worker.destinations.entries)
    free(worker.destinations.buckets)
    binding_table_free(&worker.bindings)
    for i in range(<uint32_t>MAX_TLS_CONTEXTS):
        SSL_CTX_free(worker.tls_contexts[i])
    ring_free(&worker.tap_ring)
    batch_free(&worker.batch)
    slab_free(&worker.conns)
    slab_free(&worker.exchanges)
    slab_free(&worker.streams)
    session_worker_free(worker)
    buffer_pool_free(&worker.buffers)
    free(worker.parser)
    free(worker.head)
    if worker.read_buffer != NULL:
        free(worker.read_buffer - READ_MARGIN)
    free(worker.scratch)
    BIO_free(<BIO*>worker.tls_bio)
    free(worker.tls_pipe.out)
    free(worker.tls_in)
    _close_worker(worker)
    free(worker)


cdef void _close_worker(Worker* worker):
    pipe_close_idle(worker)
    if worker.epoll_fd >= 0:
        sys_close(worker.epoll_fd)
    if worker.wake_fd >= 0:
        sys_close(worker.wake_fd)
    if worker.spare_fd >= 0:
        sys_close(worker.spare_fd)
    worker.epoll_fd = worker.wake_fd = worker.spare_fd = -1
