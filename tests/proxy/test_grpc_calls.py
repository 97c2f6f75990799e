"""gRPC through the proxy, between grpcio's own client and server: every kind of call, whole and given up."""

import queue

import grpc
import pytest

from tests.proxy.grpc_ends import EchoClient, EchoServer, failure
from tests.proxy.test_bodies import pattern
from tests.scenario.servers import eventually

PATIENCE_S = 20


@pytest.fixture
def server():
    server = EchoServer()
    yield server
    server.stop()


@pytest.fixture
def connect():
    clients = []

    def connect(running) -> EchoClient:
        clients.append(EchoClient(running.addresses["web"]))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(server, h2_proxy, connect):
    return connect(h2_proxy(to=server, upstream="http2"))


def test_unary_call(client):
    for _ in range(20):
        assert client.unary(b"message", timeout=PATIENCE_S) == b"message"


def test_empty_message(client):
    assert client.unary(b"", timeout=PATIENCE_S) == b""


@pytest.mark.parametrize("size", [16_379, 65_536, 1 << 20, 16 << 20])
def test_large_message_both_ways(client, size):
    assert client.unary(pattern(size), timeout=PATIENCE_S) == pattern(size)


def test_server_streams(client):
    assert list(client.server(b"1000", timeout=PATIENCE_S)) == [b"%d" % n for n in range(1000)]


def test_client_streams(client):
    assert client.client(iter([b"%d" % n for n in range(1000)]), timeout=PATIENCE_S) == b"+".join(b"%d" % n for n in range(1000))


def test_client_streams_nothing(client):
    assert client.client(iter(()), timeout=PATIENCE_S) == b""


def test_both_stream_in_turns(client):
    """Each message is only sent once the answer to the one before has come: nothing may be held back on the way."""
    outgoing: queue.Queue = queue.Queue()
    call = client.both(iter(outgoing.get, None), timeout=PATIENCE_S)
    for n in range(50):
        outgoing.put(b"%d" % n)
        assert next(call) == b"echo %d" % n
    outgoing.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def test_hundred_calls_at_once(client):
    calls = {n: client.unary.future(b"%d" % n * 100, timeout=PATIENCE_S) for n in range(100)}
    assert all(call.result() == b"%d" % n * 100 for n, call in calls.items())


def test_metadata_passes_both_ways(client, server):
    answer, call = client.unary.with_call(b"m", timeout=PATIENCE_S, metadata=(("x-asked", "yes"), ("x-raw-bin", b"\0\xff\x01")))
    assert (server.seen[0]["x-asked"], server.seen[0]["x-raw-bin"]) == ("yes", b"\0\xff\x01")
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["x-initial"], initial["x-bytes-bin"]) == ("first", b"\0\xff\x80")
    assert (trailing["x-trailing"], trailing["x-more-bin"]) == ("last", b"\xfe\0")


def test_failure_keeps_code_message_and_metadata(client):
    error = failure(lambda: client.fail(b"", timeout=PATIENCE_S))
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not now: caf\u00e9 100%")
    assert dict(error.trailing_metadata())["x-trailing"] == "of the failure"


def test_unknown_method_is_the_servers_answer(client):
    assert failure(lambda: client.unknown(b"", timeout=PATIENCE_S)).code() == grpc.StatusCode.UNIMPLEMENTED


def test_failure_after_messages_arrives_after_them(client):
    got = []

    def collect() -> None:
        for message in client.fail_late(b"", timeout=PATIENCE_S):
            got.append(message)

    error = failure(collect)
    assert (got, error.code(), error.details()) == ([b"one", b"two"], grpc.StatusCode.DATA_LOSS, "after two")


def test_cancelled_call_is_cancelled_at_the_server(client, server):
    call = client.hang.future(b"")
    assert server.started.wait(PATIENCE_S)
    call.cancel()
    assert server.cancelled.wait(PATIENCE_S)
    assert client.unary(b"still here", timeout=PATIENCE_S) == b"still here"


def test_cancelled_stream_is_cancelled_at_the_server(client, server):
    outgoing: queue.Queue = queue.Queue()
    call = client.both(iter(outgoing.get, None))
    outgoing.put(b"one")
    assert next(call) == b"echo one"
    call.cancel()
    eventually(lambda: call.done())
    outgoing.put(None)
    assert client.unary(b"still here", timeout=PATIENCE_S) == b"still here"


def test_deadline_of_the_client_reaches_the_server(client, server):
    client.unary(b"m", timeout=PATIENCE_S)
    failure(lambda: client.hang(b"", timeout=0.3))
    assert server.cancelled.wait(PATIENCE_S)


def test_calls_survive_a_reload(server, h2_proxy, connect, only_meshcore):
    from tests.scenario.h2_proxies import h2_config

    running = h2_proxy(to=server, upstream="http2")
    client = connect(running)
    outgoing: queue.Queue = queue.Queue()
    call = client.both(iter(outgoing.get, None), timeout=PATIENCE_S)
    for n in range(10):
        outgoing.put(b"%d" % n)
        assert next(call) == b"echo %d" % n
        running.reload(h2_config(to=server, upstream="http2", limits={"target_size": f"{1000 + n}"}))
        assert client.unary(b"u", timeout=PATIENCE_S) == b"u"
    outgoing.put(None)
    assert list(call) == []


def test_status_of_a_call_is_seen_in_the_tap(server, h2_proxy, connect, only_meshcore):
    from tests.proxy.test_tap_engine import Watching

    running = h2_proxy(to=server, upstream="http2")
    watching = Watching(running)
    failure(lambda: connect(running).fail(b"", timeout=PATIENCE_S))
    request, answer, end = watching.first(3)
    assert (request.method, request.path) == ("POST", "/test.Echo/Fail")
    assert end.grpc_status == grpc.StatusCode.FAILED_PRECONDITION.value[0]
