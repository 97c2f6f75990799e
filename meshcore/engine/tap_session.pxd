# One tap session: what it asks for, and how many exchanges a second it may see. Owns its shape, shared by all workers;
# which exchange it matches is `tap`'s business.

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from meshcore.engine.sys cimport atomic_add_u64, atomic_load_u64, atomic_store_u64, atomic_swap_u32

cdef enum:
    MAX_TAPS = 8                        # sessions at a time: one bit each in Exchange.tap_mask


cdef struct TapSession:
    uint32_t id
    uint8_t method                      # 0 any, else Method + 1
    uint8_t scheme                      # 0 any, 1 http, 2 https, 3 tcp
    int32_t route_slot                  # -1 any
    int32_t cluster_slot
    uint16_t authority_len
    uint16_t path_len
    uint16_t dst_len
    uint16_t src_len
    uint16_t peer_len
    char authority[256]
    char path[256]
    char dst[64]                        # "ip:port" of the endpoint
    char src[64]                        # client address, without port
    char peer[256]                      # of the identity that the client has proved: somewhere in it,
    uint8_t peer_is_end                 # ... or its end
    uint8_t wants_outcome               # one of the next four: nothing is shown before it is known
    uint16_t status_low                 # 0: any
    uint16_t status_high
    uint64_t min_latency_ns
    int16_t reason                      # -1: any
    uint8_t* labels                     # by number of an endpoint's labels: a TapLabels; NULL: any
    uint32_t n_labels
    uint8_t wants_fields                # of both heads
    uint32_t body_bytes                 # of each body; 0: none
    uint32_t max_rps_milli              # 0 = no limit
    uint64_t window_second              # shared by all workers: the second that `window_count` counts
    uint64_t window_count
    uint64_t matched
    uint64_t suppressed                 # matched, over max_rps
    uint32_t is_awaited                 # its reader has seen all there was, and waits for the bell
    int bell_fd                         # an eventfd, the reader's; -1: nobody ever waits


cdef inline int tap_session_wakes(TapSession* session) noexcept nogil:
    """Is there somebody to wake for a record that was just published? The first who asks is told so, once."""
    # A swap where a load would do nearly: it also keeps the look behind the publishing, as the reader keeps his behind his arming.
    return session.bell_fd >= 0 and atomic_swap_u32(&session.is_awaited, 0)


cdef inline int tap_session_is_full(TapSession* session, uint64_t second) noexcept nogil:
    """Is it sure already that this request would be hidden? Then nothing needs to be kept of it, and it is counted."""
    if session.max_rps_milli < 1000 or session.wants_outcome or session.dst_len or session.cluster_slot >= 0 \
            or session.labels != NULL \
            or atomic_load_u64(&session.window_second) != second \
            or atomic_load_u64(&session.window_count) < session.max_rps_milli // 1000:
        return 0
    atomic_add_u64(&session.matched, 1)
    atomic_add_u64(&session.suppressed, 1)
    return 1


cdef inline int tap_session_admits(TapSession* session, uint64_t second) noexcept nogil:
    # Below one a second the window grows instead of the share: 0.1 rps is one request in ten seconds.
    cdef uint64_t window = second
    cdef uint64_t allowed = session.max_rps_milli // 1000
    atomic_add_u64(&session.matched, 1)
    if session.max_rps_milli == 0:
        return 1
    if allowed == 0:
        window = second * session.max_rps_milli // 1000
        allowed = 1
    if atomic_load_u64(&session.window_second) != window:
        # Two workers may both open the window: at worst one request more in that second.
        atomic_store_u64(&session.window_second, window)
        atomic_store_u64(&session.window_count, 0)
    if atomic_add_u64(&session.window_count, 1) > allowed:
        atomic_add_u64(&session.suppressed, 1)
        return 0
    return 1
