# System calls and atomics, as thin as they go. Owns no state; knows nothing of connections.
#
# recv and send go through syscall(): glibc's wrappers are cancellation points and cost about 2 % of a proxied
# request in a process with threads. Every call returns the kernel's answer, or the negated errno, so that no verb
# above has to look at the thread-local errno.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int64_t

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <arpa/inet.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/uio.h>
    #include <sys/un.h>
    #include <time.h>
    #include <unistd.h>

    static inline long mc_result(long r) { return r >= 0 ? r : -(long)errno; }
    static inline long mc_recv(int fd, void* at, size_t n, int flags) {
        return mc_result(syscall(SYS_recvfrom, fd, at, n, flags, NULL, NULL));
    }
    static inline long mc_send(int fd, const void* at, size_t n, int flags) {
        return mc_result(syscall(SYS_sendto, fd, at, n, flags | MSG_NOSIGNAL, NULL, 0));
    }
    static inline long mc_send2(int fd, const void* a, size_t an, const void* b, size_t bn) {
        struct iovec parts[2] = {{(void*)a, an}, {(void*)b, bn}};
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        return mc_result(syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL));
    }
    static inline long mc_splice(int from_fd, int to_fd, size_t n) {
        return mc_result(syscall(SYS_splice, from_fd, NULL, to_fd, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
    }
    static inline int mc_pipe(int* fds, int size_bytes) {
        if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) return -errno;
        (void)fcntl(fds[0], F_SETPIPE_SZ, size_bytes);   /* refused above the user's quota: 64 KiB then, still right */
        return 0;
    }
    static inline uint64_t mc_now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    static inline uint64_t mc_wall_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    static inline int mc_accept(int fd, struct sockaddr_storage* peer) {
        socklen_t n = sizeof *peer;
        return (int)mc_result(accept4(fd, (struct sockaddr*)peer, &n, SOCK_NONBLOCK | SOCK_CLOEXEC));
    }
    static inline int mc_is_loopback(const void* address) {
        const struct sockaddr* a = (const struct sockaddr*)address;
        if (a->sa_family == AF_INET)
            return (ntohl(((const struct sockaddr_in*)a)->sin_addr.s_addr) >> 24) == 127;
        if (a->sa_family == AF_INET6)
            return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6*)a)->sin6_addr);
        return 0;
    }
    /* Loopback has no path to probe: congestion control that paces (bbr) halves its bulk throughput, and all but the
       plainest cost 2 % of a small request. reno is built into every kernel. */
    static inline void mc_tune_loopback(int fd) { setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4); }
    /* What is accepted from a listener on a loopback address inherits it: 1. */
    static inline int mc_tune_listener(int fd) {
        struct sockaddr_storage own;
        socklen_t n = sizeof own;
        if (getsockname(fd, (struct sockaddr*)&own, &n) != 0 || !mc_is_loopback(&own)) return 0;
        mc_tune_loopback(fd);
        return 1;
    }
    /* A socket on its way to `address`: the fd, or the negated errno. Connected at once (Unix sockets) is no special
       case: the first writability event says so. */
    static inline int mc_connect(const void* address, unsigned len) {
        int family = ((const struct sockaddr*)address)->sa_family, one = 1, r;
        int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) return -errno;
        if (family != AF_UNIX) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (mc_is_loopback(address)) mc_tune_loopback(fd);
        }
        r = connect(fd, (const struct sockaddr*)address, len);
        if (r < 0 && errno != EINPROGRESS) { r = -errno; close(fd); return r; }
        return fd;
    }
    /* Whether an error of connect() tells of the other end, and not of what is short here. */
    static inline int mc_is_unreachable(int error) {
        return error == ECONNREFUSED || error == ENOENT || error == EHOSTUNREACH || error == ENETUNREACH
            || error == EHOSTDOWN || error == ECONNRESET;
    }
    static inline int mc_socket_error(int fd) {
        int error = 0; socklen_t n = sizeof error;
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) < 0 ? errno : error;
    }
    static inline void mc_reset_on_close(int fd) {
        struct linger hard = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    static inline int mc_epoll_add(int epoll_fd, int fd, uint32_t events, uint64_t token) {
        struct epoll_event event;
        event.events = events;
        event.data.u64 = token;
        return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
    }
    static inline void mc_epoll_del(int epoll_fd, int fd) { epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL); }
    static inline void mc_notify(int event_fd) {
        uint64_t one = 1;
        ssize_t ignored = write(event_fd, &one, 8);      /* full counter: the reader is awake already */
        (void)ignored;
    }
    static inline void mc_drain_notify(int event_fd) {
        uint64_t value;
        ssize_t ignored = read(event_fd, &value, 8);
        (void)ignored;
    }
    /* "1.2.3.4" into `out` (16 bytes), its length; 0 when not IPv4 (or not IPv4-mapped). */
    static inline unsigned mc_ipv4_text(const struct sockaddr_storage* peer, char* out) {
        const unsigned char* b;
        unsigned n = 0, i, v;
        if (peer->ss_family == AF_INET) b = (const unsigned char*)&((const struct sockaddr_in*)peer)->sin_addr;
        else if (peer->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6*)peer)->sin6_addr))
            b = (const unsigned char*)&((const struct sockaddr_in6*)peer)->sin6_addr + 12;
        else return 0;
        for (i = 0; i < 4; i++) {
            v = b[i];
            if (v >= 100) { out[n++] = (char)('0' + v / 100); v %= 100; out[n++] = (char)('0' + v / 10); v %= 10; }
            else if (v >= 10) { out[n++] = (char)('0' + v / 10); v %= 10; }
            out[n++] = (char)('0' + v);
            if (i < 3) out[n++] = '.';
        }
        return n;
    }
    static inline unsigned mc_ipv6_text(const unsigned char* address, char* out) {
        return inet_ntop(AF_INET6, address, out, 46) ? (unsigned)strlen(out) : 0;
    }
    /* 16 octets, IPv4 (mapped, too) in the first four, and the port. */
    static inline void mc_peer_raw(const struct sockaddr_storage* peer, unsigned char* address, uint16_t* port) {
        const struct sockaddr_in6* six = (const struct sockaddr_in6*)peer;
        memset(address, 0, 16);
        *port = 0;
        if (peer->ss_family == AF_INET6) {
            if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) memcpy(address, (const char*)&six->sin6_addr + 12, 4);
            else memcpy(address, &six->sin6_addr, 16);
            *port = ntohs(six->sin6_port);
        } else if (peer->ss_family == AF_INET) {
            memcpy(address, &((const struct sockaddr_in*)peer)->sin_addr, 4);
            *port = ntohs(((const struct sockaddr_in*)peer)->sin_port);
        }
    }
    static inline void mc_make_address(int family, const unsigned char* address, uint16_t port,
                                       struct sockaddr_storage* out) {
        memset(out, 0, sizeof *out);
        out->ss_family = (sa_family_t)family;
        if (family == AF_INET) {
            memcpy(&((struct sockaddr_in*)out)->sin_addr, address, 4);
            ((struct sockaddr_in*)out)->sin_port = htons(port);
        } else {
            memcpy(&((struct sockaddr_in6*)out)->sin6_addr, address, 16);
            ((struct sockaddr_in6*)out)->sin6_port = htons(port);
        }
    }
    static inline int mc_own_address(int fd, struct sockaddr_storage* out) {
        socklen_t n = sizeof *out;
        return getsockname(fd, (struct sockaddr*)out, &n) == 0;
    }
    /* Where netfilter's REDIRECT took this connection from: 1; 0 when it took it from nowhere. */
    static inline int mc_redirected_from(int fd, struct sockaddr_storage* out) {
        socklen_t n = sizeof *out;
        if (getsockname(fd, (struct sockaddr*)out, &n) != 0) return 0;
        n = sizeof *out;                                 /* 80: SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST */
        return getsockopt(fd, out->ss_family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP, 80, out, &n) == 0;
    }
    /* Is it an address of this machine (or namespace)? Only those can be bound to. */
    static inline int mc_is_own_host(int family, const unsigned char* address) {
        struct sockaddr_storage probe;
        int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), own;
        if (fd < 0) return 0;
        memset(&probe, 0, sizeof probe);
        probe.ss_family = (sa_family_t)family;
        if (family == AF_INET) memcpy(&((struct sockaddr_in*)&probe)->sin_addr, address, 4);
        else memcpy(&((struct sockaddr_in6*)&probe)->sin6_addr, address, 16);
        own = bind(fd, (struct sockaddr*)&probe,
                   family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) == 0;
        close(fd);
        return own;
    }
    static inline unsigned mc_sockaddr_len(int family) {
        return family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    }
    static inline void mc_pause_us(unsigned us) { usleep(us); }
    #define mc_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define mc_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define mc_add(p, v) __atomic_add_fetch((p), (v), __ATOMIC_ACQ_REL)
    #define mc_swap(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
    #define mc_cas(p, expected, v) \\
        __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
    """
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct epoll_event_data "epoll_data":
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_event_data data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLRDHUP
        EPOLLHUP
        EPOLLERR
        EPOLLET
        EPOLL_CLOEXEC
        EFD_NONBLOCK
        EFD_CLOEXEC
        EAGAIN
        EINTR
        ECONNABORTED
        EMFILE
        ENFILE
        ECONNRESET
        EPIPE
        SHUT_WR
        MSG_PEEK
        MSG_MORE
        AF_INET
        AF_INET6
        AF_UNIX
    int epoll_create1(int flags)
    int epoll_wait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms)
    int eventfd(unsigned int initial, int flags)
    int sys_close "close"(int fd)
    int sys_shutdown "shutdown"(int fd, int how)
    int sys_dup "dup"(int fd)
    long sys_recv "mc_recv"(int fd, void* at, size_t n, int flags)
    long sys_send "mc_send"(int fd, const void* at, size_t n, int flags)
    long sys_send2 "mc_send2"(int fd, const void* a, size_t an, const void* b, size_t bn)
    long sys_splice "mc_splice"(int from_fd, int to_fd, size_t n)
    int sys_pipe "mc_pipe"(int* fds, int size_bytes)
    uint64_t sys_now_ns "mc_now_ns"()
    uint64_t sys_wall_ns "mc_wall_ns"()
    int sys_accept "mc_accept"(int fd, sockaddr_storage* peer)
    int sys_is_loopback "mc_is_loopback"(const void* address)
    void sys_tune_loopback "mc_tune_loopback"(int fd)
    int sys_tune_listener "mc_tune_listener"(int fd)
    int sys_connect "mc_connect"(const void* address, unsigned int len)
    int sys_is_unreachable "mc_is_unreachable"(int error)
    int sys_socket_error "mc_socket_error"(int fd)
    void sys_reset_on_close "mc_reset_on_close"(int fd)
    int sys_epoll_add "mc_epoll_add"(int epoll_fd, int fd, uint32_t events, uint64_t token)
    void sys_epoll_del "mc_epoll_del"(int epoll_fd, int fd)
    void sys_notify "mc_notify"(int event_fd)
    void sys_drain_notify "mc_drain_notify"(int event_fd)
    unsigned int sys_ipv4_text "mc_ipv4_text"(const sockaddr_storage* peer, char* out)
    unsigned int sys_ipv6_text "mc_ipv6_text"(const unsigned char* address, char* out)
    void sys_peer_raw "mc_peer_raw"(const sockaddr_storage* peer, unsigned char* address, uint16_t* port)
    void sys_make_address "mc_make_address"(int family, const unsigned char* address, uint16_t port, sockaddr_storage* out)
    int sys_own_address "mc_own_address"(int fd, sockaddr_storage* out)
    int sys_redirected_from "mc_redirected_from"(int fd, sockaddr_storage* out)
    int sys_is_own_host "mc_is_own_host"(int family, const unsigned char* address)
    unsigned int sys_sockaddr_len "mc_sockaddr_len"(int family)
    void sys_pause_us "mc_pause_us"(unsigned int us)
    uint32_t atomic_load_u32 "mc_load"(uint32_t* p)
    uint64_t atomic_load_u64 "mc_load"(uint64_t* p)
    void atomic_store_u32 "mc_store"(uint32_t* p, uint32_t v)
    void atomic_store_u64 "mc_store"(uint64_t* p, uint64_t v)
    uint32_t atomic_add_u32 "mc_add"(uint32_t* p, uint32_t v)
    uint64_t atomic_add_u64 "mc_add"(uint64_t* p, uint64_t v)
    uint32_t atomic_swap_u32 "mc_swap"(uint32_t* p, uint32_t v)
    void* atomic_load_ptr "mc_load"(void** p)
    void* atomic_swap_ptr "mc_swap"(void** p, void* v)
    int atomic_cas_ptr "mc_cas"(void** p, void** expected, void* v)
    bint atomic_cas_u64 "mc_cas"(uint64_t* p, uint64_t* expected, uint64_t v)
