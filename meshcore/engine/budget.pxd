# Retry budget of one cluster: how many retries recent requests have paid for. Decides nothing about what is retried.
#
# The law: retries granted in the last `ttl` <= ratio * requests in the last `ttl` + min_per_second * ttl.
# A share of the traffic instead of a count per request: when everything fails, load grows by `ratio` and not by
# `max_attempts`. Time is cut into BUDGET_SLOTS slots of ttl / 8; the window is the current slot with the seven before
# it, so it is between 7/8 ttl and one ttl long. Units are ppm of one retry: integers, no rounding.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset
from meshcore.engine.snapshot cimport BudgetConf


cdef enum:
    BUDGET_SLOTS = 8
    BUDGET_RETRY_PPM = 1_000_000        # what one retry costs
    BUDGET_DEFAULT_TTL_MS = 10_000      # for ttl_ms == 0: long enough for a ratio to mean something at 1 rps


cdef struct Budget:
    uint64_t slot_end_ns                # of the current slot
    uint32_t slot
    int64_t slots[BUDGET_SLOTS]         # deposits minus withdrawals of that slot, ppm


cdef inline void budget_deposit(Budget* budget, const BudgetConf* conf, uint64_t now_ns) noexcept nogil:
    """One request was made (not a retry). One comparison and one addition on the request path."""
    if now_ns >= budget.slot_end_ns:
        budget_advance(budget, conf, now_ns)
    budget.slots[budget.slot] += conf.ratio_ppm


cdef inline bint budget_withdraw(Budget* budget, const BudgetConf* conf, uint64_t now_ns) noexcept nogil:
    """Pay for one retry. Returns 0 when the budget is exhausted; nothing is taken then."""
    if budget_balance_ppm(budget, conf, now_ns) < BUDGET_RETRY_PPM:
        return False
    budget.slots[budget.slot] -= BUDGET_RETRY_PPM
    return True


cdef inline int64_t budget_balance_ppm(Budget* budget, const BudgetConf* conf, uint64_t now_ns) noexcept nogil:
    """What is left, never below 0. O(BUDGET_SLOTS): only retries and statistics ask."""
    cdef int64_t balance_ppm = <int64_t>conf.min_per_second * <int64_t>budget_ttl_ms(conf) * (BUDGET_RETRY_PPM // 1000)
    cdef int i
    if now_ns >= budget.slot_end_ns:
        budget_advance(budget, conf, now_ns)
    for i in range(BUDGET_SLOTS):
        balance_ppm += budget.slots[i]
    return balance_ppm if balance_ppm > 0 else 0


cdef inline void budget_advance(Budget* budget, const BudgetConf* conf, uint64_t now_ns) noexcept nogil:
    """Open the slot of `now_ns`; forget what is older than the window."""
    cdef uint64_t slot_ns = budget_ttl_ms(conf) * 1_000_000 // BUDGET_SLOTS
    cdef uint64_t steps = (now_ns - budget.slot_end_ns) // slot_ns + 1
    if steps >= BUDGET_SLOTS:
        memset(budget.slots, 0, sizeof(budget.slots))
        budget.slot_end_ns = now_ns + slot_ns
        return
    budget.slot_end_ns += steps * slot_ns
    while steps:
        budget.slot = (budget.slot + 1) % BUDGET_SLOTS
        budget.slots[budget.slot] = 0
        steps -= 1


cdef inline uint64_t budget_ttl_ms(const BudgetConf* conf) noexcept nogil:
    return conf.ttl_ms if conf.ttl_ms else BUDGET_DEFAULT_TTL_MS
