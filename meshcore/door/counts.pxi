# What was counted since it was asked last, of what had traffic: for whoever tells statistics on. Counts nothing itself.
#
# A proxy of ten thousand endpoints has a hundred busy ones: a look at one that was idle is a few loads. What a slot counted is
# remembered by slot, and forgotten when the slot becomes another's.

import weakref as _weakref

from meshcore.engine.endpoint cimport TcpCounts

cdef struct Counted:                    # of one slot, at the last look
    uint64_t requests
    uint64_t good                       # routes: answers that are no failure of a server; endpoints: successes
    uint64_t failures
    uint64_t secure
    uint64_t retries
    TcpCounts tcp
    Histogram* latency                  # NULL: no sample yet


cdef class Counts:
    """One reader's, of an engine and of what `names` are bound to. `take` says what came since it said so last; the first time, all there is."""
    cdef object __weakref__
    cdef Engine engine
    cdef Names names
    cdef Counted* routes
    cdef Counted* endpoints
    cdef Histogram* total               # of one row over all workers, while it is looked at
    cdef uint64_t reasons[REASON_COUNT]
    cdef list route_rows                # (name, slot)
    cdef list endpoint_rows             # (cluster, slot, labels)
    cdef tuple rows_of                  # the configuration and the bindings that the two are of

    def __cinit__(self, Engine engine not None, Names names=None):
        self.engine = engine
        self.names = names
        self.rows_of = ()
        self.routes = <Counted*>calloc(MAX_ROUTES, sizeof(Counted))
        self.endpoints = <Counted*>calloc(MAX_ENDPOINTS, sizeof(Counted))
        self.total = <Histogram*>calloc(1, sizeof(Histogram))
        memset(self.reasons, 0, sizeof(self.reasons))
        if self.routes == NULL or self.endpoints == NULL or self.total == NULL:
            raise MemoryError
        with engine.lock:
            engine.readers = [one for one in engine.readers if one() is not None] + [_weakref.ref(self)]

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(<uint32_t>MAX_ROUTES if self.routes != NULL else 0):
            free(self.routes[i].latency)
        for i in range(<uint32_t>MAX_ENDPOINTS if self.endpoints != NULL else 0):
            free(self.endpoints[i].latency)
        free(self.routes)
        free(self.endpoints)
        free(self.total)

    cdef forget(self, kind, uint32_t slot):
        """The slot is another's from now on, and counts from zero."""
        cdef Counted* old
        if kind == "routes":
            old = &self.routes[slot]
        elif kind == "endpoints":
            old = &self.endpoints[slot]
        else:
            return
        free(old.latency)
        memset(old, 0, sizeof(Counted))

    def take(self) -> tuple[list, list, dict]:
        """Routes and endpoints with news: (name, None or labels, requests, successes, failures, secure, retries, latency,
        TCP connections opened, failed, open now, bytes to the endpoint, bytes from it); requests are not connections.
        And reasons, how often each was given."""
        cdef uint64_t count
        cdef uint32_t i
        cdef uint32_t w
        routes = []
        endpoints = []
        reasons = {}
        with self.engine.lock:
            self._rows()
            for name, slot in self.route_rows:
                row = self._route(name, slot)
                if row is not None:
                    routes.append(row)
            for cluster, slot, labels in self.endpoint_rows:
                row = self._endpoint(cluster, slot, labels)
                if row is not None:
                    endpoints.append(row)
            for i in range(1, <uint32_t>REASON_COUNT):
                count = 0
                for w in range(self.engine.n_workers):
                    count += self.engine.workers[w].reasons[i]
                if count > self.reasons[i]:
                    reasons[reason_name[i].decode().lower()] = count - self.reasons[i]
                    self.reasons[i] = count
        return routes, endpoints, reasons

    cdef _rows(self):
        # Under the lock: what a row names cannot become another's meanwhile.
        cdef SnapshotHandle handle = self.engine._current()
        cdef _BindingHandle bound
        rows_of = (self.engine.version, 0 if self.names is None else self.names.changes)
        if rows_of == self.rows_of:
            return
        self.rows_of = rows_of
        routes = {slot: name for name, slot in handle.routes}
        endpoints = {slot: (cluster, labels) for cluster, _, rows in handle.clusters for _, _, slot, labels in rows}
        if self.names is not None:
            for bound in self.names.bound.values():
                for name, slot in bound.routes:
                    routes.setdefault(slot, name)
                for cluster, _, rows in bound.clusters:
                    for _, _, slot, labels in rows:
                        endpoints.setdefault(slot, (cluster, labels))
        self.route_rows = [(name, slot) for slot, name in routes.items()]
        self.endpoint_rows = [(cluster, slot, dict(labels or ())) for slot, (cluster, labels) in endpoints.items()]

    cdef tuple _route(self, name, uint32_t slot):
        cdef RouteState* state
        cdef Counted now
        cdef uint32_t i
        memset(&now, 0, sizeof(Counted))
        for i in range(self.engine.n_workers):
            state = self.engine.workers[i].routes[slot]
            now.requests += state.requests
            _add_tcp(&now.tcp, &state.tcp)
        if not _has_news(&now, &self.routes[slot]):
            return None
        memset(self.total, 0, sizeof(Histogram))
        for i in range(self.engine.n_workers):
            state = self.engine.workers[i].routes[slot]
            now.good += state.status_class[1] + state.status_class[2] + state.status_class[3] + state.status_class[4] - state.grpc_failed
            now.secure += state.secure
            if state.latency != NULL:
                histogram_merge_into(self.total, state.latency)
        return self._told(name, None, &now, &self.routes[slot])

    cdef tuple _endpoint(self, cluster, uint32_t slot, labels):
        cdef EndpointState sum
        cdef Counted now
        cdef uint32_t i
        memset(&now, 0, sizeof(Counted))
        memset(self.total, 0, sizeof(Histogram))
        for i in range(self.engine.n_workers):
            destination_sum(self.engine.workers[i], slot, &sum)
            now.requests += sum.requests
            now.good += sum.successes
            now.failures += sum.failures
            now.retries += sum.retries
            # An endpoint is one trust: whoever has shaken hands with it once never speaks to it in the clear.
            now.secure += sum.requests if sum.tls_handshakes else 0
            _add_tcp(&now.tcp, &sum.tcp)
        if not _has_news(&now, &self.endpoints[slot]):
            return None
        for i in range(self.engine.n_workers):
            if self.engine.workers[i].endpoints[slot].latency != NULL:
                histogram_merge_into(self.total, self.engine.workers[i].endpoints[slot].latency)
        return self._told(cluster, labels, &now, &self.endpoints[slot])

    cdef tuple _told(self, name, labels, Counted* now, Counted* old):
        """The difference as Python sees it, and what is remembered of now."""
        # Workers count while we read: what belongs together may be one apart until the next look.
        cdef uint64_t requests = _more(now.requests - now.tcp.ended, old.requests - old.tcp.ended)
        cdef uint64_t good = _more(now.good + now.tcp.failed - now.tcp.ended, old.good + old.tcp.failed - old.tcp.ended)
        cdef uint64_t failures = _more(now.failures - now.tcp.failed, old.failures - old.tcp.failed)
        if labels is None:
            failures = requests - good if requests > good else 0
        latency = b""
        if self.total.count:
            if old.latency == NULL:
                old.latency = _new_histogram()
            latency = _histogram_changes(self.total, old.latency) if requests else b""
            memcpy(old.latency, self.total, sizeof(Histogram))
        row = (name, labels, requests, min(good, requests), failures, min(now.secure - old.secure, requests), now.retries - old.retries,
               latency, now.tcp.opened - old.tcp.opened, now.tcp.failed - old.tcp.failed, now.tcp.opened - now.tcp.closed,
               now.tcp.bytes_out - old.tcp.bytes_out, now.tcp.bytes_in - old.tcp.bytes_in)
        now.latency = old.latency
        old[0] = now[0]
        return row


cdef _forget(list readers, kind, uint32_t slot):
    for reference in readers:
        reader = reference()
        if reader is not None:
            (<Counts>reader).forget(kind, slot)


cdef inline bint _has_news(const Counted* now, const Counted* old) noexcept nogil:
    return now.requests != old.requests or now.tcp.opened != old.tcp.opened or now.tcp.bytes_out != old.tcp.bytes_out \
        or now.tcp.bytes_in != old.tcp.bytes_in or now.tcp.closed != old.tcp.closed


cdef inline uint64_t _more(uint64_t now, uint64_t old) noexcept nogil:
    return now - old if now > old and now - old < <uint64_t>1 << 63 else 0


cdef inline void _add_tcp(TcpCounts* sum, const TcpCounts* one) noexcept nogil:
    sum.ended += one.ended
    sum.failed += one.failed
    sum.opened += one.opened
    sum.closed += one.closed
    sum.bytes_out += one.bytes_out
    sum.bytes_in += one.bytes_in
