# Which exchanges a tap session sees, and the records it gets. Never waits: a full ring drops and counts.
#
# Costs one load while no session is open. A session is matched on the request; its ceiling (max_rps) is shared by all
# workers and honest: what it hides is counted in `suppressed`. A counted request's rsp and end records always follow.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from meshcore.engine.buffer cimport buffer_return, buffer_take
from meshcore.engine.conn cimport conn_is_secure, conn_is_stream, conn_peer
from meshcore.engine.head cimport Head
from meshcore.engine.ring cimport ring_claim, ring_publish
from meshcore.engine.state cimport MAX_TAPS, Conn, Exchange, Stream, TapSession, Worker
from meshcore.engine.sys cimport atomic_add_u64, atomic_load_u64, atomic_store_u64, sys_ipv6_text

cdef enum TapKind:
    TAP_REQUEST = 0
    TAP_RESPONSE = 1
    TAP_END = 2

cdef enum:
    TAP_RING_SLOTS = 4096
    TAP_NO_RESET = 0xFFFFFFFF


cdef struct TapText:                    # what a tap shows of a request, kept in Exchange.head_buffer
    uint8_t method_len
    uint16_t authority_len
    uint16_t path_len
    char method[32]
    char authority[128]
    char path[256]


cdef struct TapRecord:
    uint8_t kind
    uint8_t mask                        # sessions it is for
    uint8_t reason
    uint8_t src_len
    uint8_t grpc_status
    uint16_t src_port
    uint16_t status
    uint32_t worker
    uint32_t reset_error                # HTTP/2: the code a stream was closed with; TAP_NO_RESET
    int32_t route_slot
    int32_t cluster_slot
    uint64_t stream
    uint64_t wall_ns
    uint64_t latency_ns                 # request to response head
    uint64_t duration_ns                # response head to end
    uint64_t response_bytes
    char src[46]
    uint8_t dst_len
    char dst[64]
    uint8_t secure                      # the client came over TLS
    uint16_t src_id_len
    char src_id[256]                    # who it proved to be, cut short where it is longer
    TapText text


cdef inline void tap_capture(Worker* worker, Exchange* exchange, const Head* head) noexcept nogil:
    """Match a new request against the open sessions, and keep its words if any wants them."""
    cdef uint32_t i
    cdef uint32_t mask = 0
    cdef TapText* text
    for i in range(<uint32_t>MAX_TAPS):
        if worker.tap_bits >> i & 1 and tap_matches(worker.taps[i], exchange, head):
            mask |= <uint32_t>1 << i
    if mask == 0:
        return
    exchange.head_buffer = buffer_take(&worker.buffers, sizeof(TapText))
    if exchange.head_buffer == NULL:
        return
    exchange.tap_mask = <uint8_t>mask
    text = <TapText*>exchange.head_buffer.data
    text.method_len = <uint8_t>(head.method_len if head.method_len < 32 else 32)
    text.authority_len = <uint16_t>(head.authority_len if head.authority_len < 128 else 128)
    text.path_len = <uint16_t>(head.path_len if head.path_len < 256 else 256)
    memcpy(text.method, head.base + head.method_at, text.method_len)
    memcpy(text.authority, head.base + head.authority_at, text.authority_len)
    memcpy(text.path, head.base + head.path_at, text.path_len)


cdef inline void tap_request(Worker* worker, Exchange* exchange) noexcept nogil:
    """The endpoint is chosen (or there will be none): settle who sees this exchange, and tell them."""
    cdef uint32_t i
    cdef uint32_t mask = exchange.tap_mask
    cdef TapSession* session
    for i in range(<uint32_t>MAX_TAPS):
        if not mask >> i & 1:
            continue
        session = worker.taps[i]
        if not worker.tap_bits >> i & 1 or not tap_matches_endpoint(session, exchange) \
                or not tap_admits(session, (worker.now_ns + worker.wall_offset_ns) // 1000000000):
            mask &= ~(<uint32_t>1 << i)
    exchange.tap_mask = <uint8_t>mask
    if mask:
        tap_write(worker, exchange, TAP_REQUEST, worker.now_ns, 0, 0)


cdef inline void tap_write(Worker* worker, Exchange* exchange, uint8_t kind, uint64_t now_ns,
                           uint64_t latency_ns, uint64_t duration_ns) noexcept nogil:
    cdef TapRecord* record = <TapRecord*>ring_claim(&worker.tap_ring)
    cdef Conn* down = exchange.down
    if record == NULL:
        return
    record.kind = kind
    record.mask = exchange.tap_mask
    record.reason = exchange.reason
    record.status = exchange.status
    record.grpc_status = exchange.grpc_status
    record.worker = worker.index
    record.reset_error = tap_reset_error(exchange) if kind == TAP_END else TAP_NO_RESET
    record.stream = exchange.stream
    record.wall_ns = now_ns + worker.wall_offset_ns
    record.latency_ns = latency_ns
    record.duration_ns = duration_ns
    record.response_bytes = exchange.response.moved_bytes
    record.route_slot = -1 if exchange.route == NULL else <int32_t>exchange.route.slot
    record.cluster_slot = -1 if exchange.cluster == NULL else <int32_t>exchange.cluster.slot
    record.src_len = 0
    record.src_port = 0
    if down != NULL:
        record.src_port = down.peer_port
        record.src_len = down.peer_text_len
        if down.peer_text_len:
            memcpy(record.src, down.peer_text, down.peer_text_len)
        else:
            record.src_len = <uint8_t>sys_ipv6_text(down.peer_address, record.src)
    record.dst_len = 0
    if exchange.address != NULL:
        record.dst_len = <uint8_t>min(exchange.address.text.len, <uint32_t>64)
        memcpy(record.dst, exchange.address.text.at, record.dst_len)
    record.secure = 0
    record.src_id_len = 0
    if down != NULL and conn_is_secure(down):
        record.secure = 1
        record.src_id_len = conn_peer(down).identity_len if conn_peer(down).identity_len < 256 else 256
        memcpy(record.src_id, conn_peer(down).identity, record.src_id_len)
    if kind == TAP_REQUEST and exchange.head_buffer != NULL:
        record.text = (<TapText*>exchange.head_buffer.data)[0]
    else:
        record.text.method_len = 0
        record.text.authority_len = record.text.path_len = 0
    ring_publish(&worker.tap_ring)


cdef inline uint32_t tap_reset_error(const Exchange* exchange) noexcept nogil:
    """Which side cut its stream short, and how: the endpoint's code, else the client's."""
    cdef const Stream* stream
    if exchange.up != NULL and conn_is_stream(exchange.up):
        stream = <const Stream*>exchange.up.channel
        if stream.error_code:
            return stream.error_code
    if exchange.down != NULL and conn_is_stream(exchange.down):
        stream = <const Stream*>exchange.down.channel
        if stream.error_code:
            return stream.error_code
    return TAP_NO_RESET


cdef inline void tap_release(Worker* worker, Exchange* exchange) noexcept nogil:
    if exchange.head_buffer != NULL:
        buffer_return(&worker.buffers, exchange.head_buffer)
        exchange.head_buffer = NULL


cdef inline int tap_matches(const TapSession* session, const Exchange* exchange, const Head* head) noexcept nogil:
    if session.method and session.method != exchange.method + 1:
        return 0
    if session.scheme and session.scheme != 1 + conn_is_secure(exchange.down):
        return 0
    if session.route_slot >= 0 and (exchange.route == NULL or <uint32_t>session.route_slot != exchange.route.slot):
        return 0
    if session.path_len and (head.path_len < session.path_len
                             or memcmp(head.base + head.path_at, session.path, session.path_len) != 0):
        return 0
    if session.authority_len and (head.authority_len != session.authority_len
                                  or memcmp(head.base + head.authority_at, session.authority,
                                            session.authority_len) != 0):
        return 0
    if session.src_len and not tap_matches_source(session, exchange.down):
        return 0
    return 1


cdef inline int tap_matches_source(const TapSession* session, const Conn* down) noexcept nogil:
    cdef char ipv6[48]
    if down.peer_text_len:
        return down.peer_text_len == session.src_len \
            and memcmp(down.peer_text, session.src, session.src_len) == 0
    return sys_ipv6_text(down.peer_address, ipv6) == session.src_len \
        and memcmp(ipv6, session.src, session.src_len) == 0


cdef inline int tap_matches_endpoint(const TapSession* session, const Exchange* exchange) noexcept nogil:
    if session.cluster_slot >= 0 and (exchange.cluster == NULL
                                      or <uint32_t>session.cluster_slot != exchange.cluster.slot):
        return 0
    if session.dst_len == 0:
        return 1
    return exchange.address != NULL and exchange.address.text.len == session.dst_len \
        and memcmp(exchange.address.text.at, session.dst, session.dst_len) == 0


cdef inline int tap_admits(TapSession* session, uint64_t second) noexcept nogil:
    # Below one a second the window grows instead of the share: 0.1 rps is one request in ten seconds.
    cdef uint64_t window = second
    cdef uint64_t allowed = session.max_rps_milli // 1000
    atomic_add_u64(&session.matched, 1)
    if session.max_rps_milli == 0:
        return 1
    if allowed == 0:
        window = second * session.max_rps_milli // 1000
        allowed = 1
    if atomic_load_u64(&session.window_second) != window:
        # Two workers may both open the window: at worst one request more in that second.
        atomic_store_u64(&session.window_second, window)
        atomic_store_u64(&session.window_count, 0)
    if atomic_add_u64(&session.window_count, 1) > allowed:
        atomic_add_u64(&session.suppressed, 1)
        return 0
    return 1
