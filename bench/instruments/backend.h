/* The backend inside the load instrument: one prepared answer to every request. */
#ifndef BENCH_BACKEND_H
#define BENCH_BACKEND_H

#include "tls.h"

static char *response;
static uint32_t response_len;

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

static void backend_close(Conn *conn) {
  conn_close(conn);
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
  int is_open = tls_shake(conn);
  if (is_open < 0) note_error("backend: handshake", errno), backend_close(conn);
  if (is_open <= 0) return;
  if (conn->is_sending && (events & EPOLLOUT)) backend_answer(conn);
  while (conn->fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
    ssize_t n = conn_recv(conn, read_buffer, READ_BYTES);
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
    if (n < READ_BYTES && !conn->ssl && !(events & EPOLLRDHUP)) return;
  }
}

static void backend_accept(int listen_fd) {
  for (;;) {
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return;
    Conn *conn = calloc(1, sizeof *conn);
    conn->fd = fd;
    conn->role = BACKEND;
    tls_begin(conn);
    watch(conn);
  }
}

#endif
