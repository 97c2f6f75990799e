"""Waits between tries."""

from meshcore.agent.backoff import Backoff


def test_waits_double_up_to_the_longest_and_begin_anew_after_a_success():
    backoff = Backoff(0.1, 1.0, random_share=lambda: 0.0)
    assert [round(backoff.next_s(), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_s() == 0.1


def test_nobody_waits_less_than_half_and_no_two_wait_alike(rng):
    first, second = Backoff(1.0, 8.0, rng.random), Backoff(1.0, 8.0, rng.random)
    waits = [(first.next_s(), second.next_s(), full) for full in (1.0, 2.0, 4.0, 8.0, 8.0)]
    for one, other, full in waits:
        assert full / 2 <= one <= full and full / 2 <= other <= full
    assert any(one != other for one, other, _ in waits)
