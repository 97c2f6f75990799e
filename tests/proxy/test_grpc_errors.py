"""What the proxy itself answers to gRPC: HTTP 200 with grpc-status and the reason as its message; deadlines that it keeps."""

import grpc
import pytest

from tests.proxy.grpc_ends import EchoServer, failure
from tests.proxy.test_grpc_calls import connect, server  # noqa: F401  (fixtures)
from tests.scenario import h2_frames as h2
from tests.scenario.servers import BlackHole, eventually, refusing_port

pytestmark = pytest.mark.usefixtures("only_meshcore")

PATIENCE_S = 20
Code = grpc.StatusCode
GRPC = {"content-type": "application/grpc", "te": "trailers"}


def message(payload: bytes) -> bytes:
    """A gRPC message: not compressed, its length, itself."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


def silent(connection):
    connection.next_request()
    connection.read_to_end(20)


def raw_call(client, path: str = "/test.Echo/Unary", fields: dict | None = None):
    return client.response(client.request("POST", path, {**GRPC, **(fields or {})}, message(b"m")))


@pytest.mark.parametrize("name, words, code, reason", [
    ("no route", {"routes": [{"name": "other", "match": {"prefix": "/other"}, "to": "backend"}]}, Code.NOT_FOUND, "route_not_found"),
    ("no endpoint", {"to": []}, Code.UNAVAILABLE, "no_endpoint"),
    ("refused", {"to": f"127.0.0.1:{refusing_port()}"}, Code.UNAVAILABLE, "upstream_connect_failed"),
])
def test_answer_of_the_proxy_is_a_grpc_status(h2_proxy, h2_client, connect, name, words, code, reason):  # noqa: F811
    running = h2_proxy(upstream="http2", **words)
    error = failure(lambda: connect(running).unary(b"m", timeout=PATIENCE_S))
    assert error.code() == code
    answer = raw_call(h2_client(running))
    assert (answer.status, answer.get("content-type"), answer.body_bytes) == (200, "application/grpc", 0)
    assert answer.get("grpc-status") == str(code.value[0])
    assert answer.reason == reason
    assert answer.get("grpc-message")


def test_same_fault_without_grpc_is_an_http_status(h2_proxy, h2_client):
    answer = h2_client(h2_proxy(to=[])).post("/test.Echo/Unary", b"m")
    assert (answer.status, answer.all("grpc-status"), answer.reason) == (503, [], "no_endpoint")


def test_grpc_web_and_other_types_are_not_taken_for_grpc(h2_proxy, h2_client):
    client = h2_client(h2_proxy(to=[]))
    assert raw_call(client, fields={"content-type": "application/grpc-web"}).status == 503
    assert raw_call(client, fields={"content-type": "application/grpcx"}).status == 503
    assert raw_call(client, fields={"content-type": "application/grpc+proto"}).status == 200


def test_endpoint_that_never_connects_is_deadline_exceeded(h2_proxy, h2_client):
    hole = BlackHole()
    answer = raw_call(h2_client(h2_proxy(to=hole, upstream="http2", cluster={"connect_timeout": "100ms"})))
    hole.stop()
    assert (answer.status, answer.get("grpc-status"), answer.reason) == (200, str(Code.DEADLINE_EXCEEDED.value[0]), "upstream_connect_timeout")


def test_endpoint_that_never_answers_is_deadline_exceeded(h2_server, h2_proxy, h2_client):
    """By the whole call's time: a call may stream for long before its response begins, so `timeout` is no bound here."""
    answer = raw_call(h2_client(h2_proxy(to=h2_server(silent), upstream="http2", route={"total_timeout": "100ms"})))
    assert (answer.status, answer.get("grpc-status")) == (200, str(Code.DEADLINE_EXCEEDED.value[0]))


def test_endpoint_that_breaks_off_is_unavailable(h2_server, h2_proxy, h2_client):
    def breaking(connection):
        connection.next_request()

    answer = raw_call(h2_client(h2_proxy(to=h2_server(breaking), upstream="http2")))
    assert (answer.status, answer.get("grpc-status")) == (200, str(Code.UNAVAILABLE.value[0]))


def test_overload_is_unavailable(h2_server, h2_proxy, h2_client):
    server = h2_server(silent)  # noqa: F811
    client = h2_client(h2_proxy(to=server, upstream="http2", cluster={"max_requests": 1, "max_queue": 0}))
    client.request("POST", "/test.Echo/Unary", GRPC, message(b"first"))
    server.wait_requests(1)
    assert raw_call(client).get("grpc-status") == str(Code.UNAVAILABLE.value[0])


# --- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["100m", "100000u", "99999999n"])
def test_deadline_in_the_request_is_kept_by_the_proxy(h2_server, h2_proxy, h2_client, written):
    codes = []

    def hanging(connection):
        codes.append(connection.wait_reset(connection.next_request().stream))
        connection.read_to_end()

    answer = raw_call(h2_client(h2_proxy(to=h2_server(hanging), upstream="http2")), fields={"grpc-timeout": written})
    assert (answer.status, answer.get("grpc-status")) == (200, str(Code.DEADLINE_EXCEEDED.value[0]))
    eventually(lambda: codes == [h2.CANCEL])


def test_deadline_of_an_http1_client_is_kept_too(h2_server, h2_proxy, raw_client):
    client = raw_client(h2_proxy(to=h2_server(silent), upstream="http2"))
    answer = client.post("/test.Echo/Unary", message(b"m"), {**GRPC, "connection": "te", "grpc-timeout": "100m"})
    assert (answer.status, answer.get("grpc-status")) == (200, str(Code.DEADLINE_EXCEEDED.value[0]))


def test_deadline_is_passed_on_to_the_server(h2_server, h2_proxy, h2_client):
    upstream = h2_server()
    raw_call(h2_client(h2_proxy(to=upstream, upstream="http2")), fields={"grpc-timeout": "10S"})
    left = upstream.requests[0].get("grpc-timeout")
    assert left is not None and left[-1] in "HMSmun" and left[:-1].isdigit()


@pytest.mark.parametrize("written", ["", "10", "S", "-1S", "123456789S", "10X", "1.5S"])
def test_deadline_that_cannot_be_read_is_none(h2_server, h2_proxy, h2_client, written):
    assert raw_call(h2_client(h2_proxy(to=h2_server(), upstream="http2")), fields={"grpc-timeout": written}).status == 200


def test_deadline_within_a_stream_cuts_it(h2_server, h2_proxy, h2_client):
    def dripping(connection):
        request = connection.next_request()
        connection.send_headers(request.stream, [(":status", "200"), ("content-type", "application/grpc")])
        connection.send_data(request.stream, message(b"one"))
        connection.read_to_end(20)

    client = h2_client(h2_proxy(to=h2_server(dripping), upstream="http2"))
    stream = client.request("POST", "/test.Echo/Server", {**GRPC, "grpc-timeout": "200m"}, message(b"m"))
    client.wait(lambda: (m := client.reader.streams.get(stream)) and m.ended, "an end in time")
    ended = client.reader.streams[stream]
    assert ended.reset is not None or ended.trailer("grpc-status") == str(Code.DEADLINE_EXCEEDED.value[0])


def test_deadline_of_the_client_is_not_the_endpoints_failure(h2_server, h2_proxy, h2_client):
    running = h2_proxy(to=h2_server(silent), upstream="http2")
    raw_call(h2_client(running), fields={"grpc-timeout": "50m"})
    assert running.stats().cluster("backend").endpoints[0].ejections == 0


# --- statuses of the server --------------------------------------------------------------------------------------------


def test_trailers_only_answer_passes_as_it_is(h2_server, h2_proxy, h2_client):
    def trailers_only(connection):
        request = connection.next_request()
        connection.send_headers(request.stream, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "7"),
                                                 ("grpc-message", "no%20way")], end_stream=True)
        connection.read_to_end()

    answer = raw_call(h2_client(h2_proxy(to=h2_server(trailers_only), upstream="http2")))
    assert (answer.status, answer.get("grpc-status"), answer.get("grpc-message"), answer.body_bytes) == (200, "7", "no%20way", 0)


def test_server_that_goes_away_between_calls_is_replaced(h2_proxy, connect):  # noqa: F811
    first = EchoServer()
    running = h2_proxy(to=first, upstream="http2")
    client = connect(running)
    assert client.unary(b"1", timeout=PATIENCE_S) == b"1"
    address = first.address
    first.stop()
    second = EchoServer(address)
    eventually(lambda: calls(client), 15)
    second.stop()


def calls(client) -> bool:
    try:
        return client.unary(b"2", timeout=PATIENCE_S) == b"2"
    except grpc.RpcError:
        return False
