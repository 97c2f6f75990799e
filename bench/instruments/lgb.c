/* Load generator and backend in ONE thread over one epoll, so that nothing but the proxy under test
   has to be scheduled in between. Knows HTTP only as far as message.h; knows nothing of the proxies.

   closed loop  N connections, each sends its next request when its answer is complete
   paced        requests fall due at a fixed rate whatever the answers do; latency runs from the due
                time, so a stall is charged to every request it delayed (no coordinated omission)
   idle         opens N connections, one request on each if asked, then holds them until stdin ends

   Prints one JSON object. The window that counts begins after the warm-up; the processor time of the
   watched processes is read at both of its ends, here, because a second process would read it late. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

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
} Conn;

/* One kind of request on connections of its own. */
struct Stream {
  char *request;
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
  long response_bytes;
  double seconds, warmup_seconds, rate, background_rate;
  const char *request, *path, *host, *background_path;
  int watched[MAX_WATCHED], n_watched;
} options = {.conns = 64, .post_bytes = 1024, .response_bytes = 560, .seconds = 1, .keep_awake_core = -1,
             .warmup_seconds = 0.2, .request = "small", .path = "/", .host = "127.0.0.1",
             .background_conns = 16};

static int epoll_fd;
static char read_buffer[READ_BYTES];
static char *response;
static uint32_t response_len;
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

/* Returns 1 when everything is out, 0 when the socket is full, -1 on error. */
static int send_rest(Conn *conn, const char *data, uint32_t len) {
  while (conn->out_at < len) {
    ssize_t n = send(conn->fd, data + conn->out_at, len - conn->out_at, MSG_NOSIGNAL);
    if (n < 0) {
      conn->is_sending = 1;
      return errno == EAGAIN || errno == EINPROGRESS || errno == ENOTCONN ? 0 : -1;
    }
    conn->out_at += (uint32_t)n;
  }
  conn->is_sending = 0;
  return 1;
}

/* ---- backend side ---- */

static void backend_close(Conn *conn) {
  close(conn->fd);
  conn->fd = -1;
  message_release(&conn->message);
  if (n_dead < sizeof dead / sizeof *dead) dead[n_dead++] = conn;  /* later events of this batch */
}

static void backend_answer(Conn *conn) {
  int sent = send_rest(conn, response, response_len);
  if (sent < 0 || (sent && conn->message.says_close)) backend_close(conn);
  else if (sent) message_reset(&conn->message, 0);
}

static void backend_on_event(Conn *conn, uint32_t events) {
  if (conn->fd < 0) return;
  if (conn->is_sending && (events & EPOLLOUT)) backend_answer(conn);
  while (conn->fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
    ssize_t n = recv(conn->fd, read_buffer, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      if (!conn->is_sending) backend_close(conn);
      return;
    }
    for (uint32_t at = 0, used; at < (uint32_t)n && conn->fd >= 0; at += used) {
      int verdict = message_feed(&conn->message, read_buffer + at, (uint32_t)n - at, &used);
      if (verdict == MESSAGE_BAD) note_error("backend: unreadable request", 0), backend_close(conn);
      if (verdict != MESSAGE_DONE) break;
      if (conn->message.lacks_required) note_error("backend: request lacks the required text", 0);
      if (conn->is_sending) note_error("backend: request before the answer was out", 0);
      conn->out_at = 0;
      backend_answer(conn);
    }
    if (n < READ_BYTES && !(events & EPOLLRDHUP)) return;
  }
}

static void backend_accept(int listen_fd) {
  for (;;) {
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    Conn *conn = calloc(1, sizeof *conn);
    conn->fd = fd;
    conn->role = BACKEND;
    watch(conn);
  }
}

/* ---- client side ---- */

static void client_settle(Conn *conn);

static void client_open(Conn *conn) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.proxy_port)};
  int yes = 1;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (conn->fd < 0) perror("socket"), exit(1);
  setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  conn->state = AWAIT_CONNECT;
  conn->is_broken = conn->is_sending = 0;
  message_reset(&conn->message, 1);
  if (connect(conn->fd, (void *)&address, sizeof address) && errno != EINPROGRESS)
    note_error("client: connect", errno);
  watch(conn);
}

static void client_reopen(Conn *conn) {
  close(conn->fd);
  message_release(&conn->message);
  if (errors < MAX_ERRORS) client_open(conn);
  else conn->fd = -1;
}

static void client_fail(Conn *conn, const char *what, int detail) {
  note_error(what, detail);
  if (conn->state == IDLE) {   /* it stands in the ring: found broken when its turn comes */
    conn->is_broken = 1;
    return;
  }
  client_reopen(conn);
}

static void client_start(Conn *conn, uint64_t due_ns) {
  conn->due_ns = due_ns;
  conn->out_at = 0;
  conn->state = AWAIT_ANSWER;
  message_reset(&conn->message, 1);
  if (send_rest(conn, conn->stream->request, conn->stream->request_len) < 0)
    client_fail(conn, "client: send", errno);
}

/* A connection without a request: closed loop sends the next one, paced and idle wait their turn. */
static void client_settle(Conn *conn) {
  Stream *stream = conn->stream;
  if (!stream->interval_ns && !options.is_idle) {
    client_start(conn, now_ns());
    return;
  }
  conn->state = IDLE;
  stream->idle[(stream->idle_at + stream->n_idle++) % stream->n_conns] = conn;
}

static void client_finish(Conn *conn) {
  Stream *stream = conn->stream;
  uint64_t end_ns = now_ns();
  if (conn->message.status != 200) note_error("client: status", conn->message.status);
  else if (conn->message.body_bytes != (uint64_t)options.response_bytes)
    note_error("client: body bytes", (int)conn->message.body_bytes);
  last_progress_ns = end_ns;
  stream->total++;
  if (is_measuring && conn->due_ns >= stream->first_due_ns) {
    stream->done++;
    latency_record(&stream->latency, end_ns - conn->due_ns);
  }
  if (options.closes || conn->message.says_close) conn->state = AWAIT_END;
  else client_settle(conn);
}

static void client_on_end(Conn *conn, int error) {
  if (conn->state == AWAIT_END) {
    if (!options.closes) reconnects++;
    client_reopen(conn);
  } else if (conn->state == IDLE) {
    reconnects++;
    conn->is_broken = 1;
  } else if (conn->message.phase == AWAIT_CLOSE && !error) {
    client_finish(conn);
    client_reopen(conn);
  } else {
    client_fail(conn, "client: connection ended inside an answer", error);
  }
}

static void client_on_event(Conn *conn, uint32_t events) {
  if (conn->fd < 0 || conn->is_broken) return;
  if (conn->state == AWAIT_CONNECT && (events & (EPOLLERR | EPOLLHUP)) ) {
    client_fail(conn, "client: connect", 0);
    return;
  }
  if (conn->state == AWAIT_CONNECT && (events & EPOLLOUT)) {
    if (conn->stream->n_open < conn->stream->n_conns) conn->stream->n_open++;
    if (options.is_idle && options.touches) client_start(conn, now_ns());
    else client_settle(conn);
  } else if (conn->is_sending && (events & EPOLLOUT)) {
    if (send_rest(conn, conn->stream->request, conn->stream->request_len) < 0)
      client_fail(conn, "client: send", errno);
  }
  int fd = conn->fd;
  while ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && conn->fd == fd && !conn->is_broken) {
    ssize_t n = recv(fd, read_buffer, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      client_on_end(conn, n < 0 ? errno : 0);
      return;
    }
    uint32_t used = 0;
    int verdict = conn->state == AWAIT_ANSWER
        ? message_feed(&conn->message, read_buffer, (uint32_t)n, &used) : MESSAGE_BAD;
    if (verdict == MESSAGE_BAD || (verdict == MESSAGE_DONE && used < (uint32_t)n)) {
      client_fail(conn, "client: unreadable or unasked bytes", conn->state);
      return;
    }
    if (verdict == MESSAGE_DONE) client_finish(conn);
    if (n < READ_BYTES && !(events & EPOLLRDHUP)) return;
  }
}

/* ---- the run ---- */

static int listen_on(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) perror("listen"), exit(1);
  return fd;
}

static void build_response(void) {
  long body = options.response_bytes;
  char *end = response = malloc((size_t)body + 512);
  end += sprintf(end, "HTTP/1.1 200 OK\r\nServer: lgb\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                      "Content-Type: text/plain\r\n");
  if (options.is_chunked) end += sprintf(end, "Transfer-Encoding: chunked\r\n\r\n%lx\r\n", body);
  else end += sprintf(end, "Content-Length: %ld\r\n\r\n", body);
  memset(end, 'x', (size_t)body);
  end += body;
  if (options.is_chunked) end += sprintf(end, "\r\n0\r\n\r\n");
  response_len = (uint32_t)(end - response);
}

/* Twelve fields as a browser sends them, about 630 bytes with the request line. */
static const char browser_fields[] =
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"
    "Referer: https://www.example.org/catalogue/items?page=2&sort=price\r\n"
    "Cookie: session=7f3a9c51d2e84b06; theme=dark; consent=yes; basket=b-20931; lang=en\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n"
    "Priority: u=0, i\r\n";

static void build_request(Stream *stream, const char *path) {
  int is_post = !strcmp(options.request, "post"), is_browser = !strcmp(options.request, "browser");
  char *end = stream->request = malloc((size_t)options.post_bytes + 2048);
  end += sprintf(end, "%s %s HTTP/1.1\r\nHost: %s:%d\r\n", is_post ? "POST" : "GET", path,
                 options.host, options.proxy_port);
  if (is_browser) end += sprintf(end, "%s", browser_fields);
  if (options.closes) end += sprintf(end, "Connection: close\r\n");
  if (is_post) {
    end += sprintf(end, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n",
                   options.post_bytes);
    memset(end, 'y', (size_t)options.post_bytes);
    end += options.post_bytes;
  } else {
    end += sprintf(end, "\r\n");
  }
  stream->request_len = (uint32_t)(end - stream->request);
}

static void stream_open(Stream *stream, const char *path, int conns, double rate) {
  build_request(stream, path);
  stream->n_conns = (uint32_t)conns;
  stream->interval_ns = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
  stream->conns = calloc((size_t)conns, sizeof(Conn));
  stream->idle = calloc((size_t)conns, sizeof(Conn *));
  for (int i = 0; i < conns; i++) {
    stream->conns[i] = (Conn){.fd = -1, .role = CLIENT, .stream = stream};
    if (!options.is_idle) client_open(&stream->conns[i]);
  }
}

/* Sends what has fallen due, on the connection that has been idle longest. */
static void stream_pace(Stream *stream, uint64_t at_ns) {
  if (!stream->interval_ns || stream->n_open < stream->n_conns) return;
  if (!stream->first_due_ns) stream->first_due_ns = at_ns;
  uint64_t due_ns;
  while (stream->n_idle &&
         (due_ns = stream->first_due_ns + stream->sent * stream->interval_ns) <= at_ns) {
    Conn *conn = stream->idle[stream->idle_at];
    stream->idle_at = (stream->idle_at + 1) % stream->n_conns;
    stream->n_idle--;
    if (conn->is_broken) {
      client_reopen(conn);
      continue;
    }
    stream->sent++;
    client_start(conn, due_ns);
  }
}

static int turn(int timeout_ms) {
  struct epoll_event events[EVENTS_PER_WAIT];
  int n = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, timeout_ms);
  for (int i = 0; i < n; i++) {
    Conn *conn = events[i].data.ptr;
    if (conn->role == CLIENT) client_on_event(conn, events[i].events);
    else if (conn->role == BACKEND) backend_on_event(conn, events[i].events);
    else backend_accept(conn->fd);
  }
  while (n_dead) free(dead[--n_dead]);
  return n;
}

static void stream_begin_window(Stream *stream, uint64_t at_ns) {
  memset(&stream->latency, 0, sizeof stream->latency);
  stream->done = 0;
  /* A paced stream counts what falls due in the window; a closed loop what ends in it. */
  if (!stream->interval_ns) return;
  if (stream->first_due_ns) {
    uint64_t skipped = stream->sent;
    stream->first_due_ns += skipped * stream->interval_ns;
    if (stream->first_due_ns < at_ns) stream->first_due_ns = at_ns;
    stream->sent = 0;
  }
}

static void run_idle(Stream *stream) {
  uint32_t started = 0;
  fcntl(0, F_SETFL, O_NONBLOCK);
  /* 32 at a time, as the number of upstream connections that remain open is part of the figure. */
  while (stream->n_idle < stream->n_conns && errors < MAX_ERRORS) {
    while (started < stream->n_conns && started - stream->n_idle < 32)
      client_open(&stream->conns[started++]);
    if (turn(5000) == 0) {
      note_error("idle: connections do not settle", (int)stream->n_idle);
      break;
    }
  }
  printf("{\"ready\": %u}\n", stream->n_idle);
  fflush(stdout);
  char byte;
  for (;;) {
    ssize_t n = read(0, &byte, 1);
    if (n == 0 || (n < 0 && errno != EAGAIN)) return;
    turn(50);
  }
}

static void report_stream(const char *name, const Stream *stream, double seconds) {
  const Latency *latency = &stream->latency;
  printf("\"%s\": {\"requests\": %llu, \"rps\": %.1f, \"mean_us\": %.2f, \"p50_us\": %.2f, "
         "\"p90_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f}, ",
         name, (unsigned long long)stream->done, (double)stream->done / seconds,
         latency->count ? (double)latency->sum_ns / (double)latency->count / 1e3 : 0.0,
         latency_quantile_us(latency, .5), latency_quantile_us(latency, .9),
         latency_quantile_us(latency, .99), latency_quantile_us(latency, .999),
         (double)latency->max_ns / 1e3);
}

static void run_load(void) {
  uint64_t cpu_ns[MAX_WATCHED] = {0}, watched_total_ns = 0;
  uint64_t begin_ns = now_ns(), window_ns = 0, own_ns = 0;
  uint64_t warm_ns = begin_ns + (uint64_t)(options.warmup_seconds * 1e9), end_ns = UINT64_MAX;
  int wait_ms = options.spins ? 0 : 10;
  Cores cores = {0, 0};
  last_progress_ns = begin_ns;
  while (errors < MAX_ERRORS) {
    turn(wait_ms);
    uint64_t at_ns = now_ns();
    for (int i = 0; i < n_streams; i++) stream_pace(&streams[i], at_ns);
    if (!is_measuring && at_ns >= warm_ns) {
      is_measuring = 1;
      for (int i = 0; i < n_streams; i++) stream_begin_window(&streams[i], at_ns);
      for (int i = 0; i < options.n_watched; i++) cpu_ns[i] = process_cpu_ns(options.watched[i]);
      cores = cores_read();
      own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
      window_ns = now_ns();
      end_ns = window_ns + (uint64_t)(options.seconds * 1e9);
    }
    if (at_ns >= end_ns) break;
    if (at_ns - last_progress_ns > STALL_NS) {
      note_error("no answer for 10 s", 0);
      break;
    }
  }
  double seconds = (double)(now_ns() - window_ns) / 1e9;
  own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
  Cores after = cores_read();
  for (int i = 0; i < options.n_watched; i++)
    watched_total_ns += process_cpu_ns(options.watched[i]) - cpu_ns[i];
  uint64_t done = streams[0].done, total = streams[0].total;
  for (int i = 1; i < n_streams; i++) done += streams[i].done, total += streams[i].total;
  if (!window_ns) seconds = 0;
  printf("{\"seconds\": %.6f, \"total_requests\": %llu, ", seconds, (unsigned long long)total);
  report_stream("main", &streams[0], seconds);
  if (n_streams > 1) report_stream("background", &streams[1], seconds);
  printf("\"requests\": %llu, \"cpu_ns\": %llu, \"cpu_us_per_request\": %.4f, \"own_cpu_ns\": %llu, "
         "\"own_us_per_request\": %.4f, \"busy_seconds\": %.2f, \"steal_seconds\": %.2f, "
         "\"reconnects\": %llu, \"errors\": %llu, \"first_error\": \"%s\"}\n",
         (unsigned long long)done, (unsigned long long)watched_total_ns,
         done ? (double)watched_total_ns / (double)done / 1e3 : 0.0, (unsigned long long)own_ns,
         done ? (double)own_ns / (double)done / 1e3 : 0.0,
         (double)(after.busy_ticks - cores.busy_ticks) / (double)sysconf(_SC_CLK_TCK),
         (double)(after.steal_ticks - cores.steal_ticks) / (double)sysconf(_SC_CLK_TCK),
         (unsigned long long)reconnects, (unsigned long long)errors, first_error);
}

static void read_options(int argc, char **argv) {
  static const struct option names[] = {
      {"proxy-port", 1, 0, 'P'}, {"backend-port", 1, 0, 'B'}, {"conns", 1, 0, 'n'},
      {"seconds", 1, 0, 's'}, {"warmup", 1, 0, 'w'}, {"request", 1, 0, 'r'},
      {"post-bytes", 1, 0, 'p'}, {"response-bytes", 1, 0, 'b'}, {"chunked", 0, 0, 'k'},
      {"close", 0, 0, 'c'}, {"rate", 1, 0, 'R'}, {"path", 1, 0, 'u'}, {"host", 1, 0, 'h'},
      {"require", 1, 0, 'q'}, {"watch", 1, 0, 'W'}, {"keep-awake", 1, 0, 'a'}, {"idle", 0, 0, 'i'},
      {"touch", 0, 0, 't'}, {"background-path", 1, 0, 1}, {"background-rate", 1, 0, 2},
      {"background-conns", 1, 0, 3}, {"spin", 0, 0, 4}, {0, 0, 0, 0}};
  for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
    switch (option) {
    case 'P': options.proxy_port = atoi(optarg); break;
    case 'B': options.backend_port = atoi(optarg); break;
    case 'n': options.conns = atoi(optarg); break;
    case 's': options.seconds = atof(optarg); break;
    case 'w': options.warmup_seconds = atof(optarg); break;
    case 'r': options.request = optarg; break;
    case 'p': options.post_bytes = atoi(optarg); break;
    case 'b': options.response_bytes = atol(optarg); break;
    case 'k': options.is_chunked = 1; break;
    case 'c': options.closes = 1; break;
    case 'R': options.rate = atof(optarg); options.spins = 1; break;
    case 'u': options.path = optarg; break;
    case 'h': options.host = optarg; break;
    case 'q': message_required = optarg; break;
    case 'W': if (options.n_watched < MAX_WATCHED) options.watched[options.n_watched++] = atoi(optarg); break;
    case 'a': options.keep_awake_core = atoi(optarg); break;
    case 'i': options.is_idle = 1; break;
    case 't': options.touches = 1; break;
    case 1: options.background_path = optarg; break;
    case 2: options.background_rate = atof(optarg); break;
    case 3: options.background_conns = atoi(optarg); break;
    case 4: options.spins = 1; break;
    default: exit(2);
    }
  }
}

int main(int argc, char **argv) {
  read_options(argc, argv);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (options.keep_awake_core >= 0) keep_core_awake(options.keep_awake_core);
  epoll_fd = epoll_create1(0);
  build_response();
  Conn listener = {.role = LISTENER};
  if (options.backend_port) {
    listener.fd = listen_on(options.backend_port);
    watch(&listener);
  }
  stream_open(&streams[0], options.path, options.conns, options.rate);
  if (options.is_idle) {
    run_idle(&streams[0]);
    printf("{\"errors\": %llu, \"first_error\": \"%s\"}\n", (unsigned long long)errors, first_error);
    return 0;
  }
  if (options.background_path)
    stream_open(&streams[n_streams++], options.background_path, options.background_conns,
                options.background_rate);
  run_load();
  return 0;
}
