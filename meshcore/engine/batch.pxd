# The reads and sends of many connections, made together. Owns when bytes go in and out; knows nothing of what they say.
#
# A batch is at most BATCH_EVENTS events of one wake-up. Those that await a head are read together before the first is
# acted on; what is sent meanwhile is held back, and sent together when the last was served. One entry into the kernel
# then makes what took one each, and the far sides are woken together, not each in the middle of our work. With a ring
# (see uring) or without one, the order of things is the same. A few events are served as they come: there is
# nothing to gain, and an answer should not wait for another's; unless one is of an HTTP/2 session, which may bring answers
# for as many connections as it has streams. Requests alone wait whenever another event is to be
# looked at: it may say that their connection is stale, or speaks unasked (see event_upstream_is_sound).
#
# A send held back counts as made: `conn_send` has said so. When the kernel then takes less, event_end_batch leaves the
# rest in out_buffer, or, of a request, takes it off Exchange.request_sent. Whoever does something with a connection's socket
# other than these two settles first (conn_settle).

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from meshcore.engine.state cimport (
    BATCH_EVENTS, BATCH_SEND_BYTES, BATCH_SEND_MAX_BYTES, BATCH_SENDS, READ_BYTES, Batch, Conn, Received, Send,
)
from meshcore.engine.sys cimport sys_send
from meshcore.engine.uring cimport uring_close, uring_open, uring_recv, uring_run, uring_send, uring_set_file

cdef enum:
    BATCH_SLOT_MARGIN = 64              # before and behind: room for chunk framing in place
    BATCH_SLOT_BYTES = 65984            # read, margins, and 320 so that heads do not all fall on the same cache sets
    BATCH_MEMORY_BYTES = 2177024        # per worker: slots, and sends held back
    BATCH_WORTH = 4                     # calls; fewer cost less one by one
    BATCH_FILES = 8192                  # connections the ring may keep the files of, per worker: 8 bytes each, in the kernel
    BATCH_KEPT = 255                    # Conn.ring_reads of one that is kept
    BATCH_KEEP_AFTER = 32               # reads: keeping and forgetting are a call each


cdef inline int batch_init(Batch* batch) noexcept nogil:
    """Memory for the largest batch. 1, or 0."""
    batch.ring.fd = -1
    batch.held = <char*>malloc(BATCH_SEND_BYTES)
    batch.read_slots = <char*>malloc(BATCH_SLOT_BYTES * BATCH_EVENTS)     # pages of slots never filled stay untouched
    return batch.held != NULL and batch.read_slots != NULL


cdef inline void batch_open(Batch* batch) noexcept nogil:
    """Get a ring, if it is wanted and this system gives one. To be called by the thread that will use it."""
    if batch.is_ring_wanted:
        uring_open(&batch.ring, BATCH_SENDS, BATCH_FILES)


cdef inline void batch_close(Batch* batch) noexcept nogil:
    uring_close(&batch.ring)


cdef inline void batch_free(Batch* batch) noexcept nogil:
    free(batch.held)
    free(batch.read_slots)
    batch.held = batch.read_slots = NULL


# --- files the ring keeps ---------------------------------------------------------------------------------------------

cdef inline int batch_file(const Conn* conn) noexcept nogil:
    """By what the ring knows a connection's file: its place there is the connection's in the slab."""
    return <int>conn.item.index if conn.ring_reads == BATCH_KEPT else conn.fd


cdef inline void batch_count_read(Batch* batch, Conn* conn) noexcept nogil:
    """A connection of many reads is worth keeping. One that cannot be kept is not asked about again."""
    conn.ring_reads += 1
    if conn.ring_reads > BATCH_KEEP_AFTER and conn.item.index < batch.ring.files \
            and uring_set_file(&batch.ring, conn.item.index, conn.fd):
        conn.ring_reads = BATCH_KEPT


cdef inline void batch_forget(Batch* batch, Conn* conn) noexcept nogil:
    """Its file is about to be closed."""
    if conn.ring_reads == BATCH_KEPT:
        uring_set_file(&batch.ring, conn.item.index, -1)
        conn.ring_reads = 0


# --- reads ------------------------------------------------------------------------------------------------------------

cdef inline void batch_begin(Batch* batch, int n) noexcept nogil:
    """`n` connections have something for us: from here to batch_clear sends are held back, if they are enough."""
    batch.n_received = 0
    batch.holds = n >= BATCH_WORTH
    batch.holds_requests = n >= 2


cdef inline void batch_expect_many(Batch* batch) noexcept nogil:
    """One of the connections carries many: what they cause is held back, however few they are."""
    batch.holds = batch.holds_requests = 1


cdef inline void batch_add_read(Batch* batch, Conn* conn) noexcept nogil:
    """Read this connection with the others. At most BATCH_EVENTS times between batch_begin and batch_read."""
    cdef Received* received = &batch.received[batch.n_received]
    received.conn = conn
    received.room = READ_BYTES
    received.at = batch.read_slots + batch.n_received * BATCH_SLOT_BYTES + BATCH_SLOT_MARGIN
    batch.n_received += 1


cdef inline void batch_read(Batch* batch) noexcept nogil:
    """Make the reads; conn_recv then hands out what they brought. Too few of them are left for conn_recv to make."""
    cdef Received* received
    cdef Conn* conn
    cdef uint32_t n = batch.n_received
    cdef uint32_t made
    cdef uint32_t i
    if batch.ring.fd < 0 or n < BATCH_WORTH:
        batch.n_received = 0
        return
    for i in range(n):
        conn = batch.received[i].conn
        if conn.ring_reads <= BATCH_KEEP_AFTER:
            batch_count_read(batch, conn)
        uring_recv(&batch.ring, i, batch_file(conn), conn.ring_reads == BATCH_KEPT, batch.received[i].at, READ_BYTES)
    made = uring_run(&batch.ring, n, batch.results)
    batch.calls += made
    for i in range(made):
        received = &batch.received[i]
        received.n = batch.results[i]
        received.conn.received_slot = <uint8_t>(i + 1)
    batch.n_received = made


cdef inline Received* batch_received(Batch* batch, Conn* conn) noexcept nogil:
    return &batch.received[conn.received_slot - 1]


# --- sends ------------------------------------------------------------------------------------------------------------

cdef inline int batch_hold(Batch* batch, Conn* conn, const char* at, uint32_t n, int is_request) noexcept nogil:
    """Copy bytes and send them at the end of the batch. 1, or 0: not here, send them now.

    The connection has nothing in out_buffer, and no send held back unless it is the last: then these bytes join it.
    """
    cdef Send* send
    if not (batch.holds_requests if is_request else batch.holds) or n > BATCH_SEND_MAX_BYTES \
            or n > BATCH_SEND_BYTES - batch.held_bytes:
        return 0
    if conn.send_slot:
        send = &batch.sends[conn.send_slot - 1]
        if conn.send_slot != batch.n_sends or send.is_request:
            return 0
        memcpy(send.at + send.n, at, n)
        send.n += n
        batch.held_bytes += n
        return 1
    if batch.n_sends == BATCH_SENDS:
        return 0
    send = &batch.sends[batch.n_sends]
    batch.n_sends += 1
    conn.send_slot = <uint8_t>batch.n_sends
    send.conn = conn
    send.at = batch.held + batch.held_bytes
    send.n = n
    send.is_request = <uint8_t>is_request
    memcpy(send.at, at, n)
    batch.held_bytes += n
    return 1


cdef inline Send* batch_withdraw(Batch* batch, Conn* conn) noexcept nogil:
    """Take back the send held for this connection. Its bytes are valid until the next one is held."""
    cdef Send* send = &batch.sends[conn.send_slot - 1]
    send.conn = NULL
    conn.send_slot = 0
    return send


cdef inline uint32_t batch_end(Batch* batch) noexcept nogil:
    """Make the sends held back. results[i] is the kernel's answer to sends[i]; returns how many there were.

    The caller notes every result before it acts on any, then calls batch_clear: their bytes are gone with that.
    """
    cdef Conn* conn
    cdef uint32_t n = batch.n_sends
    cdef uint32_t live = 0
    cdef uint32_t made = 0
    cdef uint32_t i
    for i in range(n):
        if batch.sends[i].conn != NULL:
            # Those withdrawn are passed over: the others close up.
            if live != i:
                batch.sends[live] = batch.sends[i]
                batch.sends[live].conn.send_slot = <uint8_t>(live + 1)
            live += 1
    batch.n_sends = live
    if batch.ring.fd >= 0 and live >= BATCH_WORTH:
        for i in range(live):
            conn = batch.sends[i].conn
            uring_send(&batch.ring, i, batch_file(conn), conn.ring_reads == BATCH_KEPT, batch.sends[i].at, batch.sends[i].n)
        made = uring_run(&batch.ring, live, batch.results)
        batch.calls += made
    for i in range(made, live):
        batch.results[i] = <int32_t>sys_send(batch.sends[i].conn.fd, batch.sends[i].at, batch.sends[i].n, 0)
    return live


cdef inline void batch_clear(Batch* batch) noexcept nogil:
    batch.n_sends = 0
    batch.held_bytes = 0
    batch.holds = batch.holds_requests = 0
