# Exchanges that go where their name says: found in the worker's table, or asked for, and waiting until it is bound.
# Runs no Python and takes no GIL: what is asked for goes to the engine's thread for names (see the door).
#
# A name is asked for once, whoever else comes meanwhile waits with the first. Nothing is handed over but a copy of the
# words: the exchange stays its worker's, so a client that goes away, or a wait that ends, takes it out again. The bytes of
# its head stay on its connection, the body with the client, as with a filter (hook). How many wait is bounded, and each
# waits no longer than its route says. A binding that is replaced stays with the exchanges that began with it.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from meshcore.engine.binding cimport (
    BINDING_BUCKETS, Binding, BindingRef, BoundName, binding_add, binding_fetch, binding_find, binding_hash, binding_hold, binding_key,
    binding_remove,
)
from meshcore.engine.conn cimport conn_deadline, conn_is_secure, conn_keep_input
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.head cimport FRAMING_NONE, Head
from meshcore.engine.ip_text cimport ip_text_write
from meshcore.engine.name cimport Name, name_of_connection, name_of_request
from meshcore.engine.octets cimport octets_write_decimal
from meshcore.engine.pool cimport pool_close_idle
from meshcore.engine.reasons cimport REASON_LOOKUP_NO_NAME, REASON_LOOKUP_OVERLOADED, REASON_OUT_OF_MEMORY
from meshcore.engine.routes cimport RouteTable, routes_find
from meshcore.engine.session cimport session_retire
from meshcore.engine.snapshot cimport ClusterConf, LookupConf, RouteConf, Text
from meshcore.engine.stack cimport StackNode, stack_push
from meshcore.engine.state cimport EXCHANGE_AWAIT_BINDING, FLOW_DONE, FLOW_OPEN, Conn, Exchange, Worker
from meshcore.engine.sys cimport AF_INET6, atomic_add_u32, sys_ipv6_text, sys_notify

cdef enum LookupCode:
    LOOKUP_SETTLED = 0                  # the exchange has its route, or a reason why there is none
    LOOKUP_WAITS = 1

cdef enum:
    ASK_PATH_BYTES = 2048               # of the request that asks first, shown to whoever answers
    DESTINATION_TEXT_BYTES = 64


cdef struct Ask:                        # a name on its way to Python; its texts follow it in memory, in this order
    StackNode node                      # first: travels through a stack
    uint32_t route_slot
    uint32_t key_len
    uint32_t name_len
    uint32_t authority_len
    uint32_t method_len
    uint32_t path_len
    uint32_t destination_len


cdef struct Bind:                       # one name's answer, for one worker
    BindingRef* ref                     # NULL: it means nothing any more
    const char* key
    uint64_t hash
    uint32_t key_len
    uint32_t name_len
    uint32_t route_slot
    uint64_t lifetime_ns                # from when the worker takes it; 0: until it is replaced


# --- asking -------------------------------------------------------------------------------------------------------------

cdef inline int lookup_request(Worker* worker, Exchange* exchange, const Head* head, uint32_t n, uint8_t* reason) noexcept nogil:
    """Settle where a request goes by its name, `n` bytes from its head on being at hand. A LookupCode."""
    cdef const LookupConf* conf = exchange.listed_route.lookup
    cdef char text[64]
    cdef Text destination = lookup_destination(exchange.down, text)
    cdef Name name = name_of_request(conf, head, conn_is_secure(exchange.down), destination,
                                     exchange.listener.trust_mesh_headers, worker.scratch,
                                     exchange.snapshot.snapshot.limits.name_size_bytes)
    cdef BoundName* bound
    if not lookup_find(worker, exchange, name, head, &bound, reason):
        return LOOKUP_SETTLED
    exchange.request.state = FLOW_OPEN if head.framing != FRAMING_NONE else FLOW_DONE
    if not lookup_wait(worker, exchange, bound, name, head, destination):
        reason[0] = REASON_OUT_OF_MEMORY
        return LOOKUP_SETTLED
    if not conn_keep_input(worker, exchange.down, head.base, n):
        lookup_leave(worker, exchange)
        reason[0] = REASON_OUT_OF_MEMORY
        return LOOKUP_SETTLED
    return LOOKUP_WAITS


cdef inline int lookup_connection(Worker* worker, Exchange* exchange, uint8_t* reason) noexcept nogil:
    """As lookup_request, of a connection that is not HTTP."""
    cdef char text[64]
    cdef Text destination = lookup_destination(exchange.down, text)
    cdef Name name = name_of_connection(exchange.listed_route.lookup, destination, worker.scratch,
                                        exchange.snapshot.snapshot.limits.name_size_bytes)
    cdef BoundName* bound
    if not lookup_find(worker, exchange, name, NULL, &bound, reason):
        return LOOKUP_SETTLED
    exchange.request.state = FLOW_DONE
    if not lookup_wait(worker, exchange, bound, name, NULL, destination):
        reason[0] = REASON_OUT_OF_MEMORY
        return LOOKUP_SETTLED
    return LOOKUP_WAITS


cdef inline int lookup_find(Worker* worker, Exchange* exchange, Name name, const Head* head, BoundName** bound,
                            uint8_t* reason) noexcept nogil:
    """0: settled. 1: the name is not bound; `bound` is its entry, if it has one."""
    cdef const RouteConf* route = exchange.listed_route
    cdef BoundName* found
    if name.len == 0:
        if route.total_weight == 0:
            reason[0] = REASON_LOOKUP_NO_NAME
        return 0
    found = binding_find(&worker.bindings, binding_hash(&worker.bindings, route.slot, worker.scratch, name.len),
                         route.slot, worker.scratch, name.len)
    bound[0] = found
    if found != NULL and found.ref != NULL:
        binding_fetch(found.binding)
        if found.ref.expires_ns == 0 or worker.now_ns < found.ref.expires_ns:
            lookup_take(worker, exchange, found.ref, head)
            return 0
        lookup_drop(worker, found.ref)
        binding_hold(found, NULL)
    if worker.lookups_waiting >= exchange.snapshot.snapshot.limits.max_lookups_waiting:
        if found != NULL and found.n_waiting == 0:
            binding_remove(&worker.bindings, found)
        reason[0] = REASON_LOOKUP_OVERLOADED
        return 0
    return 1


cdef inline void lookup_take(Worker* worker, Exchange* exchange, BindingRef* ref, const Head* head) noexcept nogil:
    """Let an exchange go where its name is bound to. Without a head: a connection."""
    cdef const Binding* binding = ref.binding
    cdef RouteConf* route = binding.only
    ref.last_used_ns = worker.now_ns
    if binding.falls_back and exchange.listed_route.total_weight:
        return
    ref.exchanges += 1
    exchange.binding = ref
    if binding.routes != NULL:
        route = routes_find(<RouteTable*>binding.routes, NULL, 0, NULL, 0, <uint32_t>-1, NULL) if head == NULL \
            else routes_find(<RouteTable*>binding.routes, head.host_lower, head.host_len, head.base + head.path_at,
                             head.path_len, <uint32_t>1 << head.method, head)
    exchange.route = route
    if route != NULL:
        exchange.route_state = worker.routes[route.slot]


cdef inline Text lookup_destination(const Conn* down, char* text) noexcept nogil:
    """Where the connection was going, as "ip:port"; nothing where nobody knows. Written to `text`."""
    cdef Text result
    cdef char* end = text
    result.at = text
    result.len = 0
    if down.original_family == 0:
        return result
    if down.original_family == AF_INET6:
        end[0] = 91
        end += 1 + sys_ipv6_text(down.original_address, end + 1)
        end[0] = 93
        end += 1
    else:
        end = ip_text_write(end, down.original_family, down.original_address)
    end[0] = 58
    end = octets_write_decimal(end + 1, down.original_port)
    result.len = <uint32_t>(end - text)
    return result


# --- waiting ------------------------------------------------------------------------------------------------------------

cdef inline int lookup_wait(Worker* worker, Exchange* exchange, BoundName* bound, Name name, const Head* head,
                            Text destination) noexcept nogil:
    """Put an exchange with those that wait for its name, which is in the scratch. 1, or 0 without memory."""
    cdef const RouteConf* route = exchange.listed_route
    cdef Exchange* last
    if bound == NULL:
        bound = binding_add(&worker.bindings, binding_hash(&worker.bindings, route.slot, worker.scratch, name.len),
                            route.slot, worker.scratch, name.len, name.name_len)
        if bound == NULL:
            return 0
    if bound.n_waiting == 0 and not lookup_ask(worker, bound, head, destination):
        binding_remove(&worker.bindings, bound)
        return 0
    last = <Exchange*>bound.waiting_last
    exchange.queue_prev = last
    exchange.queue_next = NULL
    if last == NULL:
        bound.waiting = exchange
    else:
        last.queue_next = exchange
    bound.waiting_last = exchange
    bound.n_waiting += 1
    worker.lookups_waiting += 1
    exchange.waits_for = bound
    exchange.state = EXCHANGE_AWAIT_BINDING
    conn_deadline(worker, exchange.down, worker.now_ns + route.lookup.timeout_ns)
    return 1


cdef inline void lookup_leave(Worker* worker, Exchange* exchange) noexcept nogil:
    """It waits no longer. A name nobody waits for is forgotten: the next request asks anew."""
    cdef BoundName* bound = exchange.waits_for
    if exchange.queue_prev != NULL:
        exchange.queue_prev.queue_next = exchange.queue_next
    else:
        bound.waiting = exchange.queue_next
    if exchange.queue_next != NULL:
        exchange.queue_next.queue_prev = exchange.queue_prev
    else:
        bound.waiting_last = exchange.queue_prev
    exchange.queue_next = exchange.queue_prev = NULL
    exchange.waits_for = NULL
    worker.lookups_waiting -= 1
    bound.n_waiting -= 1
    if bound.n_waiting == 0 and bound.ref == NULL:
        binding_remove(&worker.bindings, bound)


cdef inline int lookup_ask(Worker* worker, BoundName* bound, const Head* head, Text destination) noexcept nogil:
    """Give the name, and the words of the request that needs it, to the thread for names. 1, or 0 without memory."""
    cdef uint32_t path_len = 0
    cdef uint32_t total = bound.key_len + destination.len
    cdef Ask* ask
    cdef char* at
    if head != NULL:
        path_len = head.path_len if head.path_len < ASK_PATH_BYTES else ASK_PATH_BYTES
        total += head.authority_len + head.method_len + path_len
    # Safety: freed by the thread that takes it.
    ask = <Ask*>malloc(sizeof(Ask) + total)
    if ask == NULL:
        return 0
    ask.route_slot = bound.route_slot
    ask.key_len = bound.key_len
    ask.name_len = bound.name_len
    ask.destination_len = destination.len
    ask.authority_len = ask.method_len = ask.path_len = 0
    at = <char*>ask + sizeof(Ask)
    memcpy(at, binding_key(bound), bound.key_len)
    at += bound.key_len
    if head != NULL:
        ask.authority_len = head.authority_len
        ask.method_len = head.method_len
        ask.path_len = path_len
        memcpy(at, head.base + head.authority_at, head.authority_len)
        at += head.authority_len
        memcpy(at, head.base + head.method_at, head.method_len)
        at += head.method_len
        memcpy(at, head.base + head.path_at, path_len)
        at += path_len
    memcpy(at, destination.at, destination.len)
    if stack_push(worker.lookup_stack, &ask.node):
        sys_notify(worker.lookup_fd)
    return 1


# --- answers ------------------------------------------------------------------------------------------------------------

cdef inline Exchange* lookup_bind(Worker* worker, const Bind* bind) noexcept nogil:
    """Take an answer over. Returns the exchanges that waited for it, oldest first, by queue_next: the caller's to go on with."""
    cdef BoundName* bound = binding_find(&worker.bindings, bind.hash, bind.route_slot, bind.key, bind.key_len)
    cdef BindingRef* old = NULL
    cdef Exchange* exchange = NULL
    cdef Exchange* one
    if bound == NULL and bind.ref != NULL:
        bound = binding_add(&worker.bindings, bind.hash, bind.route_slot, bind.key, bind.key_len, bind.name_len)
    if bound == NULL:
        return NULL                     # without memory it is as if it had expired
    old = bound.ref
    binding_hold(bound, bind.ref)
    if bind.ref != NULL:
        bind.ref.is_current = 1
        bind.ref.last_used_ns = worker.now_ns
        bind.ref.expires_ns = worker.now_ns + bind.lifetime_ns if bind.lifetime_ns else 0
        lookup_name_endpoints(worker, bind.ref.binding)
        exchange = <Exchange*>bound.waiting
        worker.lookups_waiting -= bound.n_waiting
        bound.n_waiting = 0
        bound.waiting = bound.waiting_last = NULL
        one = exchange
        while one != NULL:
            one.waits_for = NULL
            one = one.queue_next
    if old != NULL:
        lookup_drop(worker, old)
    if bound.ref == NULL and bound.n_waiting == 0:
        binding_remove(&worker.bindings, bound)
    return exchange


cdef inline void lookup_name_endpoints(Worker* worker, const Binding* binding) noexcept nogil:
    cdef const ClusterConf* cluster
    cdef uint32_t i
    cdef uint32_t j
    for i in range(binding.n_clusters):
        cluster = &binding.clusters[i]
        for j in range(cluster.n_endpoints):
            worker.endpoints[cluster.endpoints[j].slot].bindings += 1


cdef inline void lookup_drop(Worker* worker, BindingRef* ref) noexcept nogil:
    """Nothing new goes by this binding. Endpoints that no other names get no new requests: their idle connections end."""
    cdef const Binding* binding = ref.binding
    cdef const ClusterConf* cluster
    cdef EndpointState* endpoint
    cdef uint32_t i
    cdef uint32_t j
    for i in range(binding.n_clusters):
        cluster = &binding.clusters[i]
        for j in range(cluster.n_endpoints):
            endpoint = worker.endpoints[cluster.endpoints[j].slot]
            endpoint.bindings -= 1
            if endpoint.bindings == 0:
                pool_close_idle(worker, endpoint)
                session_retire(worker, endpoint)
    ref.is_current = 0
    if ref.exchanges == 0:
        atomic_add_u32(ref.workers_left, <uint32_t>-1)


cdef inline void lookup_distrust(Worker* worker, uint16_t context) noexcept nogil:
    """Another trust took the place of that of a shared context: what was opened under the old one carries nothing new."""
    cdef const Binding* binding
    cdef const ClusterConf* cluster
    cdef BoundName* bound
    cdef uint32_t bucket
    cdef uint32_t i
    cdef uint32_t j
    for bucket in range(<uint32_t>BINDING_BUCKETS):
        bound = worker.bindings.buckets[bucket]
        while bound != NULL:
            if bound.ref != NULL:
                binding = bound.ref.binding
                for i in range(binding.n_clusters):
                    cluster = &binding.clusters[i]
                    for j in range(cluster.n_endpoints):
                        if cluster.endpoints[j].context == context:
                            pool_close_idle(worker, worker.endpoints[cluster.endpoints[j].slot])
                            session_retire(worker, worker.endpoints[cluster.endpoints[j].slot])
            bound = bound.bucket_next
