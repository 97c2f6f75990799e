# What the handshakes of one listener or cluster go by: rules that live and die with their SSL_CTX, and the choices made from
# them (certificate by name, protocol, ticket keys). Building is the door's; checking a certificate is certificate's.
#
# An SSL_CTX is reference counted by OpenSSL: a snapshot holds one, and so does each connection made from it. Replacing a
# certificate replaces the SSL_CTX; connections keep the old one until they end. Shared by all workers, immutable but for
# OpenSSL's session cache and the ticket keys, which have locks of their own.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport strlen

from meshcore.engine.identity cimport Identity, identity_dns_covers
from meshcore.engine.openssl cimport (
    OPENSSL_NPN_NEGOTIATED, SSL, SSL_CTX, SSL_CTX_free, SSL_TLSEXT_ERR_ALERT_FATAL, SSL_TLSEXT_ERR_NOACK,
    SSL_TLSEXT_ERR_OK, SSL_get_SSL_CTX, SSL_get_app_data, SSL_get_servername, SSL_select_next_proto, SSL_set_SSL_CTX,
)
from meshcore.engine.ticket cimport TicketKeys, ticket_keys_release

cdef enum ClientAuth:
    CLIENT_AUTH_OFF = 0
    CLIENT_AUTH_OPTIONAL = 1
    CLIENT_AUTH_REQUIRED = 2


cdef struct TlsName:                    # a DNS name, perhaps a wildcard, and the certificate for it
    char* text
    uint32_t len
    SSL_CTX* context                    # one reference held here; NULL: the one that holds the rules


cdef struct TlsRules:
    Identity* peers                     # who may be at the other end; none: whoever the bundle vouches for
    uint32_t n_peers
    TlsName* names
    uint32_t n_names
    uint8_t* alpn                       # in wire form, ours first
    uint32_t alpn_len
    char* server_name                   # to ask for, upstream; NULL: none
    TicketKeys* tickets                 # shared with the SSL_CTX this one replaced
    uint64_t trust                      # a digest of all that the trust in a peer rests on
    uint64_t sessions                   # ... and of what we show: sessions made under another are void
    uint8_t is_server
    uint8_t client_auth
    uint8_t tells_certificate           # describe the client's certificate in X-Forwarded-Client-Cert


cdef struct Peer:                       # the other end of one connection; the SSL's app data
    const TlsRules* rules               # Safety: lives with the SSL_CTX the SSL was made from, which it holds
    void* keeper                        # upstream: who keeps sessions (see tls)
    char* identity                      # verified: a SPIFFE id or a DNS name; NULL: anonymous
    char* certificate                   # an element of X-Forwarded-Client-Cert; NULL: not asked for
    Identity expected                   # upstream: who it must be, of a context that leaves that open; len 0: see rules
    uint16_t identity_len
    uint16_t certificate_len
    uint8_t failure                     # a TlsFailure
    uint8_t is_denied                   # vouched for, but none of rules.peers
    uint32_t control_messages           # KeyUpdates, tickets and the like since the handshake
    uint8_t is_established


cdef inline void tls_rules_release(TlsRules* rules) noexcept nogil:
    """Give back everything. Called by OpenSSL when the last holder of the SSL_CTX is gone."""
    cdef uint32_t i
    if rules == NULL:
        return
    for i in range(rules.n_peers):
        free(rules.peers[i].text)
    free(rules.peers)
    for i in range(rules.n_names):
        free(rules.names[i].text)
        SSL_CTX_free(rules.names[i].context)
    free(rules.names)
    free(rules.alpn)
    free(rules.server_name)
    ticket_keys_release(rules.tickets)
    free(rules)


cdef inline void tls_rules_freed(void* parent, void* rules, void* ad, int index, long number, void* arg) noexcept nogil:
    # CRYPTO_EX_free
    tls_rules_release(<TlsRules*>rules)


cdef inline int tls_choose_certificate(SSL* ssl, int* alert, void* arg) noexcept nogil:
    """The certificate for the name the client asked for; the listener's first for any other, and for none."""
    cdef const Peer* peer = <const Peer*>SSL_get_app_data(ssl)
    cdef const char* wanted = SSL_get_servername(ssl, 0)
    cdef const TlsName* name
    cdef uint32_t len
    cdef uint32_t i
    cdef int wildcards
    if wanted == NULL:
        return SSL_TLSEXT_ERR_NOACK
    len = <uint32_t>strlen(wanted)
    for wildcards in range(2):          # a certificate for exactly this name before one for many
        for i in range(peer.rules.n_names):
            name = &peer.rules.names[i]
            if (name.text[0] == c"*") == wildcards and identity_dns_covers(name.text, name.len, wanted, len):
                if name.context != NULL:
                    SSL_set_SSL_CTX(ssl, name.context)
                return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_NOACK


cdef inline int tls_choose_protocol(SSL* ssl, const unsigned char** out, unsigned char* out_len,
                                    const unsigned char* offered, unsigned int offered_len, void* arg) noexcept nogil:
    """The first of ours that the client offers. None in common: RFC 7301 3.2, no_application_protocol."""
    cdef const Peer* peer = <const Peer*>SSL_get_app_data(ssl)
    if peer.rules.alpn_len == 0:
        return SSL_TLSEXT_ERR_NOACK
    if SSL_select_next_proto(<unsigned char**>out, out_len, peer.rules.alpn, peer.rules.alpn_len, offered,
                             offered_len) != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL
    return SSL_TLSEXT_ERR_OK
