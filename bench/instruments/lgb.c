/* Load generator and backend in ONE thread over one epoll, so that nothing but the proxy under test
   has to be scheduled in between. Knows HTTP only as far as message.h; knows nothing of the proxies.

   closed loop  N connections, each sends its next request when its answer is complete
   paced        requests fall due at a fixed rate whatever the answers do; latency runs from the due
                time, so a stall is charged to every request it delayed (no coordinated omission)
   idle         opens N connections, one request on each if asked, then holds them until stdin ends

   Prints one JSON object. The window that counts begins after the warm-up; the processor time of the
   watched processes is read at both of its ends, here, because a second process would read it late. */
#define _GNU_SOURCE
#include <signal.h>

#include "backend.h"
#include "client.h"

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
         name, (unsigned long long)stream->done, seconds > 0 ? (double)stream->done / seconds : 0.0,
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
  /* Without a window (nothing but errors) every figure is 0: there is no request to divide by. */
  double seconds = window_ns ? (double)(now_ns() - window_ns) / 1e9 : 0;
  own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - own_ns;
  Cores after = cores_read();
  for (int i = 0; i < options.n_watched; i++)
    watched_total_ns += process_cpu_ns(options.watched[i]) - cpu_ns[i];
  uint64_t done = streams[0].done, total = streams[0].total;
  for (int i = 1; i < n_streams; i++) done += streams[i].done, total += streams[i].total;
  printf("{\"seconds\": %.6f, \"total_requests\": %llu, ", seconds, (unsigned long long)total);
  report_stream("main", &streams[0], seconds);
  if (n_streams > 1) report_stream("background", &streams[1], seconds);
  printf("\"requests\": %llu, \"cpu_ns\": %llu, \"cpu_us_per_request\": %.4f, \"own_cpu_ns\": %llu, "
         "\"own_us_per_request\": %.4f, \"busy_seconds\": %.2f, \"steal_seconds\": %.2f, "
         "\"handshakes\": %llu, \"resumed\": %llu, "
         "\"reconnects\": %llu, \"errors\": %llu, \"first_error\": \"%s\"}\n",
         (unsigned long long)done, (unsigned long long)watched_total_ns,
         done ? (double)watched_total_ns / (double)done / 1e3 : 0.0, (unsigned long long)own_ns,
         done ? (double)own_ns / (double)done / 1e3 : 0.0,
         (double)(after.busy_ticks - cores.busy_ticks) / (double)sysconf(_SC_CLK_TCK),
         (double)(after.steal_ticks - cores.steal_ticks) / (double)sysconf(_SC_CLK_TCK),
         (unsigned long long)handshakes, (unsigned long long)resumed,
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
      {"background-conns", 1, 0, 3}, {"spin", 0, 0, 4}, {"header", 1, 0, 5},
      {"tls-ca", 1, 0, 6}, {"tls-cert", 1, 0, 7}, {"tls-key", 1, 0, 8}, {"resume", 0, 0, 9},
      {"backend-cert", 1, 0, 10}, {"backend-key", 1, 0, 11}, {"names", 1, 0, 12}, {0, 0, 0, 0}};
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
    case 5: options.header = optarg; break;
    case 6: options.tls_ca = optarg; break;
    case 7: options.tls_cert = optarg; break;
    case 8: options.tls_key = optarg; break;
    case 9: options.resumes = 1; break;
    case 10: options.backend_cert = optarg; break;
    case 11: options.backend_key = optarg; break;
    case 12: options.names = (uint32_t)atoi(optarg); break;
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
  tls_open();
  signal(SIGPIPE, SIG_IGN);    /* TLS writes to sockets that the other side has closed */
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
