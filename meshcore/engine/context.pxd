# What a caller of a Linkerd mesh hands on with a request, beside the request: its deadline. Reads fields; whom to believe is
# decided above.
#
# Source: finagle Deadline.scala, linkerd Headers.Ctx.Deadline: `l5d-ctx-deadline: TIMESTAMP DEADLINE`, two times in ns since
# 1970, when it was set and when it ends. Linkerd hands it on and never enforces it (linkerd#663); here it ends the request.

from libc.stdint cimport uint32_t, uint64_t

from meshcore.engine.head cimport Field, Head
from meshcore.engine.octets cimport octets_equal_lower

cdef enum:
    CONTEXT_DIGITS = 19                 # of a time in ns since 1970, until the year 2286


cdef inline uint64_t context_deadline_ns(const Head* head, uint64_t wall_ns) noexcept nogil:
    """How long the caller still waits, at wall clock `wall_ns`. 0: it does not say; 1: not any more.

    Of several the strictest counts. Never longer than it was when it was set, whatever the clocks of two machines say.
    """
    cdef uint64_t left_ns = 0
    cdef uint64_t one_ns
    cdef uint32_t i
    for i in range(head.n_fields):
        if head.fields[i].name_len == 16 \
                and octets_equal_lower(head.base + head.fields[i].name_at, "l5d-ctx-deadline", 16):
            one_ns = context_read_deadline(head.base + head.fields[i].value_at, head.fields[i].value_len, wall_ns)
            if one_ns and (left_ns == 0 or one_ns < left_ns):
                left_ns = one_ns
    return left_ns


cdef inline uint64_t context_read_deadline(const char* text, uint32_t len, uint64_t wall_ns) noexcept nogil:
    cdef uint64_t set_ns = 0
    cdef uint64_t ends_ns = 0
    cdef uint32_t at = 0
    cdef uint32_t before
    while at < len and 48 <= text[at] <= 57 and at < CONTEXT_DIGITS:
        set_ns = set_ns * 10 + <uint32_t>(text[at] - 48)
        at += 1
    if at == 0 or at == len or text[at] != c" ":
        return 0
    at += 1
    before = at
    while at < len and 48 <= text[at] <= 57 and at - before < CONTEXT_DIGITS:
        ends_ns = ends_ns * 10 + <uint32_t>(text[at] - 48)
        at += 1
    if at == before or at != len:
        return 0
    if ends_ns <= wall_ns or ends_ns <= set_ns:
        return 1
    if ends_ns - set_ns < ends_ns - wall_ns:
        return ends_ns - set_ns
    return ends_ns - wall_ns
