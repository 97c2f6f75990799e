"""Applications that know nothing of a proxy, for scenarios: `python -m tests.interception.peers NAME …` in a namespace.

Real programs play HTTP, HTTP/2 and PostgreSQL; here is what has none that is small enough.
"""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import socketserver
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

GREETING = b"220 mail.test ready\r\n"
ECHO = "/scenario.Echo/Say"


class Mail(socketserver.StreamRequestHandler):
    """Speaks first, as SMTP does; then tells whom it sees."""

    def handle(self) -> None:
        self.wfile.write(GREETING)
        for line in self.rfile:
            if line.startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 " + line)


class Named(socketserver.StreamRequestHandler):
    """Answers one line with the server's own address and port: where the connection came out."""

    def handle(self) -> None:
        for _ in self.rfile:
            host, port = self.connection.getsockname()[:2]
            self.wfile.write(f"{host} {port}\n".encode())


class FirstLine(socketserver.StreamRequestHandler):
    """Answers with the first line it was sent."""

    def handle(self) -> None:
        self.wfile.write(self.rfile.readline())


class NamedPage(http.server.BaseHTTPRequestHandler):
    """As Named, for HTTP: which address of this machine a request came to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host, port = self.connection.getsockname()[:2]
        body = f"{host} {port}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def serve(handler: type[socketserver.BaseRequestHandler], ports: list[str], host: str) -> None:
    pool = ThreadPoolExecutor(len(ports))
    for port in ports:
        pool.submit(Server((host, int(port)), handler).serve_forever)


def mail_client(host: str, port: str, patience_s: str = "15") -> None:
    with socket.create_connection((host, int(port)), float(patience_s)) as sock, sock.makefile("rwb") as stream:
        assert stream.readline() == GREETING
        stream.write(b"HELO a.test\r\nQUIT\r\n")
        stream.flush()
        assert stream.readline() == b"250 HELO a.test\r\n"
        assert stream.readline() == b"221 bye\r\n"
    print("spoken")


def asks(*targets: str) -> None:
    """One line to each HOST PORT, all connections open at once; prints what each says, or how it ended."""
    for host, port in zip(targets[::2], targets[1::2], strict=True):
        try:
            with socket.create_connection((host, int(port)), 15) as sock:
                sock.sendall(b"who?\n")
                print(sock.recv(100).decode().strip() or "closed")
        except OSError as error:
            print(type(error).__name__)


def holds(until: str, *targets: str) -> None:
    """Opens a connection to each HOST PORT and keeps it, once it has spoken, until a file is there; then speaks again."""
    sockets = []
    for host, port in zip(targets[::2], targets[1::2], strict=True):
        sockets.append(socket.create_connection((host, int(port)), 15))
        sockets[-1].sendall(b"who?\n")
        assert sockets[-1].recv(100)
    print("held", flush=True)
    while not Path(until).exists():
        time.sleep(0.02)
    for sock in sockets:
        sock.sendall(b"and now?\n")
        print(sock.recv(100).decode(), end="")


def pages(seed: str, n: str, port: str, *hosts: str) -> None:
    """Asks n times, in a random order of hosts, each over a connection of its own; prints who was not whom it asked."""
    rng = random.Random(int(seed))
    for _ in range(int(n)):
        host = rng.choice(hosts)
        connection = http.client.HTTPConnection(host, int(port), timeout=15)
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read().decode()
        if response.status != 200 or body != f"{host} {port}":
            print(f"asked {host}, got {response.status} {response.getheader('x-mesh-reason')} {body!r}")
        connection.close()
    print("asked")


def grpc_server(port: str) -> None:
    import grpc

    def say(request: bytes, context: object) -> bytes:
        return b"you said " + request

    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {"Say": grpc.unary_unary_rpc_method_handler(say)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("scenario.Echo", handlers),))
    assert server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    server.wait_for_termination()


def grpc_client(host: str, port: str) -> None:
    import grpc

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        print(channel.unary_unary(ECHO)(b"hello", timeout=15).decode())


PEERS = {
    "mail": lambda *ports: serve(Mail, list(ports), "0.0.0.0"),
    "named": lambda *ports: serve(Named, list(ports), "0.0.0.0"),
    "named-on-loopback": lambda *ports: serve(Named, list(ports), "127.0.0.1"),
    "mail-client": mail_client,
    "first-line": lambda *ports: serve(FirstLine, list(ports), "0.0.0.0"),
    "pages": lambda *ports: serve(NamedPage, list(ports), "0.0.0.0"),
    "asks": asks,
    "asks-pages": pages,
    "holds": holds,
    "grpc-server": grpc_server,
    "grpc-client": grpc_client,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](*sys.argv[2:])
