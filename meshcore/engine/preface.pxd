# What comes before a connection is one of HTTP or of another protocol: a PROXY header, read or sent, and the look at its
# first octets, be it for TLS or inside it. Owns when; what octets mean is proxy_protocol's and detect's.
#
# Octets are looked at without taking them (MSG_PEEK), so that exactly a header's are taken once it is whole, and all
# else is read as on any connection. A listener that expects a header serves nobody without it: guessing would let any
# client name itself. A client that says nothing may wait for the server's first word: the wait for it is bounded, and
# shorter where clients to the same address did the same before. Ports that are known to be waited at are not looked at.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from meshcore.engine.client_hello cimport HELLO_MORE, HELLO_NONE, HELLO_PEEK_BYTES, Hello, hello_read
from meshcore.engine.conn cimport conn_deadline, conn_is_plain, conn_keep_input, conn_recv
from meshcore.engine.detect cimport DETECT_MAX_BYTES, DETECT_MORE, DETECT_OTHER, detect_read
from meshcore.engine.downstream cimport downstream_abort, downstream_close
from meshcore.engine.intercept cimport intercept_hash
from meshcore.engine.proxy_protocol cimport (
    PROXY_DONE, PROXY_MORE, PROXY_V1, PROXY_V2_MAX_BYTES, ProxyHeader, proxy_header_read, proxy_header_write_v1,
    proxy_header_write_v2,
)
from meshcore.engine.reasons cimport REASON_BAD_PROXY_HEADER
from meshcore.engine.rng cimport rng_splitmix
from meshcore.engine.silence cimport silence_broken, silence_note, silence_streak
from meshcore.engine.snapshot cimport ListenerConf
from meshcore.engine.state cimport (
    CONN_AWAIT_HEAD, CONN_AWAIT_HELLO, CONN_AWAIT_PROTOCOL, CONN_AWAIT_TLS, CONN_EOF, CONN_ERROR, CONN_OK, IO_PEER_CLOSED, IO_READABLE,
    LISTENER_REMOVED, Conn, ListenerState, Worker,
)
from meshcore.engine.sys cimport (
    AF_INET, AF_INET6, EAGAIN, EINTR, MSG_PEEK, sockaddr_storage, sys_ipv4_text, sys_make_address, sys_own_address,
    sys_peer_raw, sys_recv,
)


cdef inline int preface_read(Worker* worker, Conn* conn) noexcept nogil:
    """A connection that owes a PROXY header has input. 1: it is taken, the connection begins; 0: not yet, or closed."""
    cdef ListenerState* listener = <ListenerState*>conn.owner
    cdef ProxyHeader header
    cdef long got
    cdef int code
    if listener.conf_index == LISTENER_REMOVED:
        downstream_close(worker, conn)
        return 0
    got = sys_recv(conn.fd, worker.read_buffer, PROXY_V2_MAX_BYTES, MSG_PEEK)
    if got == -EAGAIN or got == -EINTR:
        conn.io &= <uint8_t>~IO_READABLE
        return 0
    if got <= 0:
        downstream_close(worker, conn)  # a balancer that only looks whether we are there
        return 0
    code = proxy_header_read(worker.read_buffer, <uint32_t>got,
                             worker.current.snapshot.listeners[listener.conf_index].proxy_versions, &header)
    if code == PROXY_MORE and not conn.io & IO_PEER_CLOSED:
        conn.io &= <uint8_t>~IO_READABLE              # what comes next makes a new edge
        return 0
    if code != PROXY_DONE or sys_recv(conn.fd, worker.read_buffer, header.size_bytes, 0) != <long>header.size_bytes:
        worker.reasons[REASON_BAD_PROXY_HEADER] += 1
        worker.requests += 1
        downstream_abort(worker, conn)
        return 0
    listener.bytes_in += header.size_bytes
    if not header.is_local:
        preface_adopt(conn, &header)
    conn.state = CONN_AWAIT_HEAD
    return 1


cdef inline void preface_adopt(Conn* conn, const ProxyHeader* header) noexcept nogil:
    cdef sockaddr_storage peer
    sys_make_address(header.family, header.source_address, header.source_port, &peer)
    conn.peer_text_len = <uint8_t>sys_ipv4_text(&peer, conn.peer_text)
    sys_peer_raw(&peer, conn.peer_address, &conn.peer_port)


cdef inline void preface_await_protocol(Worker* worker, Conn* conn, const ListenerConf* conf) noexcept nogil:
    conn.state = CONN_AWAIT_PROTOCOL
    conn_deadline(worker, conn,
                  worker.now_ns + (conf.detect_timeout_ns >> silence_streak(&worker.silences, preface_goal(worker, conn))))


cdef inline int preface_is_looked_at(const Conn* conn, const ListenerConf* conf) noexcept nogil:
    """Do its first octets decide what this connection is?"""
    if conf.detect_timeout_ns == 0:
        return 0
    return conf.opaque_ports == NULL or conn.original_family == 0 \
        or not conf.opaque_ports[conn.original_port >> 5] >> (conn.original_port & 31) & 1


cdef inline uint64_t preface_goal(Worker* worker, Conn* conn) noexcept nogil:
    """The key under which silence is remembered: where it was going, or the listener."""
    cdef uint32_t slot = (<ListenerState*>conn.owner).slot
    if conn.original_family == 0:
        return rng_splitmix(worker.destinations.seed + slot)
    return intercept_hash(worker.destinations.seed, slot, conn.original_family, conn.original_port,
                          conn.original_address)


cdef inline void preface_note_silence(Worker* worker, Conn* conn) noexcept nogil:
    conn.io |= IO_READABLE              # the beginning of a word may lie there, its edge used up by the look at it
    silence_note(&worker.silences, preface_goal(worker, conn))


cdef inline int preface_detect(Worker* worker, Conn* conn) noexcept nogil:
    """What the client speaks, as a DetectCode; DETECT_MORE when that is not certain yet, or it is gone."""
    cdef long got
    cdef int code = DETECT_OTHER        # the end without a word: it may still listen
    if not conn_is_plain(conn):
        return preface_detect_decrypted(worker, conn)
    got = sys_recv(conn.fd, worker.read_buffer, DETECT_MAX_BYTES, MSG_PEEK)
    if got < 0:
        if got == -EAGAIN or got == -EINTR:
            conn.io &= <uint8_t>~IO_READABLE
        else:
            downstream_close(worker, conn)
        return DETECT_MORE
    if got > 0:
        code = detect_read(worker.read_buffer, <uint32_t>got)
        if code == DETECT_MORE:
            if conn.io & IO_PEER_CLOSED:
                return DETECT_OTHER
            conn.io &= <uint8_t>~IO_READABLE
            return DETECT_MORE
        silence_broken(&worker.silences, preface_goal(worker, conn))
    return code


cdef inline int preface_detect_decrypted(Worker* worker, Conn* conn) noexcept nogil:
    # Records cannot be looked at twice: what they say is kept, and read by whoever the connection goes to.
    cdef uint32_t held = 0 if conn.in_buffer == NULL else conn.in_buffer.end - conn.in_buffer.start
    cdef uint32_t n = 0
    cdef int code = conn_recv(worker, conn, worker.read_buffer, DETECT_MAX_BYTES - held, &n)
    if code == CONN_ERROR or (code == CONN_OK and not conn_keep_input(worker, conn, worker.read_buffer, n)):
        downstream_close(worker, conn)
        return DETECT_MORE
    if code == CONN_EOF:
        return DETECT_OTHER
    if conn.in_buffer == NULL:
        return DETECT_MORE
    code = detect_read(conn.in_buffer.data + conn.in_buffer.start, conn.in_buffer.end - conn.in_buffer.start)
    if code != DETECT_MORE:
        silence_broken(&worker.silences, preface_goal(worker, conn))
    return code


cdef inline void preface_await_tls(Worker* worker, Conn* conn) noexcept nogil:
    conn.state = CONN_AWAIT_TLS
    conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.tls_handshake_timeout_ns)


cdef inline int preface_look_for_tls(Worker* worker, Conn* conn) noexcept nogil:
    """Does the client begin with a ClientHello? DETECT_TLS, DETECT_OTHER, or DETECT_MORE: not certain yet, or it is gone."""
    cdef long got = sys_recv(conn.fd, worker.read_buffer, DETECT_MAX_BYTES, MSG_PEEK)
    cdef int code
    if got == -EAGAIN or got == -EINTR:
        conn.io &= <uint8_t>~IO_READABLE
        return DETECT_MORE
    if got <= 0:
        downstream_close(worker, conn)  # a balancer that only looks whether we are there
        return DETECT_MORE
    code = detect_read(worker.read_buffer, <uint32_t>got)
    if worker.read_buffer[0] != 22:
        return DETECT_OTHER             # whatever it is
    if code == DETECT_MORE and conn.io & IO_PEER_CLOSED:
        return DETECT_OTHER
    if code == DETECT_MORE:
        conn.io &= <uint8_t>~IO_READABLE
    return code


cdef inline void preface_await_hello(Worker* worker, Conn* conn) noexcept nogil:
    # A handshake's time, from when it became certain that it is one: the wait for silent clients is over.
    if conn.state != CONN_AWAIT_HELLO:
        conn.state = CONN_AWAIT_HELLO
        conn_deadline(worker, conn, worker.now_ns + worker.current.snapshot.limits.tls_handshake_timeout_ns)


cdef inline int preface_read_hello(Worker* worker, Conn* conn, Hello* hello) noexcept nogil:
    """Whom a client asks for that speaks TLS, as a HelloCode; HELLO_MORE: not certain yet, or it is gone."""
    cdef long got = sys_recv(conn.fd, worker.read_buffer, HELLO_PEEK_BYTES, MSG_PEEK)
    cdef int code
    if got == -EAGAIN or got == -EINTR:
        conn.io &= <uint8_t>~IO_READABLE
        return HELLO_MORE
    if got <= 0:
        downstream_close(worker, conn)
        return HELLO_MORE
    code = hello_read(worker.read_buffer, <uint32_t>got, hello)
    if code == HELLO_MORE:
        if conn.io & IO_PEER_CLOSED:
            return HELLO_NONE
        conn.io &= <uint8_t>~IO_READABLE
    return code


cdef inline uint32_t preface_write(char* out, Conn* down, uint8_t version) noexcept nogil:
    """The header that tells an endpoint whose connection this is: at most 108 bytes. Returns its length."""
    cdef ProxyHeader header
    cdef sockaddr_storage own
    cdef char text[16]
    cdef int is_ipv4 = down.peer_text_len != 0
    header.version = version
    # Unless both ends are known in one family there is nothing true to say: LOCAL, or UNKNOWN.
    if down.original_family:
        sys_make_address(down.original_family, down.original_address, down.original_port, &own)
        header.is_local = 0
    else:
        header.is_local = not sys_own_address(down.fd, &own)
    header.is_local |= (sys_ipv4_text(&own, text) != 0) != is_ipv4
    header.family = AF_INET if is_ipv4 else AF_INET6
    memcpy(header.source_address, down.peer_address, 16)
    header.source_port = down.peer_port
    if not header.is_local:
        sys_peer_raw(&own, header.destination_address, &header.destination_port)
    return proxy_header_write_v1(out, &header) if version == PROXY_V1 else proxy_header_write_v2(out, &header)
