"""Three balancers and one endpoint that turns slow: what was published of Finagle's holds for ours."""

import pytest

from bench.balancing.picture import svg
from bench.balancing.simulation import simulate
from bench.balancing.sockets import play
from bench.balancing.story import BALANCERS, PUBLISHED, Story


@pytest.fixture(scope="module")
def told():
    return {balancer: simulate(Story(), balancer) for balancer in BALANCERS}


def test_each_balancer_answers_the_published_share_within_a_second(told):
    """Round robin by arithmetic: half of the time one request in eleven is slow."""
    assert abs(told["round_robin"].within - (1 - 0.5 / 11)) < 0.0005
    assert told["least_request"].within >= 0.993 > PUBLISHED["least_request"]
    assert told["peak_ewma"].within >= PUBLISHED["peak_ewma"]


def test_who_looks_at_latency_is_fast_where_the_others_are_slow(told):
    seconds = {balancer: outcome.percentiles for balancer, outcome in told.items()}
    assert seconds["round_robin"]["99"] == 2.0 > seconds["least_request"]["99"]
    assert seconds["least_request"]["99.9"] == 2.0 > seconds["peak_ewma"]["99.9"]


def test_the_same_seed_tells_the_same_story_and_another_does_not(told):
    assert simulate(Story(), "peak_ewma") == told["peak_ewma"]
    assert simulate(Story(seed=2), "peak_ewma").curve != told["peak_ewma"].curve


def test_over_real_sockets_the_slow_endpoint_is_avoided_as_well():
    """Short, and so without the shares: those are for `python -m bench.balancing`."""
    story = Story(seconds=4.0, rate=150.0)
    outcome = play(story, "peak_ewma")
    assert outcome.errors == 0
    assert outcome.to_slow < story.requests / 2 / story.backends / 2


def test_the_picture_has_a_line_for_each_balancer(told):
    drawn = svg([("simulation", told.values())], "a machine")
    assert drawn.count("<polyline") == len(BALANCERS)
    assert "99.9" in drawn
