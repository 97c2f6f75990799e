"""Whether an application listens, as its sidecar sees it."""

import asyncio
import socket

import pytest

from meshcore.agent import readiness
from meshcore.agent.readiness import Readiness, listens


def listening(family=socket.AF_INET, host="127.0.0.1", port=0):
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((host, port))
    server.listen()
    return server


@pytest.mark.parametrize(("family", "host"), [
    (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::"),
])
def test_a_port_is_seen_while_somebody_listens_there_and_nobody_is_connected_to(family, host):
    with listening(family, host) as server:
        port = server.getsockname()[1]
        assert asyncio.run(listens(port))
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert not asyncio.run(listens(port))


def test_connections_of_a_server_that_is_gone_are_no_listener():
    with listening() as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
    with client, accepted:
        assert not asyncio.run(listens(port))


def test_where_the_kernel_lists_nobody_a_connection_tells(monkeypatch):
    monkeypatch.setattr(readiness, "_TABLES", ())
    with listening() as server:
        port = server.getsockname()[1]
        assert asyncio.run(listens(port))
        accepted, (host, _) = server.accept()
        accepted.close()
        assert host == "127.0.0.2", "a socket of the same address could meet itself"
    assert not asyncio.run(listens(port))


def test_an_end_is_told_once_it_lasts_and_so_is_the_return(monkeypatch):
    monkeypatch.setattr(readiness, "RUNNING_S", 0.05)
    monkeypatch.setattr(readiness, "MISSES", 10)

    async def scenario():
        told: asyncio.Queue[bool] = asyncio.Queue()
        server = listening()
        port = server.getsockname()[1]
        watching = asyncio.create_task(Readiness(port, told.put_nowait).run())
        async with asyncio.timeout(20):
            assert await told.get() is True
            server.close()
            await asyncio.sleep(0.1)  # started anew in a tenth of a second: far from ten looks
            server = listening(port=port)
            await asyncio.sleep(0.8)
            assert told.empty()
            server.close()
            assert await told.get() is False
            with listening(port=port):
                assert await told.get() is True
        watching.cancel()

    asyncio.run(scenario())
