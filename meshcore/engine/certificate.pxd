# Whether a peer's certificate is good for its part, and whose it is. Judges and names; what follows from it is decided above.
#
# Everything is checked at the handshake: bounds first (a long chain or a huge key costs CPU before it costs trust), then the
# path to a root by the wall clock, its purpose, revocation; then the leaf's names. A leaf with a SPIFFE id is an
# X509-SVID and held to that specification. A resumed session skips OpenSSL's verification: its leaf is judged again here.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from meshcore.engine.identity cimport (
    IDENTITY_DNS, IDENTITY_SCHEME_BYTES, Identity, identity_authority, identity_dns_covers, identity_is_dns,
    identity_lower, identity_means_id,
)
from meshcore.engine.openssl cimport (
    EVP_sha256, EXFLAG_CA, EXFLAG_XKUSAGE, GEN_DNS, GEN_URI, GENERAL_NAMES, GENERAL_NAMES_free, KU_CRL_SIGN,
    KU_DIGITAL_SIGNATURE, KU_KEY_CERT_SIGN, SSL, SSL_SESSION_get_timeout, SSL_SESSION_set_timeout, SSL_get_app_data,
    SSL_get_ex_data_X509_STORE_CTX_idx, SSL_get_session, X509, X509_STACK, X509_STORE_CTX, X509_STORE_CTX_get0_cert,
    X509_STORE_CTX_get0_chain, X509_STORE_CTX_get0_untrusted, X509_STORE_CTX_get_error, X509_STORE_CTX_get_ex_data,
    X509_STORE_CTX_set_error, X509_V_ERR_APPLICATION_VERIFICATION, X509_V_ERR_CA_KEY_TOO_SMALL,
    X509_V_ERR_CA_MD_TOO_WEAK, X509_V_ERR_CERT_CHAIN_TOO_LONG, X509_V_ERR_CERT_HAS_EXPIRED,
    X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_REVOKED, X509_V_ERR_CRL_HAS_EXPIRED, X509_V_ERR_CRL_NOT_YET_VALID,
    X509_V_ERR_CRL_SIGNATURE_FAILURE, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_EE_KEY_TOO_SMALL,
    X509_V_ERR_INVALID_PURPOSE, X509_V_ERR_OUT_OF_MEM, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
    X509_V_ERR_UNABLE_TO_GET_CRL, X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_digest,
    X509_get_extended_key_usage, X509_get_extension_flags, X509_get_key_usage, X509_verify_cert, XKU_ANYEKU,
    XKU_SSL_CLIENT, XKU_SSL_SERVER, x509_at, x509_count, x509_key_bits, x509_name, x509_name_count, x509_names,
    x509_seconds_left,
)
from meshcore.engine.tls_context cimport CLIENT_AUTH_REQUIRED, Peer

cdef enum TlsFailure:                   # in the order of the table behind tls_reason
    TLS_SOUND = 0
    TLS_PROTOCOL_ERROR = 1
    TLS_NO_COMMON_PARAMETERS = 2
    TLS_NO_ALPN = 3
    TLS_CLOSED = 4
    TLS_REFUSED = 5
    TLS_LATE = 6
    TLS_PLAINTEXT = 7
    TLS_NO_CERTIFICATE = 8
    TLS_EXPIRED = 9
    TLS_NOT_YET_VALID = 10
    TLS_SELF_SIGNED = 11
    TLS_UNKNOWN_CA = 12
    TLS_WRONG_PURPOSE = 13
    TLS_CHAIN_TOO_DEEP = 14
    TLS_KEY_TOO_LARGE = 15
    TLS_KEY_TOO_WEAK = 16
    TLS_REVOKED = 17
    TLS_CRL_UNUSABLE = 18
    TLS_BAD_CERTIFICATE = 19
    TLS_BAD_IDENTITY = 20
    TLS_WRONG_IDENTITY = 21

cdef enum:
    CERTIFICATE_MAX_CHAIN = 10          # sent by a peer; two or three are usual
    CERTIFICATE_MAX_RSA_BITS = 8192     # Go's bound (CVE-2023-29409): a verification costs with the square of it
    CERTIFICATE_ERROR_UNLISTED = 9999   # of no kind OpenSSL knows: it sends the alert certificate_unknown then


cdef inline int certificate_verify(X509_STORE_CTX* store, void* arg) noexcept nogil:
    """In place of OpenSSL's own verification (SSL_CTX_set_cert_verify_callback). 1: the peer is who it may be."""
    cdef SSL* ssl = <SSL*>X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx())
    cdef Peer* peer = <Peer*>SSL_get_app_data(ssl)
    cdef uint8_t failure = certificate_check_bounds(store)
    if failure == TLS_CHAIN_TOO_DEEP:
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_CHAIN_TOO_LONG)
    elif failure:
        X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION)
    elif X509_verify_cert(store) <= 0:
        failure = certificate_failure(X509_STORE_CTX_get_error(store))
    else:
        failure = certificate_judge(peer, X509_STORE_CTX_get0_cert(store))
        if failure:
            X509_STORE_CTX_set_error(store, X509_V_ERR_INVALID_PURPOSE if failure == TLS_WRONG_PURPOSE
                                     else CERTIFICATE_ERROR_UNLISTED)
    peer.failure = failure
    if failure == TLS_SOUND:
        certificate_bound_session(ssl, X509_STORE_CTX_get0_chain(store))
    return failure == TLS_SOUND


cdef inline uint8_t certificate_check_bounds(const X509_STORE_CTX* store) noexcept nogil:
    # Before any signature is verified. The leaf stands among the untrusted ones.
    cdef X509_STACK* sent = X509_STORE_CTX_get0_untrusted(store)
    cdef int n = x509_count(sent)
    cdef int is_rsa = 0
    cdef int i
    if n > CERTIFICATE_MAX_CHAIN:
        return TLS_CHAIN_TOO_DEEP
    if x509_key_bits(X509_STORE_CTX_get0_cert(store), &is_rsa) > CERTIFICATE_MAX_RSA_BITS and is_rsa:
        return TLS_KEY_TOO_LARGE
    for i in range(n):
        if x509_key_bits(x509_at(sent, i), &is_rsa) > CERTIFICATE_MAX_RSA_BITS and is_rsa:
            return TLS_KEY_TOO_LARGE
    return TLS_SOUND


cdef inline uint8_t certificate_failure(int error) noexcept nogil:
    """What an error of X509_verify_cert means to who reads it."""
    if error == X509_V_ERR_CERT_HAS_EXPIRED:
        return TLS_EXPIRED
    if error == X509_V_ERR_CERT_NOT_YET_VALID:
        return TLS_NOT_YET_VALID
    if error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return TLS_SELF_SIGNED
    if error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN or error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT \
            or error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY \
            or error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return TLS_UNKNOWN_CA
    if error == X509_V_ERR_INVALID_PURPOSE:
        return TLS_WRONG_PURPOSE
    if error == X509_V_ERR_CERT_CHAIN_TOO_LONG:
        return TLS_CHAIN_TOO_DEEP
    if error == X509_V_ERR_EE_KEY_TOO_SMALL or error == X509_V_ERR_CA_KEY_TOO_SMALL \
            or error == X509_V_ERR_CA_MD_TOO_WEAK:
        return TLS_KEY_TOO_WEAK
    if error == X509_V_ERR_CERT_REVOKED:
        return TLS_REVOKED
    if error == X509_V_ERR_UNABLE_TO_GET_CRL or error == X509_V_ERR_CRL_HAS_EXPIRED \
            or error == X509_V_ERR_CRL_NOT_YET_VALID or error == X509_V_ERR_CRL_SIGNATURE_FAILURE \
            or error == X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
        return TLS_CRL_UNUSABLE
    return TLS_BAD_CERTIFICATE


cdef inline void certificate_bound_session(SSL* ssl, const X509_STACK* chain) noexcept nogil:
    # A session must not outlive any certificate that vouched for it.
    cdef long left = SSL_SESSION_get_timeout(SSL_get_session(ssl))
    cdef long seconds
    cdef int i
    for i in range(x509_count(chain)):
        seconds = x509_seconds_left(x509_at(chain, i))
        if seconds < left:
            left = seconds
    SSL_SESSION_set_timeout(SSL_get_session(ssl), left if left > 0 else 0)


cdef inline uint8_t certificate_judge_resumed(Peer* peer, X509* leaf) noexcept nogil:
    """As certificate_verify, of a resumed session. Its trust is that of now (see TlsRules.trust); time went on."""
    if leaf == NULL:
        return TLS_NO_CERTIFICATE if not peer.rules.is_server or peer.rules.client_auth == CLIENT_AUTH_REQUIRED \
            else TLS_SOUND
    if x509_seconds_left(leaf) <= 0:
        return TLS_EXPIRED
    return certificate_judge(peer, leaf)


cdef inline uint8_t certificate_judge(Peer* peer, X509* leaf) noexcept nogil:
    """Take the identity from a leaf that is vouched for, and look whether it is one of those meant."""
    cdef GENERAL_NAMES* names = x509_names(leaf)
    cdef uint8_t failure = certificate_judge_names(peer, leaf, names)
    GENERAL_NAMES_free(names)
    if failure == TLS_SOUND and peer.rules.tells_certificate:
        certificate_describe(peer, leaf)
    return failure


cdef inline uint8_t certificate_judge_names(Peer* peer, X509* leaf, const GENERAL_NAMES* names) noexcept nogil:
    cdef const char* id = NULL
    cdef const char* dns = NULL
    cdef const char* at
    cdef uint32_t id_len = 0
    cdef uint32_t dns_len = 0
    cdef uint32_t n = 0
    cdef uint32_t n_uris = 0
    cdef int i
    for i in range(x509_name_count(names)):
        at = x509_name(names, i, GEN_URI, &n)
        if at != NULL:
            n_uris += 1
            if certificate_is_spiffe(at, n):
                id = at
                id_len = n
            continue
        at = x509_name(names, i, GEN_DNS, &n)
        if at != NULL and dns == NULL and identity_is_dns(at, n):
            dns = at
            dns_len = n
    if id != NULL:
        # X509-SVID 2: exactly one URI; a leaf; 4.3 and 4.4: for signing, and for this side of a handshake.
        if n_uris != 1 or identity_authority(id, id_len) == 0:
            return TLS_BAD_IDENTITY
        if not certificate_is_svid_leaf(leaf, peer.rules.is_server):
            return TLS_WRONG_PURPOSE
    at = certificate_meant(peer, names, id, id_len, &n)
    if at == NULL:
        if not peer.rules.is_server:
            return TLS_WRONG_IDENTITY
        peer.is_denied = 1              # let in to be told: 403
    if id != NULL:
        return certificate_name_peer(peer, id, id_len)
    if at == NULL or n == 0:
        at = dns
        n = dns_len
    return certificate_name_peer(peer, at, n) if at != NULL else TLS_SOUND


cdef inline int certificate_is_spiffe(const char* at, uint32_t n) noexcept nogil:
    cdef const char* scheme = b"spiffe://"
    cdef uint32_t i
    if n < IDENTITY_SCHEME_BYTES:
        return 0
    for i in range(<uint32_t>IDENTITY_SCHEME_BYTES):
        if identity_lower(at[i]) != scheme[i]:
            return 0
    return 1


cdef inline int certificate_is_svid_leaf(X509* leaf, int is_client) noexcept nogil:
    cdef uint32_t flags = X509_get_extension_flags(leaf)
    cdef uint32_t usage = X509_get_key_usage(leaf)
    cdef uint32_t wanted = XKU_SSL_CLIENT if is_client else XKU_SSL_SERVER
    if flags & EXFLAG_CA:
        return 0
    if usage != <uint32_t>-1 and (not usage & <uint32_t>KU_DIGITAL_SIGNATURE or usage & <uint32_t>(KU_KEY_CERT_SIGN | KU_CRL_SIGN)):
        return 0
    return flags & EXFLAG_XKUSAGE != 0 and X509_get_extended_key_usage(leaf) & (wanted | XKU_ANYEKU) != 0


cdef inline const char* certificate_meant(const Peer* peer, const GENERAL_NAMES* names, const char* id,
                                          uint32_t id_len, uint32_t* n) noexcept nogil:
    """The name by which one of the rules means this peer, or NULL. Without rules: an empty name."""
    cdef const Identity* rules = peer.rules.peers
    cdef const Identity* rule
    cdef const char* at
    cdef uint32_t n_rules = peer.rules.n_peers
    cdef uint32_t len = 0
    cdef uint32_t r
    cdef int i
    n[0] = 0
    if peer.expected.len:
        rules = &peer.expected
        n_rules = 1
    if n_rules == 0:
        return b""
    for r in range(n_rules):
        rule = &rules[r]
        if rule.kind != IDENTITY_DNS:
            if id != NULL and identity_means_id(rule, id, id_len):
                n[0] = id_len
                return id
            continue
        for i in range(x509_name_count(names)):
            at = x509_name(names, i, GEN_DNS, &len)
            if at != NULL and identity_dns_covers(at, len, rule.text, rule.len):
                n[0] = rule.len
                return rule.text
    return NULL


cdef inline uint8_t certificate_name_peer(Peer* peer, const char* at, uint32_t n) noexcept nogil:
    free(peer.identity)
    peer.identity = <char*>malloc(n + 1)
    if peer.identity == NULL:
        return TLS_BAD_CERTIFICATE      # without memory for a name nobody is let in
    memcpy(peer.identity, at, n)
    peer.identity[n] = 0
    peer.identity_len = <uint16_t>n
    return TLS_SOUND


cdef inline void certificate_describe(Peer* peer, X509* leaf) noexcept nogil:
    """An element of X-Forwarded-Client-Cert in Envoy's form. Of octets that need no quoting: hex, and a checked name."""
    cdef const char* digits = b"0123456789abcdef"
    cdef unsigned char digest[64]
    cdef unsigned int n = 0
    cdef unsigned int i
    cdef char* out
    if not X509_digest(leaf, EVP_sha256(), digest, &n):
        return
    free(peer.certificate)
    peer.certificate = out = <char*>malloc(5 + 2 * n + 5 + peer.identity_len)
    if out == NULL:
        return
    memcpy(out, b"Hash=", 5)
    out += 5
    for i in range(n):
        out[0] = digits[digest[i] >> 4]
        out[1] = digits[digest[i] & 15]
        out += 2
    if peer.identity_len:
        memcpy(out, b";URI=" if certificate_is_spiffe(peer.identity, peer.identity_len) else b";DNS=", 5)
        memcpy(out + 5, peer.identity, peer.identity_len)
        out += 5 + peer.identity_len
    peer.certificate_len = <uint16_t>(out - peer.certificate)
