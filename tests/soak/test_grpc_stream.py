"""The long call in small: some thousand messages through two proxies, none lost, none out of order."""

from tests.soak.grpc_stream import stream


def test_every_message_of_a_long_call_returns_once_and_in_order(only_meshcore):
    trouble, line = stream(5000)
    assert not trouble, line
