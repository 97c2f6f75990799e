"""Peak EWMA: rises at once, falls with its time constant, never becomes free."""

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from meshcore._fastpath import EwmaDoor

DECAY_NS = 10_000_000_000
FLOOR_NS = 50_000
START_NS = 10**15
rtts = st.floats(1e5, 1e10)
gaps = st.integers(0, DECAY_NS)


class Oracle:
    """Peak EWMA with the real exponential."""

    def __init__(self):
        self.cost = None
        self.stamp = 0

    def kept(self, now):
        return math.exp(-(now - self.stamp) / DECAY_NS)

    def observe(self, rtt, now):
        if self.cost is None or rtt >= self.cost:
            self.cost = rtt
        else:
            self.cost = self.cost * self.kept(now) + rtt * (1 - self.kept(now))
        self.stamp = now

    def cost_at(self, now):
        return max(self.cost * self.kept(now), FLOOR_NS)


@given(st.lists(st.tuples(rtts, gaps), min_size=1, max_size=30))
def test_the_average_follows_the_real_exponential_within_a_few_percent(steps):
    ewma, oracle, now = EwmaDoor(DECAY_NS), Oracle(), START_NS
    for rtt, gap in steps:
        now += gap
        assume(oracle.cost is None or abs(rtt / oracle.cost - 1) > 0.05)    # near a tie the two may branch apart
        ewma.observe(rtt, now)
        oracle.observe(rtt, now)
    assert math.isclose(ewma.cost_ns(now), oracle.cost_at(now), rel_tol=0.05)


@given(rtts, rtts, gaps)
def test_a_worse_answer_counts_at_once(a, b, gap):
    ewma = EwmaDoor(DECAY_NS)
    ewma.observe(a, START_NS)
    ewma.observe(max(a, b), START_NS + gap)
    assert ewma.cost_ns(START_NS + gap) == max(a, b)


@given(rtts, rtts, gaps)
def test_a_better_answer_pulls_the_average_down_but_never_below_itself(a, b, gap):
    high, low = max(a, b), min(a, b)
    ewma = EwmaDoor(DECAY_NS)
    ewma.observe(high, START_NS)
    ewma.observe(low, START_NS + gap)
    assert low * 0.999_999 <= ewma.cost_ns(START_NS + gap) <= high


@given(rtts, st.integers(0, 2**63 - START_NS), st.integers(0, 2**63 - START_NS))
def test_an_endpoint_that_is_not_asked_gets_cheaper_down_to_the_floor(rtt, a, b):
    ewma = EwmaDoor(DECAY_NS)
    ewma.observe(rtt, START_NS)
    early, late = ewma.cost_ns(START_NS + min(a, b)), ewma.cost_ns(START_NS + max(a, b))
    assert FLOOR_NS <= late <= early <= rtt


def test_an_endpoint_that_was_never_asked_costs_one_millisecond():
    assert EwmaDoor(DECAY_NS).cost_ns(START_NS) == 1_000_000


def test_an_answer_within_one_clock_reading_is_a_measurement():
    ewma = EwmaDoor(DECAY_NS)
    ewma.observe(0, START_NS)
    assert ewma.cost_ns(START_NS) == FLOOR_NS


def test_a_clock_reading_older_than_the_last_sample_changes_nothing():
    ewma = EwmaDoor(DECAY_NS)
    ewma.observe(2e6, START_NS)
    ewma.observe(1e6, START_NS - 5)
    assert ewma.cost_ns(START_NS - 5) == 2e6


def test_without_a_decay_time_the_last_answer_is_the_cost():
    ewma = EwmaDoor(0)
    ewma.observe(5e6, START_NS)
    ewma.observe(1e6, START_NS + 1_000_000)
    assert math.isclose(ewma.cost_ns(START_NS + 1_000_000), 1e6, rel_tol=1e-6)
