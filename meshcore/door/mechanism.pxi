# The door to the mechanism rooms, and to what flow and tap decide without a socket: each struct as a small class, with
# the clock as an argument, so that tests can hold it against a slow oracle. Traffic never passes here.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from meshcore.engine.buffer cimport BUFFER_HEADROOM, BUFFER_TAILROOM, Buffer, BufferPool, buffer_append
from meshcore.engine.buffer cimport buffer_pool_free, buffer_return
from meshcore.engine.flow cimport FLOW_AWAIT_INPUT, FLOW_FINISHED, FLOW_MALFORMED, flow_frame, flow_frame_end
from meshcore.engine.flow cimport flow_open, flow_take
from meshcore.engine.framing cimport chunk_free
from meshcore.engine.head cimport Head
from meshcore.engine.ring cimport Ring, ring_advance, ring_claim, ring_free, ring_init, ring_peek, ring_publish
from meshcore.engine.slab cimport SLAB_CHUNK_ITEMS, Slab, SlabItem, slab_find, slab_free, slab_init, slab_return
from meshcore.engine.slab cimport slab_take
from meshcore.engine.snapshot cimport ClusterConf, EndpointConf, Limits, ListenerConf, RouteConf
from meshcore.engine.stack cimport Stack, StackNode, stack_push, stack_take
from meshcore.engine.state cimport FLOW_CHUNKED, FLOW_DONE, FLOW_LENGTH, FLOW_RAW, FLOW_UNTIL_CLOSE, Conn, Exchange
from meshcore.engine.state cimport TRANSPORT_TLS, Flow
from meshcore.engine.tap cimport tap_matches, tap_matches_endpoint, tap_matches_outcome
from meshcore.engine.tap_session cimport TapSession, tap_session_admits
from meshcore.engine.timer cimport TIMER_SLOTS, TIMER_TICK_NS, TimerNode, TimerWheel, timer_clear, timer_expired
from meshcore.engine.tls cimport Tls
from meshcore.engine.timer cimport timer_node_init, timer_set, timer_wait_ms, timer_wheel_init


# --- timers -------------------------------------------------------------------------------------------------------

cdef class TimerDoor:
    """One wheel with `timers` timers, known by number."""
    cdef TimerWheel* wheel
    cdef TimerNode* nodes
    cdef uint32_t n
    TICK_NS = <uint64_t>TIMER_TICK_NS
    SPAN_NS = <uint64_t>TIMER_TICK_NS * TIMER_SLOTS

    def __cinit__(self, uint32_t timers, uint64_t now_ns=0):
        cdef uint32_t i
        self.n = timers
        self.wheel = <TimerWheel*>malloc(sizeof(TimerWheel))
        self.nodes = <TimerNode*>calloc(timers, sizeof(TimerNode))
        if self.wheel == NULL or self.nodes == NULL:
            raise MemoryError
        timer_wheel_init(self.wheel, now_ns)
        for i in range(timers):
            timer_node_init(&self.nodes[i])

    def __dealloc__(self):
        free(self.wheel)
        free(self.nodes)

    cdef TimerNode* node(self, uint32_t timer) except NULL:
        if timer >= self.n:
            raise IndexError(f"timer {timer} of {self.n}")
        return &self.nodes[timer]

    def set(self, uint32_t timer, uint64_t deadline_ns) -> None:
        timer_set(self.wheel, self.node(timer), deadline_ns)

    def clear(self, uint32_t timer) -> None:
        """Disarm and unlink; the node's memory is overwritten, as that of a freed connection may be."""
        cdef TimerNode* node = self.node(timer)
        timer_clear(self.wheel, node)
        memset(node, 0xA5, sizeof(TimerNode))
        timer_node_init(node)

    def expired(self, uint64_t now_ns) -> int | None:
        """One timer that is due, now disarmed; None when there is no more."""
        cdef TimerNode* node = timer_expired(self.wheel, now_ns)
        return None if node == NULL else node - self.nodes

    def wait_ms(self, uint64_t now_ns) -> int:
        return timer_wait_ms(self.wheel, now_ns)


# --- memory -------------------------------------------------------------------------------------------------------

cdef class SlabDoor:
    """One slab whose items carry `payload_bytes` behind their SlabItem."""
    cdef Slab slab
    cdef uint32_t payload_bytes

    def __cinit__(self, uint32_t payload_bytes, uint32_t max_items):
        self.payload_bytes = payload_bytes
        # As a struct that starts with a SlabItem would be: a whole number of words.
        if not slab_init(&self.slab, <uint32_t>((sizeof(SlabItem) + payload_bytes + 7) & ~<size_t>7), max_items):
            raise MemoryError

    def __dealloc__(self):
        if self.slab.chunks != NULL:
            slab_free(&self.slab)

    def take(self) -> int | None:
        """The token of a new item; None at the limit."""
        cdef SlabItem* item = slab_take(&self.slab)
        return None if item == NULL else <uint64_t>item.generation << 32 | item.index

    cdef SlabItem* found(self, uint64_t token) except? NULL:
        if <uint32_t>token >= self.slab.n_chunks * SLAB_CHUNK_ITEMS:
            raise IndexError(f"no item {<uint32_t>token}: tokens come from take()")
        return slab_find(&self.slab, token)

    def give_back(self, uint64_t token) -> None:
        cdef SlabItem* item = self.found(token)
        if item == NULL:
            raise KeyError(token)
        slab_return(&self.slab, item)

    def write(self, uint64_t token, bytes payload) -> None:
        cdef SlabItem* item = self.found(token)
        if item == NULL or len(payload) != self.payload_bytes:
            raise KeyError(token)
        memcpy(<char*>item + sizeof(SlabItem), PyBytes_AS_STRING(payload), self.payload_bytes)

    def read(self, uint64_t token) -> bytes | None:
        """The payload, or None when the item was given back since."""
        cdef SlabItem* item = self.found(token)
        return None if item == NULL else (<char*>item + sizeof(SlabItem))[:self.payload_bytes]

    @property
    def in_use(self) -> int:
        return self.slab.in_use


cdef class BufferPoolDoor:
    """One pool, and a few places for buffers, known by number."""
    cdef BufferPool pool
    cdef Buffer* buffers[16]
    PLACES = 16

    def __cinit__(self, uint64_t limit_bytes):
        self.pool.limit_bytes = limit_bytes

    def __dealloc__(self):
        for i in range(16):
            if self.buffers[i] != NULL:
                buffer_return(&self.pool, self.buffers[i])
        buffer_pool_free(&self.pool)

    def append(self, uint32_t place, bytes data) -> bool:
        """False when there is no room: then nothing changed."""
        cdef Buffer* buffer = buffer_append(&self.pool, self.buffers[place & 15], PyBytes_AS_STRING(data),
                                            <uint32_t>len(data))
        if buffer == NULL:
            return False
        self.buffers[place & 15] = buffer
        # Both margins are the user's: what stands there may never meet the bytes of this buffer or of another.
        memset(buffer.data - BUFFER_HEADROOM, 0xA5, BUFFER_HEADROOM)
        memset(buffer.data + buffer.size_bytes, 0xA5, BUFFER_TAILROOM)
        return True

    def consume(self, uint32_t place, uint32_t n) -> None:
        """Use up the first `n` bytes."""
        cdef Buffer* buffer = self.buffers[place & 15]
        if buffer == NULL or n > buffer.end - buffer.start:
            raise IndexError(f"fewer than {n} bytes are held")
        buffer.start += n

    def give_back(self, uint32_t place) -> None:
        if self.buffers[place & 15] != NULL:
            buffer_return(&self.pool, self.buffers[place & 15])
            self.buffers[place & 15] = NULL

    def content(self, uint32_t place) -> bytes | None:
        """The bytes held; None where there is no buffer."""
        cdef Buffer* buffer = self.buffers[place & 15]
        return None if buffer == NULL else buffer.data[buffer.start:buffer.end]

    def size_bytes(self, uint32_t place) -> int:
        return 0 if self.buffers[place & 15] == NULL else self.buffers[place & 15].size_bytes

    @property
    def in_use_bytes(self) -> int:
        return self.pool.in_use_bytes

    @property
    def kept_bytes(self) -> int:
        """What lies in the free lists."""
        cdef Buffer* buffer
        total = 0
        for i in range(5):
            buffer = self.pool.free_lists[i]
            while buffer != NULL:
                total += buffer.size_bytes
                buffer = buffer.next
        return total

    @property
    def refused(self) -> int:
        return self.pool.refused


# --- between threads ----------------------------------------------------------------------------------------------

cdef class RingDoor:
    """One ring of records of `record_bytes`; `n_slots` is a power of two."""
    cdef Ring ring

    def __cinit__(self, uint32_t record_bytes, uint32_t n_slots):
        if not ring_init(&self.ring, record_bytes, n_slots):
            raise MemoryError

    def __dealloc__(self):
        ring_free(&self.ring)

    def write(self, bytes record) -> bool:
        """False when the reader was too far behind: the record is dropped."""
        cdef char* slot
        if <uint32_t>len(record) != self.ring.record_bytes:
            raise ValueError(f"a record has {self.ring.record_bytes} bytes")
        slot = ring_claim(&self.ring)
        if slot == NULL:
            return False
        memcpy(slot, PyBytes_AS_STRING(record), self.ring.record_bytes)
        ring_publish(&self.ring)
        return True

    def read(self) -> bytes | None:
        """The oldest unread record."""
        cdef char* slot = ring_peek(&self.ring)
        if slot == NULL:
            return None
        record = slot[:self.ring.record_bytes]
        ring_advance(&self.ring)
        return record

    def write_numbers(self, uint64_t n) -> None:
        """Without the GIL: write the records 0..n-1 as 64-bit numbers, each until there is room."""
        cdef char* slot
        cdef uint64_t number = 0
        if self.ring.record_bytes != 8:
            raise ValueError("a number has 8 bytes")
        with nogil:
            while number < n:
                slot = ring_claim(&self.ring)
                if slot != NULL:
                    memcpy(slot, &number, 8)
                    ring_publish(&self.ring)
                    number += 1

    def read_numbers(self, uint64_t n) -> int:
        """Without the GIL: read n numbers, waiting for them; how many were not the next one."""
        cdef char* slot
        cdef uint64_t expected = 0
        cdef uint64_t got
        cdef uint64_t wrong = 0
        if self.ring.record_bytes != 8:
            raise ValueError("a number has 8 bytes")
        with nogil:
            while expected < n:
                slot = ring_peek(&self.ring)
                if slot != NULL:
                    memcpy(&got, slot, 8)
                    wrong += got != expected
                    expected += 1
                    ring_advance(&self.ring)
        return wrong

    @property
    def dropped(self) -> int:
        return self.ring.dropped


cdef struct NumberNode:
    StackNode node                      # first: travels through a stack
    uint64_t number


cdef class StackDoor:
    """One stack of numbers."""
    cdef Stack stack

    def __dealloc__(self):
        cdef StackNode* node = stack_take(&self.stack)
        cdef StackNode* following
        while node != NULL:
            following = node.next
            free(node)
            node = following

    def push(self, uint64_t first, uint32_t n=1) -> int:
        """Without the GIL: push the numbers from `first` on; how often the stack was empty."""
        cdef uint32_t i
        cdef uint32_t found_empty = 0
        cdef NumberNode* node
        with nogil:
            for i in range(n):
                node = <NumberNode*>malloc(sizeof(NumberNode))
                if node == NULL:
                    break
                node.number = first + i
                found_empty += <uint32_t>stack_push(&self.stack, &node.node)
        return found_empty

    def take(self) -> list[int]:
        """Everything, oldest first. The nodes are overwritten and freed, as their next user may do."""
        cdef StackNode* node
        cdef StackNode* following
        with nogil:
            node = stack_take(&self.stack)
        numbers = []
        while node != NULL:
            following = node.next
            numbers.append((<NumberNode*>node).number)
            memset(node, 0xA5, sizeof(NumberNode))
            free(node)
            node = following
        return numbers


# --- flow: one direction's body, without its sockets --------------------------------------------------------------

cdef dict FLOW_FRAMINGS = {"length": FLOW_LENGTH, "chunked": FLOW_CHUNKED, "until_close": FLOW_UNTIL_CLOSE,
                           "raw": FLOW_RAW}


cdef class FlowDoor:
    """A body that comes in one framing and leaves in another."""
    cdef Flow flow
    cdef Limits limits

    def __cinit__(self, framing_in, framing_out, uint64_t length=0, dict limits=None, *, bint trailers_wanted=True):
        limits_into(&self.limits, limits)
        flow_open(&self.flow, FLOW_FRAMINGS[framing_in], FLOW_FRAMINGS[framing_out], length)
        self.flow.trailers_wanted = trailers_wanted

    def __dealloc__(self):
        if self.flow.framing_in == FLOW_CHUNKED:
            chunk_free(&self.flow.decoder)

    def feed(self, bytes data) -> tuple[str, bytes, int]:
        """One read. ("more" | "done" | a reason, what would be sent, how much of `data` was the body's)."""
        cdef uint32_t n = <uint32_t>len(data)
        cdef uint32_t used = 0
        cdef uint32_t body_len = 0
        cdef char* body
        cdef int code
        cdef char* memory = <char*>malloc(BUFFER_HEADROOM + n + BUFFER_TAILROOM)
        if memory == NULL:
            raise MemoryError
        try:
            memcpy(memory + BUFFER_HEADROOM, PyBytes_AS_STRING(data), n)
            code = flow_take(&self.flow, memory + BUFFER_HEADROOM, n, &used, &body, &body_len, &self.limits)
            if code >= FLOW_MALFORMED:
                return reason_name[code - FLOW_MALFORMED].decode(), b"", used
            return ("done" if code == FLOW_FINISHED else "more"), self.framed(body, body_len, code == FLOW_FINISHED), used
        finally:
            free(memory)

    def end_of_input(self) -> bytes:
        """The sender closed: what is sent to say so."""
        cdef char memory[64]
        return self.framed(memory + 32, 0, True)

    cdef bytes framed(self, char* body, uint32_t body_len, bint is_last):
        cdef const char* trailers = NULL
        cdef uint32_t trailers_len = 0
        cdef uint32_t n = flow_frame(&self.flow, &body, body_len)
        if is_last:
            n += flow_frame_end(&self.flow, NULL, body + n, &trailers, &trailers_len)
        if trailers_len:
            return body[:n] + trailers[:trailers_len] + b"\r\n"
        return body[:n]

    @property
    def done(self) -> bool:
        return self.flow.state == FLOW_DONE

    @property
    def moved_bytes(self) -> int:
        return self.flow.moved_bytes


# --- tap: whom a session sees -------------------------------------------------------------------------------------

cdef class TapDoor:
    """One session, its words as in TapHub.open."""
    cdef TapSession session

    def __init__(self, *, int method=-1, int scheme=0, bytes authority=b"", bytes path=b"", bytes to=b"",
                 bytes source=b"", bytes peer=b"", bint peer_is_end=False, int route_slot=-1, int cluster_slot=-1,
                 uint32_t max_rps_milli=0, int status_low=0, int status_high=0, uint64_t min_latency_ns=0, int reason=-1):
        memset(&self.session, 0, sizeof(TapSession))
        if max(len(authority), len(path), len(peer)) > 256 or max(len(to), len(source)) > 64:
            raise ValueError("longer than a session keeps")
        self.session.method = <uint8_t>(method + 1)
        self.session.scheme = <uint8_t>scheme
        self.session.route_slot = route_slot
        self.session.cluster_slot = cluster_slot
        self.session.authority_len = len(authority)
        self.session.path_len = len(path)
        self.session.dst_len = len(to)
        self.session.src_len = len(source)
        self.session.peer_len = len(peer)
        self.session.peer_is_end = peer_is_end
        memcpy(self.session.peer, PyBytes_AS_STRING(peer), len(peer))
        self.session.status_low = <uint16_t>status_low
        self.session.status_high = <uint16_t>status_high
        self.session.min_latency_ns = min_latency_ns
        self.session.reason = <short>reason
        memcpy(self.session.authority, PyBytes_AS_STRING(authority), len(authority))
        memcpy(self.session.path, PyBytes_AS_STRING(path), len(path))
        memcpy(self.session.dst, PyBytes_AS_STRING(to), len(to))
        memcpy(self.session.src, PyBytes_AS_STRING(source), len(source))
        self.session.max_rps_milli = max_rps_milli

    def matches(self, *, uint8_t method=0, bint secure=False, bytes authority=b"a.test", bytes path=b"/",
                bytes source=b"192.0.2.7", bytes source_ipv6=None, bytes identity=b"", route_slot=0, cluster_slot=0,
                bytes to=None) -> tuple[bool, bool]:
        """(by its request, by its endpoint). `source_ipv6`: 16 octets; None for a slot or `to`: there is none;
        `identity`: what a secure client has proved."""
        cdef Exchange* exchange = <Exchange*>calloc(1, sizeof(Exchange))
        cdef Head* head = <Head*>calloc(1, sizeof(Head))
        cdef Conn down
        cdef Tls tls
        cdef ListenerConf listener
        cdef RouteConf route
        cdef ClusterConf cluster
        cdef EndpointConf endpoint
        cdef bytes base = authority + path
        memset(&down, 0, sizeof(Conn))
        memset(&listener, 0, sizeof(ListenerConf))
        memset(&route, 0, sizeof(RouteConf))
        memset(&cluster, 0, sizeof(ClusterConf))
        memset(&endpoint, 0, sizeof(EndpointConf))
        if exchange == NULL or head == NULL or len(source) > 15:
            free(exchange)
            free(head)
            raise MemoryError
        head.base = PyBytes_AS_STRING(base)
        head.authority_len = <uint32_t>len(authority)
        head.path_at = <uint32_t>len(authority)
        head.path_len = <uint32_t>len(path)
        exchange.method = method
        exchange.listener = &listener
        exchange.down = &down
        exchange.address = NULL
        exchange.endpoint_index = -1
        if secure:
            memset(&tls, 0, sizeof(Tls))
            tls.peer.is_established = 1
            tls.peer.identity = PyBytes_AS_STRING(identity)
            tls.peer.identity_len = <uint16_t>len(identity)
            down.transport = TRANSPORT_TLS
            down.channel = &tls
        if source_ipv6 is None:
            down.peer_text_len = <uint8_t>len(source)
            memcpy(down.peer_text, PyBytes_AS_STRING(source), len(source))
        else:
            memcpy(down.peer_address, PyBytes_AS_STRING(source_ipv6), 16)
        if route_slot is not None:
            route.slot = route_slot
            exchange.route = &route
        if cluster_slot is not None:
            cluster.slot = cluster_slot
            exchange.cluster = &cluster
        if to is not None:
            endpoint.address.text.at = PyBytes_AS_STRING(to)
            endpoint.address.text.len = <uint32_t>len(to)
            exchange.address = &endpoint.address
        by_request = bool(tap_matches(&self.session, exchange, head))
        by_endpoint = bool(tap_matches_endpoint(&self.session, exchange))
        free(exchange)
        free(head)
        return by_request, by_endpoint

    def matches_outcome(self, *, uint16_t status=0, uint64_t latency_ns=0, uint8_t reason=0) -> bool:
        """Whether an exchange that ended so is one of those asked for."""
        cdef Exchange* exchange = <Exchange*>calloc(1, sizeof(Exchange))
        if exchange == NULL:
            raise MemoryError
        exchange.status = status
        exchange.reason = reason
        matches = bool(tap_matches_outcome(&self.session, exchange, latency_ns))
        free(exchange)
        return matches

    def admits(self, uint64_t second) -> bool:
        """Whether a request that matches in this second of the wall clock is shown."""
        return bool(tap_session_admits(&self.session, second))

    @property
    def matched(self) -> int:
        return self.session.matched

    @property
    def suppressed(self) -> int:
        return self.session.suppressed
