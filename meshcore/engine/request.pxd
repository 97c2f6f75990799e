# From bytes of a client to an exchange under way: parse the head, find the route, edit, dispatch.
# What happens after the request left lies in dispatch and response.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, strlen

from meshcore.engine.buffer cimport Buffer, buffer_return, buffer_take
from meshcore.engine.conn cimport (
    conn_deadline, conn_drop_input, conn_is_secure, conn_is_stream, conn_keep_input, conn_peer,
    conn_run_later,
)
from meshcore.engine.context cimport context_deadline_ns
from meshcore.engine.dispatch cimport dispatch
from meshcore.engine.downstream cimport downstream_close
from meshcore.engine.exchange cimport exchange_begin, exchange_earlier
from meshcore.engine.fields cimport FIELD_MESH
from meshcore.engine.flow cimport (
    FLOW_AWAIT_INPUT, FLOW_FINISHED, FLOW_MALFORMED, flow_open, flow_stream_is_whole, flow_take,
)
from meshcore.engine.grpc cimport grpc_is_request, grpc_timeout_ns
from meshcore.engine.grpc_web cimport GRPC_WEB_BINARY, GRPC_WEB_NONE, GRPC_WEB_TEXT, grpc_web_kind
from meshcore.engine.head cimport (
    FRAMING_CHUNKED, FRAMING_LENGTH, FRAMING_NONE, HEAD_DONE, HEAD_MORE, METHOD_CONNECT, METHOD_HEAD, METHOD_TRACE, TARGET_ABSOLUTE,
    UPGRADE_OTHER, UPGRADE_WEBSOCKET, Head, head_has, head_parser_reset, method_is_idempotent,
)
from meshcore.engine.hook cimport hook_park
from meshcore.engine.http1 cimport head_parse_request
from meshcore.engine.input cimport (
    INPUT_AGAIN, INPUT_EOF, INPUT_ERROR, INPUT_READY, input_held, input_keep_partial, input_parser, input_read,
)
from meshcore.engine.lookup cimport LOOKUP_WAITS, lookup_request
from meshcore.engine.mesh_hop cimport mesh_hop_is_marked
from meshcore.engine.reasons cimport (
    REASON_BODY_INCOMPLETE, REASON_BODY_TOO_LARGE, REASON_DEADLINE_EXCEEDED, REASON_DIRECT_RESPONSE, REASON_DRAINING,
    REASON_HEAD_TOO_LARGE, REASON_LOAD_SHED, REASON_METHOD_NOT_ALLOWED, REASON_NO_ENDPOINT, REASON_OUT_OF_MEMORY, REASON_ROUTE_NOT_FOUND,
    REASON_TLS_WRONG_IDENTITY,
)
from meshcore.engine.respond cimport respond_bytes, respond_direct, respond_reason, respond_unparsed
from meshcore.engine.rewrite cimport ForwardInfo, rewrite_request
from meshcore.engine.rng cimport rng_below
from meshcore.engine.routes cimport RouteTable, routes_find
from meshcore.engine.session cimport session_feed, session_open
from meshcore.engine.snapshot cimport UPSTREAM_HOP, UPSTREAM_HTTP1, UPSTREAM_SAME, Limits, RouteConf, TargetNode
from meshcore.engine.state cimport (
    CONN_CLOSE_AFTER, CONN_IN_EXCHANGE, EXCHANGE_ABSOLUTE, EXCHANGE_AWAIT_FILTER, EXCHANGE_CONNECT, EXCHANGE_DEADLINE, EXCHANGE_GRPC,
    EXCHANGE_GRPC_WEB, EXCHANGE_GRPC_WEB_TEXT,
    EXCHANGE_HEAD_METHOD, EXCHANGE_IDEMPOTENT, EXCHANGE_MINOR_0, EXCHANGE_RESTORED, EXCHANGE_UPGRADE, FLOW_CHUNKED, FLOW_DONE,
    FLOW_LENGTH, FLOW_OPEN, FLOW_STREAM, FLOW_UNKNOWN_BYTES, HOOK_REQUEST, IO_FAILED, IO_PEER_CLOSED, IO_READABLE,
    LISTENER_REMOVED, STREAM_ENDED_IN, Conn, Exchange, ListenerState, Session, Stream, Worker,
)
from meshcore.engine.stream cimport stream_take
from meshcore.engine.sys cimport sys_ipv6_text
from meshcore.engine.tap cimport tap_capture
from meshcore.engine.target_tree cimport tree_choose
from meshcore.engine.tls_context cimport Peer

cdef enum:
    EDIT_ROOM_BYTES = 768               # what forwarding adds to an ordinary head
    HAND_BODY_BYTES = 16384             # of a stream, sent along with its head
    EDIT_ROOM_LARGE_BYTES = 65536       # ... and what a route's own fields may add at most


cdef inline void request_read(Worker* worker, Conn* conn) noexcept nogil:
    """A connection that awaits a head has input: pipelined bytes first, then the socket, until there is an exchange."""
    cdef char* at
    cdef uint32_t n
    cdef int code
    if conn.parser == NULL and input_held(conn, &at, &n) == INPUT_READY:
        if not request_parse(worker, conn, at, n):
            return
    while True:
        code = input_read(worker, conn, &at, &n)
        if code != INPUT_READY:
            if code == INPUT_EOF or code == INPUT_ERROR:
                downstream_close(worker, conn)        # nothing began, or a head was cut short: nobody to answer
            elif code != INPUT_AGAIN:
                respond_unparsed(worker, conn, REASON_OUT_OF_MEMORY)
            return
        if not request_parse(worker, conn, at, n):
            return


cdef inline int request_parse(Worker* worker, Conn* conn, char* at, uint32_t n) noexcept nogil:
    """Parse one head. 1: it needs more bytes; 0: the connection is in an exchange, parting or gone."""
    cdef const Limits* limits = &worker.current.snapshot.limits
    cdef Head* head = worker.head
    cdef int code
    if conn.requests == 0 and n >= 4 and memcmp(at, "PRI ", 4) == 0 and request_begin_session(worker, conn, at, n):
        return 0
    code = head_parse_request(input_parser(worker, conn, 0), at, n, head, limits)
    if code == HEAD_MORE and conn.parser == NULL:
        if not input_keep_partial(worker, conn, at, n):
            respond_unparsed(worker, conn, REASON_OUT_OF_MEMORY)
            return 0
        head_parser_reset(conn.parser, worker.llhttp, 0)
        if conn.requests:
            # Absolute: a trickle of bytes does not move it. The first request's runs since the accept.
            conn_deadline(worker, conn, worker.now_ns + limits.head_timeout_ns)
        code = head_parse_request(conn.parser, conn.in_buffer.data + conn.in_buffer.start, n, head, limits)
    if code == HEAD_MORE:
        return 1
    if conn.parser != NULL:
        free(conn.parser)
        conn.parser = NULL
    if code != HEAD_DONE:
        respond_unparsed(worker, conn, <uint8_t>(code - 16))
        return 0
    request_begin(worker, conn, head, n)
    return 0


cdef inline int request_begin_session(Worker* worker, Conn* conn, const char* at, uint32_t n) noexcept nogil:
    """RFC 9113 3.4: the first octets of a client's connection are those of HTTP/2. 1: it is a session from here on."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef Session* session
    if conn_is_stream(conn) or listener.conf_index == LISTENER_REMOVED \
            or not worker.current.snapshot.listeners[listener.conf_index].http2:
        return 0
    session = session_open(worker, conn, 0)
    if session == NULL:
        return 0
    if n:
        session_feed(worker, session, at, n)
    conn_drop_input(worker, conn)
    if conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED):
        conn_run_later(worker, conn)
    return 1


cdef inline void request_begin(Worker* worker, Conn* conn, Head* head, uint32_t n) noexcept nogil:
    """A valid head, `n` bytes from its start: open the exchange, find the route."""
    cdef const Limits* limits = &worker.current.snapshot.limits
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef Exchange* exchange
    cdef RouteConf* route
    cdef uint32_t bit
    conn.requests += 1
    if listener.conf_index == LISTENER_REMOVED:
        respond_unparsed(worker, conn, REASON_DRAINING)
        return
    exchange = exchange_begin(worker, conn, worker.now_ns)
    if exchange == NULL:
        respond_unparsed(worker, conn, REASON_LOAD_SHED)
        return
    worker.requests += 1
    listener.requests += 1
    conn.state = CONN_IN_EXCHANGE
    conn_deadline(worker, conn, 0)
    exchange.listener = &worker.current.snapshot.listeners[listener.conf_index]
    exchange.method = head.method
    if exchange.listener.mesh_hop and conn_is_stream(conn) and request_is_restored(exchange, head):
        exchange.flags |= EXCHANGE_RESTORED
    bit = <uint32_t>1 << head.method
    if method_is_idempotent(head.method):
        exchange.flags |= EXCHANGE_IDEMPOTENT
        if head.method == METHOD_HEAD:
            exchange.flags |= EXCHANGE_HEAD_METHOD
    elif head.method == METHOD_CONNECT:
        exchange.flags |= EXCHANGE_CONNECT
    elif grpc_is_request(head):
        exchange.flags |= EXCHANGE_GRPC
    if head.minor_version == 0:
        exchange.flags |= EXCHANGE_MINOR_0
    if not head.keep_alive or (limits.max_requests_per_connection
                               and conn.requests >= limits.max_requests_per_connection):
        conn.flags |= CONN_CLOSE_AFTER
    route = routes_find(<RouteTable*>exchange.listener.routes, head.host_lower, head.host_len,
                        head.base + head.path_at, head.path_len, bit, head)
    exchange.route = exchange.listed_route = route
    if route != NULL:
        exchange.route_state = worker.routes[route.slot]
        if route.filters & 1 and not request_is_denied(exchange):
            exchange.state = EXCHANGE_AWAIT_FILTER
            exchange.request.state = FLOW_OPEN if head.framing != FRAMING_NONE else FLOW_DONE
            if worker.tap_bits:
                tap_capture(worker, exchange, head)
            hook_park(worker, exchange, conn, HOOK_REQUEST, <char*>head.base, head.size_bytes, n)
            return
        if route.lookup != NULL:
            request_look_up(worker, exchange, head, n)
            return
    request_forward(worker, exchange, head, n, -1, 0)


cdef inline void request_look_up(Worker* worker, Exchange* exchange, Head* head, uint32_t n) noexcept nogil:
    """Filters have spoken: find what the request's name is bound to, or wait for it."""
    cdef uint8_t reason = 0
    if not request_is_denied(exchange) and lookup_request(worker, exchange, head, n, &reason) == LOOKUP_WAITS:
        return
    request_forward(worker, exchange, head, n, -1, reason)


cdef inline void request_forward(Worker* worker, Exchange* exchange, Head* head, uint32_t n, int cluster_index,
                                 uint8_t refused_for) noexcept nogil:
    """The route is settled (or missing) and filters have spoken: edit the head and dispatch, or answer. `refused_for`: a
    reason, where it has turned out meanwhile that there is nowhere to go."""
    cdef Conn* conn = exchange.down
    cdef RouteConf* route = exchange.route
    cdef const Limits* limits = &exchange.snapshot.snapshot.limits
    cdef char* rest = <char*>head.base + head.size_bytes
    cdef char* body = rest
    cdef uint32_t rest_len = n - head.size_bytes
    cdef uint32_t used = 0
    cdef uint32_t body_len = 0
    cdef uint32_t taken = 0
    cdef int code = FLOW_FINISHED
    cdef uint8_t reason
    cdef const char* max_forwards_answer = \
        b"HTTP/1.1 200 OK\r\nallow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\ncontent-length: 0\r\n"
    if worker.tap_bits and exchange.head_buffer == NULL:
        tap_capture(worker, exchange, head)
    if route != NULL and route.grpc_web:
        request_note_grpc_web(exchange, head)
    if head.framing == FRAMING_NONE:
        exchange.request.state = FLOW_DONE
    else:
        if conn_is_stream(conn) and not (head.framing == FRAMING_LENGTH and head.content_length == 0):
            # The stream itself says when it ends; a length it gave is checked.
            flow_open(&exchange.request, FLOW_STREAM, FLOW_LENGTH if head.framing == FRAMING_LENGTH else FLOW_CHUNKED,
                      head.content_length if head.framing == FRAMING_LENGTH else FLOW_UNKNOWN_BYTES)
            exchange.request.trailers_wanted = 1
        elif head.framing == FRAMING_LENGTH:
            flow_open(&exchange.request, FLOW_LENGTH, FLOW_LENGTH, head.content_length)
        else:
            flow_open(&exchange.request, FLOW_CHUNKED, FLOW_CHUNKED, 0)
            exchange.request.trailers_wanted = 1
        exchange.body_start_ns = exchange.start_ns
        if exchange.flags & EXCHANGE_GRPC_WEB_TEXT:
            exchange.request.decodes = 1              # how long it is then, nobody knows
            exchange.request.framing_out = FLOW_CHUNKED
            head.framing = FRAMING_CHUNKED
        if exchange.request.state == FLOW_OPEN:
            code = FLOW_AWAIT_INPUT
            if conn_is_stream(conn):
                code = request_take_body(exchange, conn, &body, &body_len, &taken, limits)
            elif rest_len:
                code = flow_take(&exchange.request, rest, rest_len, &used, &body, &body_len, limits)
    reason = request_refusal(exchange, head, code)
    if reason == 0:
        reason = refused_for
    if reason == 0 and route.direct == NULL and not head.max_forwards_zero:
        request_choose_cluster(worker, exchange, cluster_index)
        reason = REASON_NO_ENDPOINT if exchange.cluster == NULL \
            else request_edit(worker, exchange, head, body, body_len)
    if route != NULL and route.total_timeout_ns:
        exchange.total_deadline_ns = exchange.start_ns + route.total_timeout_ns
    if reason == 0:
        reason = request_note_deadlines(worker, exchange, head)
    if taken:
        stream_take(worker, <Stream*>conn.channel, taken)
    # The head's bytes are used up: what follows this request stays for the next one.
    if not conn_keep_input(worker, conn, rest + used, rest_len - used) and reason == 0:
        reason = REASON_OUT_OF_MEMORY
    if reason:
        respond_reason(worker, exchange, reason)
    elif head.max_forwards_zero:
        # RFC 9110 7.6.2: the last recipient answers itself.
        respond_bytes(worker, exchange, REASON_DIRECT_RESPONSE, 200, max_forwards_answer,
                      <uint32_t>strlen(max_forwards_answer), NULL, 0)
    elif route.direct != NULL:
        respond_direct(worker, exchange, route.direct)
    else:
        if exchange.total_deadline_ns:
            conn_deadline(worker, conn, exchange.total_deadline_ns)
        dispatch(worker, exchange)


cdef inline int request_take_body(Exchange* exchange, Conn* conn, char** body, uint32_t* body_len, uint32_t* used,
                                  const Limits* limits) noexcept nogil:
    """The body octets a stream has at hand, so that a small request can be sent, and sent again, as one. A FlowCode.

    They stay where they are until stream_take."""
    cdef Stream* stream = <Stream*>conn.channel
    cdef uint32_t n = 0
    cdef int code
    if stream.data != NULL:
        n = stream.data.end - stream.data.start
        if n > HAND_BODY_BYTES:
            n = HAND_BODY_BYTES
        code = flow_take(&exchange.request, stream.data.data + stream.data.start, n, used, body, body_len, limits)
        if code >= FLOW_MALFORMED:
            return code
    if not stream.flags & STREAM_ENDED_IN or (stream.data != NULL and n < stream.data.end - stream.data.start):
        return FLOW_AWAIT_INPUT
    if not flow_stream_is_whole(&exchange.request):
        return FLOW_MALFORMED + REASON_BODY_INCOMPLETE
    exchange.request.state = FLOW_DONE
    return FLOW_FINISHED


cdef inline void request_note_grpc_web(Exchange* exchange, Head* head) noexcept nogil:
    cdef int kind = grpc_web_kind(head)
    if kind == GRPC_WEB_NONE:
        return
    exchange.flags |= EXCHANGE_GRPC | EXCHANGE_GRPC_WEB
    if kind == GRPC_WEB_TEXT:
        exchange.flags |= EXCHANGE_GRPC_WEB_TEXT
    head.wants_trailers = 1             # RFC 9110 10.1.4; servers of gRPC insist on it


cdef inline uint8_t request_note_deadlines(Worker* worker, Exchange* exchange, const Head* head) noexcept nogil:
    """The caller says how long it waits: nobody needs the answer after that. A reason when that is over already."""
    cdef uint64_t deadline_ns = 0
    cdef uint64_t left_ns
    if exchange.flags & EXCHANGE_GRPC:
        left_ns = grpc_timeout_ns(head)
        deadline_ns = exchange.start_ns + left_ns if left_ns else 0
    if exchange.listener.trust_mesh_headers and head_has(head, FIELD_MESH):
        left_ns = context_deadline_ns(head, worker.now_ns + worker.wall_offset_ns)
        deadline_ns = exchange_earlier(deadline_ns, worker.now_ns + left_ns if left_ns else 0)
    if deadline_ns == 0 or (exchange.total_deadline_ns and exchange.total_deadline_ns <= deadline_ns):
        return 0
    exchange.total_deadline_ns = deadline_ns
    exchange.flags |= EXCHANGE_DEADLINE
    return REASON_DEADLINE_EXCEEDED if deadline_ns <= worker.now_ns + 1 else 0


cdef inline int request_is_denied(const Exchange* exchange) noexcept nogil:
    # A client whose certificate is vouched for, but who is none of those allowed here.
    cdef const Peer* peer = conn_peer(exchange.down)
    return peer != NULL and peer.is_denied


cdef inline int request_is_restored(const Exchange* exchange, const Head* head) noexcept nogil:
    # Where clients prove who they are, only who did is believed.
    cdef const Peer* peer = conn_peer(exchange.down)
    return mesh_hop_is_marked(head) and (exchange.listener.tls == NULL or (peer != NULL and peer.identity_len != 0))


cdef inline uint8_t request_refusal(Exchange* exchange, const Head* head, int body_code) noexcept nogil:
    """Why this request cannot be forwarded; 0 when it can."""
    cdef const RouteConf* route = exchange.route
    if body_code >= FLOW_MALFORMED:
        return <uint8_t>(body_code - FLOW_MALFORMED)
    if request_is_denied(exchange):
        return REASON_TLS_WRONG_IDENTITY
    if route != NULL and route.refuses_for:
        return route.refuses_for
    if head.method == METHOD_TRACE or (head.method == METHOD_CONNECT and (route == NULL or not route.allow_connect)):
        return REASON_METHOD_NOT_ALLOWED
    if route == NULL:
        return REASON_ROUTE_NOT_FOUND
    if route.max_body_bytes and (exchange.request.moved_bytes > route.max_body_bytes
                                 or (head.framing == FRAMING_LENGTH and head.content_length > route.max_body_bytes)):
        return REASON_BODY_TOO_LARGE
    return 0


cdef inline void request_choose_cluster(Worker* worker, Exchange* exchange, int cluster_index) noexcept nogil:
    """The filter's choice, or the route's targets by weight."""
    cdef RouteConf* route = exchange.route
    cdef uint32_t i = 0
    cdef uint32_t point
    if cluster_index >= 0:
        exchange.cluster = &exchange.snapshot.snapshot.clusters[cluster_index]
    elif route.tree != NULL:
        request_choose_in_tree(worker, exchange)
    elif route.total_weight == 0:
        return
    else:
        if route.n_targets > 1:
            point = rng_below(&worker.rng, route.total_weight)
            while route.targets[i].cumulative_weight <= point:
                i += 1
        exchange.cluster = route.targets[i].cluster
    exchange.cluster_state = worker.clusters[exchange.cluster.slot]


cdef inline void request_choose_in_tree(Worker* worker, Exchange* exchange) noexcept nogil:
    cdef const TargetNode* node = tree_choose(exchange.route.tree, worker.endpoints, &worker.rng, worker.now_ns, 0)
    exchange.cluster = node.cluster
    exchange.leaf = node.leaf


cdef inline uint8_t request_edit(Worker* worker, Exchange* exchange, Head* head, const char* body,
                                 uint32_t body_len) noexcept nogil:
    """Write the edited head and the body bytes at hand into request_buffer. Returns a reason, 0 when done."""
    cdef Buffer* buffer
    cdef ForwardInfo info
    cdef char address[48]
    cdef uint32_t room = head.size_bytes + EDIT_ROOM_BYTES
    cdef uint32_t n = 0
    request_note_upgrade(exchange, head)
    if head.target_form == TARGET_ABSOLUTE:
        exchange.flags |= EXCHANGE_ABSOLUTE
    if exchange.request.framing_out == FLOW_CHUNKED:
        exchange.request.framing_out = FLOW_STREAM    # until its endpoint is known: see reframe
    request_forward_info(worker, exchange, head, &info, address)
    buffer = buffer_take(&worker.buffers, room + body_len + 64)
    if buffer != NULL:
        n = rewrite_request(head, exchange.route, &info, buffer.data, room)
    if n == 0:
        # Rare: many fields added by the route. Once more with all the room an edited head may have.
        if buffer != NULL:
            buffer_return(&worker.buffers, buffer)
        room = head.size_bytes + EDIT_ROOM_LARGE_BYTES
        buffer = buffer_take(&worker.buffers, room + body_len + 64)
        if buffer == NULL:
            return REASON_OUT_OF_MEMORY
        n = rewrite_request(head, exchange.route, &info, buffer.data, room)
        if n == 0:
            buffer_return(&worker.buffers, buffer)
            return REASON_HEAD_TOO_LARGE
    exchange.request_buffer = buffer
    exchange.request_head_bytes = n
    buffer.end = n
    if body_len:
        memcpy(buffer.data + n, body, body_len)
        buffer.end += body_len
    return 0


cdef inline void request_forward_info(Worker* worker, Exchange* exchange, const Head* head, ForwardInfo* info,
                                      char* address) noexcept nogil:
    cdef Conn* conn = exchange.down
    info.forwarding = &exchange.snapshot.snapshot.forwarding
    info.client_at = conn.peer_text
    info.client_len = conn.peer_text_len
    if conn.peer_text_len == 0:
        info.client_at = address
        info.client_len = <uint8_t>sys_ipv6_text(conn.peer_address, address)
    info.secure = <uint8_t>conn_is_secure(conn)
    info.peer_len = info.certificate_len = 0
    if info.secure:
        info.peer_at = conn_peer(conn).identity
        info.peer_len = conn_peer(conn).identity_len
        info.certificate_at = conn_peer(conn).certificate
        info.certificate_len = conn_peer(conn).certificate_len
    info.trust_mesh_headers = exchange.listener.trust_mesh_headers
    info.rng = &worker.rng
    info.wall_ms = (worker.now_ns + worker.wall_offset_ns) // 1000000
    info.allow_upgrade = exchange.flags & EXCHANGE_UPGRADE != 0
    info.tells_empty = <uint8_t>conn_is_stream(conn)
    info.is_http2 = info.tells_empty and not exchange.flags & EXCHANGE_RESTORED
    info.grpc_web = GRPC_WEB_TEXT if exchange.flags & EXCHANGE_GRPC_WEB_TEXT \
        else GRPC_WEB_BINARY if exchange.flags & EXCHANGE_GRPC_WEB else GRPC_WEB_NONE


cdef inline void request_note_upgrade(Exchange* exchange, const Head* head) noexcept nogil:
    """May it become a tunnel? HTTP/2 has a word for WebSocket (RFC 8441) and for no other protocol (RFC 9113 8.6)."""
    cdef uint8_t speaks = exchange.cluster.speaks
    if not exchange.route.allow_upgrade or not (head.upgrade == UPGRADE_WEBSOCKET or head.upgrade == UPGRADE_OTHER):
        return
    if head.upgrade == UPGRADE_WEBSOCKET or speaks == UPSTREAM_HTTP1 or (not conn_is_stream(exchange.down) and (
            speaks == UPSTREAM_SAME or speaks == UPSTREAM_HOP)):
        exchange.flags |= EXCHANGE_UPGRADE
