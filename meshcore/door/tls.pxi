# SSL_CTX from certificates, keys and bundles: checked and built here, under the GIL, as reference-counted objects that
# snapshots hold. What a handshake does with them is the rooms' business (tls_context, certificate, tls).

import hashlib as _hashlib

from libc.string cimport strlen

from meshcore.engine.certificate cimport certificate_verify
from meshcore.engine.identity cimport (
    IDENTITY_DNS, IDENTITY_ID, IDENTITY_TRUST_DOMAIN, Identity, identity_authority, identity_dns_covers, identity_is_dns,
    identity_means_id,
)
from meshcore.engine.openssl cimport (
    BIO, BIO_free, GEN_DNS, GENERAL_NAMES, GENERAL_NAMES_free, OPENSSL_cleanse, SSL, SSL_CTX, SSL_CTX_free,
    SSL_CTX_set_ex_data, SSL_CTX_up_ref, SSL_SESSION, SSL_SESSION_free, SSL_get_app_data, SSL_version, TLS1_3_VERSION, X509, pipe_bio, rules_index, x509_name, x509_name_count,
    x509_names,
)
from meshcore.engine.ticket cimport (
    EVP_CIPHER_CTX, EVP_MAC_CTX, TicketKeys, ticket_keys_hold, ticket_keys_new, ticket_keys_release, ticket_seal,
)
from meshcore.engine.tls cimport TLS_OUT_BYTES, tls_count_control, tls_keep_session
from meshcore.engine.tls_context cimport (
    CLIENT_AUTH_OFF, CLIENT_AUTH_REQUIRED, Peer, TlsName, TlsRules, tls_choose_certificate, tls_choose_protocol,
    tls_rules_freed, tls_rules_release,
)

cdef extern from * nogil:
    """
    #include <openssl/ssl.h>
    #include <openssl/pem.h>
    #include <openssl/err.h>

    typedef int (*mc_sni_fn)(SSL*, int*, void*);
    typedef int (*mc_alpn_fn)(SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int, void*);
    typedef int (*mc_ticket_fn)(SSL*, unsigned char*, unsigned char*, EVP_CIPHER_CTX*, EVP_MAC_CTX*, int);
    typedef void (*mc_message_fn)(int, int, int, const void*, size_t, SSL*, void*);

    /* No key is ever asked a passphrase for: the process has no terminal of its own. */
    static int mc_no_passphrase(char* at, int n, int writing, void* data) {
        (void)at; (void)n; (void)writing; (void)data;
        return -1;
    }
    static SSL_CTX* mc_context_new(int is_server, int only_13) {
        SSL_CTX* c = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
        if (!c) return NULL;
        SSL_CTX_set_min_proto_version(c, only_13 ? TLS1_3_VERSION : TLS1_2_VERSION);
        SSL_CTX_set_security_level(c, 2);
        /* Forward secrecy and authenticated encryption only, with TLS 1.2 too (RFC 9325 4.2). */
        if (!SSL_CTX_set_cipher_list(c, "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL")) { SSL_CTX_free(c); return NULL; }
        SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE
                               | SSL_OP_PRIORITIZE_CHACHA);
        SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE
                            | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_max_cert_list(c, 65536);
        SSL_CTX_set_quiet_shutdown(c, 0);
        SSL_CTX_set_max_early_data(c, 0);             /* 0-RTT can be replayed (RFC 8470) */
        SSL_CTX_set_default_passwd_cb(c, mc_no_passphrase);
        return c;
    }
    /* The chain of `pem`, leaf first. 1; 0: not readable; -1: not usable. */
    static int mc_context_use_chain(SSL_CTX* c, const char* pem, int n) {
        BIO* bio = BIO_new_mem_buf(pem, n);
        X509* x;
        int first = 1, ok = 1;
        if (!bio) return 0;
        while (ok == 1 && (x = PEM_read_bio_X509(bio, NULL, mc_no_passphrase, NULL))) {
            if (first) { if (SSL_CTX_use_certificate(c, x) != 1) ok = -1; X509_free(x); }
            else if (SSL_CTX_add0_chain_cert(c, x) != 1) { X509_free(x); ok = -1; }
            first = 0;
        }
        BIO_free(bio);
        if (ok == 1 && first) ok = 0;
        if (ok == 1 && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) ok = 0;
        return ok;
    }
    static int mc_context_use_key(SSL_CTX* c, const char* pem, int n) {
        BIO* bio = BIO_new_mem_buf(pem, n);
        EVP_PKEY* key = bio ? PEM_read_bio_PrivateKey(bio, NULL, mc_no_passphrase, NULL) : NULL;
        int ok = 0;
        if (key) {
            /* Checks that it belongs to the certificate, which is set before. */
            ok = SSL_CTX_use_PrivateKey(c, key) == 1 && SSL_CTX_check_private_key(c) == 1 ? 1 : -1;
            EVP_PKEY_free(key);          /* wipes it when the context lets go, too */
        }
        BIO_free(bio);
        return ok;
    }
    /* Adds every certificate of `pem` to the roots. How many; -1: not readable. */
    static int mc_store_add_roots(X509_STORE* store, STACK_OF(X509_NAME)* names, const char* pem, int n) {
        BIO* bio = BIO_new_mem_buf(pem, n);
        X509* x;
        int count = 0;
        if (!bio) return -1;
        while ((x = PEM_read_bio_X509(bio, NULL, mc_no_passphrase, NULL))) {
            if (X509_STORE_add_cert(store, x) != 1) { X509_free(x); BIO_free(bio); return -1; }
            if (names) {
                X509_NAME* name = X509_NAME_dup(X509_get_subject_name(x));
                if (!name || !sk_X509_NAME_push(names, name)) X509_NAME_free(name);
            }
            X509_free(x);
            count++;
        }
        BIO_free(bio);
        return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? count : -1;
    }
    static int mc_store_add_crls(X509_STORE* store, const char* pem, int n) {
        BIO* bio = BIO_new_mem_buf(pem, n);
        X509_CRL* crl;
        int count = 0;
        if (!bio) return -1;
        while ((crl = PEM_read_bio_X509_CRL(bio, NULL, mc_no_passphrase, NULL))) {
            if (X509_STORE_add_crl(store, crl) != 1) { X509_CRL_free(crl); BIO_free(bio); return -1; }
            X509_CRL_free(crl);
            count++;
        }
        BIO_free(bio);
        if (count) X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
        return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? count : -1;
    }
    /* Roots, and where there is one, CRLs; NULL roots: those of the system. 1; 0 roots, -1 CRL: not readable or empty. */
    static int mc_context_trust(SSL_CTX* c, const char* roots, int roots_n, const char* crl, int crl_n, int tell_names) {
        X509_STORE* store = SSL_CTX_get_cert_store(c);
        STACK_OF(X509_NAME)* names = tell_names ? sk_X509_NAME_new_null() : NULL;
        X509_VERIFY_PARAM* param = SSL_CTX_get0_param(c);
        if (roots) {
            if (mc_store_add_roots(store, names, roots, roots_n) <= 0) {
                sk_X509_NAME_pop_free(names, X509_NAME_free);
                return 0;
            }
        } else if (SSL_CTX_set_default_verify_paths(c) != 1) return 0;
        if (names) SSL_CTX_set_client_CA_list(c, names);
        if (crl && mc_store_add_crls(store, crl, crl_n) <= 0) return -1;
        X509_VERIFY_PARAM_set_depth(param, 8);
        X509_VERIFY_PARAM_set_auth_level(param, 2);
        return 1;
    }
    static void mc_context_verify(SSL_CTX* c, int required, int (*verify)(X509_STORE_CTX*, void*)) {
        SSL_CTX_set_verify(c, SSL_VERIFY_PEER | (required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0), NULL);
        SSL_CTX_set_cert_verify_callback(c, verify, NULL);
    }
    /* How sessions are resumed: 0 not at all, 1 by tickets, 2 from a bounded table of ours. */
    static void mc_context_server_sessions(SSL_CTX* c, int kind, long table_size, long lifetime_s, mc_ticket_fn ticket) {
        SSL_CTX_set_timeout(c, lifetime_s);
        SSL_CTX_set_num_tickets(c, kind ? 1 : 0);
        if (kind == 1) {
            SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
            SSL_CTX_set_tlsext_ticket_key_evp_cb(c, ticket);
        } else {
            SSL_CTX_set_options(c, SSL_OP_NO_TICKET);
            SSL_CTX_set_session_cache_mode(c, kind ? SSL_SESS_CACHE_SERVER : SSL_SESS_CACHE_OFF);
            SSL_CTX_sess_set_cache_size(c, table_size);
        }
    }
    static void mc_context_client_sessions(SSL_CTX* c, int (*keep)(SSL*, SSL_SESSION*)) {
        SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(c, keep);
    }
    static void mc_context_callbacks(SSL_CTX* c, mc_message_fn message, mc_sni_fn sni, mc_alpn_fn alpn) {
        SSL_CTX_set_msg_callback(c, message);
        if (sni) SSL_CTX_set_tlsext_servername_callback(c, sni);
        if (alpn) SSL_CTX_set_alpn_select_cb(c, alpn, NULL);
    }
    static const char* mc_openssl_error(void) {
        unsigned long code = ERR_peek_error();
        const char* text = ERR_reason_error_string(code);
        return text ? text : "";
    }
    """
    ctypedef int (*SniFn "mc_sni_fn")(SSL*, int*, void*) noexcept nogil
    ctypedef int (*AlpnFn "mc_alpn_fn")(SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int, void*) noexcept nogil
    ctypedef int (*TicketFn "mc_ticket_fn")(SSL*, unsigned char*, unsigned char*, EVP_CIPHER_CTX*, EVP_MAC_CTX*, int) noexcept nogil
    ctypedef void (*MessageFn "mc_message_fn")(int, int, int, const void*, size_t, SSL*, void*) noexcept nogil
    SSL_CTX* context_new "mc_context_new"(int is_server, int only_13)
    int context_use_chain "mc_context_use_chain"(SSL_CTX* context, const char* pem, int n)
    int context_use_key "mc_context_use_key"(SSL_CTX* context, const char* pem, int n)
    int context_trust "mc_context_trust"(SSL_CTX* context, const char* roots, int roots_n, const char* crl, int crl_n, int tell_names)
    void context_verify "mc_context_verify"(SSL_CTX* context, int required, void* verify)
    void context_server_sessions "mc_context_server_sessions"(SSL_CTX* context, int kind, long table_size, long lifetime_s, TicketFn ticket)
    void context_client_sessions "mc_context_client_sessions"(SSL_CTX* context, void* keep)
    void context_callbacks "mc_context_callbacks"(SSL_CTX* context, MessageFn message, SniFn sni, AlpnFn alpn)
    const char* openssl_error "mc_openssl_error"()
    void ERR_clear_error()
    X509* SSL_CTX_get0_certificate(const SSL_CTX* context)
    int SSL_CTX_set_session_id_context(SSL_CTX* context, const unsigned char* at, unsigned int n)
    int SSL_CTX_set_alpn_protos(SSL_CTX* context, const unsigned char* at, unsigned int n)
    const char* OpenSSL_version(int kind)

_RESUMPTION = {"off": 0, "tickets": 1, "stateful": 2}
_CLIENT_AUTH = {"off": 0, "optional": 1, "required": 2}


class TlsError(ValueError):
    """Certificates, keys or a bundle that cannot be used: says which, and why."""


cdef int _seal_ticket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
                      int sealing) noexcept nogil:
    cdef int code = ticket_seal((<Peer*>SSL_get_app_data(ssl)).rules.tickets, name, iv, cipher, mac, sealing)
    # RFC 8446 C.4: a client uses a ticket once. Without a new one each time it could resume only every other connection.
    return 2 if code == 1 and not sealing and SSL_version(ssl) == TLS1_3_VERSION else code


cdef class TlsContext:
    """What one listener or cluster does its handshakes with. Immutable; replaced, never changed."""
    cdef SSL_CTX* context
    cdef readonly bytes trust           # digest of what the trust in a peer rests on
    cdef readonly str digest            # of everything it was made from: the same makes the same
    cdef TicketKeys* tickets

    def __cinit__(self):
        self.context = NULL
        self.tickets = NULL

    def __dealloc__(self):
        SSL_CTX_free(self.context)
        ticket_keys_release(self.tickets)

    def __repr__(self) -> str:
        return f"<TlsContext {self.digest[:12]}>"


def tls_server(dict plan not None, TlsContext before=None) -> TlsContext:
    """A listener's context. `before`: the one it replaces, whose ticket keys go on. Raises TlsError.

    plan: certificates [(chain PEM, key PEM)], only_13, client_auth, roots and crl (PEM or None), peers, alpn, resumption,
    ticket_period_s, sessions, lifetime_s, tells_certificate, digest.
    """
    cdef TlsContext out = TlsContext()
    cdef TlsRules* rules = _rules_new(plan, 1)
    cdef SSL_CTX* context = NULL
    cdef int client_auth = _CLIENT_AUTH[plan["client_auth"]]
    cdef int kind = _RESUMPTION[plan["resumption"]]
    cdef bytes trust
    cdef list names = []
    try:
        trust = _trust_of(plan)
        rules.client_auth = client_auth
        rules.tells_certificate = plan["tells_certificate"]
        if before is not None and before.tickets != NULL:
            out.tickets = ticket_keys_hold(before.tickets)
        else:
            out.tickets = ticket_keys_new(plan["ticket_period_s"])
        if out.tickets == NULL:
            raise MemoryError
        rules.tickets = ticket_keys_hold(out.tickets)
        rules.trust = int.from_bytes(trust[:8], "little")
        for number, (chain, key) in enumerate(plan["certificates"]):
            context = _context_with(plan, 1, chain, key, f"certificates[{number}]")
            context_server_sessions(context, kind, plan["sessions"], plan["lifetime_s"], _seal_ticket)
            SSL_CTX_set_session_id_context(context, <const unsigned char*>PyBytes_AS_STRING(trust), 32)
            if client_auth:
                _trust(context, plan, client_auth == CLIENT_AUTH_REQUIRED, 1)
            context_callbacks(context, tls_count_control, tls_choose_certificate, tls_choose_protocol)
            names.append((<size_t>context, _dns_names(context)))
            if number == 0:
                out.context = context
            elif not names[number][1]:
                raise TlsError(f"certificates[{number}]: names no DNS name (subjectAltName), so no client can ask for it")
            context = NULL
        _fill_names(rules, names, out.context)
        _attach(out.context, rules)
        rules = NULL
    finally:
        for address, _ in names[1:]:
            SSL_CTX_free(<SSL_CTX*><size_t>address)    # the rules hold their own
        if context != NULL and not (names and <size_t>context == <size_t>names[len(names) - 1][0]):
            SSL_CTX_free(context)
        tls_rules_release(rules)
    out.trust = trust
    out.digest = plan["digest"]
    return out


def tls_client(dict plan not None) -> TlsContext:
    """A cluster's context. Raises TlsError. plan: only_13, certificates (none or one), roots, crl, peers, alpn, server_name, digest."""
    cdef TlsContext out = TlsContext()
    cdef TlsRules* rules = _rules_new(plan, 0)
    cdef bytes name
    try:
        trust = _trust_of(plan)
        rules.trust = int.from_bytes(trust[:8], "little")
        if plan["server_name"]:
            name = plan["server_name"].encode("ascii")
            rules.server_name = _copy(name)
        chain, key = plan["certificates"][0] if plan["certificates"] else (None, None)
        rules.sessions = rules.trust ^ int.from_bytes(_hashlib.sha256(chain or b"").digest()[:8], "little")
        out.context = _context_with(plan, 0, chain, key, "cert")
        _trust(out.context, plan, 1, 0)
        context_client_sessions(out.context, <void*>tls_keep_session)
        context_callbacks(out.context, tls_count_control, NULL, NULL)
        if rules.alpn_len:
            SSL_CTX_set_alpn_protos(out.context, rules.alpn, rules.alpn_len)
        _attach(out.context, rules)
        rules = NULL
    finally:
        tls_rules_release(rules)
    out.trust = trust
    out.digest = plan["digest"]
    return out


def tls_identity_kind(str text not None) -> str | None:
    """What a rule of the configuration means: "id", "trust_domain" or "dns"; None when it is none of them."""
    try:
        kind, _ = _identity_of(text)
    except (ValueError, UnicodeEncodeError):
        return None
    return {IDENTITY_ID: "id", IDENTITY_TRUST_DOMAIN: "trust_domain", IDENTITY_DNS: "dns"}[kind]


def tls_identity_means(str rule not None, bytes name not None, bint is_dns=False) -> bool:
    """Does a rule mean a certificate's URI, or cover its DNS name? For tests of the room `identity`."""
    cdef Identity identity
    cdef bytes text
    kind, text = _identity_of(rule)
    identity.kind = kind
    identity.text = text
    identity.len = <uint32_t>len(text)
    if is_dns:
        return kind == IDENTITY_DNS and identity_dns_covers(name, <uint32_t>len(name), identity.text, identity.len) != 0
    return identity_means_id(&identity, name, <uint32_t>len(name)) != 0


def wipe(bytearray secret not None) -> None:
    """Overwrite a key's octets: Python would leave them in freed memory."""
    OPENSSL_cleanse(<char*>secret, len(secret))


cdef tuple _identity_of(str text):
    cdef bytes raw = text.encode("ascii")
    cdef uint32_t authority
    if raw.startswith(b"dns:"):
        if identity_is_dns(<const char*>raw + 4, <uint32_t>(len(raw) - 4)) and raw[4:5] != b"*":
            return IDENTITY_DNS, raw[4:].lower()
        raise ValueError(text)
    kind = IDENTITY_ID
    if raw.endswith(b"/*"):
        kind = IDENTITY_TRUST_DOMAIN
        raw = raw[:len(raw) - 2]
    authority = identity_authority(raw, <uint32_t>len(raw))
    if authority == 0 or (kind == IDENTITY_TRUST_DOMAIN) != (authority == len(raw)):
        raise ValueError(text)
    return kind, raw[:authority].lower() + raw[authority:]


cdef char* _copy(bytes text) except NULL:
    cdef char* out = <char*>malloc(len(text) + 1)
    if out == NULL:
        raise MemoryError
    memcpy(out, PyBytes_AS_STRING(text), len(text) + 1)
    return out


cdef TlsRules* _rules_new(dict plan, bint is_server) except NULL:
    cdef TlsRules* rules = <TlsRules*>calloc(1, sizeof(TlsRules))
    cdef bytes wire = b"".join(bytes([len(name)]) + name.encode("ascii") for name in plan["alpn"])
    cdef bytes text
    if rules == NULL:
        raise MemoryError
    try:
        rules.is_server = is_server
        rules.alpn = <uint8_t*>_copy(wire)
        rules.alpn_len = <uint32_t>len(wire)
        rules.peers = <Identity*>calloc(len(plan["peers"]) + 1, sizeof(Identity))
        if rules.peers == NULL:
            raise MemoryError
        for rule in plan["peers"]:
            kind, text = _identity_of(rule)
            rules.peers[rules.n_peers].kind = kind
            rules.peers[rules.n_peers].text = _copy(text)
            rules.peers[rules.n_peers].len = <uint32_t>len(text)
            rules.n_peers += 1
    except BaseException:
        tls_rules_release(rules)
        raise
    return rules


cdef bytes _trust_of(dict plan):
    # A session is good only under the very rules it was made under.
    cdef object digest = _hashlib.sha256()
    for part in (plan["roots"] or b"", plan["crl"] or b"", repr((plan["peers"], plan.get("client_auth"),
                 plan.get("server_name"), plan["only_13"])).encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


cdef SSL_CTX* _context_with(dict plan, bint is_server, chain, key, str where) except NULL:
    cdef SSL_CTX* context = context_new(is_server, plan["only_13"])
    cdef const char* at
    cdef int code = 1
    if context == NULL:
        raise TlsError(f"OpenSSL makes no context: {_why()}")
    try:
        if chain is not None:
            ERR_clear_error()
            at = <const char*>(<bytes>chain)
            code = context_use_chain(context, at, <int>len(chain))
            if code != 1:
                raise TlsError(f"{where}: cert holds no usable PEM certificate chain{_why()}")
            ERR_clear_error()
            at = <const char*>(<bytearray>key)
            code = context_use_key(context, at, <int>len(key))
            if code == 0:
                raise TlsError(f"{where}: key holds no readable PEM private key (one without passphrase)")
            if code != 1:
                raise TlsError(f"{where}: key is not the one of cert{_why()}")
    except BaseException:
        SSL_CTX_free(context)
        raise
    finally:
        ERR_clear_error()
    return context


cdef str _why():
    text = openssl_error().decode("latin-1")
    return f": {text}" if text else ""


cdef int _trust(SSL_CTX* context, dict plan, bint required, bint tell_names) except -1:
    cdef bytes roots = plan["roots"]
    cdef bytes crl = plan["crl"]
    cdef int code
    ERR_clear_error()
    code = context_trust(context, NULL if roots is None else PyBytes_AS_STRING(roots), <int>len(roots or b""),
                         NULL if crl is None else PyBytes_AS_STRING(crl), <int>len(crl or b""), tell_names)
    ERR_clear_error()
    if code == 0:
        raise TlsError("the bundle holds no usable PEM certificate" if roots is not None
                       else "this system has no trusted roots: name a bundle")
    if code < 0:
        raise TlsError("crl holds no usable PEM revocation list")
    context_verify(context, required, <void*>certificate_verify)
    return 0


cdef list _dns_names(SSL_CTX* context):
    cdef GENERAL_NAMES* names = x509_names(SSL_CTX_get0_certificate(context))
    cdef const char* at
    cdef uint32_t n = 0
    cdef int i
    out = []
    for i in range(x509_name_count(names)):
        at = x509_name(names, i, GEN_DNS, &n)
        if at != NULL and identity_is_dns(at, n):
            out.append(at[:n].lower())
    GENERAL_NAMES_free(names)
    return out


cdef int _fill_names(TlsRules* rules, list contexts, SSL_CTX* first) except -1:
    # The first context holds the rules: a name of its own must not hold it in turn.
    cdef SSL_CTX* context
    cdef TlsName* name
    cdef uint32_t total = sum(len(names) for _, names in contexts)
    rules.names = <TlsName*>calloc(total + 1, sizeof(TlsName))
    if rules.names == NULL:
        raise MemoryError
    for address, names in contexts:
        context = <SSL_CTX*><size_t>address
        for text in names:
            name = &rules.names[rules.n_names]
            name.text = _copy(text)
            name.len = <uint32_t>len(text)
            if context != first:
                SSL_CTX_up_ref(context)
                name.context = context
            rules.n_names += 1
    return 0


cdef int _attach(SSL_CTX* context, TlsRules* rules) except -1:
    if not SSL_CTX_set_ex_data(context, rules_index(<void*>tls_rules_freed), rules):
        raise MemoryError
    return 0
