# Idle upstream connections of one endpoint, per worker. Takes and keeps open sockets; opening them is dispatch's job.
#
# LIFO: the newest connection is the least likely to have been closed by the endpoint, and the oldest may go cold and
# time out. Bounded by ClusterConf.max_idle and idle_timeout_ns.

from libc.stdint cimport uint8_t, uint32_t

from meshcore.engine.conn cimport (
    conn_close, conn_deadline, conn_has_input, conn_is_disturbed, conn_is_stream, conn_list_add, conn_list_remove,
    conn_settle,
)
from meshcore.engine.endpoint cimport EndpointState
from meshcore.engine.slab cimport SLAB_NONE, slab_at
from meshcore.engine.snapshot cimport ClusterConf
from meshcore.engine.state cimport (
    CONN_DOUBTFUL, CONN_IDLE, CONN_IN_EXCHANGE, CONN_REUSED, IO_FAILED, IO_PEER_CLOSED, IO_READABLE, Conn, Worker,
)


cdef inline Conn* pool_lease(Worker* worker, EndpointState* endpoint, int must_probe) noexcept nogil:
    """Take an idle connection, newest first; NULL when there is none usable.

    `must_probe`: ask the kernel whether the endpoint closed it meanwhile. Worth a system call only where a request
    could not be sent again (POST); for the others a stale connection costs one replay.
    """
    cdef Conn* conn
    while endpoint.idle_head != SLAB_NONE:
        conn = <Conn*>slab_at(&worker.conns, endpoint.idle_head)
        pool_remove(worker, endpoint, conn)
        if (conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED) and conn_is_disturbed(worker, conn)) \
                or ((must_probe or conn.flags & CONN_DOUBTFUL)
                    and conn_has_input(worker, conn)):
            pool_discard(worker, endpoint, conn)
            continue
        conn.flags &= <uint8_t>~CONN_DOUBTFUL
        conn.state = CONN_IN_EXCHANGE
        conn_deadline(worker, conn, 0)
        return conn
    return NULL


cdef inline void pool_return(Worker* worker, EndpointState* endpoint, const ClusterConf* cluster,
                             Conn* conn) noexcept nogil:
    """Keep a connection whose response is complete, or close it when enough are kept."""
    conn.exchange = NULL
    if conn_is_stream(conn):
        conn_close(worker, conn)        # its session stays
        return
    if conn.send_slot:
        conn_settle(worker, conn)       # the end of a request, answered before it was sent
    if conn.io & IO_READABLE and not conn_has_input(worker, conn):
        # A read that was filled to its last byte (or a splice) leaves open whether more follows.
        conn.io &= <uint8_t>~IO_READABLE
    # With output pending, the endpoint answered before it had the whole request: it may never read the rest.
    if endpoint.n_idle >= cluster.max_idle or conn.in_buffer != NULL or conn.out_buffer != NULL \
            or conn.io & (IO_READABLE | IO_PEER_CLOSED | IO_FAILED) \
            or (cluster.max_requests_per_connection and conn.requests >= cluster.max_requests_per_connection):
        pool_discard(worker, endpoint, conn)
        return
    conn.state = CONN_IDLE
    conn.flags |= CONN_REUSED
    conn_list_add(worker, &endpoint.idle_head, conn)
    endpoint.n_idle += 1
    conn_deadline(worker, conn, worker.now_ns + cluster.idle_timeout_ns)


cdef inline void pool_remove(Worker* worker, EndpointState* endpoint, Conn* conn) noexcept nogil:
    conn_list_remove(worker, &endpoint.idle_head, conn)
    endpoint.n_idle -= 1


cdef inline void pool_discard(Worker* worker, EndpointState* endpoint, Conn* conn) noexcept nogil:
    """Close an upstream connection that is in no list."""
    if conn_is_stream(conn):
        conn.exchange = NULL
        conn_close(worker, conn)
        return
    endpoint.open_connections -= 1
    worker.n_upstream -= 1
    conn.exchange = NULL
    conn_close(worker, conn)


cdef inline void pool_close_idle(Worker* worker, EndpointState* endpoint) noexcept nogil:
    """Close every idle connection: the endpoint left the configuration."""
    cdef Conn* conn
    while endpoint.idle_head != SLAB_NONE:
        conn = <Conn*>slab_at(&worker.conns, endpoint.idle_head)
        pool_remove(worker, endpoint, conn)
        pool_discard(worker, endpoint, conn)
