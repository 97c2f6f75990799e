"""A few calls of the long run: each ends with the status of its deadline. How soon is the long run's to say."""

from tests.soak.grpc_deadline import calls


def test_a_call_that_hangs_ends_with_its_deadline_through_two_proxies(only_meshcore):
    took_ms, trouble = calls(3)
    assert len(took_ms) == 3 and not trouble
