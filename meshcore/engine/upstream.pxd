# What the endpoint of an attempt is spoken to in, and how TLS with it begins: in which context, and who it must prove to be.
# Opens no connection and makes no handshake: see dispatch, secure.
#
# Endpoints that bindings name share a few contexts (one certificate of ours, one bundle), so that a thousand names need
# not a thousand of them. What is an endpoint's own, its identity and the name to ask for, goes with the connection.

from libc.stdint cimport uint8_t

from meshcore.engine.conn cimport conn_is_stream, conn_peer
from meshcore.engine.openssl cimport SSL_CTX
from meshcore.engine.snapshot cimport UPSTREAM_HOP, UPSTREAM_HTTP1, UPSTREAM_HTTP2, EndpointConf
from meshcore.engine.state cimport (
    EXCHANGE_CONNECT, EXCHANGE_GRPC_WEB, EXCHANGE_RESTORED, EXCHANGE_TCP, EXCHANGE_UPGRADE, Conn, Exchange, Worker,
)
from meshcore.engine.tls cimport tls_expect, tls_offer_http2, tls_open


cdef inline const EndpointConf* upstream_conf(const Exchange* exchange) noexcept nogil:
    """The chosen endpoint. An original destination has the settings of its cluster's one row."""
    return &exchange.cluster.endpoints[exchange.endpoint_index]


cdef inline int upstream_speaks_http2(const Exchange* exchange) noexcept nogil:
    """Is the chosen endpoint to be spoken to in HTTP/2?"""
    cdef uint8_t speaks = upstream_conf(exchange).speaks
    if exchange.flags & EXCHANGE_GRPC_WEB:
        return 1                        # gRPC has no other
    if exchange.flags & EXCHANGE_TCP or speaks == UPSTREAM_HTTP1:
        return 0
    if speaks == UPSTREAM_HTTP2:
        return 1
    if not conn_is_stream(exchange.down):
        # Tunnels of HTTP/1 do not ride: an upgrade is of the connection.
        return speaks == UPSTREAM_HOP and not exchange.flags & (EXCHANGE_UPGRADE | EXCHANGE_CONNECT)
    return not exchange.flags & EXCHANGE_RESTORED or speaks == UPSTREAM_HOP


cdef inline int upstream_marks(const Exchange* exchange) noexcept nogil:
    """Is this request of HTTP/1, and to be marked as such for the chosen endpoint?"""
    return upstream_conf(exchange).speaks == UPSTREAM_HOP and upstream_speaks_http2(exchange) \
        and (not conn_is_stream(exchange.down) or exchange.flags & EXCHANGE_RESTORED != 0)


cdef inline int upstream_is_secure(const Exchange* exchange) noexcept nogil:
    """Must TLS come first?"""
    return upstream_conf(exchange).tls != NULL or upstream_conf(exchange).context != 0


cdef inline int upstream_open_tls(Worker* worker, Conn* conn, const Exchange* exchange, int is_http2) noexcept nogil:
    """Put TLS on a new connection to the chosen endpoint; a handshake must follow. 1, or 0 without memory."""
    cdef const EndpointConf* conf = upstream_conf(exchange)
    cdef SSL_CTX* context = worker.tls_contexts[conf.context - 1] if conf.context else conf.tls
    if context == NULL or not tls_open(worker, conn, context, exchange.endpoint):
        return 0
    if is_http2:
        tls_offer_http2(conn)
    # Whom a shared context may meet is for the endpoint to say: without that, nobody.
    return conf.context == 0 or (conf.identity.len and tls_expect(conn, conf.identity_kind, conf.identity, conf.sni))


cdef inline int upstream_is_trusted_still(const Worker* worker, const Exchange* exchange, const Conn* up) noexcept nogil:
    """Was the peer of this connection judged by what its endpoint's context trusts now?"""
    cdef const EndpointConf* conf = upstream_conf(exchange)
    return conf.context == 0 or conn_peer(up) == NULL \
        or conn_peer(up).rules.trust == worker.tls_trusts[conf.context - 1]
