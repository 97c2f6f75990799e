# Many system calls in one entry into the kernel, by io_uring. Owns one ring; knows neither connections nor bytes.
#
# Used as a vector of ordinary calls: every one is non-blocking, so the kernel makes it, and answers it, before
# uring_run returns; nothing stays in flight, and no buffer has to outlive the call. Entering the kernel is a good part of
# what a short send or recv costs; one entry per wake-up instead of four per request is worth 5 to 10 % of a proxied
# request. Where the kernel, a seccomp profile or sysctl refuses io_uring, uring_open says so, and its user makes the
# calls one by one.
#
# A call by number looks its file up, and takes and gives back a reference; one by place in the ring's own table does not
# (uring_set_file: 2 % of a small request). A file kept there lives until it is forgotten, whatever becomes of its number.

from libc.stdint cimport int32_t, uint32_t

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/resource.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #if defined(__has_include)
    #if __has_include(<linux/io_uring.h>) && defined(SYS_io_uring_setup)
    #include <linux/io_uring.h>
    #define MC_HAS_URING 1
    #endif
    #endif

    typedef struct {
        int fd;                          /* -1: not open */
        uint32_t entries, sq_mask, cq_mask;
        uint32_t files;                  /* places for kept files; 0: none */
        uint32_t *sq_head, *sq_tail, *cq_head, *cq_tail;
        void *sqes, *cqes, *rings;
        size_t rings_bytes, sqes_bytes;
    } mc_uring;

    #ifdef MC_HAS_URING
    /* The flags are those of a 6.1 kernel, in case the headers are older. */
    #define MC_URING_COOP_TASKRUN 0x100u
    #define MC_URING_SINGLE_ISSUER 0x1000u
    #define MC_URING_DEFER_TASKRUN 0x2000u
    /* Told since 6.14. Before 6.13 a file that was forgotten lived on until a worker of the kernel came by. */
    #define MC_URING_FEAT_RW_ATTR 0x10000u

    static void mc_uring_close(mc_uring* u) {
        if (u->fd < 0) return;
        if (u->rings) munmap(u->rings, u->rings_bytes);
        if (u->sqes) munmap(u->sqes, u->sqes_bytes);
        close(u->fd);
        memset(u, 0, sizeof *u);
        u->fd = -1;
    }
    static uint32_t mc_uring_make_places(const mc_uring* u, uint32_t files) {
        struct io_uring_rsrc_register r;
        struct rlimit limit;
        /* No more places than descriptors this process may have: the kernel refuses them. */
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < files) files = (uint32_t)limit.rlim_cur;
        memset(&r, 0, sizeof r);
        r.nr = files;
        r.flags = IORING_RSRC_REGISTER_SPARSE;
        return syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_FILES2, &r, sizeof r) == 0 ? files : 0;
    }
    /* 0, or the negated errno. One thread opens and uses a ring. */
    static int mc_uring_open(mc_uring* u, uint32_t entries, uint32_t files) {
        struct io_uring_params p;
        uint32_t i, *array;
        char* rings;
        size_t cq_bytes;
        int fd, e;
        memset(u, 0, sizeof *u);
        u->fd = -1;
        memset(&p, 0, sizeof p);
        p.flags = MC_URING_COOP_TASKRUN | MC_URING_SINGLE_ISSUER | MC_URING_DEFER_TASKRUN;
        fd = (int)syscall(SYS_io_uring_setup, entries, &p);
        if (fd < 0) return -errno;       /* before 6.1: EINVAL, and no ring: older ones are slower than plain calls */
        u->fd = fd;
        u->entries = p.sq_entries;
        u->sqes_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
        u->rings_bytes = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
        cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
        if (cq_bytes > u->rings_bytes) u->rings_bytes = cq_bytes;
        /* IORING_FEAT_SINGLE_MMAP: both rings in one mapping, since 5.4. */
        rings = (char*)mmap(NULL, u->rings_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
                            IORING_OFF_SQ_RING);
        u->rings = rings == MAP_FAILED ? NULL : rings;
        u->sqes = mmap(NULL, u->sqes_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
        if (u->sqes == MAP_FAILED) u->sqes = NULL;
        if (!u->rings || !u->sqes) {
            e = -errno;
            mc_uring_close(u);
            return e;
        }
        u->sq_head = (uint32_t*)(rings + p.sq_off.head);
        u->sq_tail = (uint32_t*)(rings + p.sq_off.tail);
        u->sq_mask = *(uint32_t*)(rings + p.sq_off.ring_mask);
        u->cq_head = (uint32_t*)(rings + p.cq_off.head);
        u->cq_tail = (uint32_t*)(rings + p.cq_off.tail);
        u->cq_mask = *(uint32_t*)(rings + p.cq_off.ring_mask);
        u->cqes = rings + p.cq_off.cqes;
        array = (uint32_t*)(rings + p.sq_off.array);
        for (i = 0; i < p.sq_entries; i++) array[i] = i;
        if (p.features & MC_URING_FEAT_RW_ATTR) u->files = mc_uring_make_places(u, files);
        return 0;
    }
    static int mc_uring_set_file(mc_uring* u, uint32_t place, int32_t fd) {
        struct io_uring_files_update update;
        memset(&update, 0, sizeof update);
        update.offset = place;
        update.fds = (uint64_t)(uintptr_t)&fd;
        return syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_FILES_UPDATE, &update, 1) == 1;
    }
    static void mc_uring_put(mc_uring* u, uint32_t i, int opcode, int fd, int kept, const void* at, uint32_t n, int flags) {
        struct io_uring_sqe* s = (struct io_uring_sqe*)u->sqes + ((*u->sq_tail + i) & u->sq_mask);
        memset(s, 0, sizeof *s);
        s->opcode = (uint8_t)opcode;
        s->flags = kept ? IOSQE_FIXED_FILE : 0;
        s->fd = fd;
        s->addr = (uint64_t)(uintptr_t)at;
        s->len = n;
        s->msg_flags = (uint32_t)(flags | MSG_DONTWAIT);
        s->user_data = i;
    }
    static void mc_uring_recv(mc_uring* u, uint32_t i, int fd, int kept, void* at, uint32_t n) {
        mc_uring_put(u, i, IORING_OP_RECV, fd, kept, at, n, 0);
    }
    static void mc_uring_send(mc_uring* u, uint32_t i, int fd, int kept, const void* at, uint32_t n) {
        mc_uring_put(u, i, IORING_OP_SEND, fd, kept, at, n, MSG_NOSIGNAL);
    }
    static uint32_t mc_uring_run(mc_uring* u, uint32_t n, int32_t* results) {
        uint32_t base = *u->sq_tail, made = 0, answered = 0, head, i;
        const struct io_uring_cqe* c;
        long r;
        for (i = 0; i < n; i++) results[i] = -ECANCELED;
        __atomic_store_n(u->sq_tail, base + n, __ATOMIC_RELEASE);
        while (made < n) {
            r = syscall(SYS_io_uring_enter, u->fd, n - made, 0, 0, NULL, 0);
            if (r < 0 && errno == EINTR) continue;
            if (r <= 0) break;           /* no memory for a request */
            made += (uint32_t)r;
        }
        if (made < n) __atomic_store_n(u->sq_tail, base + made, __ATOMIC_RELEASE);
        for (;;) {
            head = *u->cq_head;
            while (head != __atomic_load_n(u->cq_tail, __ATOMIC_ACQUIRE)) {
                c = (const struct io_uring_cqe*)u->cqes + (head++ & u->cq_mask);
                results[c->user_data] = c->res;
                answered++;
            }
            __atomic_store_n(u->cq_head, head, __ATOMIC_RELEASE);
            if (answered >= made) return made;
            /* Not seen to happen: a non-blocking call is answered as it is made. */
            r = syscall(SYS_io_uring_enter, u->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
            if (r < 0 && errno != EINTR) return made;
        }
    }
    #else
    static int mc_uring_open(mc_uring* u, uint32_t entries, uint32_t files) {
        (void)entries; (void)files;
        memset(u, 0, sizeof *u);
        u->fd = -1;
        return -ENOSYS;
    }
    static void mc_uring_close(mc_uring* u) { (void)u; }
    static int mc_uring_set_file(mc_uring* u, uint32_t place, int32_t fd) {
        (void)u; (void)place; (void)fd;
        return 0;
    }
    static void mc_uring_recv(mc_uring* u, uint32_t i, int fd, int kept, void* at, uint32_t n) {
        (void)u; (void)i; (void)fd; (void)kept; (void)at; (void)n;
    }
    static void mc_uring_send(mc_uring* u, uint32_t i, int fd, int kept, const void* at, uint32_t n) {
        (void)u; (void)i; (void)fd; (void)kept; (void)at; (void)n;
    }
    static uint32_t mc_uring_run(mc_uring* u, uint32_t n, int32_t* results) {
        (void)u; (void)n; (void)results;
        return 0;
    }
    #endif
    """
    ctypedef struct Uring "mc_uring":
        int fd
        uint32_t entries
        uint32_t files
    # 0, or the negated errno. The thread that opens a ring is the one that uses it. `files`: places wanted for kept files;
    # the ring says how many there are, 0 when the kernel (before 6.14) gives none; no more than RLIMIT_NOFILE.
    int uring_open "mc_uring_open"(Uring* ring, uint32_t entries, uint32_t files)
    void uring_close "mc_uring_close"(Uring* ring)
    # Keep this file at a place below `files`: 1, or 0 when the kernel will not. -1 forgets the one kept there, which must be
    # done before its close: until then it stays open.
    int uring_set_file "mc_uring_set_file"(Uring* ring, uint32_t place, int32_t fd)
    # Prepare call i (0, 1, ... below `entries`) of the next uring_run. `fd`: a number, or the place of a kept file.
    void uring_recv "mc_uring_recv"(Uring* ring, uint32_t i, int fd, int is_kept, void* at, uint32_t n)
    void uring_send "mc_uring_send"(Uring* ring, uint32_t i, int fd, int is_kept, const void* at, uint32_t n)
    # Make the n calls prepared. results[i]: what call i returned, or its negated errno. Returns how many were made, in
    # order: the rest (the kernel had no memory for them) are the caller's to make one by one.
    uint32_t uring_run "mc_uring_run"(Uring* ring, uint32_t n, int32_t* results)
