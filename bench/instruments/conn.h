/* What both ends of the load instrument share: options, connections, streams of requests, errors.
   Reads no message: see message.h. */
#ifndef BENCH_CONN_H
#define BENCH_CONN_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#include "latency.h"
#include "machine.h"
#include "message.h"

#define MAX_WATCHED 16
#define MAX_STREAMS 2
#define READ_BYTES (256 * 1024)
#define EVENTS_PER_WAIT 256
#define MAX_ERRORS 1000        /* a proxy that refuses everything must not be hammered */
#define STALL_NS 10000000000ull

enum { LISTENER, BACKEND, CLIENT };
enum { AWAIT_CONNECT, IDLE, AWAIT_ANSWER, AWAIT_END };

typedef struct Stream Stream;

typedef struct {
  int fd;
  uint8_t role, state, is_broken;
  uint32_t out_at;             /* bytes of the request or response already sent */
  uint8_t is_sending;
  uint64_t due_ns;
  Stream *stream;
  Message message;
  SSL *ssl;                    /* NULL without TLS */
  SSL_SESSION *session;        /* client: what the last connection left to resume */
  uint8_t is_asked;            /* client: the proxy asked for our certificate */
  uint8_t has_shaken;          /* client: not its first handshake */
} Conn;

/* One kind of request on connections of its own. */
struct Stream {
  char *request, *name;
  uint32_t request_len;
  uint32_t n_conns, n_open;
  uint64_t interval_ns;        /* 0: closed loop */
  uint64_t first_due_ns, sent;
  Conn *conns;
  Conn **idle;                 /* ring of connections without a request, used in turn */
  uint32_t idle_at, n_idle;
  uint64_t done, total;
  Latency latency;
};

static struct {
  int proxy_port, backend_port, conns, post_bytes, is_chunked, closes, is_idle, touches, spins;
  int keep_awake_core, background_conns;
  uint32_t names;
  long response_bytes;
  double seconds, warmup_seconds, rate, background_rate;
  const char *request, *path, *host, *header, *background_path;
  const char *tls_ca, *tls_cert, *tls_key, *backend_cert, *backend_key;
  int resumes;
  int watched[MAX_WATCHED], n_watched;
} options = {.conns = 64, .post_bytes = 1024, .response_bytes = 560, .seconds = 1, .keep_awake_core = -1,
             .warmup_seconds = 0.2, .request = "small", .path = "/", .host = "127.0.0.1",
             .background_conns = 16};

static int epoll_fd;
static char read_buffer[READ_BYTES];
static Stream streams[MAX_STREAMS];
static int n_streams = 1, is_measuring;
static uint64_t errors, reconnects, last_progress_ns;
static char first_error[160];
static Conn *dead[1 << 16];
static uint32_t n_dead;

static void note_error(const char *what, int detail) {
  if (!errors++) snprintf(first_error, sizeof first_error, "%s (%d)", what, detail);
}

static void watch(Conn *conn) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event)) perror("epoll_ctl"), exit(1);
}

/* Like recv() and send(), through TLS where the connection has it: see tls.h. */
static ssize_t conn_recv(Conn *conn, char *data, size_t len);
static ssize_t conn_send(Conn *conn, const char *data, size_t len);

/* Returns 1 when everything is out, 0 when the socket is full, -1 on error. */
static int send_rest(Conn *conn, const char *data, uint32_t len) {
  while (conn->out_at < len) {
    ssize_t n = conn_send(conn, data + conn->out_at, len - conn->out_at);
    if (n < 0) {
      conn->is_sending = 1;
      return errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN ? 0 : -1;
    }
    conn->out_at += (uint32_t)n;
  }
  conn->is_sending = 0;
  return 1;
}

#endif
