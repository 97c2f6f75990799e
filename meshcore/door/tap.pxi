# Tap sessions as Python sees them: open with a filter, read events, close. Matching happens in the engine.

import collections as _collections

from meshcore.engine.tap cimport TAP_LABELS_OTHER, TAP_LABELS_WANTED, TAP_NO_RESET, TAP_PART, TapPart
from meshcore.engine.sys cimport atomic_swap_u32
from meshcore.engine.tap_session cimport MAX_TAPS, TapSession

cdef enum:
    TAP_QUEUE_EVENTS = 65536            # per session between two reads; beyond: dropped and counted
    TAP_BODY_BYTES = 16384              # of one body: 22 of the ring's slots


class TapLimitError(RuntimeError):
    """As many tap sessions are open as the engine serves at a time."""


cdef class TapHub:
    """All tap sessions of one engine. Reading moves records from the workers' rings to the sessions' queues."""
    cdef Engine engine
    cdef TapSession* sessions[8]
    cdef list queues
    cdef list dropped
    cdef list parts                     # per worker: what came of the parts of its next record
    cdef uint32_t wants_parts
    cdef object lock
    cdef dict route_names
    cdef dict cluster_names

    def __cinit__(self, Engine engine):
        self.engine = engine
        self.queues = [None] * MAX_TAPS
        self.dropped = [0] * MAX_TAPS
        self.parts = [[b""] * 3 for _ in range(engine.n_workers)]
        self.lock = _threading.Lock()
        for i in range(MAX_TAPS):
            self.sessions[i] = NULL

    def __dealloc__(self):
        for i in range(MAX_TAPS):
            if self.sessions[i] != NULL:
                free(self.sessions[i].labels)
            free(self.sessions[i])

    def open(self, *, int method_bit=-1, int scheme=0, authority="", path="", to="", source="", peer="", bint peer_is_end=False,
             int route_slot=-1, int cluster_slot=-1, int status_low=0, int status_high=0, uint64_t min_latency_ns=0,
             int reason=-1, bint fields=False, bint by_labels=False, uint32_t body_bytes=0,
             double max_rps=0.0, int bell_fd=-1) -> int:
        """Start a session; returns its number. `max_rps` 0 = everything; `body_bytes` of each body, at most 16 KiB.
        bell_fd: an eventfd that is rung after `arm`; it stays the caller's, and open until `close` has returned."""
        cdef TapSession* session = NULL
        cdef uint32_t i
        cdef uint32_t index
        with self.lock:
            index = 0
            while index < MAX_TAPS and self.sessions[index] != NULL:
                index += 1
            if index == MAX_TAPS:
                raise TapLimitError(f"{MAX_TAPS} tap sessions are open; close one first")
            for i in range(self.engine.n_workers):
                if self.engine.workers[i].tap_ring.slots == NULL \
                        and not ring_init(&self.engine.workers[i].tap_ring, sizeof(TapRecord), TAP_RING_SLOTS):
                    raise MemoryError
            session = <TapSession*>calloc(1, sizeof(TapSession))
            if session == NULL:
                raise MemoryError
            session.id = index
            session.method = method_bit + 1
            session.scheme = scheme
            session.route_slot = route_slot
            session.cluster_slot = cluster_slot
            session.status_low = <uint16_t>status_low
            session.status_high = <uint16_t>status_high
            session.min_latency_ns = min_latency_ns
            session.reason = <short>reason
            session.wants_outcome = status_low != 0 or min_latency_ns != 0 or reason >= 0
            session.wants_fields = fields
            if by_labels:
                session.labels = <uint8_t*>calloc(MAX_LABELS, 1)
                session.n_labels = MAX_LABELS
                if session.labels == NULL:
                    free(session)
                    raise MemoryError
            session.body_bytes = min(body_bytes, <uint32_t>TAP_BODY_BYTES)
            session.max_rps_milli = _rps_milli(max_rps)
            session.bell_fd = bell_fd
            session.authority_len = _fill(session.authority, 256, authority, "authority")
            session.path_len = _fill(session.path, 256, path, "path")
            session.dst_len = _fill(session.dst, 64, to, "to")
            session.src_len = _fill(session.src, 64, source, "from")
            session.peer_is_end = peer_is_end
            session.peer_len = _fill(session.peer, 256, peer, "from")
            self.sessions[index] = session
            self.wants_parts &= ~(<uint32_t>1 << index)
            self.wants_parts |= <uint32_t>(fields or body_bytes) << index
            self.queues[index] = _collections.deque()
            self.dropped[index] = 0
        self.engine._post_all(COMMAND_TAP_OPEN, session, index)
        return index

    def judge_labels(self, uint32_t index, verdicts) -> None:
        """Tell a session opened `by_labels` which sets of labels it wants: pairs of a number and whether."""
        cdef TapSession* session = self.sessions[index]
        if session == NULL or session.labels == NULL:
            return
        for number, is_wanted in verdicts:
            if 0 < number < session.n_labels:
                session.labels[number] = TAP_LABELS_WANTED if is_wanted else TAP_LABELS_OTHER

    def limit(self, uint32_t index, double max_rps) -> None:
        """Another ceiling for an open session; 0 = everything."""
        if self.sessions[index] != NULL:
            self.sessions[index].max_rps_milli = _rps_milli(max_rps)

    def close(self, uint32_t index) -> None:
        """End a session. Its unread events are gone."""
        cdef TapSession* session = self.sessions[index]
        if session == NULL:
            return
        self.engine._post_all(COMMAND_TAP_CLOSE, session, index)
        with self.lock:
            # Safety: every worker has let go of it.
            self.sessions[index] = NULL
            self.queues[index] = None
            free(session.labels)
            free(session)

    def read(self, uint32_t index) -> list:
        """Events since the last read, oldest first per worker: tuples in the order of TapRecord's fields, and what was
        captured: (field lines, request body, response body), or None."""
        with self.lock:
            self._pump()
            queue = self.queues[index]
            if queue is None:
                return []
            events = list(queue)
            queue.clear()
            return events

    def arm(self, uint32_t index) -> bool:
        """Have the bell rung at the next record. False: there is one already, and nothing will ring for it."""
        cdef TapSession* session
        with self.lock:
            session = self.sessions[index]
            if session == NULL:
                return False
            atomic_swap_u32(&session.is_awaited, 1)
            # Behind the arming: what came before it rang for nobody.
            self._pump()
            if self.queues[index]:
                atomic_swap_u32(&session.is_awaited, 0)
                return False
            return True

    def counts(self, uint32_t index) -> tuple[int, int, int]:
        """(matched, hidden by max_rps, lost because a ring or queue was full)."""
        cdef TapSession* session = self.sessions[index]
        if session == NULL:
            return 0, 0, 0
        lost = sum(self.engine.workers[i].tap_ring.dropped for i in range(self.engine.n_workers))
        return session.matched, session.suppressed, lost + self.dropped[index]

    cdef _pump(self):
        cdef TapRecord* record
        cdef uint32_t i
        cdef uint32_t j
        for i in range(self.engine.n_workers):
            while True:
                record = <TapRecord*>ring_peek(&self.engine.workers[i].tap_ring)
                if record == NULL:
                    break
                if record.kind == TAP_PART:
                    _gather(self.parts[i], <TapPart*>record)
                else:
                    event = _tap_event(record)
                    whole = event + (tuple(self.parts[i]) if any(self.parts[i]) else None,)
                    event += (None,)
                    self.parts[i] = [b""] * 3
                    for j in range(<uint32_t>MAX_TAPS):
                        if record.mask >> j & 1 and self.queues[j] is not None:
                            if len(self.queues[j]) >= TAP_QUEUE_EVENTS:
                                self.dropped[j] += 1
                            else:
                                self.queues[j].append(whole if self.wants_parts >> j & 1 else event)
                ring_advance(&self.engine.workers[i].tap_ring)


cdef _gather(list parts, const TapPart* part):
    parts[part.of] += PyBytes_FromStringAndSize(part.bytes, part.len)


cdef uint32_t _rps_milli(double max_rps):
    # Any ceiling above nothing stays one: 0 would mean everything.
    return <uint32_t>min(max(max_rps * 1000, 1.0), 4e9) if max_rps > 0 else 0


cdef uint16_t _fill(char* into, uint32_t room, value, name) except? 65535:
    cdef bytes raw = value.encode("latin-1")
    if len(raw) > room:
        raise ValueError(f"tap filter '{name}' is longer than {room} bytes")
    memcpy(into, PyBytes_AS_STRING(raw), len(raw))
    return len(raw)


cdef tuple _tap_event(const TapRecord* record):
    return (
        record.kind, record.worker, record.stream, record.wall_ns, record.src[:record.src_len].decode("latin-1"),
        record.src_port, record.dst[:record.dst_len].decode("latin-1"),
        record.text.method[:record.text.method_len].decode("latin-1"),
        record.text.authority[:record.text.authority_len].decode("latin-1"),
        record.text.path[:record.text.path_len].decode("latin-1"),
        record.status, record.latency_ns, record.duration_ns, record.request_bytes, record.response_bytes,
        record.reason,
        record.route_slot, record.cluster_slot, record.grpc_status,
        record.reset_error if record.reset_error != TAP_NO_RESET else None,
        bool(record.is_tcp), bool(record.secure), record.src_id[:record.src_id_len].decode("latin-1"), record.labels,
    )
