"""The success rate that ejects: by number of requests and by time, as Finagle's failure accrual judges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import BreakerDoor

S = 1_000_000_000


def conf(least_percent, requests, window_s=0):
    return {"least_ppm": round(least_percent * 10_000), "requests": requests, "window_ns": window_s * S, "kept": math.exp(-1 / requests)}


def breaker(*rate, **keys):
    return BreakerDoor(0, success_rate=conf(*rate), **keys)


class Oracle:
    """By the definition: every sample with its own weight, summed anew for each question."""

    def __init__(self, least, requests, window_s):
        self.least, self.requests, self.window = least / 100, requests, window_s * S
        self.samples = []  # (when, value)

    def rate(self):
        if self.window == 0:
            kept = math.exp(-1 / self.requests)
            weights = [(1 - kept) * kept ** (len(self.samples) - 1 - at) for at in range(len(self.samples))]
            weights[0] = kept ** (len(self.samples) - 1)
            return sum(weight * value for weight, (_, value) in zip(weights, self.samples, strict=True))
        instants = sorted({at for at, _ in self.samples})
        rate = 0.0
        for index, instant in enumerate(instants):
            values = [value for at, value in self.samples if at == instant]
            kept = math.exp(-(instant - instants[index - 1]) / self.window) if index else 0.0
            rate = rate * kept + sum(values) / len(values) * (1 - kept)
        return rate

    def note(self, succeeded, now):
        self.samples.append((now, 1.0 if succeeded else 0.0))

    def is_too_low(self, now):
        if len(self.samples) < self.requests or (self.window and now - self.samples[0][0] < self.window):
            return False
        return self.rate() < self.least


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0, 1, S // 10, S, 7 * S])), min_size=1, max_size=60),
    st.sampled_from([1.0, 50.0, 90.0, 99.9]), st.integers(1, 12), st.sampled_from([0, 1, 5]),
)  # fmt: skip
def test_it_ejects_when_and_only_when_the_rate_by_its_definition_is_too_low(sequence, least, requests, window_s):
    door, oracle, now = breaker(least, requests, window_s), Oracle(least, requests, window_s), S
    for succeeded, gap in sequence:
        now += gap
        oracle.note(succeeded, now)
        if succeeded:
            door.on_success(now)
            ejected = False
        else:
            ejected = door.on_failure(now)
        assert door.success_rate == pytest.approx(oracle.rate(), abs=1e-9)
        if abs(oracle.rate() - oracle.least) > 1e-9:
            assert ejected is (not succeeded and oracle.is_too_low(now))
        if ejected:
            return


def failures_until_ejected(door, start=0, gap=0):
    now = start
    for count in range(1, 10_000):
        now += gap
        if door.on_failure(now):
            return count
    return None


def test_a_hundred_successes_outweigh_sixty_nine_failures_by_number():
    """100 ln 2 = 69.3: the figure Finagle's own test has."""
    door = breaker(50, 100)
    for _ in range(100):
        door.on_success(0)
    assert failures_until_ejected(door) == 70


def test_a_hundred_seconds_of_success_outweigh_sixty_nine_of_failure_by_time():
    door = breaker(50, 1, 100)
    for second in range(100):
        door.on_success(second * S)
    assert failures_until_ejected(door, 99 * S, S) == 70


def test_nobody_is_judged_by_fewer_requests_than_asked_for():
    assert failures_until_ejected(breaker(99, 20)) == 20
    assert failures_until_ejected(breaker(99, 20, 1), gap=10 * S) == 20


def test_nobody_is_judged_before_the_window_is_over():
    assert failures_until_ejected(breaker(99, 1, 10), gap=S) == 11


def test_failures_of_one_instant_count_as_their_share():
    """A wake-up reads the clock once: the first of its requests must not stand for all of them."""
    door = breaker(50, 1, 10)
    for second in range(11):
        door.on_success(second * S)
    now = 1000 * S  # what was before counts for nothing any more
    door.on_success(now)
    assert [door.on_failure(now) for _ in range(2)] == [False, True]


def test_an_endpoint_that_comes_back_is_judged_anew():
    door = breaker(90, 10, backoff_ns=S)
    assert failures_until_ejected(door) == 10
    door.on_pick(S)
    door.on_success(S)
    assert door.state == "closed" and failures_until_ejected(door, S) == 10


def test_a_success_never_ejects_however_low_the_rate_is():
    door = breaker(100, 2)
    assert not door.on_failure(0)
    door.on_success(0)
    assert door.state == "closed" and door.success_rate < 1


def test_failures_in_a_row_and_the_rate_eject_each_for_itself():
    door = BreakerDoor(3, success_rate=conf(50, 1000))
    assert failures_until_ejected(door) == 3
