"""The kinds of traffic that are compared: what is spoken, over how many connections, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

# What a proxy is asked to speak: with clients, and with the backend. Each peer names those it can.
H1, H2_H1, H2, GRPC, TLS, MTLS, TCP = "h1", "h2-h1", "h2", "grpc", "tls", "mtls", "tcp"
WIRES = (H1, H2_H1, H2, GRPC, TLS, MTLS, TCP)


@dataclass(frozen=True)
class Shape:
    """`key` selects it on the command line; `conns` keep-alive connections unless it says close.

    `streams` requests at a time on each connection: h2load drives those, the load instrument all others.
    """

    key: str
    title: str
    conns: int
    arguments: tuple[str, ...] = ()
    wire: str = H1
    streams: int = 0

    @property
    def concurrency(self) -> str:
        return f"{self.conns} connections" + (f" × {self.streams}" if self.streams else "")

    @property
    def label(self) -> str:
        return f"{self.title}, {self.concurrency}"

    @property
    def is_handshakes(self) -> bool:
        """Each request has a connection, and so a handshake, of its own."""
        return self.wire in (TLS, MTLS) and "--close" in self.arguments

    def load_arguments(self) -> list[str]:
        return [f"--conns={self.conns}", *self.arguments]


SHAPES: tuple[Shape, ...] = (
    Shape("small", "small request", 64),
    Shape("browser", "browser-like, 12 headers", 64, ("--request=browser",)),
    Shape("small256", "small request", 256),
    Shape("browser256", "browser-like, 12 headers", 256, ("--request=browser",)),
    Shape("small1000", "small request", 1000),
    Shape("chunked", "chunked response", 64, ("--chunked",)),
    Shape("post", "POST 1 KiB", 64, ("--request=post",)),
    Shape("64k", "64 KiB response", 32, ("--response-bytes=65536",)),
    Shape("1m", "1 MiB response", 16, ("--response-bytes=1048576",)),
    Shape("close", "Connection: close", 32, ("--close",)),
    Shape("h2", "h2c to h2c", 16, wire=H2, streams=16),
    Shape("h2-single", "h2c to h2c", 16, wire=H2, streams=1),
    Shape("h2-h1", "h2c to HTTP/1.1", 16, wire=H2_H1, streams=16),
    Shape("h2-h1-single", "h2c to HTTP/1.1", 16, wire=H2_H1, streams=1),
    Shape("grpc", "gRPC unary", 16, wire=GRPC, streams=16),
    Shape("tls", "TLS 1.3", 64, wire=TLS),
    Shape("tls-full", "TLS 1.3, full handshake each", 32, ("--close",), wire=TLS),
    Shape("tls-resumed", "TLS 1.3, resumed handshake each", 32, ("--close", "--resume"), wire=TLS),
    Shape("mtls", "mutual TLS on both sides", 64, wire=MTLS),
    Shape("mtls-full", "mutual TLS, full handshake each", 32, ("--close",), wire=MTLS),
    # A request here is one MiB relayed: the load is the same, but nobody on the way reads it.
    Shape("tcp", "TCP relay, per MiB", 16, ("--response-bytes=1048576",), wire=TCP),
)
BY_KEY = {shape.key: shape for shape in SHAPES}
