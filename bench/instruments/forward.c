/* The yardstick: a raw TCP forwarder, one thread, edge-triggered epoll, one upstream connection per
   downstream connection. It reads no protocol, so it is the floor of every proxy that moves a request
   with two recv and two send. Made as cheap as we know how: each socket is added to epoll once, a
   short read is not followed by another, a write is tried at once, an idle pair holds no buffer.

   forward LISTEN_PORT UPSTREAM_PORT [BUFFER_KIB=64] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_PER_WAIT 256

typedef struct Pair Pair;

typedef struct {
  int fd;
  uint8_t may_read;            /* the edge was seen and not used up */
  uint8_t has_ended;           /* its end was passed on */
  uint8_t is_upstream;
  uint32_t held_at, held_len;  /* bytes that wait for room in THIS socket */
  char *held;
} Side;

struct Pair {
  Side side[2];
  Pair *next_dead;
  uint8_t is_dead;
};

static int epoll_fd, listen_fd;
static size_t buffer_bytes = 64 * 1024;
static char *buffer;
static struct sockaddr_in upstream_address;
static Pair *dead, *spare;

/* epoll carries the side; its pair is found by position. */
static Pair *pair_of(Side *side) { return (Pair *)(void *)(side - side->is_upstream); }
static Side *other_of(Side *side) { return side->is_upstream ? side - 1 : side + 1; }

static void pair_close(Pair *pair) {
  if (pair->is_dead) return;
  pair->is_dead = 1;
  for (int i = 0; i < 2; i++) {
    close(pair->side[i].fd);
    free(pair->side[i].held);
  }
  pair->next_dead = dead;      /* later events of this batch may still name it */
  dead = pair;
}

static void watch(Side *side) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = side};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, side->fd, &event);
}

static void hold(Side *to, const char *data, size_t len) {
  if (!to->held) to->held = malloc(buffer_bytes);
  memcpy(to->held, data, len);
  to->held_at = 0;
  to->held_len = (uint32_t)len;
}

/* Moves what `from` has to the other side until one of them blocks. */
static void pump(Side *from) {
  Side *to = other_of(from);
  while (from->may_read && !to->held_len) {
    ssize_t n = recv(from->fd, buffer, buffer_bytes, 0);
    if (n < 0) {
      if (errno == EAGAIN) from->may_read = 0;
      else pair_close(pair_of(from));
      return;
    }
    if (n == 0) {
      from->may_read = 0;
      from->has_ended = 1;
      if (to->has_ended) pair_close(pair_of(from));
      else shutdown(to->fd, SHUT_WR);
      return;
    }
    ssize_t sent = send(to->fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) {
      pair_close(pair_of(from));
      return;
    }
    if (sent < n) hold(to, buffer + (sent < 0 ? 0 : sent), (size_t)(n - (sent < 0 ? 0 : sent)));
    if ((size_t)n < buffer_bytes && from->may_read != 2) from->may_read = 0;
  }
}

static void flush_held(Side *to) {
  ssize_t sent = send(to->fd, to->held + to->held_at, to->held_len, MSG_NOSIGNAL);
  if (sent < 0) {
    if (errno != EAGAIN && errno != ENOTCONN) pair_close(pair_of(to));
    return;
  }
  to->held_at += (uint32_t)sent;
  to->held_len -= (uint32_t)sent;
  if (to->held_len) return;
  free(to->held);
  to->held = NULL;
  pump(other_of(to));
}

static void on_event(Side *side, uint32_t events) {
  Pair *pair = pair_of(side);
  if (pair->is_dead) return;
  if (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN)) {
    pair_close(pair);
    return;
  }
  if ((events & EPOLLOUT) && side->held_len) flush_held(side);
  if (pair->is_dead || !(events & (EPOLLIN | EPOLLRDHUP))) return;
  /* 2: the end has come too, so a short read does not mean there is nothing more to read. */
  side->may_read = events & EPOLLRDHUP ? 2 : 1;
  pump(side);
}

static void on_accept(void) {
  for (;;) {
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK), yes = 1;
    if (fd < 0) return;
    int upstream = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (upstream < 0) {
      close(fd);
      continue;
    }
    setsockopt(upstream, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    connect(upstream, (void *)&upstream_address, sizeof upstream_address);
    Pair *pair = spare;
    if (pair) spare = pair->next_dead;
    else pair = malloc(sizeof *pair);
    memset(pair, 0, sizeof *pair);
    pair->side[0].fd = fd;
    pair->side[1].fd = upstream;
    pair->side[1].is_upstream = 1;
    watch(&pair->side[0]);
    watch(&pair->side[1]);
  }
}

int main(int argc, char **argv) {
  int yes = 1;
  struct rlimit files;
  if (argc < 3) return 2;
  if (argc > 3) buffer_bytes = (size_t)atoi(argv[3]) * 1024;
  buffer = malloc(buffer_bytes);
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  upstream_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
  upstream_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct sockaddr_in address = upstream_address;
  address.sin_port = htons((uint16_t)atoi(argv[1]));
  listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  setsockopt(listen_fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (bind(listen_fd, (void *)&address, sizeof address) || listen(listen_fd, 4096)) {
    perror("forward: listen");
    return 1;
  }
  epoll_fd = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS_PER_WAIT];
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
  for (;;) {
    int n = epoll_wait(epoll_fd, events, EVENTS_PER_WAIT, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr) on_event(events[i].data.ptr, events[i].events);
      else on_accept();
    }
    while (dead) {
      Pair *pair = dead;
      dead = pair->next_dead;
      pair->next_dead = spare;
      spare = pair;
    }
  }
}
