# One hashed wheel of deadlines. Owns the links of armed timers; what happens at a deadline is its user's.
#
# Lazy: moving a deadline later only stores it; the node is re-linked when its old slot comes round. Most deadlines
# move later with every byte, so most arms are one store. Moving earlier re-links at once. A deadline beyond the
# wheel's span waits in the last slot and is re-linked from there. Resolution is one tick: a timer never fires early.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

cdef enum:
    TIMER_SLOTS = 4096
    TIMER_WORDS = 64
    TIMER_TICK_NS = 2000000             # 2 ms: the finest deadline is a gRPC caller's, tens of ms; 8 s of span
    TIMER_UNLINKED = 0xFFFFFFFF


cdef extern from *:
    """
    #define mc_ctz64(x) ((unsigned)__builtin_ctzll(x))
    """
    uint32_t ctz64 "mc_ctz64"(uint64_t x) noexcept nogil


cdef struct TimerNode:
    TimerNode* next
    TimerNode* prev
    uint64_t deadline_ns                # 0 = none; the node may still be linked
    uint64_t tick                       # of the slot it is linked in
    uint32_t slot                       # TIMER_UNLINKED when not linked


cdef struct TimerWheel:
    uint64_t tick                       # every slot up to this tick has been handled
    uint64_t occupied[64]               # bit per slot
    TimerNode slots[4096]               # list heads


cdef inline void timer_wheel_init(TimerWheel* wheel, uint64_t now_ns) noexcept nogil:
    cdef uint32_t i
    memset(wheel, 0, sizeof(TimerWheel))
    wheel.tick = now_ns // TIMER_TICK_NS
    for i in range(<uint32_t>TIMER_SLOTS):
        wheel.slots[i].next = wheel.slots[i].prev = &wheel.slots[i]


cdef inline void timer_node_init(TimerNode* node) noexcept nogil:
    node.deadline_ns = 0
    node.slot = TIMER_UNLINKED


cdef inline void timer_set(TimerWheel* wheel, TimerNode* node, uint64_t deadline_ns) noexcept nogil:
    """Arm, move or (0) disarm a timer."""
    cdef uint64_t tick
    node.deadline_ns = deadline_ns
    if deadline_ns == 0:
        return
    tick = deadline_ns // TIMER_TICK_NS + 1
    if node.slot == TIMER_UNLINKED:
        timer_link(wheel, node, tick)
    elif tick < node.tick:
        timer_unlink(wheel, node)
        timer_link(wheel, node, tick)


cdef inline void timer_clear(TimerWheel* wheel, TimerNode* node) noexcept nogil:
    """Disarm and unlink: the node's memory may go away afterwards."""
    node.deadline_ns = 0
    if node.slot != TIMER_UNLINKED:
        timer_unlink(wheel, node)


cdef inline TimerNode* timer_expired(TimerWheel* wheel, uint64_t now_ns) noexcept nogil:
    """Take one timer whose deadline has passed, disarmed. NULL when there is none: then the wheel stands at now.

    Call until NULL. O(slots passed) by a bitmap, O(1) for an idle wheel.
    """
    cdef uint64_t now_tick = now_ns // TIMER_TICK_NS
    cdef TimerNode* node
    cdef TimerNode* head
    cdef uint32_t slot
    if now_tick > wheel.tick + TIMER_SLOTS:
        wheel.tick = now_tick - TIMER_SLOTS       # slept longer than the span: visit each slot once
    while wheel.tick < now_tick:
        slot = <uint32_t>((wheel.tick + 1) % TIMER_SLOTS)
        head = &wheel.slots[slot]
        while head.next != head:
            node = head.next
            timer_unlink(wheel, node)
            if node.deadline_ns == 0:
                continue
            if node.deadline_ns <= now_ns:
                node.deadline_ns = 0
                return node
            timer_link(wheel, node, node.deadline_ns // TIMER_TICK_NS + 1)
        wheel.tick += 1
        if (wheel.tick + 1) % 64 == 0:
            timer_skip_empty(wheel, now_tick)
    return NULL


cdef inline int timer_wait_ms(TimerWheel* wheel, uint64_t now_ns) noexcept nogil:
    """How long epoll may sleep before a slot is due: milliseconds, or -1 when nothing is armed."""
    cdef uint32_t start = <uint32_t>((wheel.tick + 1) % TIMER_SLOTS)
    cdef uint32_t word
    cdef uint32_t i
    cdef uint32_t slot
    cdef uint64_t bits
    cdef uint64_t due_ns
    for i in range(<uint32_t>TIMER_WORDS + 1):
        word = (start // 64 + i) % TIMER_WORDS
        bits = wheel.occupied[word]
        if i == 0:
            bits &= ~<uint64_t>0 << (start % 64)
        elif i == TIMER_WORDS:
            bits &= ~(~<uint64_t>0 << (start % 64))
        if bits:
            slot = word * 64 + ctz64(bits)
            due_ns = (wheel.tick + 1 + (slot - start) % TIMER_SLOTS) * TIMER_TICK_NS
            return 0 if due_ns <= now_ns else <int>((due_ns - now_ns) // 1000000 + 1)
    return -1


cdef inline void timer_link(TimerWheel* wheel, TimerNode* node, uint64_t tick) noexcept nogil:
    cdef TimerNode* head
    if tick <= wheel.tick:
        tick = wheel.tick + 1
    elif tick >= wheel.tick + TIMER_SLOTS:
        tick = wheel.tick + TIMER_SLOTS - 1
    node.tick = tick
    node.slot = <uint32_t>(tick % TIMER_SLOTS)
    head = &wheel.slots[node.slot]
    node.prev = head.prev
    node.next = head
    head.prev.next = node
    head.prev = node
    wheel.occupied[node.slot // 64] |= <uint64_t>1 << (node.slot % 64)


cdef inline void timer_unlink(TimerWheel* wheel, TimerNode* node) noexcept nogil:
    cdef TimerNode* head = &wheel.slots[node.slot]
    node.prev.next = node.next
    node.next.prev = node.prev
    if head.next == head:
        wheel.occupied[node.slot // 64] &= ~(<uint64_t>1 << (node.slot % 64))
    node.slot = TIMER_UNLINKED


cdef inline void timer_skip_empty(TimerWheel* wheel, uint64_t now_tick) noexcept nogil:
    # At a word border: jump over whole words of empty slots.
    while wheel.tick + 64 < now_tick and wheel.occupied[(wheel.tick + 1) % TIMER_SLOTS // 64] == 0 \
            and (wheel.tick + 1) % 64 == 0:
        wheel.tick += 64
