"""How a connection under TLS begins and ends on the wire: the ticket nobody waits for, the end both sides know."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

import pytest

from tests.scenario.clients import request_bytes
from tests.scenario.servers import eventually
from tests.scenario.tls import SERVER_NAME, pki, plain_socket  # noqa: F401 (fixtures)

pytestmark = pytest.mark.usefixtures("only_meshcore")


def bare_handshake(running, pki):  # noqa: F811
    """A socket whose handshake is over but for our last flight, which lies in the last of the four: socket, SSL, in, out."""
    sock = plain_socket(running)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = pki.client_context().wrap_bio(incoming, outgoing, server_hostname=SERVER_NAME)
    while True:
        try:
            tls.do_handshake()
            return sock, tls, incoming, outgoing
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))


def test_a_ticket_reaches_a_client_that_says_nothing(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    sock, tls, incoming, outgoing = bare_handshake(running, pki)
    with sock:
        sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        with pytest.raises(ssl.SSLWantReadError):
            tls.read()
        assert tls.session.has_ticket


def data_segments(sock: socket.socket) -> int:
    """How many segments with data came (tcp_info.tcpi_data_segs_in of linux/tcp.h)."""
    return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152)[0]


def test_a_ticket_shares_the_segment_of_the_answer(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    for _ in range(10):  # a machine that stalls for 200 ms has the kernel send the ticket first
        sock, tls, incoming, outgoing = bare_handshake(running, pki)
        with sock:
            before = data_segments(sock)
            tls.write(request_bytes("GET", "/"))
            sock.sendall(outgoing.read())
            answer = b""
            while not answer.endswith(b"\r\n\r\nok"):
                incoming.write(sock.recv(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += tls.read()
            assert tls.session.has_ticket
            if data_segments(sock) == before + 1:
                return
    pytest.fail("ten tickets had a segment each")


def test_a_client_that_said_close_is_not_waited_for(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(), timeouts={"linger": "1m"})
    sock, tls, incoming, outgoing = bare_handshake(running, pki)
    with sock:
        tls.write(request_bytes("GET", "/", {"Connection": "close"}))
        sock.sendall(outgoing.read())
        while octets := sock.recv(65536):
            incoming.write(octets)
        assert tls.read().endswith(b"\r\n\r\nok")
        assert tls.read() == b"", "close_notify did not come before the end"
        eventually(lambda: running.stats().listeners[0].active == 0)
