"""gRPC-Web to gRPC and back: a client of plain HTTP, a real grpcio server; trailers in the body, as octets or as base64."""

import base64
import struct

import pytest

from tests.proxy.grpc_ends import SERVICE, EchoServer
from tests.scenario.clients import request_bytes
from tests.scenario.servers import chunked, response

pytestmark = pytest.mark.usefixtures("only_meshcore")

WEB = {"grpc_web": True}
KINDS = ["application/grpc-web+proto", "application/grpc-web-text+proto"]


@pytest.fixture
def server():
    server = EchoServer()
    yield server
    server.stop()


def message(data: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(data)) + data


def framed(kind: str, *messages: bytes) -> bytes:
    body = b"".join(map(message, messages))
    return base64.b64encode(body) if "text" in kind else body


def read(kind: str, body: bytes) -> tuple[list[bytes], dict[str, str]]:
    """The messages of a body, and its trailers: the last frame, and the only one of its kind."""
    data = base64.b64decode(body, validate=True) if "text" in kind else body
    messages: list[bytes] = []
    while data:
        flag, size = data[0], int.from_bytes(data[1:5], "big")
        part, data = data[5 : 5 + size], data[5 + size :]
        assert len(part) == size
        if flag == 128:
            assert not data
            return messages, dict(line.split(": ", 1) for line in part.decode().split("\r\n") if line)
        messages.append(part)
    raise AssertionError("no frame of trailers")


@pytest.fixture(params=["h1", "h2"])
def call(request, h2_proxy, server, raw_client, h2_client):
    """`call(kind, method, *messages)`: the head of the answer, its messages, its trailers; over each version."""
    running = h2_proxy(to=server, route=WEB)           # the cluster says nothing of HTTP/2: a call needs it

    def run(kind: str, method: str, *messages: bytes, fields: dict[str, str] | None = None):
        client = (raw_client if request.param == "h1" else h2_client)(running)
        fields = {"content-type": kind, "x-grpc-web": "1", **(fields or {})}
        answer = client.post(f"/{SERVICE}/{method}", framed(kind, *messages), list(fields.items()))
        assert answer.status == 200
        if answer.get("grpc-status") is not None:
            return answer, [], {name.lower(): answer.get(name) for name in ("grpc-status", "grpc-message", "x-trailing")}
        assert answer.trailers == []
        return answer, *read(kind, bytes(answer.body))

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_and_its_trailers(kind, call, server):
    answer, messages, trailers = call(kind, "Unary", b"hello", fields={"x-mine": "1"})
    assert messages == [b"hello"]
    assert (trailers["grpc-status"], trailers["x-trailing"], trailers["x-more-bin"].rstrip("=")) == ("0", "last", "/gA")
    assert answer.get("content-type") == kind.replace("+proto", "") and answer.get("x-initial") == "first"
    assert server.seen[0]["x-mine"] == "1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 70_000, 700_003])
def test_messages_of_any_size(kind, size, call):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert call(kind, "Unary", data)[1] == [data]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_messages(kind, call):
    _, messages, trailers = call(kind, "Server", b"300")
    assert messages == [b"%d" % n for n in range(300)] and trailers["grpc-status"] == "0"


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_without_a_message_and_one_behind_two(kind, call):
    answer, messages, trailers = call(kind, "Fail", b"x")
    assert (messages, trailers["grpc-status"], trailers["x-trailing"]) == ([], "9", "of the failure")
    assert answer.get("content-type").startswith("application/grpc-web")
    _, messages, trailers = call(kind, "FailLate", b"x")
    assert (messages, trailers["grpc-status"], trailers["grpc-message"]) == ([b"one", b"two"], "15", "after two")


def test_a_deadline_is_the_callers(call):
    _, messages, trailers = call(KINDS[0], "Hang", b"x", fields={"grpc-timeout": "100m"})
    assert (messages, trailers["grpc-status"]) == ([], "4")


@pytest.mark.parametrize("how", ["by length", "chunked"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_base64_cut_anywhere_is_the_same_call(how, size, h2_proxy, server, raw_client):
    client = raw_client(h2_proxy(to=server, route=WEB))
    body = framed(KINDS[1], b"hello, hello")
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    client.reader.expect("POST")
    fields = {"Content-Type": KINDS[1], **({"Transfer-Encoding": "chunked"} if how == "chunked" else {"Content-Length": str(len(body))})}
    client.send(request_bytes("POST", f"/{SERVICE}/Unary", fields))
    for piece in pieces:
        client.send(b"%x\r\n%s\r\n" % (len(piece), piece) if how == "chunked" else piece)
    if how == "chunked":
        client.send(b"0\r\n\r\n")
    assert read(KINDS[1], bytes(client.read_response().body))[0] == [b"hello, hello"]


def test_blocks_that_are_padded_one_by_one_are_one_body(h2_proxy, server, raw_client):
    client = raw_client(h2_proxy(to=server, route=WEB))
    body = base64.b64encode(message(b"hello")[:5]) + base64.b64encode(b"hello")
    answer = client.post(f"/{SERVICE}/Unary", body, {"Content-Type": KINDS[1]})
    assert read(KINDS[1], bytes(answer.body))[0] == [b"hello"]


@pytest.mark.parametrize("body", [b"!!!!", b"AAAAAAVoZWxsbw=", b"AA=AAAAA", b"AAAA\nAAA"])
def test_what_is_no_base64_is_refused_and_reaches_nobody(body, h2_server, h2_proxy, raw_client, h2_client):
    server = h2_server()
    running = h2_proxy(to=server, route=WEB)
    for answer in (raw_client(running).post("/x", body, {"Content-Type": KINDS[1]}), h2_client(running).post("/x", body, [("content-type", KINDS[1])])):
        assert (answer.status, answer.get("grpc-status"), answer.get("x-mesh-reason")) in ((200, "13", "bad_grpc_web"), (200, "13", "body_incomplete"))
    assert running.stats().clusters[0].endpoints[0].failures == 0


def test_an_error_of_the_proxy_can_be_read_by_its_caller(h2_proxy, raw_client):
    client = raw_client(h2_proxy(to=[], route=WEB))
    answer = client.post("/x", framed(KINDS[0], b""), {"Content-Type": KINDS[0]})
    assert (answer.status, answer.get("content-type"), answer.get("grpc-status"), answer.get("x-mesh-reason")) == (200, KINDS[0], "14", "no_endpoint")


def test_what_a_server_says_that_is_no_call_is_passed_on(h2_server, h2_proxy, raw_client):
    def script(connection):
        while True:
            connection.answer(404, b"no such page", [("content-type", "text/html")])

    answer = raw_client(h2_proxy(to=h2_server(script), route=WEB)).post("/x", framed(KINDS[1], b""), {"Content-Type": KINDS[1]})
    assert (answer.status, answer.text, answer.get("content-type")) == (404, "no such page", "text/html")


def test_what_reaches_the_server_is_grpc(h2_server, h2_proxy, raw_client):
    server = h2_server()
    raw_client(h2_proxy(to=server, route=WEB)).post("/x", framed(KINDS[1], b"hello"), {"Content-Type": "application/grpc-web-text+thrift; a=b"})
    [seen] = server.requests
    assert (seen.get("content-type"), seen.get("te"), seen.all("content-length")) == ("application/grpc+thrift; a=b", "trailers", [])
    assert bytes(seen.body) == message(b"hello")


@pytest.mark.parametrize("fields", [{"Content-Type": "application/grpc-website"}, {"Content-Type": "application/json"}, {}])
def test_other_requests_of_the_route_are_left_alone(fields, raw_server, proxy, raw_client):
    server = raw_server(chunked(b"ok"))
    assert raw_client(proxy(to=server, route=WEB)).post("/x", b"body", fields).text == "ok"
    assert (server.requests[0].body, server.requests[0].get("content-type")) == (b"body", fields.get("Content-Type"))


def test_without_the_option_nothing_is_touched(raw_server, proxy, raw_client):
    server = raw_server(response(200, b"x", {"Content-Type": KINDS[0]}))
    answer = raw_client(proxy(to=server)).post("/x", framed(KINDS[0], b"y"), {"Content-Type": KINDS[0]})
    assert (answer.body, server.requests[0].get("content-type")) == (b"x", KINDS[0])
