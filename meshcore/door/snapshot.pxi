# From a validated plan (a dict of plain values) to one Snapshot in C memory. Checks nothing the configuration checked;
# gives every cluster, endpoint, route and listener the slot of its run-time state.

import socket as _socket
import struct as _struct

from meshcore.engine.fields cimport field_hash
from meshcore.engine.head cimport (
    METHOD_CONNECT, METHOD_DELETE, METHOD_EXTENSION, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_PATCH,
    METHOD_POST, METHOD_PUT, METHOD_TRACE,
)
from meshcore.engine.reasons cimport REASON_DIRECT_RESPONSE
from meshcore.engine.routes cimport ROUTE_HOST_ANY, ROUTE_HOST_EXACT, ROUTE_HOST_WILDCARD
from meshcore.engine.snapshot cimport (
    UPSTREAM_MIXED, Address, BackoffConf, BreakerConf, DirectResponse, FieldMatch, HeaderOp, HeaderOps, ListenerConf, LookupConf, RouteTarget, Snapshot, Text,
)
from meshcore.engine.respond cimport respond_status_line
from meshcore.engine.state cimport MAX_CLUSTERS, MAX_ENDPOINTS, MAX_LISTENERS, MAX_ROUTES, SnapshotRef

_METHOD_BITS = {
    "GET": METHOD_GET, "HEAD": METHOD_HEAD, "POST": METHOD_POST, "PUT": METHOD_PUT, "DELETE": METHOD_DELETE,
    "CONNECT": METHOD_CONNECT, "OPTIONS": METHOD_OPTIONS, "TRACE": METHOD_TRACE, "PATCH": METHOD_PATCH,
}


class _Slots:
    """Numbers of run-time states by key. A number is reused only when no live snapshot names its key."""

    def __init__(self, kind: str, capacity: int) -> None:
        self.kind = kind
        self.capacity = capacity
        self.by_key: dict = {}
        self.changes = 0                # of by_key, so far
        self._holders: dict = {}
        self._free: list[int] = []
        self._next = 0

    def hold(self, key) -> tuple[int, bool]:
        """The slot of `key` and whether it is new (its state must be made)."""
        slot = self.by_key.get(key)
        fresh = slot is None
        if fresh:
            if self._free:
                slot = self._free.pop()
            elif self._next < self.capacity:
                slot = self._next
                self._next += 1
            else:
                raise EngineLimitError(f"more than {self.capacity} {self.kind} at a time")
            self.by_key[key] = slot
            self.changes += 1
            self._holders[key] = 0
        self._holders[key] += 1
        return slot, fresh

    def is_held_once(self, key) -> bool:
        """Would one release free the slot of `key`?"""
        return self._holders[key] == 1

    def release(self, key) -> None:
        self._holders[key] -= 1
        if self._holders[key] == 0:
            self._free.append(self.by_key.pop(key))
            self.changes += 1
            del self._holders[key]


class EngineLimitError(RuntimeError):
    """A fixed capacity of the engine is exhausted."""


cdef class _SlotHolder:
    """The slots that something compiled holds, and the names behind them."""
    cdef public list held               # (slots, key) to release when it is freed
    cdef public list fresh              # (kind, slot) whose state has to be made
    cdef public list routes             # (name, slot)
    cdef public list clusters           # (name, slot, [(address, weight, slot, labels)])
    cdef public dict endpoint_slots     # (cluster, address) -> slot of the first so named
    cdef list contexts                  # of TLS, held as long as somebody points at them

    def __cinit__(self):
        self.held = []
        self.fresh = []
        self.routes = []
        self.clusters = []
        self.endpoint_slots = {}
        self.contexts = []

    cdef void release(self):
        for slots, key in self.held:
            slots.release(key)
        self.held = []


cdef class SnapshotHandle(_SlotHolder):
    """One snapshot, each worker's hold on it, and the names behind its slots."""
    cdef Snapshot* snapshot
    cdef SnapshotRef* refs
    cdef uint32_t workers_left
    cdef public list listeners          # (name, address, slot)
    cdef public dict lookups            # name of a route with a lookup -> (slot, timeout_ns)
    cdef public uint64_t version

    def __cinit__(self):
        self.snapshot = NULL
        self.refs = NULL
        self.listeners = []
        self.lookups = {}

    def __dealloc__(self):
        if self.snapshot != NULL:
            arena_free(&self.snapshot.arena)
        free(self.refs)

    cdef bint is_unused(self):
        return atomic_load_u32(&self.workers_left) == 0


cdef void* _alloc(Arena* arena, size_t size_bytes) except NULL:
    cdef void* at = arena_alloc(arena, size_bytes if size_bytes else 1)
    if at == NULL:
        raise MemoryError
    return at


cdef Text _text(Arena* arena, value) except *:
    cdef bytes raw = value.encode("latin-1") if isinstance(value, str) else bytes(value)
    cdef Text text = arena_text(arena, PyBytes_AS_STRING(raw), len(raw))
    return text


cdef int _fill_address(Arena* arena, Address* out, family, sockaddr, address) except -1:
    cdef bytes raw
    if family == _socket.AF_UNSPEC:
        raw = b""
    elif family == _socket.AF_UNIX:
        raw = _struct.pack("=H", family) + _os.fsencode(sockaddr) + b"\0"
    elif family == _socket.AF_INET6:
        raw = (_struct.pack("=H", family) + _struct.pack("!HI", sockaddr[1], 0)
               + _socket.inet_pton(family, sockaddr[0]) + _struct.pack("=I", 0))
    else:
        raw = (_struct.pack("=H", family) + _struct.pack("!H", sockaddr[1])
               + _socket.inet_pton(family, sockaddr[0]) + bytes(8))
    if len(raw) > 128:
        raise ValueError(f"socket address too long: {address}")
    out.family = family
    out.sockaddr_len = len(raw)
    memcpy(out.sockaddr, PyBytes_AS_STRING(raw), len(raw))
    out.text = _text(arena, address)


cdef int _fill_cluster(Arena* arena, ClusterConf* out, dict plan, _SlotHolder handle, dict slots) except -1:
    """`plan["key"]`: what its state is found by, where that is not its name; of a binding's cluster."""
    cdef uint32_t total = 0
    cdef uint32_t i = 0
    cdef list endpoints = plan["endpoints"]
    cdef list rows = []
    if plan["is_original_destination"]:
        # No endpoint is known yet: one row for the numbers of all that will be.
        endpoints = [{"address": "original_destination", "weight": 1, "family": _socket.AF_UNSPEC, "sockaddr": None}]
        out.is_original_destination = 1
        out.is_to_loopback = plan["is_to_loopback"]
        out.to_port = plan["to_port"]
    cdef EndpointConf* endpoint
    cdef object cluster_key = plan.get("key", plan["name"])
    slot = _hold(handle, slots, "clusters", cluster_key)
    out.slot = slot
    out.name = _text(arena, plan["name"])
    out.n_endpoints = len(endpoints)
    out.endpoints = <EndpointConf*>_alloc(arena, sizeof(EndpointConf) * out.n_endpoints)
    out.cumulative_weights = <uint32_t*>_alloc(arena, sizeof(uint32_t) * out.n_endpoints)
    out.weights_equal = 1
    out.speaks = endpoints[0].get("speaks", plan["speaks"]) if endpoints else plan["speaks"]
    held = plan.get("tls")
    trust = None if held is None else held.trust
    seen = {}
    for row in endpoints:
        endpoint = &out.endpoints[i]
        # The same address twice in a cluster is two endpoints with a state each. Under another trust it is another endpoint:
        # a connection that was good for the old one must carry nothing for the new.
        nth = seen[row["address"]] = seen.get(row["address"], -1) + 1
        endpoint.slot = _hold(handle, slots, "endpoints", (cluster_key, row["address"], nth, row.get("trust", trust)))
        handle.endpoint_slots.setdefault((plan["name"], row["address"]), endpoint.slot)
        endpoint.weight = row["weight"]
        endpoint.speaks = row.get("speaks", plan["speaks"])
        if endpoint.speaks != out.speaks:
            out.speaks = UPSTREAM_MIXED
        endpoint.tls = NULL if held is None else (<TlsContext>held).context
        if "labels" in row:
            _fill_bound_endpoint(arena, endpoint, row, handle, slots)
        _fill_address(arena, &endpoint.address, row["family"], row["sockaddr"], row["address"])
        total += endpoint.weight
        out.cumulative_weights[i] = total
        if endpoint.weight == 0 or endpoint.weight != out.endpoints[0].weight:
            out.weights_equal = 0
        rows.append((row["address"], row["weight"], endpoint.slot, row.get("labels")))
        i += 1
    out.total_weight = total
    handle.clusters.append((plan["name"], slot, rows))
    out.balancer = plan["balancer"]
    out.ewma_decay_ns = plan["ewma_decay_ns"]
    out.connect_timeout_ns = plan["connect_timeout_ns"]
    out.max_connections = plan["max_connections"]
    out.max_requests = plan["max_requests"]
    out.max_queue = plan["max_queue"]
    out.queue_timeout_ns = plan["queue_timeout_ns"]
    out.max_idle = plan["max_idle"]
    out.idle_timeout_ns = plan["idle_timeout_ns"]
    out.max_requests_per_connection = plan["max_requests_per_connection"]
    out.proxy_version = plan["proxy_version"]
    _context(handle, held)
    _fill_breaker(&out.breaker, plan["breaker"])
    budget = plan["budget"]
    out.budget.ratio_ppm = budget["ratio_ppm"]
    out.budget.min_per_second = budget["min_per_second"]
    out.budget.ttl_ms = budget["ttl_ms"]


cdef int _fill_breaker(BreakerConf* out, dict plan) except -1:
    rate = plan["success_rate"]
    out.consecutive_failures = plan["consecutive_failures"]
    out.success_rate.least_ppm = rate["least_ppm"]
    out.success_rate.requests = rate["requests"]
    out.success_rate.window_ns = rate["window_ns"]
    out.success_rate.kept = rate["kept"]
    _fill_backoff(&out.backoff, plan["backoff"])
    out.panic_percent = plan["panic_percent"]


cdef int _fill_backoff(BackoffConf* out, dict plan) except -1:
    out.first_ns = plan["first_ns"]
    out.longest_ns = plan["longest_ns"]
    out.jitter_ppm = plan["jitter_ppm"]
    out.kind = plan["kind"]


cdef int _fill_bound_endpoint(Arena* arena, EndpointConf* out, dict row, _SlotHolder handle, dict slots) except -1:
    """What only an endpoint of a binding has: a shared context, who it must be there, what is said of it."""
    out.context = row["context"]
    if row["identity"] is not None:
        kind, text = _identity_of(row["identity"])
        out.identity_kind = kind
        out.identity = _text(arena, text)
    if row["sni"] is not None:
        out.sni = _text(arena, row["sni"])
    if row["labels"]:
        out.labels = 1 + _hold(handle, slots, "labels", row["labels"])


cdef SSL_CTX* _context(_SlotHolder handle, TlsContext held) noexcept:
    if held is None:
        return NULL
    handle.contexts.append(held)
    return held.context


cdef int _hold(_SlotHolder handle, dict slots, kind, key) except -1:
    slot, fresh = slots[kind].hold(key)
    handle.held.append((slots[kind], key))
    if fresh and kind != "labels":
        handle.fresh.append((kind, slot))
    return slot


cdef int _fill_header_ops(Arena* arena, HeaderOps* out, list ops) except -1:
    cdef uint32_t i = 0
    cdef bytes name
    out.n_ops = len(ops)
    out.ops = <HeaderOp*>_alloc(arena, sizeof(HeaderOp) * len(ops))
    for kind, raw_name, value in ops:
        name = raw_name.lower().encode("latin-1")
        out.ops[i].kind = kind
        out.ops[i].name = _text(arena, name)
        out.ops[i].name_hash = field_hash(PyBytes_AS_STRING(name), len(name))
        out.ops[i].value = _text(arena, value or "")
        out.ops[i].line = _text(arena, name + b": " + (value or "").encode("latin-1") + b"\r\n")
        i += 1


cdef int _fill_route(Arena* arena, RouteConf* out, dict plan, uint32_t order, dict clusters, _SlotHolder handle,
                      dict slots) except -1:
    """`plan["key"]`: what its state is found by, where that is not its name; of a binding's route."""
    cdef uint32_t total = 0
    cdef uint32_t i = 0
    match = plan["match"]
    out.slot = _hold(handle, slots, "routes", plan.get("key", plan["name"]))
    if plan["name"]:
        handle.routes.append((plan["name"], out.slot))
    out.name = _text(arena, plan["name"])
    out.order = order
    for method in match["methods"]:
        out.method_mask |= 1 << _METHOD_BITS.get(method, METHOD_EXTENSION)
    out.n_fields = len(match["headers"])
    out.fields = <FieldMatch*>_alloc(arena, sizeof(FieldMatch) * out.n_fields)
    for name, value in match["headers"]:
        out.fields[i].name = _text(arena, name)
        out.fields[i].value = _text(arena, value)
        i += 1
    i = 0
    out.n_targets = len(plan["targets"])
    out.targets = <RouteTarget*>_alloc(arena, sizeof(RouteTarget) * out.n_targets)
    for name, weight in plan["targets"]:
        total += weight
        out.targets[i].cluster = <ClusterConf*><size_t>clusters[name]
        out.targets[i].cumulative_weight = total
        i += 1
    out.total_weight = total
    if plan["lookup"] is not None:
        out.lookup = <LookupConf*>_alloc(arena, sizeof(LookupConf))
        _fill_lookup(arena, out.lookup, plan["lookup"])
    if plan["direct"] is not None:
        out.direct = <DirectResponse*>_alloc(arena, sizeof(DirectResponse))
        _fill_direct(arena, out.direct, plan["direct"], REASON_DIRECT_RESPONSE)
    if plan["prefix_rewrite"] is not None:
        out.prefix = _text(arena, (match["path"] or "/").rstrip("/"))
        out.prefix_rewrite = _text(arena, plan["prefix_rewrite"])
    if plan["host_rewrite"] is not None:
        out.host_rewrite = _text(arena, plan["host_rewrite"])
    _fill_header_ops(arena, &out.request_headers, plan["request_headers"])
    _fill_header_ops(arena, &out.response_headers, plan["response_headers"])
    out.response_timeout_ns = plan["response_timeout_ns"]
    out.total_timeout_ns = plan["total_timeout_ns"]
    out.idle_timeout_ns = plan["idle_timeout_ns"]
    out.tunnel_idle_timeout_ns = plan["tunnel_idle_timeout_ns"]
    out.max_body_bytes = plan["max_body_bytes"]
    out.retry_on = plan["retry_on"]
    out.max_attempts = plan["max_attempts"]
    _fill_backoff(&out.backoff, plan["backoff"])
    out.filters = plan["filters"]
    out.allow_upgrade = plan["allow_upgrade"]
    out.allow_connect = plan["allow_connect"]
    out.grpc_web = plan.get("grpc_web", False)


cdef int _fill_lookup(Arena* arena, LookupConf* out, dict plan) except -1:
    out.by = plan["by"]
    out.overrides = plan["overrides"]
    out.segments = plan["segments"]
    out.prefix = _text(arena, plan["prefix"])
    out.field = _text(arena, plan["field"])
    out.name = _text(arena, plan["name"])
    out.timeout_ns = plan["timeout_ns"]


cdef int _fill_direct(Arena* arena, DirectResponse* out, dict plan, uint8_t reason) except -1:
    cdef char line[128]
    body = plan["body"] or b""
    status = plan["status"]
    head = bytearray(line[:respond_status_line(line, status)])
    head += b"x-mesh-reason: " + reason_name[reason].lower() + b"\r\n"
    for name, value in plan["headers"]:
        head += f"{name}: {value}\r\n".encode("latin-1")
    if status == 204 or status == 304 or status < 200:
        body = b""
    else:
        head += b"content-length: %d\r\n" % len(body)
    out.status = status
    out.reason = reason
    out.head = _text(arena, bytes(head))
    out.body = _text(arena, body)


cdef SnapshotHandle _build_snapshot(dict plan, dict slots, uint64_t seed, uint32_t n_workers):
    cdef Arena arena
    cdef Snapshot* snapshot
    cdef SnapshotHandle handle = SnapshotHandle()
    cdef uint32_t i
    cdef dict clusters = {}
    cdef dict routes = {}
    cdef dict tables = {}
    arena.head = NULL
    arena.total_bytes = 0
    snapshot = <Snapshot*>_alloc(&arena, sizeof(Snapshot))
    try:
        snapshot.version = handle.version = plan["version"]
        _fill_limits(&snapshot.limits, plan["limits"])
        forwarding = plan["forwarding"]
        if forwarding["via"]:
            snapshot.forwarding.via = _text(&arena, forwarding["via"])
        snapshot.forwarding.x_forwarded = forwarding["x_forwarded"]
        snapshot.forwarding.request_id = forwarding["request_id"]
        snapshot.forwarding.traceparent = forwarding["traceparent"]
        snapshot.n_clusters = len(plan["clusters"])
        snapshot.clusters = <ClusterConf*>_alloc(&arena, sizeof(ClusterConf) * snapshot.n_clusters)
        for i, row in enumerate(plan["clusters"]):
            _fill_cluster(&arena, &snapshot.clusters[i], row, handle, slots)
            clusters[row["name"]] = <size_t>&snapshot.clusters[i]
        snapshot.n_routes = len(plan["routes"])
        snapshot.routes = <RouteConf*>_alloc(&arena, sizeof(RouteConf) * snapshot.n_routes)
        for i, row in enumerate(plan["routes"]):
            _fill_route(&arena, &snapshot.routes[i], row, i, clusters, handle, slots)
            routes[row["name"]] = (i, row["match"], row["sni"])
            if row["lookup"] is not None:
                handle.lookups[row["name"]] = (snapshot.routes[i].slot, row["lookup"]["timeout_ns"])
        snapshot.n_listeners = len(plan["listeners"])
        snapshot.listeners = <ListenerConf*>_alloc(&arena, sizeof(ListenerConf) * snapshot.n_listeners)
        for i, row in enumerate(plan["listeners"]):
            key = tuple(row["routes"])
            if key not in tables:
                tables[key] = <size_t>_build_table(&arena, snapshot.routes, [routes[name][:2] for name in key], seed)
            snapshot.listeners[i].slot = _hold(handle, slots, "listeners", (row["name"], row["address"]))
            snapshot.listeners[i].name = _text(&arena, row["name"])
            snapshot.listeners[i].routes = <void*><size_t>tables[key]
            snapshot.listeners[i].trust_mesh_headers = row["trust_mesh_headers"]
            snapshot.listeners[i].tls = _context(handle, row.get("tls"))
            snapshot.listeners[i].tls_is_optional = row.get("tls_is_optional", False)
            snapshot.listeners[i].proxy_versions = row["proxy_versions"]
            snapshot.listeners[i].http2 = row.get("http2", True)
            snapshot.listeners[i].mesh_hop = row.get("mesh_hop", False)
            snapshot.listeners[i].detect_timeout_ns = row["detect_timeout_ns"]
            snapshot.listeners[i].interception = row["interception"]
            if row["opaque_ports"]:
                snapshot.listeners[i].opaque_ports = _port_bits(&arena, row["opaque_ports"])
            snapshot.listeners[i].relays = row["relays"]
            snapshot.listeners[i].serves_http = row["serves_http"]
            if row["tls_routes"]:
                snapshot.listeners[i].tls_routes = _name_table(&arena, row["tls_routes"], routes, snapshot.routes, seed)
            if row["tcp_route"] is not None:
                snapshot.listeners[i].tcp_route = &snapshot.routes[<uint32_t>routes[row["tcp_route"]][0]]
            handle.listeners.append((row["name"], row["address"], snapshot.listeners[i].slot))
        handle.refs = <SnapshotRef*>calloc(n_workers, sizeof(SnapshotRef))
        if handle.refs == NULL:
            raise MemoryError
    except BaseException:
        handle.release()
        arena_free(&arena)
        raise
    snapshot.arena = arena
    handle.snapshot = snapshot
    handle.workers_left = n_workers
    for i in range(n_workers):
        handle.refs[i].snapshot = snapshot
        handle.refs[i].workers_left = &handle.workers_left
    return handle


cdef RouteTable* _name_table(Arena* arena, list names, dict routes, RouteConf* confs, uint64_t seed) except NULL:
    """Routes by the name that a ClientHello asks for."""
    cdef RouteMatch* matches = <RouteMatch*>_alloc(arena, sizeof(RouteMatch) * len(names))
    cdef RouteTable* table
    for i, name in enumerate(names):
        index, _, sni = routes[name]
        matches[i].host = _text(arena, sni or "")
        matches[i].host_kind = ROUTE_HOST_ANY if not sni else ROUTE_HOST_WILDCARD if sni.startswith("*.") else ROUTE_HOST_EXACT
        matches[i].route = &confs[<uint32_t>index]
    table = routes_build(arena, matches, <uint32_t>len(names), seed)
    if table == NULL:
        raise MemoryError
    return table


cdef RouteTable* _build_table(Arena* arena, RouteConf* confs, list rows, uint64_t seed) except NULL:
    """rows: (index into confs, match) in their order."""
    cdef uint32_t n = <uint32_t>len(rows)
    cdef RouteMatch* matches = <RouteMatch*>_alloc(arena, sizeof(RouteMatch) * n)
    cdef RouteTable* table
    cdef uint32_t j
    for j, (index, match) in enumerate(rows):
        matches[j].host = _text(arena, match["host"] or "")
        matches[j].host_kind = match["host_kind"]
        matches[j].path = _text(arena, match["path"] or "")
        matches[j].path_kind = match["path_kind"]
        matches[j].route = &confs[<uint32_t>index]
    table = routes_build(arena, matches, n, seed)
    if table == NULL:
        raise MemoryError
    return table


cdef uint32_t* _port_bits(Arena* arena, list ports) except NULL:
    cdef uint32_t* bits = <uint32_t*>_alloc(arena, 65536 // 8)
    cdef uint16_t port
    for port in ports:
        bits[port >> 5] |= <uint32_t>1 << (port & 31)
    return bits


cdef int _fill_limits(Limits* out, dict limits) except -1:
    out.head_size_bytes = limits["head_size_bytes"]
    out.field_size_bytes = limits["field_size_bytes"]
    out.target_size_bytes = limits["target_size_bytes"]
    out.max_fields = limits["max_fields"]
    out.trailer_size_bytes = limits["trailer_size_bytes"]
    out.chunk_line_bytes = limits["chunk_line_bytes"]
    out.chunk_extension_total_bytes = limits["chunk_extension_total_bytes"]
    out.max_interim_responses = limits["max_interim_responses"]
    out.max_requests_per_connection = limits["max_requests_per_connection"]
    out.max_connections = limits["max_connections"]
    out.max_in_flight = limits["max_in_flight"]
    out.buffer_memory_bytes = limits["buffer_memory_bytes"]
    out.body_min_rate_bytes_per_s = limits["body_min_rate_bytes_per_s"]
    out.body_min_rate_grace_ns = limits["body_min_rate_grace_ns"]
    out.head_timeout_ns = limits["head_timeout_ns"]
    out.keep_alive_timeout_ns = limits["keep_alive_timeout_ns"]
    out.linger_timeout_ns = limits["linger_timeout_ns"]
    out.linger_bytes = limits["linger_bytes"]
    out.tls_handshake_timeout_ns = limits.get("tls_handshake_timeout_ns", 10_000_000_000)
    out.max_tls_handshakes = limits.get("max_tls_handshakes", 1000)
    out.filter_timeout_ns = limits.get("filter_timeout_ns", 5_000_000_000)
    out.max_filters_waiting = limits.get("max_filters_waiting", 4096)
    out.http2_max_streams = limits.get("http2_max_streams", 100)
    out.http2_stream_window_bytes = limits.get("http2_stream_window_bytes", 65536)
    out.http2_max_resets = limits.get("http2_max_resets", 200)
    out.max_lookups_waiting = limits.get("max_lookups_waiting", 4096)
    out.name_size_bytes = limits.get("name_size_bytes", 1024)
    out.max_original_destinations = limits.get("max_original_destinations", 1024)
    out.max_latency_histograms = limits.get("max_latency_histograms", 4096)


def method_bit(str method not None) -> int:
    """The engine's number of a method; every extension method shares one."""
    return _METHOD_BITS.get(method, METHOD_EXTENSION)
