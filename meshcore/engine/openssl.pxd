# What this engine calls of OpenSSL 3, and the pipe through which it reads and writes. Owns no policy, knows no socket.
#
# One BIO per worker serves all its connections: who calls SSL_* sets `in_at` to the ciphertext at hand, and finds in `out`
# what OpenSSL wrote. No memory BIO per connection, one send for several records. Single-threaded like its worker.
# Every call that may fail is made with an empty error queue (ERR_clear_error): what stands in it is then about that call.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #include <openssl/bio.h>
    #include <openssl/crypto.h>
    #include <openssl/err.h>
    #include <openssl/evp.h>
    #include <openssl/pem.h>
    #include <openssl/sha.h>
    #include <openssl/ssl.h>
    #include <openssl/x509v3.h>
    #include <string.h>

    typedef struct {
        const char* in_at;               /* ciphertext not yet taken */
        uint32_t in_n;
        uint32_t out_n;
        uint32_t out_room;
        char* out;                       /* ciphertext to be sent */
    } mc_tls_pipe;

    static int mc_pipe_read(BIO* bio, char* at, int n) {
        mc_tls_pipe* pipe = (mc_tls_pipe*)BIO_get_data(bio);
        BIO_clear_retry_flags(bio);
        if (n <= 0) return 0;
        if (pipe->in_n == 0) { BIO_set_retry_read(bio); return -1; }
        if ((uint32_t)n > pipe->in_n) n = (int)pipe->in_n;
        memcpy(at, pipe->in_at, (size_t)n);
        pipe->in_at += n;
        pipe->in_n -= (uint32_t)n;
        return n;
    }
    static int mc_pipe_write(BIO* bio, const char* at, int n) {
        mc_tls_pipe* pipe = (mc_tls_pipe*)BIO_get_data(bio);
        BIO_clear_retry_flags(bio);
        if (n <= 0) return 0;
        if (pipe->out_n == pipe->out_room) { BIO_set_retry_write(bio); return -1; }
        if ((uint32_t)n > pipe->out_room - pipe->out_n) n = (int)(pipe->out_room - pipe->out_n);
        memcpy(pipe->out + pipe->out_n, at, (size_t)n);
        pipe->out_n += (uint32_t)n;
        return n;
    }
    static long mc_pipe_ctrl(BIO* bio, int command, long number, void* pointer) {
        (void)bio; (void)number; (void)pointer;
        return command == BIO_CTRL_FLUSH;
    }
    /* The BIO that reads and writes `pipe`. Called with the GIL: the first call makes the method, kept for good. */
    static BIO* mc_pipe_bio(mc_tls_pipe* pipe) {
        static BIO_METHOD* method;
        BIO* bio;
        if (!method) {
            method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "meshcore");
            if (!method) return NULL;
            BIO_meth_set_read(method, mc_pipe_read);
            BIO_meth_set_write(method, mc_pipe_write);
            BIO_meth_set_ctrl(method, mc_pipe_ctrl);
        }
        bio = BIO_new(method);
        if (bio) { BIO_set_data(bio, pipe); BIO_set_init(bio, 1); }
        return bio;
    }
    /* Where an SSL_CTX keeps its rules. `release` is called when the last holder lets go of it. Called with the GIL. */
    static int mc_rules_index(CRYPTO_EX_free* release) {
        static int index = -1;
        if (index < 0) index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, release);
        return index;
    }
    static int mc_tls_reason(void) { return ERR_GET_REASON(ERR_peek_last_error()); }
    /* The text of a certificate's i-th name of that kind (GEN_URI, GEN_DNS): borrowed; NULL: of another kind. */
    static const char* mc_name_text(const GENERAL_NAMES* names, int i, int kind, uint32_t* len) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
        const ASN1_IA5STRING* text;
        if (name->type != kind) return NULL;
        text = name->d.ia5;
        *len = (uint32_t)ASN1_STRING_length(text);
        return (const char*)ASN1_STRING_get0_data(text);
    }
    static int mc_name_count(const GENERAL_NAMES* names) { return names ? sk_GENERAL_NAME_num(names) : 0; }
    static GENERAL_NAMES* mc_alternative_names(X509* certificate) {
        return (GENERAL_NAMES*)X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    }
    static int mc_key_bits(X509* certificate, int* is_rsa) {
        EVP_PKEY* key = X509_get0_pubkey(certificate);
        *is_rsa = key && (EVP_PKEY_base_id(key) == EVP_PKEY_RSA || EVP_PKEY_base_id(key) == EVP_PKEY_RSA_PSS);
        return key ? EVP_PKEY_bits(key) : 0;
    }
    /* Seconds from now to the end of a certificate; 0 or less: over. */
    static long mc_seconds_left(const X509* certificate) {
        int days = 0, seconds = 0;
        if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate))) return 0;
        return days > 20000 ? 2000000000L : (long)days * 86400 + seconds;
    }
    """
    ctypedef struct TlsPipe "mc_tls_pipe":
        const char* in_at
        uint32_t in_n
        uint32_t out_n
        uint32_t out_room
        char* out
    ctypedef struct BIO:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef struct X509_STACK "STACK_OF(X509)":
        pass
    ctypedef struct GENERAL_NAMES:
        pass
    enum:
        SSL_ERROR_ZERO_RETURN
        SSL_ERROR_WANT_READ
        SSL_ERROR_WANT_WRITE
        SSL_SENT_SHUTDOWN
        SSL_RECEIVED_SHUTDOWN
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_ALERT_FATAL
        SSL_TLSEXT_ERR_NOACK
        OPENSSL_NPN_NEGOTIATED
        SSL3_RT_HANDSHAKE
        SSL3_MT_FINISHED
        GEN_URI
        GEN_DNS
        EXFLAG_CA
        EXFLAG_XKUSAGE
        KU_DIGITAL_SIGNATURE
        KU_KEY_CERT_SIGN
        KU_CRL_SIGN
        XKU_SSL_SERVER
        XKU_SSL_CLIENT
        XKU_ANYEKU
        X509_V_OK
        X509_V_ERR_UNABLE_TO_GET_CRL
        X509_V_ERR_CERT_NOT_YET_VALID
        X509_V_ERR_CERT_HAS_EXPIRED
        X509_V_ERR_CRL_NOT_YET_VALID
        X509_V_ERR_CRL_HAS_EXPIRED
        X509_V_ERR_CRL_SIGNATURE_FAILURE
        X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        X509_V_ERR_CERT_CHAIN_TOO_LONG
        X509_V_ERR_CERT_REVOKED
        X509_V_ERR_INVALID_PURPOSE
        X509_V_ERR_CERT_UNTRUSTED
        X509_V_ERR_EE_KEY_TOO_SMALL
        X509_V_ERR_CA_KEY_TOO_SMALL
        X509_V_ERR_CA_MD_TOO_WEAK
        X509_V_ERR_APPLICATION_VERIFICATION
        X509_V_ERR_OUT_OF_MEM
        SSL_R_HTTP_REQUEST
        SSL_R_HTTPS_PROXY_REQUEST
        SSL_R_WRONG_VERSION_NUMBER
        SSL_R_PACKET_LENGTH_TOO_LONG
        SSL_R_NO_SHARED_CIPHER
        SSL_R_NO_SUITABLE_KEY_SHARE
        SSL_R_NO_SUITABLE_GROUPS
        SSL_R_NO_SHARED_GROUPS
        SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM
        SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS
        SSL_R_UNSUPPORTED_PROTOCOL
        SSL_R_VERSION_TOO_LOW
        SSL_R_NO_APPLICATION_PROTOCOL
        SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE
        SSL_R_NO_PROTOCOLS_AVAILABLE
        SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL "(SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL)"
        SSL_R_ALERT_HANDSHAKE_FAILURE "SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE"
        SSL_R_ALERT_PROTOCOL_VERSION "SSL_R_TLSV1_ALERT_PROTOCOL_VERSION"
        SSL_AD_REASON_OFFSET
    BIO* pipe_bio "mc_pipe_bio"(TlsPipe* pipe)

    int rules_index "mc_rules_index"(void* release)
    int BIO_free(BIO* bio)
    int BIO_up_ref(BIO* bio)
    void ERR_clear_error()
    int openssl_reason "mc_tls_reason"()

    SSL* SSL_new(SSL_CTX* context)
    void SSL_free(SSL* ssl)
    void SSL_set_bio(SSL* ssl, BIO* reader, BIO* writer)
    void SSL_set_accept_state(SSL* ssl)
    void SSL_set_connect_state(SSL* ssl)
    int SSL_do_handshake(SSL* ssl)
    unsigned char* SHA1(const unsigned char* at, size_t n, unsigned char* digest)
    int EVP_EncodeBlock(unsigned char* out, const unsigned char* at, int n)
    int SSL_read(SSL* ssl, void* at, int n)
    int SSL_peek(SSL* ssl, void* at, int n)
    int SSL_write(SSL* ssl, const void* at, int n)
    int SSL_shutdown(SSL* ssl)
    int SSL_get_shutdown(const SSL* ssl)
    void SSL_set_shutdown(SSL* ssl, int mode)
    int SSL_get_error(const SSL* ssl, int code)
    int SSL_pending(const SSL* ssl)
    int SSL_session_reused(const SSL* ssl)
    void SSL_set_app_data(SSL* ssl, void* data)
    void* SSL_get_app_data(const SSL* ssl)
    SSL_CTX* SSL_get_SSL_CTX(const SSL* ssl)
    SSL_CTX* SSL_set_SSL_CTX(SSL* ssl, SSL_CTX* context)
    const char* SSL_get_servername(const SSL* ssl, int kind)
    int SSL_set_tlsext_host_name(SSL* ssl, const char* name)
    int SSL_set_session(SSL* ssl, SSL_SESSION* session)
    SSL_SESSION* SSL_get_session(const SSL* ssl)
    int SSL_version(const SSL* ssl)
    enum:
        TLS1_3_VERSION
    int SSL_set_alpn_protos(SSL* ssl, const unsigned char* at, unsigned int n)
    void SSL_get0_alpn_selected(const SSL* ssl, const unsigned char** at, unsigned int* len)
    X509* SSL_get0_peer_certificate(const SSL* ssl)
    long SSL_get_verify_result(const SSL* ssl)
    int SSL_select_next_proto(unsigned char** out, unsigned char* out_len, const unsigned char* server,
                              unsigned int server_len, const unsigned char* client, unsigned int client_len)
    void SSL_CTX_free(SSL_CTX* context)
    int SSL_CTX_up_ref(SSL_CTX* context)
    void* SSL_CTX_get_ex_data(const SSL_CTX* context, int index)
    int SSL_CTX_set_ex_data(SSL_CTX* context, int index, void* data)
    int SSL_CTX_remove_session(SSL_CTX* context, SSL_SESSION* session)
    void SSL_SESSION_free(SSL_SESSION* session)
    long SSL_SESSION_get_timeout(const SSL_SESSION* session)
    long SSL_SESSION_set_timeout(SSL_SESSION* session, long seconds)
    int SSL_SESSION_is_resumable(const SSL_SESSION* session)
    int SSL_get_ex_data_X509_STORE_CTX_idx()

    int X509_verify_cert(X509_STORE_CTX* context)
    void* X509_STORE_CTX_get_ex_data(const X509_STORE_CTX* context, int index)
    int X509_STORE_CTX_get_error(const X509_STORE_CTX* context)
    void X509_STORE_CTX_set_error(X509_STORE_CTX* context, int error)
    int X509_STORE_CTX_get_error_depth(const X509_STORE_CTX* context)
    X509* X509_STORE_CTX_get0_cert(const X509_STORE_CTX* context)
    X509_STACK* X509_STORE_CTX_get0_untrusted(const X509_STORE_CTX* context)
    X509_STACK* X509_STORE_CTX_get0_chain(const X509_STORE_CTX* context)
    int x509_count "sk_X509_num"(const X509_STACK* stack)
    X509* x509_at "sk_X509_value"(const X509_STACK* stack, int i)
    uint32_t X509_get_extension_flags(X509* certificate)
    uint32_t X509_get_key_usage(X509* certificate)
    uint32_t X509_get_extended_key_usage(X509* certificate)
    int X509_digest(const X509* certificate, const void* digest, unsigned char* out, unsigned int* len)
    const void* EVP_sha256()
    GENERAL_NAMES* x509_names "mc_alternative_names"(X509* certificate)
    void GENERAL_NAMES_free(GENERAL_NAMES* names)
    int x509_name_count "mc_name_count"(const GENERAL_NAMES* names)
    const char* x509_name "mc_name_text"(const GENERAL_NAMES* names, int i, int kind, uint32_t* len)
    int x509_key_bits "mc_key_bits"(X509* certificate, int* is_rsa)
    long x509_seconds_left "mc_seconds_left"(const X509* certificate)
    void OPENSSL_cleanse(void* at, size_t n)
