/* The client inside the load instrument: connections that send prepared requests and check answers. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "tls.h"

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
  stream->name = options.names ? strstr(stream->request, "NNNNNN") : NULL;
  if (is_browser) end += sprintf(end, "%s", browser_fields);
  if (options.header) end += sprintf(end, "%s\r\n", options.header);
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
  tls_begin(conn);
  watch(conn);
}

static void client_reopen(Conn *conn) {
  conn_close(conn);
  message_release(&conn->message);
  if (errors < MAX_ERRORS) client_open(conn);
}

static void client_fail(Conn *conn, const char *what, int detail) {
  note_error(what, detail);
  if (conn->state == IDLE) {   /* it stands in the ring: found broken when its turn comes */
    conn->is_broken = 1;
    return;
  }
  client_reopen(conn);
}

/* The six N of --host or --path become a number: each request asks for one of so many names. */
static void client_name(Stream *stream) {
  static uint64_t state = 88172645463325252ull;
  if (!stream->name) return;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  uint32_t number = (uint32_t)(state >> 32) % options.names;
  for (int i = 5; i >= 0; i--, number /= 10) stream->name[i] = (char)('0' + number % 10);
}

static void client_start(Conn *conn, uint64_t due_ns) {
  client_name(conn->stream);
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
  if (conn->state == AWAIT_CONNECT && (conn->ssl || (events & EPOLLOUT))) {
    int is_open = tls_shake(conn);
    if (is_open < 0) client_fail(conn, "client: handshake", errno);
    if (is_open <= 0) return;
    if (conn->stream->n_open < conn->stream->n_conns) conn->stream->n_open++;
    if (options.is_idle && options.touches) client_start(conn, now_ns());
    else client_settle(conn);
  } else if (conn->is_sending && (events & EPOLLOUT)) {
    if (send_rest(conn, conn->stream->request, conn->stream->request_len) < 0)
      client_fail(conn, "client: send", errno);
  }
  int fd = conn->fd;
  while ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && conn->fd == fd && !conn->is_broken) {
    ssize_t n = conn_recv(conn, read_buffer, READ_BYTES);
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
    if (n < READ_BYTES && !conn->ssl && !(events & EPOLLRDHUP)) return;
  }
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

#endif
