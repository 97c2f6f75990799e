"""Retries by grpc-status: a call that ended before its first message is sent again where its route says so, and no other."""

import grpc
import pytest

from tests.proxy.grpc_ends import OPTIONS, EchoClient, failure
from tests.scenario.servers import eventually

pytestmark = pytest.mark.usefixtures("only_meshcore")

PATIENCE_S = 20
STATUSES = ("cancelled", "deadline_exceeded", "resource_exhausted", "unavailable")
MESSAGE = b"\0\0\0\0\3abc"
OK = [("grpc-status", "0")]


def answering(*answers):
    """A script: the nth request of all connections gets the nth answer; the last one all that follow."""
    left = list(answers)

    def script(connection):
        while True:
            request = connection.next_request()
            head, body, trailers = left.pop(0) if len(left) > 1 else left[0]
            connection.respond(request.stream, 200, body, [("content-type", "application/grpc"), *head], trailers=trailers)

    return script


def ended(status: int, *more):
    """An answer without a message, its status in the head."""
    return [("grpc-status", str(status)), *more], b"", None


GOOD = ([], MESSAGE, OK)


def retrying(h2_proxy, server, *on: str, attempts: int = 3, **words):
    route = {"retries": {"on": list(on), "max_attempts": attempts}}
    return h2_proxy(to=server, upstream="http2", route=route, **words)


def call(client, body: bytes = MESSAGE):
    return client.post("/test.Echo/Unary", body, [("content-type", "application/grpc"), ("te", "trailers")])


@pytest.mark.parametrize("status, word", [(1, "cancelled"), (4, "deadline_exceeded"), (8, "resource_exhausted"), (14, "unavailable")])
def test_a_call_that_ended_with_a_listed_status_is_sent_again(status, word, h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(status), ended(status), GOOD))
    running = retrying(h2_proxy, server, word)
    answer = call(h2_client(running))
    assert (answer.body, answer.trailer("grpc-status")) == (MESSAGE, "0")
    assert [bytes(request.body) for request in server.requests] == [MESSAGE] * 3
    assert running.stats().clusters[0].retries == 2


@pytest.mark.parametrize("status", [0, 2, 3, 5, 13, 16])
def test_no_other_status_is(status, h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(status), GOOD))
    assert call(h2_client(retrying(h2_proxy, server, *STATUSES))).get("grpc-status") == str(status)
    assert len(server.requests) == 1


def test_a_status_that_is_not_listed_is_the_answer(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(14), GOOD))
    assert call(h2_client(retrying(h2_proxy, server, "cancelled"))).get("grpc-status") == "14"


def test_a_head_that_trailers_follow_has_committed_the_call(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(([("x", "y")], b"", [("grpc-status", "14")]), GOOD))
    assert call(h2_client(retrying(h2_proxy, server, "unavailable"))).trailer("grpc-status") == "14"
    assert len(server.requests) == 1


def test_after_a_message_nothing_is_sent_again(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(([], MESSAGE, [("grpc-status", "14")]), GOOD))
    answer = call(h2_client(retrying(h2_proxy, server, "unavailable")))
    assert (answer.body, answer.trailer("grpc-status")) == (MESSAGE, "14")
    assert len(server.requests) == 1


@pytest.mark.parametrize("pushback, requests", [("-1", 1), ("x", 1), ("", 1), ("250", 1), ("0", 2)])
def test_a_server_may_forbid_it(pushback, requests, h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(14, ("grpc-retry-pushback-ms", pushback)), GOOD))
    call(h2_client(retrying(h2_proxy, server, "unavailable")))
    assert len(server.requests) == requests


def test_the_last_attempt_s_status_is_the_answer(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(14, ("grpc-message", "busy"))))
    answer = call(h2_client(retrying(h2_proxy, server, "unavailable", attempts=2)))
    assert (answer.get("grpc-status"), answer.get("grpc-message")) == ("14", "busy")
    assert len(server.requests) == 2


def test_the_budget_bounds_it(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(14)))
    cluster = {"retry_budget": {"ratio_percent": 0, "min_per_second": 0}}
    running = retrying(h2_proxy, server, "unavailable", cluster=cluster)
    assert call(h2_client(running)).get("grpc-status") == "14"
    assert len(server.requests) == 1
    assert running.stats().clusters[0].budget_exhausted == 1


def test_a_call_too_large_to_be_kept_is_not_sent_again(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(14), GOOD))
    body = b"\0" + (1 << 20).to_bytes(4, "big") + bytes(1 << 20)
    assert call(h2_client(retrying(h2_proxy, server, "unavailable")), body).get("grpc-status") == "14"
    assert len(server.requests) == 1


def test_requests_that_are_no_calls_are_not_read_for_a_status(h2_server, h2_client, h2_proxy):
    server = h2_server(answering(ended(14), GOOD))
    h2_client(retrying(h2_proxy, server, "unavailable")).post("/", b"x")
    assert len(server.requests) == 1


def test_a_busy_endpoint_s_call_goes_to_another(h2_server, h2_client, h2_proxy):
    busy, idle = h2_server(answering(ended(8))), h2_server(answering(GOOD))
    running = retrying(h2_proxy, [busy, idle], "resource_exhausted", attempts=2, cluster={"balancer": "round_robin"})
    client = h2_client(running)
    assert [call(client).trailer("grpc-status") for _ in range(4)] == ["0"] * 4
    endpoints = running.stats().clusters[0].endpoints
    assert sum(endpoint.failures for endpoint in endpoints) == 0            # that it is full is no fault of its own


class Flaky:
    """A real server whose unary method fails as often as told, then answers."""

    def __init__(self, fails: int, code: grpc.StatusCode):
        from concurrent import futures

        self.calls = 0

        def unary(request: bytes, context) -> bytes:
            self.calls += 1
            if self.calls <= fails:
                context.abort(code, "not yet")
            return request

        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
        handlers = {"Unary": grpc.unary_unary_rpc_method_handler(unary)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait(5)


@pytest.mark.parametrize("fails, attempts, code", [(2, 3, None), (3, 3, grpc.StatusCode.UNAVAILABLE)])
def test_between_grpcio_s_own_client_and_server(fails, attempts, code, h2_proxy):
    server = Flaky(fails, grpc.StatusCode.UNAVAILABLE)
    client = EchoClient(retrying(h2_proxy, server, "unavailable", attempts=attempts).addresses["web"])
    try:
        if code is None:
            assert client.unary(b"message", timeout=PATIENCE_S) == b"message"
        else:
            assert failure(lambda: client.unary(b"message", timeout=PATIENCE_S)).code() is code
        eventually(lambda: server.calls == attempts)
    finally:
        client.close()
        server.stop()
