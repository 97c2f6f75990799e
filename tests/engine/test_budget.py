"""Retry budget: retries are a share of recent requests plus a small reserve, whatever the order of events."""

from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import BudgetDoor

MS = 1_000_000
S = 1000 * MS
RETRY = 1_000_000
START = 10**15


class Oracle:
    """Remembers every event and adds up those of the window, slot by slot."""

    def __init__(self, ratio_ppm, min_per_second, ttl_ms):
        self.ratio, self.slot_ns = ratio_ppm, ttl_ms * MS // 8
        self.reserve = min_per_second * ttl_ms * 1000
        self.events, self.slot_end, self.slot = [], None, 0

    def advance(self, now):
        if self.slot_end is None:
            self.slot_end = now + self.slot_ns
        elif now >= self.slot_end:
            steps = (now - self.slot_end) // self.slot_ns + 1
            self.slot += steps
            # After a silence of a whole window slots are laid out anew from `now`.
            self.slot_end = now + self.slot_ns if steps >= 8 else self.slot_end + steps * self.slot_ns

    def balance(self, now):
        self.advance(now)
        return max(0, self.reserve + sum(ppm for slot, ppm in self.events if slot > self.slot - 8))

    def deposit(self, now):
        self.advance(now)
        self.events.append((self.slot, self.ratio))

    def withdraw(self, now):
        if self.balance(now) < RETRY:
            return False
        self.events.append((self.slot, -RETRY))
        return True


confs = st.tuples(st.integers(0, 2_000_000), st.integers(0, 3), st.integers(8, 20_000))
steps = st.lists(st.tuples(st.sampled_from(["deposit", "withdraw"]),
                           st.one_of(st.integers(0, 100 * MS), st.integers(0, 3 * S), st.just(60 * S))), max_size=80)


@given(confs, steps)
def test_every_decision_is_that_of_adding_up_the_window(conf, sequence):
    budget, oracle, now = BudgetDoor(*conf), Oracle(*conf), START
    for step, gap in sequence:
        now += gap
        if step == "deposit":
            budget.deposit(now)
            oracle.deposit(now)
        else:
            assert budget.withdraw(now) is oracle.withdraw(now)
        assert budget.balance_ppm(now) == oracle.balance(now) >= 0


@given(confs, steps)
def test_retries_of_any_window_never_exceed_share_and_reserve(conf, sequence):
    ratio_ppm, min_per_second, ttl_ms = conf
    budget, now, requests, retries = BudgetDoor(*conf), START, [], []
    for step, gap in sequence:
        now += gap
        if step == "deposit":
            budget.deposit(now)
            requests.append(now)
        elif budget.withdraw(now):
            retries.append(now)
            # What the budget remembers is at least 7/8 and at most one ttl: bound the youngest part by the whole.
            recent = sum(at > now - ttl_ms * MS * 7 // 8 for at in retries)
            paid = sum(at > now - ttl_ms * MS for at in requests) * ratio_ppm + min_per_second * ttl_ms * 1000
            assert recent * RETRY <= paid


def test_a_fifth_of_the_requests_may_be_retried():
    budget = BudgetDoor(ratio_ppm=200_000, min_per_second=0)
    budget.deposit(START, 100)
    assert [budget.withdraw(START) for _ in range(25)] == [True] * 20 + [False] * 5


def test_a_quiet_cluster_can_retry_from_its_reserve():
    budget = BudgetDoor(ratio_ppm=0, min_per_second=3, ttl_ms=10_000)
    assert sum(budget.withdraw(START) for _ in range(100)) == 30
    assert sum(budget.withdraw(START + 10 * S) for _ in range(100)) == 30


def test_without_ratio_and_reserve_nothing_is_retried():
    budget = BudgetDoor(ratio_ppm=0, min_per_second=0)
    budget.deposit(START, 1000)
    assert not budget.withdraw(START)


def test_old_requests_do_not_pay_for_new_retries():
    budget = BudgetDoor(ratio_ppm=1_000_000, min_per_second=0, ttl_ms=10_000)
    budget.deposit(START, 5)
    assert budget.withdraw(START + 8 * S)
    assert not budget.withdraw(START + 11 * S)


def test_a_retry_is_remembered_longer_than_the_request_that_paid_for_it():
    budget = BudgetDoor(ratio_ppm=1_000_000, min_per_second=0, ttl_ms=10_000)
    budget.deposit(START)
    assert budget.withdraw(START + 8 * S)
    assert budget.balance_ppm(START + 11 * S) == 0          # and not minus one
    budget.deposit(START + 11 * S)
    assert not budget.withdraw(START + 11 * S)              # one request, one retry within ten seconds: spent
    assert budget.withdraw(START + 19 * S)


def test_a_refused_retry_costs_nothing():
    budget = BudgetDoor(ratio_ppm=500_000, min_per_second=0)
    budget.deposit(START)
    assert not budget.withdraw(START)
    budget.deposit(START)
    assert budget.withdraw(START)


def test_an_unset_window_is_ten_seconds():
    budget = BudgetDoor(ratio_ppm=0, min_per_second=1, ttl_ms=0)
    assert budget.balance_ppm(START) == 10 * RETRY
