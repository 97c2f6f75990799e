"""Single checks: what passes, and what is said of each way to fail. Real sockets, one question each."""

import asyncio
import os
import resource
import socket
import threading

import grpc
import pytest
from google.protobuf import wrappers_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from meshcore.config import Config, compile_plan
from meshcore.health import targets_of
from meshcore.health.grpc_probe import decode_status, encode_request
from meshcore.health.probes import CheckFailed, ask
from tests.health.asked import HealthServer
from tests.scenario import proxies
from tests.scenario.servers import BlackHole, refusing_port

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def target(address, **check):
    config = Config.from_dict(proxies.config(to=address, cluster={"health_check": {"timeout": "5s", **check}}))
    return targets_of(config, compile_plan(config))[0]


def outcome(address, **check):
    """("passed", "") or what failed, in words."""
    try:
        asyncio.run(ask(target(address, **check)))
    except CheckFailed as failed:
        return failed.result, failed.words
    return "passed", ""


def saying(data: bytes, end=None):
    def script(connection):
        connection.read_request()
        connection.send(data)
        (end or (lambda connection: connection.wait_closed()))(connection)
    return script


# --- HTTP -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("data", "passes"), [
    (b"HTTP/1.1 200 OK\r\n\r\n", True),
    (b"HTTP/1.0 302 Found\r\nlocation: /\r\n\r\n", True),
    (b"HTTP/1.1 204\r\n\r\n", True),
    (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", True),
    (b"HTTP/1.1 400 Bad\r\n\r\n", False),
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", False),
])
def test_the_final_status_decides(raw_server, data, passes):
    assert (outcome(raw_server(saying(data)).address)[0] == "passed") == passes


@pytest.mark.parametrize(("data", "end", "words"), [
    (b"", lambda connection: None, "it closed without an answer"),
    (b"HTTP/1.1 200 OK\r\nserv", lambda connection: None, "it closed within the head of its answer"),
    (b"", lambda connection: connection.reset(), "Connection reset by peer"),
    (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, None, "the head of its answer is larger than 16384 bytes"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", None, "its answer is no HTTP/1.1: 'SSH-2.0-OpenSSH\\r\\n\\r\\n'"),
    (b"HTTP/2 200\r\n\r\n", None, "its answer is no HTTP/1.1: 'HTTP/2 200\\r\\n\\r\\n'"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", None, "its answer is no HTTP/1.1: 'HTTP/1.1 2000 OK\\r\\n\\r\\n'"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, None, "it answered 100, expected 200-399"),
])
def test_hostile_and_broken_answers_fail_in_words(raw_server, data, end, words):
    assert outcome(raw_server(saying(data, end)).address) == ("bad_answer", words)


def test_a_head_that_never_ends_fails_by_timeout(raw_server):
    server = raw_server(saying(b"HTTP/1.1 200 OK\r\n"))
    assert outcome(server.address, timeout="50ms") == ("timeout", "no answer within 50ms")


def test_a_body_without_end_is_not_read(raw_server):
    def endless(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n")
        try:
            while True:
                connection.sock.sendall(bytes(65536))
        except OSError:
            pass

    assert outcome(raw_server(endless).address) == ("passed", "")


# --- connecting -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
def test_a_refused_connection_is_unreachable(kind):
    result, words = outcome(f"127.0.0.1:{refusing_port()}", type=kind)
    assert result == "unreachable" and "Connection refused" in words


@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
def test_a_handshake_that_never_ends_is_a_timeout(kind):
    hole = BlackHole()
    try:
        result, words = outcome(hole.address, type=kind, timeout="100ms")
    finally:
        hole.stop()
    assert result == "timeout" and words == ("no answer within 100ms" if kind == "grpc" else "no connection within 100ms")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_unix_endpoints_are_asked_too(tmp_path, kind):
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            seen.append(connection.recv(4096))
            if kind == "http":
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            connection.close()

        seen: list[bytes] = []
        serving = threading.Thread(target=serve)
        serving.start()
        assert outcome(f"unix:{path}", type=kind) == ("passed", "")
        serving.join(10)
    assert b"host: localhost\r\n" in seen[0] if kind == "http" else seen == [b""]
    os.unlink(path)
    assert outcome(f"unix:{path}", type=kind) == ("unreachable", "No such file or directory")


def test_without_descriptors_of_our_own_nothing_is_said_of_the_endpoint(raw_server):
    async def without_descriptors():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            await ask(one)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    one = target(raw_server().address, type="tcp")
    with pytest.raises(CheckFailed) as failed:
        asyncio.run(without_descriptors())
    assert (failed.value.result, failed.value.words) == ("unasked", "Too many open files")


# --- gRPC -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def health_server():
    started = []

    def start(answers):
        started.append(HealthServer(answers))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.mark.parametrize(("answers", "service", "told"), [
    ({"": SERVING}, "", ("passed", "")),
    ({"": NOT_SERVING}, "", ("bad_answer", "it says NOT_SERVING")),
    ({"": b""}, "", ("bad_answer", "it says UNKNOWN")),
    ({"": b"\x08\x63"}, "", ("bad_answer", "it says 99")),
    ({"": b"\xff"}, "", ("bad_answer", "its answer is no HealthCheckResponse")),
    ({"": NOT_SERVING, "a.B": SERVING}, "a.B", ("passed", "")),
    ({"": SERVING}, "a.B", ("bad_answer", "NOT_FOUND: no 'a.B'??[31mhere")),
    ({"": grpc.StatusCode.PERMISSION_DENIED}, "", ("bad_answer", "PERMISSION_DENIED: no ''??[31mhere")),
    (None, "", ("bad_answer", "UNIMPLEMENTED: Method not found!")),
])
def test_only_serving_passes(health_server, answers, service, told):
    assert outcome(health_server(answers).address, type="grpc", service=service) == told


def test_a_grpc_server_that_hangs_is_given_up_and_told_so(health_server):
    server = health_server({"": b"hang"})
    assert outcome(server.address, type="grpc", timeout="300ms") == ("timeout", "no answer within 300ms")
    assert server.hanging.is_set() and server.ended.wait(10)


def test_a_server_that_speaks_no_http2_fails_a_grpc_check(raw_server):
    def script(connection):
        connection.receive()
        connection.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    assert outcome(raw_server(script).address, type="grpc")[0] in ("unreachable", "timeout")


@given(st.text(max_size=300))
def test_the_request_is_what_protobuf_makes_of_a_string(service):
    assert encode_request(service) == wrappers_pb2.StringValue(value=service).SerializeToString()


@given(st.integers(-2**31, 2**31 - 1), st.binary(max_size=40))
def test_the_answer_is_read_as_protobuf_reads_it(value, other):
    message = b"\x12" + bytes([len(other)]) + other + wrappers_pb2.Int32Value(value=value).SerializeToString()
    assert decode_status(message) == value % 2**64


@given(st.binary(max_size=60))
@example(b"\x08" + b"\x80" * 20 + b"\x01")
@example(b"\x12\xff\xff\xff\xff\x0f")
def test_any_bytes_are_an_answer_or_none(message):
    try:
        decode_status(message)
    except CheckFailed as failed:
        assert failed.result == "bad_answer"
