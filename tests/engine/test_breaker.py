"""Breaker: ejects after failures in a row, backs off longer each time, lets exactly one probe through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import BreakerDoor

S = 1_000_000_000


class Oracle:
    """The state machine, written as its table."""

    def __init__(self, threshold, backoff, longest):
        self.threshold, self.backoff, self.longest = threshold, backoff, max(backoff, longest)
        self.state, self.in_a_row, self.ejections, self.until = "closed", 0, 0, 0
        self.resting = backoff

    def due(self, now):
        return self.state in ("open", "unreachable") and now >= self.until

    def admits(self, now):
        return self.state == "closed" or self.due(now)

    def eject(self, now):
        self.until = now + min(self.backoff * 2**self.ejections, self.longest)
        self.state, self.in_a_row = "open", 0
        self.ejections += 1
        return True

    def step(self, event, now):
        match self.state, event:
            case "open", "pick" if self.due(now):
                self.state = "half_open"
            case "closed" | "unreachable", "out_of_reach":
                self.state, self.until = "unreachable", now + self.resting
            case "closed" | "half_open" | "unreachable", "success":
                self.state, self.in_a_row, self.ejections = "closed", 0, 0
            case "half_open", "failure":
                return self.eject(now)
            case "half_open", "abandoned":
                self.state, self.until = "open", now
            case "closed" | "unreachable", "failure":
                self.in_a_row += 1
                if 0 < self.threshold <= self.in_a_row:
                    return self.eject(now)
        return False


events = st.lists(st.tuples(st.sampled_from(["pick", "success", "failure", "failure", "failure", "abandoned", "out_of_reach"]),
                            st.sampled_from([0, 1, S // 2, S, 3 * S, 100 * S])), max_size=60)


@given(events, st.integers(0, 4), st.sampled_from([0, S, 7 * S]), st.sampled_from([0, S, 20 * S]))
def test_every_sequence_of_events_ends_in_the_state_of_the_table(sequence, threshold, backoff, longest):
    breaker = BreakerDoor(threshold, backoff, longest)
    oracle, now = Oracle(threshold, backoff, longest), S
    for event, gap in sequence:
        now += gap
        ejects = oracle.step(event, now)
        if event == "pick":
            breaker.on_pick(now)
        elif event == "success":
            breaker.on_success()
        elif event == "failure":
            assert breaker.on_failure(now) is ejects
        elif event == "out_of_reach":
            breaker.on_unreachable(now)
        else:
            breaker.on_abandoned(now)
        assert breaker.state == oracle.state
        assert breaker.admits(now) == oracle.admits(now)
        if oracle.state in ("open", "unreachable"):
            assert breaker.until_ns == oracle.until


def eject(breaker, now, failures=5):
    assert [breaker.on_failure(now) for _ in range(failures)] == [False] * (failures - 1) + [True]


def test_it_ejects_at_the_configured_number_of_failures_in_a_row():
    breaker = BreakerDoor(5)
    eject(breaker, 0)
    assert breaker.state == "open"


def test_a_success_in_between_starts_the_count_again():
    breaker = BreakerDoor(2)
    assert not breaker.on_failure(0)
    breaker.on_success()
    assert not breaker.on_failure(0)
    assert breaker.state == "closed"


def test_a_threshold_of_zero_never_ejects():
    breaker = BreakerDoor(0)
    assert not any(breaker.on_failure(0) for _ in range(1000))
    assert breaker.admits(0)


def test_what_is_out_of_reach_is_left_alone_from_the_first_time_on_and_ejected_at_the_same_number():
    breaker = BreakerDoor(3, backoff_ns=S)
    for tried, now in enumerate((0, S, 2 * S)):
        assert breaker.admits(now)
        assert breaker.on_failure(now) is (tried == 2)
        breaker.on_unreachable(now)
        assert not breaker.admits(now) and not breaker.admits(now + S - 1)
        assert breaker.state == ("open" if tried == 2 else "unreachable")


def test_an_answer_takes_back_what_was_out_of_reach():
    breaker = BreakerDoor(2, backoff_ns=S)
    assert not breaker.on_failure(0)
    breaker.on_unreachable(0)
    breaker.on_success()
    assert breaker.state == "closed" and breaker.admits(0)
    assert not breaker.on_failure(0), "the count began anew"


def test_exactly_one_probe_goes_out_when_the_backoff_is_over():
    breaker = BreakerDoor(5, backoff_ns=S)
    eject(breaker, 0)
    assert not breaker.admits(S - 1)
    assert breaker.admits(S)
    breaker.on_pick(S)
    assert not breaker.admits(S)
    assert not breaker.admits(1000 * S)


def test_asking_changes_nothing():
    breaker = BreakerDoor(5, backoff_ns=S)
    eject(breaker, 0)
    assert breaker.admits(S) and breaker.admits(S)
    assert breaker.state == "open"


def test_a_probe_that_succeeds_takes_the_endpoint_back_with_a_clean_record():
    breaker = BreakerDoor(5, backoff_ns=S)
    eject(breaker, 0)
    breaker.on_pick(S)
    breaker.on_success()
    eject(breaker, 10 * S)
    assert breaker.until_ns == 11 * S


def test_the_backoff_doubles_with_each_failed_probe_up_to_its_limit():
    breaker = BreakerDoor(5, backoff_ns=S, max_backoff_ns=60 * S)
    eject(breaker, 0)
    waits, now = [breaker.until_ns], 0
    for _ in range(70):
        now = breaker.until_ns
        breaker.on_pick(now)
        assert breaker.on_failure(now)
        waits.append(breaker.until_ns - now)
    assert waits[:8] == [S, 2 * S, 4 * S, 8 * S, 16 * S, 32 * S, 60 * S, 60 * S]
    assert set(waits[8:]) == {60 * S}


def test_a_tiny_backoff_still_reaches_its_limit():
    breaker = BreakerDoor(1, backoff_ns=1, max_backoff_ns=60 * S)
    assert breaker.on_failure(0)
    for _ in range(100):
        now = breaker.until_ns
        breaker.on_pick(now)
        assert breaker.on_failure(now)
    assert breaker.until_ns - now == 60 * S


def test_an_abandoned_probe_is_followed_by_another_at_once():
    breaker = BreakerDoor(5, backoff_ns=S)
    eject(breaker, 0)
    breaker.on_pick(S)
    breaker.on_abandoned(S + 5)
    assert breaker.admits(S + 5)
    breaker.on_pick(S + 5)
    assert not breaker.admits(S + 5)


def test_an_abandoned_request_of_a_healthy_endpoint_counts_for_nothing():
    breaker = BreakerDoor(1)
    breaker.on_abandoned(0)
    assert breaker.state == "closed"


@pytest.mark.parametrize("late", ["on_success", "on_failure"])
def test_answers_to_requests_sent_before_the_ejection_say_nothing_new(late):
    breaker = BreakerDoor(5, backoff_ns=S)
    eject(breaker, 0)
    breaker.on_success() if late == "on_success" else breaker.on_failure(1)
    assert (breaker.state, breaker.until_ns) == ("open", S)


@given(st.integers(0, 2**64 - 1), st.integers(0, 1_000_000), st.integers(0, 3600 * S))
def test_jitter_only_lengthens_the_backoff_and_by_no_more_than_its_share(seed, jitter_ppm, backoff_ns):
    breaker = BreakerDoor(1, backoff_ns, backoff_ns, jitter_ppm, seed)
    breaker.on_failure(0)
    assert backoff_ns <= breaker.until_ns <= backoff_ns * (1 + jitter_ppm / 1e6) + 1


def test_proxies_that_eject_together_do_not_probe_together():
    due = set()
    for seed in range(100):
        breaker = BreakerDoor(1, S, 60 * S, jitter_ppm=500_000, seed=seed)
        breaker.on_failure(0)
        due.add(breaker.until_ns)
    assert len(due) > 95 and max(due) - min(due) > 0.4 * S
