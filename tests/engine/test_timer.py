"""The timer wheel against a plain table of deadlines: never early, at most a tick late, however long the sleep."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshcore._fastpath import TimerDoor

TICK = TimerDoor.TICK_NS
SPAN = TimerDoor.SPAN_NS
MS = 1_000_000
TIMERS = 8

near = st.integers(1, 3 * TICK)
within = st.integers(1, SPAN - 1)
beyond = st.integers(SPAN - 2 * TICK, 5 * SPAN)
distance = st.one_of(near, within, beyond)


def all_expired(wheel, now):
    found = []
    while (timer := wheel.expired(now)) is not None:
        found.append(timer)
    return found


class Wheel(RuleBasedStateMachine):
    @initialize(now=st.integers(0, 10 * SPAN))
    def start(self, now):
        self.now = now
        self.wheel = TimerDoor(TIMERS, now)
        self.deadlines = {}

    @rule(timer=st.integers(0, TIMERS - 1), ahead=distance)
    def arm_or_move(self, timer, ahead):
        self.deadlines[timer] = self.now + ahead
        self.wheel.set(timer, self.now + ahead)

    @rule(timer=st.integers(0, TIMERS - 1), late=st.integers(0, 2 * TICK))
    def arm_in_the_past(self, timer, late):
        self.deadlines[timer] = self.now        # late by less than two ticks from now on
        self.wheel.set(timer, max(1, self.now - late))

    @rule(timer=st.integers(0, TIMERS - 1), forget=st.booleans())
    def disarm(self, timer, forget):
        self.deadlines.pop(timer, None)
        if forget:
            self.wheel.clear(timer)
        else:
            self.wheel.set(timer, 0)

    @rule(gap=st.one_of(st.integers(0, 3 * TICK), distance), rearm=st.one_of(st.none(), distance))
    def advance(self, gap, rearm):
        """Time passes; what fires may be armed again while others are still to be found, as a handler would."""
        self.now += gap
        fired = set()
        while (timer := self.wheel.expired(self.now)) is not None:
            assert self.deadlines.get(timer, self.now + 1) <= self.now, "early, or disarmed"
            assert timer not in fired, "twice in one wake-up"
            fired.add(timer)
            if rearm is None:
                del self.deadlines[timer]
            else:
                self.deadlines[timer] = self.now + rearm
                self.wheel.set(timer, self.now + rearm)
        assert not [timer for timer, deadline in self.deadlines.items()
                    if deadline + 2 * TICK <= self.now and timer not in fired], "late"

    @rule()
    def sleep_as_told(self):
        wait = self.wheel.wait_ms(self.now)
        if wait > 0:
            self.advance(wait * MS, None)

    @invariant()
    def nobody_sleeps_past_the_next_deadline(self):
        wait = self.wheel.wait_ms(self.now)
        if self.deadlines:
            assert 0 <= wait <= max(0, min(self.deadlines.values()) + TICK - self.now) // MS + 1 + TICK // MS


TestWheel = Wheel.TestCase
TestWheel.settings = settings(max_examples=60, deadline=None)


@given(st.integers(0, 3 * SPAN), distance)
def test_a_loop_that_sleeps_as_told_fires_each_timer_within_a_tick_and_a_millisecond(now, ahead):
    wheel = TimerDoor(1, now)
    deadline = now + ahead
    wheel.set(0, deadline)
    while not all_expired(wheel, now):
        assert now < deadline + TICK
        now += wheel.wait_ms(now) * MS
    assert deadline <= now <= deadline + TICK + MS


@given(st.lists(distance, min_size=1, max_size=TIMERS), st.integers(0, 5 * SPAN))
def test_after_any_sleep_exactly_the_due_timers_fire(distances, slept):
    now = 7 * SPAN + 3
    wheel = TimerDoor(TIMERS, now)
    for timer, ahead in enumerate(distances):
        wheel.set(timer, now + ahead)
    fired = all_expired(wheel, now + slept)
    assert len(fired) == len(set(fired))
    surely = {timer for timer, ahead in enumerate(distances) if ahead + TICK <= slept}
    maybe = {timer for timer, ahead in enumerate(distances) if ahead <= slept}
    assert surely <= set(fired) <= maybe


def test_a_timer_moved_later_with_every_byte_fires_once_at_its_last_deadline():
    wheel = TimerDoor(1, 0)
    for now in range(0, 100 * TICK, TICK // 3):
        wheel.set(0, now + 5 * TICK)
        assert wheel.expired(now) is None
    last = now + 5 * TICK
    assert wheel.expired(last - 1) is None
    assert wheel.expired(last + TICK) == 0
    assert wheel.expired(last + SPAN) is None


def test_a_timer_moved_earlier_fires_at_the_earlier_deadline():
    wheel = TimerDoor(1, 0)
    wheel.set(0, 3 * SPAN)
    wheel.set(0, 2 * TICK)
    assert wheel.expired(3 * TICK) == 0


def test_a_timer_beyond_the_span_waits_as_many_rounds_as_it_takes():
    wheel = TimerDoor(1, 0)
    deadline = 5 * SPAN // 2
    wheel.set(0, deadline)
    for now in range(0, deadline, SPAN // 7):
        assert wheel.expired(now) is None
    assert wheel.expired(deadline + TICK) == 0


def test_nothing_armed_means_sleep_without_end():
    wheel = TimerDoor(1, 12345)
    assert wheel.wait_ms(12345) == -1
    wheel.set(0, 10 * TICK)
    wheel.clear(0)
    assert wheel.wait_ms(12345) == -1


def test_a_freed_timer_leaves_its_neighbours_in_the_slot():
    wheel = TimerDoor(3, 0)
    for timer in range(3):
        wheel.set(timer, 5 * TICK)
    wheel.clear(1)
    assert sorted(all_expired(wheel, 7 * TICK)) == [0, 2]
