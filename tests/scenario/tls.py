"""Peers that speak TLS: clients and scripted servers by Python's ssl, and the files of a small PKI. Owns no proxy."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenario.certificates import Authority, Leaf
from tests.scenario.clients import RawClient
from tests.scenario.servers import PATIENCE_S, PeerGone, ServerConnection, answer_all

SERVER_NAME = "a.test"
CLIENT_ID = "spiffe://td.test/ns/web/sa/client"


class Pki:
    """One authority, a server's and a client's leaf, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Authority()
        self.ca = self.root.write(folder)
        self.server = self.root.leaf(SERVER_NAME, "spiffe://td.test/ns/web/sa/server")
        self.client = self.root.leaf(CLIENT_ID)
        self.server_files = self.server.write(folder, "server")
        self.client_files = self.client.write(folder, "client")

    def file(self, name: str, octets: bytes) -> str:
        path = self.folder / name
        path.write_bytes(octets)
        return str(path)

    def listener(self, **tls) -> list[dict]:
        """`listeners` with one of TLS, named web."""
        return [{"name": "web", "address": "127.0.0.1:0", "tls": {"certificates": [self.server_files], **tls}}]

    def mutual(self, **tls) -> list[dict]:
        return self.listener(client_ca=self.ca, **tls)

    def upstream(self, **tls) -> dict:
        """`cluster` settings for TLS towards SERVER_NAME."""
        return {"tls": {"ca": self.ca, "sni": SERVER_NAME, **tls}}

    def client_context(self, leaf: Leaf | None = None, **settings) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if leaf is not None:
            files = leaf.write(self.folder, f"client-{id(leaf)}")
            context.load_cert_chain(files["cert"], files["key"])
        for name, value in settings.items():
            setattr(context, name, value)
        return context

    def server_context(self, leaf: Leaf | None = None, *, clients: bool = False, alpn=("http/1.1",)) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        files = (leaf or self.server).write(self.folder, f"server-{id(leaf)}")
        context.load_cert_chain(files["cert"], files["key"])
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        context.set_alpn_protocols(list(alpn))
        return context


@pytest.fixture
def pki(tmp_path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def tls_client(pki):
    """`tls_client(proxy, leaf=None, …)`: a connected RawClient over TLS."""
    clients: list[RawClient] = []

    def connect(target, leaf: Leaf | None = None, *, name: str = SERVER_NAME, context=None, session=None,
                listener: str = "web") -> RawClient:
        context = context or pki.client_context(leaf)
        client = RawClient(target.addresses[listener])
        clients.append(client)
        client.sock.settimeout(PATIENCE_S)
        client.sock = context.wrap_socket(client.sock, server_hostname=name, session=session)
        return client

    yield connect
    for client in clients:
        client.close()


def over_tls(context: ssl.SSLContext, script: Callable[[ServerConnection], None] = answer_all):
    """A server's script, inside TLS. A handshake that fails ends the connection: what failed is the test's to say."""

    def run(connection: ServerConnection) -> None:
        connection.sock = context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
        try:
            connection.sock.do_handshake()
        except (ssl.SSLError, ConnectionResetError):
            # The alert must be read before RST could overtake it: take what still comes.
            with contextlib.suppress(ConnectionResetError):
                while socket.socket.recv(connection.sock, 65536):
                    pass
            raise PeerGone from None
        try:
            script(connection)
        except ssl.SSLError:
            raise PeerGone from None

    return run


def plain_socket(target, listener: str = "web") -> socket.socket:
    return socket.create_connection(target.addresses[listener], PATIENCE_S)
