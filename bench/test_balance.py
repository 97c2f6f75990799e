"""Times of a pick, by balancer and size of the cluster: flat in the number of endpoints."""

import pytest

from meshcore._fastpath import BalancerDoor

REPEAT = 1_000
KINDS = {"round_robin": 0, "random": 1, "least_request": 2, "peak_ewma": 3}


@pytest.mark.parametrize("endpoints", [3, 64, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_pick_among_equal_endpoints(timed, kind, endpoints):
    balancer = BalancerDoor([1] * endpoints, KINDS[kind])
    for i in range(endpoints):
        balancer.observe(i, 1e6 + i, 1_000_000)
    timed(lambda: balancer.pick(2_000_000, 0, REPEAT), times=REPEAT)


def test_pick_by_weight_among_64_endpoints(timed):
    balancer = BalancerDoor([1 + i % 5 for i in range(64)], KINDS["peak_ewma"])
    timed(lambda: balancer.pick(2_000_000, 0, REPEAT), times=REPEAT)


def test_pick_while_a_quarter_is_ejected(timed):
    balancer = BalancerDoor([1] * 64, KINDS["peak_ewma"], consecutive_failures=1)
    for i in range(16):
        balancer.fail(i * 4, 1_000_000)
    timed(lambda: balancer.pick(1_000_001, 0, REPEAT), times=REPEAT)
