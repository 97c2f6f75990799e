# Which exchanges a tap session sees, and the records it gets. Never waits: a full ring drops and counts.
#
# Costs one load while no session is open. A session is matched on the request; its ceiling (max_rps) is shared by all
# workers and honest: what it hides is counted in `suppressed`. A counted request's rsp and end records always follow.
# A session that asks how the exchange ends (status, latency, reason) sees nothing before that is known: then its
# records are written at once, with the times that were.
#
# Fields and bodies, for who wants them, are copies in the worker's buffers, bounded each. They travel as parts in the
# slots right before the record they belong to.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from meshcore.engine.buffer cimport Buffer, buffer_return, buffer_take
from meshcore.engine.conn cimport conn_is_secure, conn_is_stream, conn_peer
from meshcore.engine.head cimport Head
from meshcore.engine.ring cimport ring_claim, ring_has_room, ring_publish
from meshcore.engine.snapshot cimport RouteConf
from meshcore.engine.state cimport EXCHANGE_TAPPED, EXCHANGE_TCP, Conn, Exchange, Flow, Stream, Worker
from meshcore.engine.sys cimport sys_ipv6_text, sys_notify, sys_now_ns
from meshcore.engine.tap_session cimport MAX_TAPS, TapSession, tap_session_admits, tap_session_is_full, tap_session_wakes
from meshcore.engine.tls_context cimport Peer

cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t haystack_len, const void* needle, size_t needle_len)

cdef enum TapKind:
    TAP_REQUEST = 0
    TAP_RESPONSE = 1
    TAP_END = 2
    TAP_PART = 3                        # of the record that follows it

cdef enum TapLabels:                    # what is known of a set of labels
    TAP_LABELS_UNKNOWN = 0              # it is newer than the session's last look: let it through, the reader judges
    TAP_LABELS_WANTED = 1
    TAP_LABELS_OTHER = 2

cdef enum TapPartOf:
    TAP_FIELDS = 0                      # of the request in TAP_REQUEST, of the response in TAP_RESPONSE
    TAP_REQUEST_BODY = 1                # the two in TAP_END
    TAP_RESPONSE_BODY = 2

cdef enum:
    TAP_RING_SLOTS = 4096
    TAP_NO_RESET = 0xFFFFFFFF
    TAP_PART_BYTES = 768
    TAP_FIELDS_BYTES = 7680             # of one head: with what else is kept of it, a buffer of 8 KiB


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
    uint32_t labels                     # of the endpoint; 0: none
    uint64_t stream
    uint64_t wall_ns
    uint64_t latency_ns                 # request to response head
    uint64_t duration_ns                # response head to end
    uint64_t request_bytes
    uint64_t response_bytes
    char src[46]
    uint8_t dst_len
    char dst[64]
    uint8_t is_tcp                      # a connection relayed as it is: its beginning and its end
    uint8_t secure                      # the client came over TLS
    uint16_t src_id_len
    char src_id[256]                    # who it proved to be, cut short where it is longer
    TapText text


cdef struct TapPart:                    # in a slot of the same ring, so no larger than a record
    uint8_t kind
    uint8_t of
    uint16_t len
    char bytes[768]


cdef inline void tap_capture(Worker* worker, Exchange* exchange, const Head* head) noexcept nogil:
    """Match a new request against the open sessions, and keep its words if any wants them."""
    cdef uint32_t i
    cdef uint32_t mask = 0
    cdef uint32_t pending = 0
    cdef uint32_t fields_bytes = 0
    cdef uint32_t body_bytes = 0
    cdef TapText* text
    cdef Buffer* buffer
    for i in range(<uint32_t>MAX_TAPS):
        if worker.tap_bits >> i & 1 and tap_matches(worker.taps[i], exchange, head) \
                and not tap_session_is_full(worker.taps[i], tap_second(worker)):
            mask |= <uint32_t>1 << i
            pending |= <uint32_t>worker.taps[i].wants_outcome << i
            body_bytes = max(body_bytes, worker.taps[i].body_bytes)
            if worker.taps[i].wants_fields:
                fields_bytes = min(head.size_bytes - head.fields_at, <uint32_t>TAP_FIELDS_BYTES)
    if mask == 0:
        return
    buffer = buffer_take(&worker.buffers, sizeof(TapText) + fields_bytes)
    if buffer == NULL:
        return
    exchange.head_buffer = buffer
    exchange.tap_mask = <uint8_t>mask
    exchange.tap_pending = <uint8_t>pending
    text = <TapText*>buffer.data
    text.method_len = <uint8_t>(head.method_len if head.method_len < 32 else 32)
    text.authority_len = <uint16_t>(head.authority_len if head.authority_len < 128 else 128)
    text.path_len = <uint16_t>(head.path_len if head.path_len < 256 else 256)
    memcpy(text.method, head.base + head.method_at, text.method_len)
    memcpy(text.authority, head.base + head.authority_at, text.authority_len)
    memcpy(text.path, head.base + head.path_at, text.path_len)
    memcpy(buffer.data + sizeof(TapText), head.base + head.fields_at, fields_bytes)
    buffer.start = sizeof(TapText)
    buffer.end = sizeof(TapText) + fields_bytes
    tap_capture_body(worker, &exchange.request, body_bytes)


cdef inline void tap_capture_tcp(Worker* worker, Exchange* exchange, const char* name, uint32_t name_len) noexcept nogil:
    """As tap_capture, of a connection that is relayed as it is. `name`: whom its ClientHello asked for, if it had one."""
    cdef uint32_t i
    cdef uint32_t mask = 0
    cdef uint32_t pending = 0
    cdef TapText* text
    for i in range(<uint32_t>MAX_TAPS):
        if worker.tap_bits >> i & 1 and tap_matches_tcp(worker.taps[i], exchange, name, name_len):
            mask |= <uint32_t>1 << i
            pending |= <uint32_t>worker.taps[i].wants_outcome << i
    if mask == 0:
        return
    exchange.head_buffer = buffer_take(&worker.buffers, sizeof(TapText))
    if exchange.head_buffer == NULL:
        return
    exchange.head_buffer.start = exchange.head_buffer.end = sizeof(TapText)
    exchange.tap_mask = <uint8_t>mask
    exchange.tap_pending = <uint8_t>pending
    text = <TapText*>exchange.head_buffer.data
    text.method_len = 0
    text.path_len = 0
    text.authority_len = <uint16_t>(name_len if name_len < 128 else 128)
    if name_len:                        # of nothing, not even no octets may be copied
        memcpy(text.authority, name, text.authority_len)


cdef inline void tap_capture_body(Worker* worker, Flow* flow, uint32_t body_bytes) noexcept nogil:
    # Without memory for it there is no body to see; the exchange goes on.
    if body_bytes == 0 or flow.captured != NULL:
        return
    flow.captured = buffer_take(&worker.buffers, body_bytes)
    if flow.captured != NULL:
        flow.captured.start = flow.captured.end = 0
        flow.capture_bytes = body_bytes


cdef inline void tap_request(Worker* worker, Exchange* exchange) noexcept nogil:
    """The endpoint is chosen (or there will be none): settle who sees this exchange, and tell them."""
    cdef uint32_t i
    cdef uint32_t mask = exchange.tap_mask
    cdef TapSession* session
    for i in range(<uint32_t>MAX_TAPS):
        if not mask >> i & 1:
            continue
        session = worker.taps[i]
        if not tap_is_open(worker, exchange, i) or not tap_matches_endpoint(session, exchange) \
                or not (exchange.tap_pending >> i & 1 or tap_session_admits(session, tap_second(worker))):
            mask &= ~(<uint32_t>1 << i)
    exchange.tap_mask = <uint8_t>mask
    exchange.tap_pending &= exchange.tap_mask
    tap_write(worker, exchange, TAP_REQUEST, tap_live(exchange), worker.now_ns, 0, 0)


cdef inline void tap_response(Worker* worker, Exchange* exchange, const Head* head, uint64_t now_ns) noexcept nogil:
    """The response head is here. Who asked for a status or a latency learns whether this is one of theirs."""
    cdef uint64_t latency_ns = now_ns - exchange.start_ns
    cdef uint32_t fields_bytes = 0
    cdef uint32_t body_bytes = 0
    cdef uint32_t i
    tap_settle(worker, exchange, latency_ns, 0)
    for i in range(<uint32_t>MAX_TAPS):
        if exchange.tap_mask >> i & 1:
            body_bytes = max(body_bytes, worker.taps[i].body_bytes)
            if worker.taps[i].wants_fields:
                fields_bytes = min(head.size_bytes - head.fields_at, <uint32_t>TAP_FIELDS_BYTES)
    if fields_bytes:
        exchange.answer_buffer = buffer_take(&worker.buffers, fields_bytes)
        if exchange.answer_buffer != NULL:
            memcpy(exchange.answer_buffer.data, head.base + head.fields_at, fields_bytes)
            exchange.answer_buffer.start = 0
            exchange.answer_buffer.end = fields_bytes
    if exchange.response.state:
        tap_capture_body(worker, &exchange.response, body_bytes)
    tap_write(worker, exchange, TAP_RESPONSE, tap_live(exchange), now_ns, latency_ns, 0)


cdef inline void tap_end(Worker* worker, Exchange* exchange, uint64_t now_ns) noexcept nogil:
    """The exchange is over, and everything about it known."""
    cdef int is_answered = exchange.status != 0 and exchange.status != 499
    cdef uint32_t live
    if exchange.first_byte_ns == 0:
        if not exchange.flags & EXCHANGE_TAPPED:
            tap_request(worker, exchange)             # it never got as far as an endpoint
        exchange.first_byte_ns = now_ns
        if is_answered:
            tap_write(worker, exchange, TAP_RESPONSE, tap_live(exchange), now_ns, now_ns - exchange.start_ns, 0)
    live = tap_settle(worker, exchange, exchange.first_byte_ns - exchange.start_ns, 1)
    if is_answered:
        tap_write(worker, exchange, TAP_RESPONSE, live, exchange.first_byte_ns,
                  exchange.first_byte_ns - exchange.start_ns, 0)
    if exchange.tap_mask:
        # Who looks closely sees how long it took us, too: the time of the wake-up is not enough here.
        now_ns = sys_now_ns()
        tap_write(worker, exchange, TAP_END, exchange.tap_mask, now_ns, exchange.first_byte_ns - exchange.start_ns,
                  now_ns - exchange.first_byte_ns)


cdef inline uint32_t tap_settle(Worker* worker, Exchange* exchange, uint64_t latency_ns, int is_end) noexcept nogil:
    """Decide for the sessions that wait for what is known now. Those that see it from here on get its request, and are
    returned."""
    cdef uint32_t i
    cdef uint32_t shown = 0
    cdef TapSession* session
    for i in range(<uint32_t>MAX_TAPS):
        if not exchange.tap_mask >> i & 1:
            continue
        session = worker.taps[i]
        if not tap_is_open(worker, exchange, i):
            exchange.tap_mask &= <uint8_t>~(<uint32_t>1 << i)
        elif exchange.tap_pending >> i & 1 and (is_end or session.reason < 0):
            if tap_matches_outcome(session, exchange, latency_ns) and tap_session_admits(session, tap_second(worker)):
                shown |= <uint32_t>1 << i
            else:
                exchange.tap_mask &= <uint8_t>~(<uint32_t>1 << i)
            exchange.tap_pending &= <uint8_t>~(<uint32_t>1 << i)
    exchange.tap_pending &= exchange.tap_mask
    tap_write(worker, exchange, TAP_REQUEST, shown, exchange.start_ns, 0, 0)
    return shown


cdef inline uint32_t tap_live(const Exchange* exchange) noexcept nogil:
    return exchange.tap_mask & ~<uint32_t>exchange.tap_pending


cdef inline int tap_is_open(const Worker* worker, const Exchange* exchange, uint32_t i) noexcept nogil:
    """Is there a session at `i`, and was there when this exchange began? Another may have had the place then."""
    return worker.tap_bits >> i & 1 and exchange.stream > worker.tap_since[i]


cdef inline uint64_t tap_second(const Worker* worker) noexcept nogil:
    return (worker.now_ns + worker.wall_offset_ns) // 1000000000


cdef inline void tap_write(Worker* worker, Exchange* exchange, uint8_t kind, uint32_t mask, uint64_t now_ns,
                           uint64_t latency_ns, uint64_t duration_ns) noexcept nogil:
    """A record for these sessions, behind the parts that one of them wants."""
    cdef TapRecord* record
    cdef Conn* down = exchange.down
    if mask == 0 or (kind == TAP_RESPONSE and exchange.flags & EXCHANGE_TCP) \
            or not tap_write_parts(worker, exchange, kind, mask):
        return
    record = <TapRecord*>ring_claim(&worker.tap_ring)
    record.kind = kind
    record.is_tcp = exchange.flags & EXCHANGE_TCP != 0
    record.mask = <uint8_t>mask
    record.reason = exchange.reason
    record.status = exchange.status
    record.grpc_status = exchange.grpc_status
    record.worker = worker.index
    record.reset_error = tap_reset_error(exchange) if kind == TAP_END else TAP_NO_RESET
    record.stream = exchange.stream
    record.wall_ns = now_ns + worker.wall_offset_ns
    record.latency_ns = latency_ns
    record.duration_ns = duration_ns
    record.request_bytes = exchange.request.moved_bytes
    record.response_bytes = exchange.response.moved_bytes
    record.route_slot = -1 if exchange.route == NULL else <int32_t>exchange.route.slot
    record.labels = tap_labels(exchange)
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
    tap_wake(worker, mask)


cdef inline void tap_wake(Worker* worker, uint32_t mask) noexcept nogil:
    """Ring for those readers who wait. A reader gathers for a while before it waits again, so this is seldom a system call."""
    cdef uint32_t i
    for i in range(<uint32_t>MAX_TAPS):
        if mask >> i & 1 and worker.taps[i] != NULL and tap_session_wakes(worker.taps[i]):
            sys_notify(worker.taps[i].bell_fd)


cdef inline int tap_write_parts(Worker* worker, Exchange* exchange, uint8_t kind, uint32_t mask) noexcept nogil:
    """The parts of a record, if there is room for them and for it. 0: there is none, and the drop is counted."""
    cdef const Buffer* first = NULL
    cdef const Buffer* second = NULL
    cdef uint32_t slots = 1
    if tap_wants_parts(worker, mask):
        if kind == TAP_REQUEST:
            first = exchange.head_buffer
        elif kind == TAP_RESPONSE:
            first = exchange.answer_buffer
        else:
            first = exchange.request.captured
            second = exchange.response.captured
        slots += tap_part_slots(first) + tap_part_slots(second)
    if not ring_has_room(&worker.tap_ring, slots):
        return 0
    if slots > 1:
        tap_write_part(worker, TAP_REQUEST_BODY if kind == TAP_END else TAP_FIELDS, first)
        tap_write_part(worker, TAP_RESPONSE_BODY, second)
    return 1


cdef inline int tap_wants_parts(const Worker* worker, uint32_t mask) noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>MAX_TAPS):
        # A session may be gone before an exchange that it saw begin.
        if mask >> i & 1 and worker.taps[i] != NULL and (worker.taps[i].wants_fields or worker.taps[i].body_bytes):
            return 1
    return 0


cdef inline uint32_t tap_part_slots(const Buffer* buffer) noexcept nogil:
    return 0 if buffer == NULL else (buffer.end - buffer.start + TAP_PART_BYTES - 1) // TAP_PART_BYTES


cdef inline void tap_write_part(Worker* worker, uint8_t of, const Buffer* buffer) noexcept nogil:
    cdef TapPart* part
    cdef uint32_t at
    if buffer == NULL:
        return
    at = buffer.start
    while at < buffer.end:
        part = <TapPart*>ring_claim(&worker.tap_ring)
        part.kind = TAP_PART
        part.of = of
        part.len = <uint16_t>min(buffer.end - at, <uint32_t>TAP_PART_BYTES)
        memcpy(part.bytes, buffer.data + at, part.len)
        at += part.len
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
    if exchange.head_buffer == NULL:
        return                          # nothing else is kept without it
    buffer_return(&worker.buffers, exchange.head_buffer)
    exchange.head_buffer = NULL
    if exchange.answer_buffer != NULL:
        buffer_return(&worker.buffers, exchange.answer_buffer)
        exchange.answer_buffer = NULL
    tap_release_body(worker, &exchange.request)
    tap_release_body(worker, &exchange.response)


cdef inline void tap_release_body(Worker* worker, Flow* flow) noexcept nogil:
    flow.capture_bytes = 0
    if flow.captured != NULL:
        buffer_return(&worker.buffers, flow.captured)
        flow.captured = NULL


cdef inline int tap_matches(const TapSession* session, const Exchange* exchange, const Head* head) noexcept nogil:
    if session.method and session.method != exchange.method + 1:
        return 0
    if session.scheme and session.scheme != 1 + conn_is_secure(exchange.down):
        return 0
    if session.route_slot >= 0 and not tap_is_route(session, exchange.route) \
            and not tap_is_route(session, exchange.listed_route):
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
    return session.peer_len == 0 or tap_matches_peer(session, exchange.down)


cdef inline int tap_matches_tcp(const TapSession* session, const Exchange* exchange, const char* name,
                                uint32_t name_len) noexcept nogil:
    if session.method or session.path_len or (session.scheme and session.scheme != 3):
        return 0
    if session.route_slot >= 0 and <uint32_t>session.route_slot != exchange.route.slot:
        return 0
    if session.authority_len and (session.authority_len != name_len
                                  or memcmp(name, session.authority, session.authority_len) != 0):
        return 0
    if session.src_len and not tap_matches_source(session, exchange.down):
        return 0
    return session.peer_len == 0 or tap_matches_peer(session, exchange.down)


cdef inline int tap_matches_peer(const TapSession* session, const Conn* down) noexcept nogil:
    """Who the client has proved to be: a part of its identity may be asked for, or its end."""
    cdef const Peer* peer
    if not conn_is_secure(down):
        return 0
    peer = conn_peer(down)
    if peer.identity_len < session.peer_len:
        return 0
    if session.peer_is_end:
        return memcmp(peer.identity + peer.identity_len - session.peer_len, session.peer, session.peer_len) == 0
    return memmem(peer.identity, peer.identity_len, session.peer, session.peer_len) != NULL


cdef inline int tap_is_route(const TapSession* session, const RouteConf* route) noexcept nogil:
    return route != NULL and <uint32_t>session.route_slot == route.slot


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
    if session.labels != NULL and not tap_matches_labels(session, tap_labels(exchange)):
        return 0
    if session.dst_len == 0:
        return 1
    return exchange.address != NULL and exchange.address.text.len == session.dst_len \
        and memcmp(exchange.address.text.at, session.dst, session.dst_len) == 0


cdef inline int tap_matches_outcome(const TapSession* session, const Exchange* exchange,
                                    uint64_t latency_ns) noexcept nogil:
    if session.status_low and not session.status_low <= exchange.status <= session.status_high:
        return 0
    return latency_ns >= session.min_latency_ns and (session.reason < 0 or session.reason == exchange.reason)


cdef inline uint32_t tap_labels(const Exchange* exchange) noexcept nogil:
    """The number of what is said of the chosen endpoint; 0: nothing is, or there is none."""
    if exchange.cluster == NULL or exchange.endpoint == NULL or exchange.endpoint_index < 0:
        return 0
    return exchange.cluster.endpoints[exchange.endpoint_index].labels


cdef inline int tap_matches_labels(const TapSession* session, uint32_t labels) noexcept nogil:
    return labels != 0 and (labels >= session.n_labels or session.labels[labels] != TAP_LABELS_OTHER)
