/* TLS 1.3 under both ends of the load instrument: contexts, handshakes, records, sessions. Reads no message.

   One cipher suite and one group for everybody, so that no proxy is measured with a cheaper one. What a row
   claims is checked here for each connection: version (nothing but 1.3 is offered), ALPN, the certificate of
   the proxy, that ours was asked for, and that a session was or was not resumed. */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <openssl/err.h>

#include "conn.h"

#define TLS_ALPN "\x08http/1.1"
#define TLS_SERVER_NAME "proxy.test"

static SSL_CTX *client_tls, *backend_tls;
static uint64_t handshakes, resumed;

static ssize_t tls_result(Conn *conn, int n) {
  if (n > 0) return n;
  switch (SSL_get_error(conn->ssl, n)) {
  case SSL_ERROR_WANT_READ:
  case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
  case SSL_ERROR_ZERO_RETURN: return 0;
  case SSL_ERROR_SYSCALL: if (errno && errno != EAGAIN) return -1; /* fall through */
  default: errno = EPROTO; return -1;
  }
}

static ssize_t conn_recv(Conn *conn, char *data, size_t len) {
  if (!conn->ssl) return recv(conn->fd, data, len, 0);
  ERR_clear_error();
  return tls_result(conn, SSL_read(conn->ssl, data, (int)len));
}

static ssize_t conn_send(Conn *conn, const char *data, size_t len) {
  if (!conn->ssl) return send(conn->fd, data, len, MSG_NOSIGNAL);
  ERR_clear_error();
  ssize_t n = tls_result(conn, SSL_write(conn->ssl, data, (int)len));
  if (n == 0) errno = EPIPE;
  return n ? n : -1;
}

/* A shutdown, or the session would count as broken and could not be resumed. */
static void conn_close(Conn *conn) {
  if (conn->ssl) {
    SSL_shutdown(conn->ssl);
    SSL_free(conn->ssl);
    conn->ssl = NULL;
    ERR_clear_error();
  }
  close(conn->fd);
  conn->fd = -1;
}

static void tls_begin(Conn *conn) {
  int is_client = conn->role == CLIENT;
  if (!(is_client ? client_tls : backend_tls)) return;
  conn->ssl = SSL_new(is_client ? client_tls : backend_tls);
  conn->is_asked = 0;
  SSL_set_fd(conn->ssl, conn->fd);
  SSL_set_app_data(conn->ssl, conn);
  if (!is_client) {
    SSL_set_accept_state(conn->ssl);
    return;
  }
  SSL_set_tlsext_host_name(conn->ssl, TLS_SERVER_NAME);
  SSL_set1_host(conn->ssl, TLS_SERVER_NAME);
  if (options.resumes && conn->session) SSL_set_session(conn->ssl, conn->session);
  SSL_set_connect_state(conn->ssl);
}

/* What must be true of a client's connection that is about to carry requests. */
static void tls_check(Conn *conn) {
  const unsigned char *alpn;
  unsigned alpn_len;
  int is_resumed = SSL_session_reused(conn->ssl);
  handshakes++, resumed += (uint64_t)is_resumed;
  SSL_get0_alpn_selected(conn->ssl, &alpn, &alpn_len);
  if (alpn_len != 8 || memcmp(alpn, "http/1.1", 8)) note_error("tls: http/1.1 was not agreed on", (int)alpn_len);
  if (SSL_version(conn->ssl) != TLS1_3_VERSION) note_error("tls: version", SSL_version(conn->ssl));
  if (options.tls_cert && !is_resumed && !conn->is_asked) note_error("tls: our certificate was not asked for", 0);
  if (is_resumed && !options.resumes) note_error("tls: resumed a session unasked", 0);
  if (options.resumes && conn->has_shaken && !is_resumed)
    note_error(conn->session ? "tls: the session was not resumed" : "tls: there was no session to resume", 0);
  conn->has_shaken = 1;
}

/* Returns 1 when bytes can be exchanged, 0 when the other side is awaited, -1 on failure. */
static int tls_shake(Conn *conn) {
  if (!conn->ssl || SSL_is_init_finished(conn->ssl)) return 1;
  ERR_clear_error();
  int n = SSL_do_handshake(conn->ssl);
  if (n == 1) {
    if (conn->role == CLIENT) tls_check(conn);
    return 1;
  }
  return tls_result(conn, n) < 0 && errno == EAGAIN ? 0 : -1;
}

static int tls_keep_session(SSL *ssl, SSL_SESSION *session) {
  Conn *conn = SSL_get_app_data(ssl);
  SSL_SESSION_free(conn->session);
  conn->session = session;
  return 1;
}

static int tls_on_asked(SSL *ssl, void *unused) {
  (void)unused;
  ((Conn *)SSL_get_app_data(ssl))->is_asked = 1;
  return 1;
}

static int tls_choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                           unsigned offered_len, void *unused) {
  (void)ssl, (void)unused;
  return SSL_select_next_proto((unsigned char **)out, out_len, (const unsigned char *)TLS_ALPN, sizeof TLS_ALPN - 1,
                               offered, offered_len) == OPENSSL_NPN_NEGOTIATED
      ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *tls_context(const SSL_METHOD *method, const char *cert, const char *key, int verify) {
  SSL_CTX *context = SSL_CTX_new(method);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_verify(context, verify, NULL);
  if (!SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
      !SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") || !SSL_CTX_set1_groups_list(context, "X25519") ||
      !SSL_CTX_load_verify_locations(context, options.tls_ca, NULL) ||
      (cert && (SSL_CTX_use_certificate_chain_file(context, cert) != 1 ||
                SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)))
    ERR_print_errors_fp(stderr), exit(1);
  return context;
}

static void tls_open(void) {
  if (!options.tls_ca) return;
  client_tls = tls_context(TLS_client_method(), options.tls_cert, options.tls_key, SSL_VERIFY_PEER);
  SSL_CTX_set_alpn_protos(client_tls, (const unsigned char *)TLS_ALPN, sizeof TLS_ALPN - 1);
  if (options.tls_cert) SSL_CTX_set_cert_cb(client_tls, tls_on_asked, NULL);
  if (options.resumes) {
    SSL_CTX_set_session_cache_mode(client_tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(client_tls, tls_keep_session);
  }
  if (!options.backend_cert) return;
  backend_tls = tls_context(TLS_server_method(), options.backend_cert, options.backend_key,
                            SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
  SSL_CTX_set_alpn_select_cb(backend_tls, tls_choose_alpn, NULL);
  SSL_CTX_set_session_id_context(backend_tls, (const unsigned char *)"bench", 5);
}

#endif
