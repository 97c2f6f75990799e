"""Balancers: weights are honoured, the ejected are left out, nobody is starved, panic spreads the load."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcore._fastpath import BalancerDoor

ROUND_ROBIN, RANDOM, LEAST_REQUEST, PEAK_EWMA = range(4)
EVERY = pytest.mark.parametrize("kind", range(4), ids=["round_robin", "random", "least_request", "peak_ewma"])
TWO_CHOICES = pytest.mark.parametrize("kind", [LEAST_REQUEST, PEAK_EWMA], ids=["least_request", "peak_ewma"])
NO_ENDPOINT, ALL_EJECTED = -1, -2
MS = 1_000_000
S = 1000 * MS
weights_lists = st.lists(st.integers(0, 20), min_size=1, max_size=12)
seeds = st.integers(0, 2**64 - 1)


def eject(balancer, i, now_ns=0):
    for _ in range(5):
        balancer.fail(i, now_ns)
    assert not balancer.admits(i, now_ns)


def lose(balancer, out, ill):
    """Keep endpoints out: by their breakers, by their health checks, some by both."""
    for i in out:
        eject(balancer, i)
    for i in ill:
        balancer.set_unhealthy(i, True)


def shares(balancer, n, **kwargs):
    counts = Counter(balancer.pick(**kwargs) for _ in range(n))
    return {i: count / n for i, count in counts.items()}


# --- all of them --------------------------------------------------------------------------------------------------

@EVERY
@pytest.mark.parametrize("weights", [[], [0], [0, 0, 0]])
def test_a_cluster_without_weight_has_no_endpoint(kind, weights):
    assert BalancerDoor(weights, kind).pick() == NO_ENDPOINT


@EVERY
@given(weights=weights_lists, seed=seeds)
def test_weight_zero_is_never_picked_and_any_other_in_range(kind, weights, seed):
    balancer = BalancerDoor(weights, kind, seed=seed)
    for _ in range(30):
        chosen = balancer.pick()
        assert weights[chosen] > 0 if any(weights) else chosen == NO_ENDPOINT


@EVERY
def test_when_everyone_is_out_and_panic_is_off_nobody_is_picked(kind):
    balancer = BalancerDoor([1, 2, 3], kind, panic_percent=0)
    for i in range(3):
        eject(balancer, i)
    assert balancer.pick() == ALL_EJECTED
    assert balancer.pick(excluded=0b111) == ALL_EJECTED


@EVERY
@given(weights=st.lists(st.integers(0, 5), min_size=1, max_size=40), seed=seeds, data=st.data())
def test_a_pick_is_admitted_and_untried_whenever_such_an_endpoint_exists(kind, weights, seed, data):
    indices = st.sets(st.integers(0, len(weights) - 1))
    out, ill, tried = data.draw(indices), data.draw(indices), data.draw(indices)
    balancer = BalancerDoor(weights, kind, seed=seed, panic_percent=0)
    lose(balancer, out, ill)
    admitted = {i for i, weight in enumerate(weights) if weight} - out - ill
    for _ in range(20):
        chosen = balancer.pick(excluded=sum(1 << i for i in tried))
        if not any(weights):
            assert chosen == NO_ENDPOINT
        elif not admitted:
            assert chosen == ALL_EJECTED
        else:
            assert chosen in (admitted - tried or admitted)


@EVERY
@given(weights=st.lists(st.integers(0, 3), min_size=1, max_size=16), panic=st.integers(0, 101), data=st.data())
def test_panic_begins_below_its_share_of_admitted_endpoints(kind, weights, panic, data):
    indices = st.sets(st.integers(0, len(weights) - 1))
    out, ill = data.draw(indices), data.draw(indices)
    balancer = BalancerDoor(weights, kind, panic_percent=panic)
    lose(balancer, out, ill)
    candidates = {i for i, weight in enumerate(weights) if weight}
    admitted = candidates - out - ill
    allowed = candidates if len(admitted) * 100 < len(candidates) * panic else admitted
    picked = {balancer.pick() for _ in range(60)}
    if allowed:
        assert picked <= allowed
        assert len(allowed) < 3 or len(picked) > 1
    else:
        assert picked == {ALL_EJECTED if candidates else NO_ENDPOINT}


@EVERY
def test_in_panic_the_ejected_get_their_share_again(kind):
    balancer = BalancerDoor([1] * 10, kind, panic_percent=50)
    for i in range(6):
        eject(balancer, i)
    assert set(shares(balancer, 1000)) == set(range(10))


@EVERY
def test_panic_sends_nothing_to_endpoints_that_cannot_be_reached(kind):
    """Of ten, seven were gone and stayed listed: most picks were theirs, over and over."""
    balancer = BalancerDoor([1] * 10, kind, panic_percent=50, backoff_ns=100 * S)
    for i in range(7):
        for _ in range(5):
            balancer.cannot_reach(i, 0)
        assert balancer.breaker_state(i) == "open"
    assert set(shares(balancer, 1000)) == {7, 8, 9}
    eject(balancer, 7)
    eject(balancer, 8)
    assert set(shares(balancer, 1000)) == {7, 8, 9}, "of those that answer, too many are out"


@EVERY
def test_one_failure_to_connect_is_enough_to_be_passed_over_for_a_while(kind):
    balancer = BalancerDoor([1, 1, 1], kind, panic_percent=50)
    assert not balancer.cannot_reach(0, 0)
    assert set(shares(balancer, 300, now_ns=S - 1)) == {1, 2}
    assert set(shares(balancer, 300, now_ns=S)) == {0, 1, 2}


@EVERY
@pytest.mark.parametrize("panic", [0, 50])
def test_where_all_are_out_of_reach_they_are_picked_until_they_are_ejected(kind, panic):
    balancer = BalancerDoor([1, 1], kind, panic_percent=panic, backoff_ns=100 * S)
    balancer.cannot_reach(0, 0)
    balancer.cannot_reach(1, 0)
    assert set(shares(balancer, 300)) == {0, 1}
    assert set(shares(balancer, 300, excluded=1)) == {1}
    for i in (0, 0, 0, 0, 1, 1, 1, 1):
        balancer.cannot_reach(i, 0)
    assert set(shares(balancer, 300)) == ({0, 1} if panic else {ALL_EJECTED})


@EVERY
def test_a_tried_endpoint_is_used_again_before_one_that_is_out_of_reach(kind):
    balancer = BalancerDoor([1, 1], kind, panic_percent=50)
    balancer.cannot_reach(0, 0)
    assert set(shares(balancer, 300, excluded=2)) == {1}


@EVERY
def test_an_ill_endpoint_that_is_out_of_reach_gets_nothing_where_panic_is_off(kind):
    balancer = BalancerDoor([1], kind, panic_percent=0)
    balancer.cannot_reach(0, 0)
    balancer.set_unhealthy(0, True)
    assert balancer.pick() == ALL_EJECTED


@EVERY
def test_an_endpoint_that_is_due_gets_no_probe_while_its_checks_fail(kind):
    balancer = BalancerDoor([1, 1], kind)
    lose(balancer, {0}, {0})
    assert {balancer.pick(now_ns=2 * S) for _ in range(100)} == {1}
    assert balancer.breaker_state(0) == "open"
    balancer.set_unhealthy(0, False)
    assert [balancer.pick(now_ns=2 * S) for _ in range(100)].count(0) == 1


@EVERY
@pytest.mark.parametrize(("panic", "picked"), [(50, 0), (0, ALL_EJECTED)])
def test_a_single_unhealthy_endpoint_is_used_unless_panic_is_off(kind, panic, picked):
    balancer = BalancerDoor([1], kind, panic_percent=panic)
    balancer.set_unhealthy(0, True)
    assert balancer.pick() == picked


@EVERY
def test_a_single_endpoint_is_used_in_panic(kind):
    balancer = BalancerDoor([1], kind, panic_percent=50)
    eject(balancer, 0)
    assert balancer.pick() == 0


@EVERY
def test_an_endpoint_that_is_due_gets_exactly_one_probe(kind):
    balancer = BalancerDoor([1, 1], kind, panic_percent=50)
    eject(balancer, 0)
    assert {balancer.pick(now_ns=S - 1) for _ in range(100)} == {1}
    picks = [balancer.pick(now_ns=S) for _ in range(100)]
    assert picks.count(0) == 1
    assert balancer.breaker_state(0) == "half_open"
    balancer.succeed(0)
    assert 0 in {balancer.pick(now_ns=S) for _ in range(100)}


@EVERY
def test_an_endpoint_already_tried_is_used_again_when_it_is_the_only_one(kind):
    assert BalancerDoor([1], kind).pick(excluded=1) == 0
    assert BalancerDoor([1, 0], kind).pick(excluded=1) == 0


@EVERY
def test_only_the_first_64_endpoints_can_be_marked_as_tried(kind):
    balancer = BalancerDoor([0] * 64 + [1, 1], kind)
    assert set(shares(balancer, 200, excluded=0b11)) == {64, 65}
    assert set(shares(BalancerDoor([1] * 65, kind), 200, excluded=2**64 - 1)) == {64}


@EVERY
def test_in_a_large_cluster_the_panic_verdict_stands_for_ten_milliseconds(kind):
    balancer = BalancerDoor([1] * 40, kind, panic_percent=50, backoff_ns=100 * S)
    for i in range(20):
        eject(balancer, i)
    assert set(shares(balancer, 2000, now_ns=S)) == set(range(20, 40))      # half are admitted: no panic
    eject(balancer, 20)
    assert set(shares(balancer, 2000, now_ns=S + 9 * MS)) == set(range(21, 40))
    assert set(shares(balancer, 2000, now_ns=S + 10 * MS)) == set(range(40))


@EVERY
def test_the_few_left_of_a_large_cluster_share_by_weight(kind):
    weights = [1 + i % 2 for i in range(100)]
    balancer = BalancerDoor(weights, kind, panic_percent=0)
    for i in range(98):
        eject(balancer, i)
    share = shares(balancer, 6000)
    assert set(share) == {98, 99}
    assert abs(share[99] - 2 / 3) < 0.05 or kind in (LEAST_REQUEST, PEAK_EWMA)


# --- round robin --------------------------------------------------------------------------------------------------

class SmoothWeighted:
    """Smooth weighted round robin over Python integers."""

    def __init__(self, weights):
        self.current = [0] * len(weights)
        self.weights = weights

    def pick(self, usable):
        for i in usable:
            self.current[i] += self.weights[i]
        chosen = max(usable, key=lambda i: (self.current[i], -i))
        self.current[chosen] -= sum(self.weights[i] for i in usable)
        return chosen


@given(weights_lists.filter(lambda w: len(set(w)) > 1), st.data())
def test_unequal_weights_rotate_as_the_smooth_algorithm_says(weights, data):
    balancer, oracle = BalancerDoor(weights, ROUND_ROBIN, panic_percent=0), SmoothWeighted(weights)
    candidates = [i for i, weight in enumerate(weights) if weight]
    for _ in range(sum(weights)):
        tried = data.draw(st.sampled_from([set(), set(), {candidates[0]}]))
        usable = [i for i in candidates if i not in tried] or candidates
        assert balancer.pick(excluded=sum(1 << i for i in tried)) == oracle.pick(usable)


@given(weights_lists.filter(any), seeds)
def test_over_the_sum_of_weights_each_endpoint_is_picked_its_weight_times(weights, seed):
    balancer = BalancerDoor(weights, ROUND_ROBIN, seed=seed)
    for _ in range(3):
        counts = Counter(balancer.pick() for _ in range(sum(weights)))
        assert counts == Counter({i: weight for i, weight in enumerate(weights) if weight})


@given(st.integers(1, 100), seeds)
def test_equal_weights_take_turns(n, seed):
    balancer = BalancerDoor([3] * n, ROUND_ROBIN, seed=seed)
    picks = [balancer.pick() for _ in range(3 * n)]
    assert picks == [(picks[0] + step) % n for step in range(3 * n)]


def test_workers_that_start_together_do_not_start_with_the_same_endpoint():
    assert len({BalancerDoor([1] * 10, ROUND_ROBIN, seed=seed).pick() for seed in range(100)}) == 10


def test_an_ejected_neighbour_does_not_double_the_turns_of_the_next():
    balancer = BalancerDoor([1] * 4, ROUND_ROBIN)
    eject(balancer, 1)
    assert Counter(balancer.pick() for _ in range(300)) == {0: 100, 2: 100, 3: 100}


def test_a_new_configuration_keeps_the_rotation_fair():
    balancer = BalancerDoor([1] * 10, ROUND_ROBIN)
    for weights in ([1] * 3, [2, 1, 1], [1] * 10, [5, 5], [1], [1, 7, 2]):
        balancer.set_weights(weights)
        counts = Counter(balancer.pick() for _ in range(100 * sum(weights)))
        assert all(abs(counts[i] - 100 * weight) <= 2 for i, weight in enumerate(weights)), counts


# --- random -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [5, 0, 1, 10, 0], [0, 65535, 1, 0], [1] * 200, list(range(100))])
def test_random_picks_follow_the_weights(weights):
    n, total = 50_000, sum(weights)
    balancer = BalancerDoor(weights, RANDOM, seed=3)
    counts = Counter(balancer.pick() for _ in range(n))
    for i, weight in enumerate(weights):
        expected = n * weight / total
        assert abs(counts[i] - expected) <= 6 * (expected * (1 - weight / total)) ** 0.5 + 1e-9, (i, counts[i], expected)


# --- two choices --------------------------------------------------------------------------------------------------

@TWO_CHOICES
def test_of_two_endpoints_the_less_loaded_is_always_picked(kind):
    """The two choices are distinct: were they not, the loaded one would come up in a quarter of the picks."""
    balancer = BalancerDoor([1, 1], kind)
    for _ in range(3):
        balancer.start(0)
    assert {balancer.pick() for _ in range(1000)} == {1}


@TWO_CHOICES
def test_the_most_loaded_endpoint_is_never_picked(kind):
    balancer = BalancerDoor([1] * 20, kind)
    for _ in range(2):
        balancer.start(7)
    assert 7 not in {balancer.pick() for _ in range(5000)}


@TWO_CHOICES
def test_load_is_relative_to_weight(kind):
    balancer = BalancerDoor([3, 1], kind)
    for _ in range(3):
        balancer.start(0)
    balancer.start(1)
    balancer.start(1)
    assert {balancer.pick() for _ in range(100)} == {0}      # (3+1)/3 < (2+1)/1
    for _ in range(6):
        balancer.start(0)
    assert {balancer.pick() for _ in range(100)} == {1}      # (9+1)/3 > (2+1)/1


@TWO_CHOICES
@pytest.mark.parametrize("weights", [[1, 1], [3, 1], [10, 1], [1, 2, 3, 4], [0, 5, 5, 1]])
@pytest.mark.parametrize("concurrency", [1, 4, 64])
def test_weights_are_honoured_at_every_load(kind, weights, concurrency):
    """A closed loop over endpoints that answer equally fast, simulated: the shares are those of the weights."""
    balancer = BalancerDoor(weights, kind, seed=5)
    chance = random.Random(5)
    now, running, counts = S, [], Counter()
    for step in range(20_000):
        if len(running) == concurrency:
            running.sort()
            now, i, rtt = running.pop(0)
            balancer.finish(i)
            balancer.observe(i, rtt, now)
        i = balancer.pick(now_ns=now)
        balancer.start(i)
        counts[i] += step >= 2000
        rtt = chance.uniform(0.9, 1.1) * MS
        running.append((now + int(rtt), i, rtt))
    for i, weight in enumerate(weights):
        expected = weight / sum(weights)
        share = counts[i] / 18_000
        assert (share > 0) == (weight > 0)
        assert abs(share - expected) <= 0.25 * expected + 0.02, (weights, concurrency, i, share)


def test_idle_endpoints_share_exactly_by_weight_with_least_request():
    share = shares(BalancerDoor([3, 1], LEAST_REQUEST), 40_000)
    assert abs(share[0] - 0.75) < 0.02


def test_the_faster_endpoint_is_preferred():
    balancer = BalancerDoor([1, 1], PEAK_EWMA)
    balancer.observe(0, 1 * MS, S)
    balancer.observe(1, 2 * MS, S)
    assert {balancer.pick(now_ns=S) for _ in range(100)} == {0}
    balancer.start(0)
    balancer.start(0)
    assert {balancer.pick(now_ns=S) for _ in range(100)} == {1}     # 1 ms * 3 > 2 ms * 1


@pytest.mark.parametrize("peers_ms", [0.1, 1, 30, 2000])
def test_a_newcomer_is_neither_free_nor_shunned_however_fast_its_peers_are(peers_ms):
    balancer = BalancerDoor([1] * 10, PEAK_EWMA)
    for i in range(9):
        balancer.observe(i, peers_ms * MS, S)
    share = shares(balancer, 20_000, now_ns=S)
    assert 0.05 < share[9] < 0.2
    balancer.start(9)                                       # with a request out it is as loaded as anyone with one
    assert 9 not in shares(balancer, 1000, now_ns=S)


def test_an_endpoint_that_was_slow_once_is_asked_again_after_a_while():
    balancer = BalancerDoor([1, 1], PEAK_EWMA, decay_ns=10 * S)
    balancer.observe(0, 1 * MS, S)
    balancer.observe(1, 1000 * MS, S)
    now, asked = S, None
    while asked is None:
        now += 100 * MS
        if balancer.pick(now_ns=now) == 1:
            asked = now
        else:
            balancer.observe(0, 1 * MS, now)
    assert 10 * S < asked < 600 * S
