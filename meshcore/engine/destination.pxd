# Endpoints found at run time: the addresses intercepted clients were on their way to. Finds, makes and lets go of them.
#
# One table per worker, bounded by limits.max_original_destinations; the least recently used one that nothing uses makes
# room. Each has an EndpointState of its own, so that connections are pooled, counted and ejected by address: a pooled
# connection is never one to another address. Its numbers move to the cluster's row when it goes; its latencies are
# recorded there from the start, for a histogram is larger than all else an endpoint needs.
#
# Safety: an entry is freed only with the worker. Statistics read entries from another thread; `changing` tells them when
# numbers were moved under their eyes.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcmp, memcpy, memset

from meshcore.engine.endpoint cimport ENDPOINT_NO_CONNECTION, Destination, Destinations, EndpointState
from meshcore.engine.histogram_pool cimport histogram_pool_take
from meshcore.engine.intercept cimport intercept_hash, intercept_is_own
from meshcore.engine.ip_text cimport ip_text_write
from meshcore.engine.octets cimport octets_write_decimal
from meshcore.engine.openssl cimport SSL_SESSION, SSL_SESSION_free
from meshcore.engine.pool cimport pool_close_idle
from meshcore.engine.reasons cimport (
    REASON_INTERCEPT_LOOP, REASON_NO_ORIGINAL_DESTINATION, REASON_OUT_OF_MEMORY, REASON_TOO_MANY_DESTINATIONS,
)
from meshcore.engine.session cimport session_retire
from meshcore.engine.snapshot cimport ClusterConf
from meshcore.engine.state cimport DESTINATION_BUCKETS, MAX_DESTINATIONS, Conn, Exchange, Worker
from meshcore.engine.sys cimport (
    AF_INET, AF_INET6, atomic_add_u64, atomic_load_u32, atomic_load_u64, atomic_store_u32, sockaddr_storage,
    sys_ipv6_text, sys_make_address, sys_sockaddr_len,
)

cdef enum DestinationPlace:             # Destination.is_known
    DESTINATION_SPARE = 0
    DESTINATION_KNOWN = 1
    DESTINATION_LET_GO = 2              # found by nobody any more; exchanges or connections may still point at it

cdef enum:
    DESTINATION_LOOKS = 1000            # of statistics at numbers that keep moving, before they take them as they are


cdef inline Destination* destination_find(Worker* worker, const Exchange* exchange, uint8_t* reason) noexcept nogil:
    """The endpoint for the address this exchange's client was on its way to. NULL: none, and why."""
    cdef Destinations* table = &worker.destinations
    cdef const ClusterConf* cluster = exchange.cluster
    cdef const Conn* down = exchange.down
    cdef Destination* found
    cdef uint8_t host[16]
    cdef uint16_t port
    cdef uint32_t row_slot = cluster.endpoints[0].slot
    cdef uint32_t bucket
    if down.original_family == 0:
        reason[0] = REASON_NO_ORIGINAL_DESTINATION
        return NULL
    port = cluster.to_port if cluster.to_port else down.original_port
    destination_host(cluster, down, host)
    bucket = <uint32_t>intercept_hash(table.seed, row_slot, down.original_family, port, host) \
        & (DESTINATION_BUCKETS - 1)
    found = table.buckets[bucket]
    while found != NULL and not (found.row_slot == row_slot and found.port == port
                                 and found.family == down.original_family and memcmp(found.host, host, 16) == 0):
        found = found.bucket_next
    if found != NULL:
        destination_unlink_use(table, found)
    else:
        found = destination_make(worker, down.original_family, port, host, row_slot, reason)
        if found == NULL:
            return NULL
        found.bucket = bucket
        found.bucket_next = table.buckets[bucket]
        table.buckets[bucket] = found
        table.n_known += 1
    destination_link_newest(table, found)
    if exchange.snapshot.is_current:
        # What only an exchange of an older snapshot wants is kept by none: its connections are not pooled.
        found.state.slot_version = exchange.snapshot.snapshot.version
    return found


cdef inline void destination_host(const ClusterConf* cluster, const Conn* down, uint8_t* host) noexcept nogil:
    if not cluster.is_to_loopback:
        memcpy(host, down.original_address, 16)
        return
    memset(host, 0, 16)
    if down.original_family == AF_INET:
        host[0] = 127                   # 127.0.0.1
        host[3] = 1
    else:
        host[15] = 1                    # ::1


cdef inline Destination* destination_make(Worker* worker, uint8_t family, uint16_t port, const uint8_t* host,
                                          uint32_t row_slot, uint8_t* reason) noexcept nogil:
    """An entry for an address that has none yet, in no list. NULL: none, and why."""
    cdef Destinations* table = &worker.destinations
    cdef EndpointState* row = worker.endpoints[row_slot]
    cdef Destination* made
    if intercept_is_own(worker, family, port, host):
        reason[0] = REASON_INTERCEPT_LOOP
        return NULL
    if table.n_known >= worker.current.snapshot.limits.max_original_destinations \
            and not destination_make_room(worker):
        reason[0] = REASON_TOO_MANY_DESTINATIONS
        return NULL
    reason[0] = REASON_OUT_OF_MEMORY
    if row.latency == NULL and not histogram_pool_take(&worker.histograms, &row.latency, <uint32_t>-1):
        return NULL
    if table.spare == NULL:
        destination_reclaim(table)
    made = table.spare
    if made != NULL:
        table.spare = made.bucket_next
    else:
        if table.n_entries == <uint32_t>MAX_DESTINATIONS:
            reason[0] = REASON_TOO_MANY_DESTINATIONS
            return NULL
        made = <Destination*>calloc(1, sizeof(Destination))
        if made == NULL:
            return NULL
        table.entries[table.n_entries] = made
        atomic_store_u32(&table.n_entries, table.n_entries + 1)
    if made.state.tls_session != NULL:
        SSL_SESSION_free(<SSL_SESSION*>made.state.tls_session)
    memset(&made.state, 0, sizeof(EndpointState))
    made.state.idle_head = ENDPOINT_NO_CONNECTION
    made.state.latency = row.latency
    made.family = family
    made.port = port
    memcpy(made.host, host, 16)
    destination_write_address(made)
    made.row_slot = row_slot
    made.is_known = DESTINATION_KNOWN
    return made


cdef inline void destination_write_address(Destination* destination) noexcept nogil:
    cdef sockaddr_storage address       # aligned, which the octets of an Address are not
    cdef char* end = destination.text
    destination.address.family = destination.family
    destination.address.sockaddr_len = <uint16_t>sys_sockaddr_len(destination.family)
    sys_make_address(destination.family, destination.host, destination.port, &address)
    memcpy(destination.address.sockaddr, &address, destination.address.sockaddr_len)
    if destination.family == AF_INET6:
        # As the system writes it, and so as a tap's condition is written.
        end[0] = 91
        end += 1 + sys_ipv6_text(destination.host, end + 1)
        end[0] = 93
        end += 1
    else:
        end = ip_text_write(end, AF_INET, destination.host)
    end[0] = 58
    end = octets_write_decimal(end + 1, destination.port)
    destination.address.text.at = destination.text
    destination.address.text.len = <uint32_t>(end - destination.text)


# --- letting go -------------------------------------------------------------------------------------------------------

cdef inline int destination_make_room(Worker* worker) noexcept nogil:
    """Let the least recently used one go that nothing uses. 0: all are in use."""
    cdef Destination* destination = worker.destinations.oldest
    while destination != NULL and destination.state.active:
        destination = destination.newer
    if destination == NULL:
        return 0
    destination_let_go(worker, destination, 1)
    return 1


cdef inline void destination_let_go(Worker* worker, Destination* destination, int has_row) noexcept nogil:
    """Nobody finds it any more. `has_row`: its cluster's row is still its cluster's, and takes its numbers."""
    cdef Destinations* table = &worker.destinations
    cdef Destination** at = &table.buckets[destination.bucket]
    pool_close_idle(worker, &destination.state)
    session_retire(worker, &destination.state)
    while at[0] != destination:
        at = &at[0].bucket_next
    at[0] = destination.bucket_next
    destination_unlink_use(table, destination)
    table.n_known -= 1
    atomic_add_u64(&table.changing, 1)
    if has_row:
        destination_add(worker.endpoints[destination.row_slot], &destination.state)
    destination.is_known = DESTINATION_LET_GO
    destination.state.slot_version = 0  # its connections are closed instead of kept
    atomic_add_u64(&table.changing, 1)
    destination.bucket_next = table.parting
    table.parting = destination


cdef inline void destination_reclaim(Destinations* table) noexcept nogil:
    """Those let go of may be used again once no exchange and no connection, closing as it may be, points at them."""
    cdef Destination** at = &table.parting
    cdef Destination* destination
    while at[0] != NULL:
        destination = at[0]
        if destination.state.active or destination.state.open_connections:
            at = &destination.bucket_next
            continue
        at[0] = destination.bucket_next
        destination.is_known = DESTINATION_SPARE
        destination.bucket_next = table.spare
        table.spare = destination


cdef inline void destination_apply(Worker* worker, uint64_t old_version) noexcept nogil:
    """A new snapshot is current: keep what its clusters may still want (UNCHANGED_UNTOUCHED), let go of the rest."""
    cdef Destinations* table = &worker.destinations
    cdef uint64_t version = worker.current.snapshot.version
    cdef Destination* destination
    cdef uint32_t i
    cdef int has_row
    for i in range(table.n_entries):
        destination = table.entries[i]
        if destination.is_known != DESTINATION_KNOWN:
            continue
        # A row that another cluster took over since names another version than the entry.
        has_row = destination.state.slot_version == old_version
        if has_row and worker.endpoints[destination.row_slot].slot_version == version \
                and not intercept_is_own(worker, destination.family, destination.port, destination.host):
            destination.state.slot_version = version
        else:
            destination_let_go(worker, destination, has_row)
    while table.n_known > worker.current.snapshot.limits.max_original_destinations \
            and destination_make_room(worker):
        pass


# --- order of use -----------------------------------------------------------------------------------------------------

cdef inline void destination_link_newest(Destinations* table, Destination* destination) noexcept nogil:
    destination.newer = NULL
    destination.older = table.newest
    if table.newest != NULL:
        table.newest.newer = destination
    else:
        table.oldest = destination
    table.newest = destination


cdef inline void destination_unlink_use(Destinations* table, Destination* destination) noexcept nogil:
    if destination.newer != NULL:
        destination.newer.older = destination.older
    else:
        table.newest = destination.older
    if destination.older != NULL:
        destination.older.newer = destination.newer
    else:
        table.oldest = destination.newer


# --- numbers ----------------------------------------------------------------------------------------------------------

cdef inline void destination_add(EndpointState* sum, const EndpointState* state) noexcept nogil:
    sum.requests += state.requests
    sum.successes += state.successes
    sum.failures += state.failures
    sum.connects += state.connects
    sum.connect_failures += state.connect_failures
    sum.retries += state.retries
    sum.ejections += state.ejections
    sum.bytes_in += state.bytes_in
    sum.bytes_out += state.bytes_out
    sum.tcp.ended += state.tcp.ended
    sum.tcp.failed += state.tcp.failed
    sum.tcp.opened += state.tcp.opened
    sum.tcp.closed += state.tcp.closed
    sum.tcp.bytes_out += state.tcp.bytes_out
    sum.tcp.bytes_in += state.tcp.bytes_in


cdef inline uint32_t destination_sum(Worker* worker, uint32_t row_slot, EndpointState* sum) noexcept nogil:
    """A row with its live entries added, for another thread than the worker's. Returns how many entries those are."""
    cdef Destinations* table = &worker.destinations
    cdef const Destination* one
    cdef uint64_t before
    cdef uint32_t n_found = 0
    cdef uint32_t look, i
    for look in range(<uint32_t>DESTINATION_LOOKS):
        before = atomic_load_u64(&table.changing)
        sum[0] = worker.endpoints[row_slot][0]
        n_found = 0
        for i in range(atomic_load_u32(&table.n_entries)):
            one = table.entries[i]
            if one.is_known == DESTINATION_KNOWN and one.row_slot == row_slot and one.state.slot_version:
                n_found += 1
                destination_add(sum, &one.state)
                sum.active += one.state.active
                sum.n_idle += one.state.n_idle
                sum.open_connections += one.state.open_connections
        if not before & 1 and atomic_load_u64(&table.changing) == before:
            break
    return n_found
