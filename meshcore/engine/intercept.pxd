# Where an intercepted connection was going: asked of the kernel when it is accepted, held against our own addresses.
#
# A connection that was on its way to a listener of ours would be sent there again, and again: it is refused
# (`intercept_loop`). So is one that nobody intercepted: in a namespace without rules, or from a client that found our
# port, its destination is the listener itself. The rules that bring connections here are Python's (meshproxy intercept).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from meshcore.engine.rng cimport rng_splitmix
from meshcore.engine.snapshot cimport INTERCEPTION_REDIRECT, ListenerConf, Snapshot
from meshcore.engine.state cimport Conn, ListenerState, Worker
from meshcore.engine.sys cimport (
    AF_INET, AF_INET6, sockaddr_storage, sys_is_own_host, sys_own_address, sys_peer_raw, sys_redirected_from,
)


cdef inline int intercept_take(Worker* worker, Conn* conn, const ListenerConf* conf) noexcept nogil:
    """Note where a new connection was going. 1; 0: to ourselves, as far as one can tell."""
    cdef sockaddr_storage original
    cdef int is_known
    if conf.interception == INTERCEPTION_REDIRECT:
        is_known = sys_redirected_from(conn.fd, &original)
    else:
        is_known = sys_own_address(conn.fd, &original)
    if not is_known or (original.ss_family != AF_INET and original.ss_family != AF_INET6):
        return 0
    conn.original_family = <uint8_t>original.ss_family
    sys_peer_raw(&original, conn.original_address, &conn.original_port)
    return not intercept_is_own(worker, conn.original_family, conn.original_port, conn.original_address)


cdef inline int intercept_is_own(Worker* worker, uint8_t family, uint16_t port, const uint8_t* host) noexcept nogil:
    """Would a connection to this address come to one of our listeners? Costs system calls only for their ports."""
    cdef const Snapshot* snapshot = worker.current.snapshot
    cdef const ListenerState* listener
    cdef uint32_t i
    for i in range(snapshot.n_listeners):
        listener = worker.listeners[snapshot.listeners[i].slot]
        if listener.port != port or listener.family != family:
            continue
        if memcmp(listener.host, host, 16) == 0 or (listener.is_any_host and sys_is_own_host(family, host)):
            return 1
    return 0


cdef inline uint64_t intercept_hash(uint64_t seed, uint32_t salt, uint8_t family, uint16_t port,
                                    const uint8_t* host) noexcept nogil:
    """A number for an address, not to be guessed without the seed: clients choose where they go."""
    cdef uint64_t words[2]
    cdef uint64_t x = seed ^ (<uint64_t>salt << 32 | <uint64_t>family << 16 | port)
    memcpy(words, host, 16)
    # SplitMix64's finalizer (Steele, Lea and Flood, 2014) after each word; the seed enters again between them.
    x = rng_splitmix(x) + seed
    x = rng_splitmix(x ^ words[0]) + seed
    return rng_splitmix(x ^ words[1])
