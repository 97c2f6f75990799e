"""Where one message ends and the next begins, when the end comes at a bad moment; and every byte counted once."""

import socket
import threading

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.proxies import raw_stats
from tests.scenario.servers import chunked, eventually, response

pytestmark = pytest.mark.usefixtures("only_meshcore")

CHUNKED_POST = b"POST /first HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("last", range(1, 12))
def test_the_request_behind_the_last_octets_of_a_chunked_body_stays_whole(last, raw_server, proxy, raw_client):
    server = raw_server(lambda c: [c.send(response(body=c.read_request().target)) for _ in range(2)])
    client = raw_client(proxy(to=server))
    client.send_pieces([CHUNKED_POST[:-last], CHUNKED_POST[-last:] + request_bytes("GET", "/second")], gap_s=0.05)
    assert [client.read_response().text for _ in range(2)] == ["/first", "/second"]
    assert [request.body for request in server.requests] == [b"hello", b""]


class HastyServer:
    """Answers the first request of a connection on its head alone when told to, and then notes all that follows."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.go = threading.Event()
        self.followed: list[bytes] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(4096)
            if not data:
                return
            head += data
        if head.startswith(b"PUT"):
            self.go.wait(5)
        sock.sendall(response())
        followed = head.partition(b"\r\n\r\n")[2]
        sock.settimeout(1)
        try:
            while data := sock.recv(1 << 16):
                followed += data
                if b"GET /second" in followed:
                    sock.sendall(response())
                    break
        except OSError:
            pass
        self.followed.append(followed)
        sock.close()


@pytest.mark.parametrize("kib", range(1024, 5120, 256))
def test_a_connection_that_still_misses_body_bytes_gets_no_other_request(kib, proxy, raw_client):
    # How much the kernel takes before bytes wait in a pipe differs by machine: one of these sizes ends there.
    server, body = HastyServer(), b"x" * (kib << 10)
    running = proxy(to=f"127.0.0.1:{server.port}")
    client = raw_client(running)
    sender = threading.Thread(target=client.send, args=(request_bytes("PUT", "/first", body=body),), daemon=True)
    sender.start()
    sender.join(0.3)
    server.go.set()
    assert client.read_response().status == 200
    other = raw_client(running)
    other.send(request_bytes("GET", "/second"))
    assert other.read_response().status == 200
    client.close()
    other.close()
    eventually(lambda: server.followed)
    server.listener.close()
    for followed in server.followed:
        assert followed.find(b"GET /second") in (-1, len(body))


@pytest.mark.parametrize("answer", [
    response(), response(body=b"y" * 1_000_000), chunked(*[b"z" * 1000] * 300, trailers="X-Sum: 1\r\n"),
], ids=["small", "spliced", "chunked"])
@pytest.mark.parametrize("body", [b"", b"b" * 500, b"b" * 700_000], ids=["none", "small", "spliced"])
def test_a_listener_counts_each_byte_from_and_to_its_clients(answer, body, raw_server, proxy):
    running = proxy(to=raw_server(answer))
    request = request_bytes("POST", "/", {"Connection": "close"}, body=body)
    received = 0
    with socket.create_connection(running.addresses["web"]) as client:
        client.settimeout(10)
        client.sendall(request[:20])
        client.sendall(request[20:])
        while data := client.recv(1 << 16):
            received += len(data)
    row = raw_stats(running)["listeners"][0]
    assert (row["bytes_in"], row["bytes_out"]) == (len(request), received)


def test_a_listener_counts_the_bytes_of_its_refusals(raw_server, proxy):
    running = proxy(to=raw_server())
    with socket.create_connection(running.addresses["web"]) as client:
        client.sendall(b"nonsense\r\n\r\n")
        received = 0
        while data := client.recv(4096):
            received += len(data)
    assert raw_stats(running)["listeners"][0]["bytes_out"] == received > 0
