"""Fixtures of the control plane's tests: coroutine tests run in a loop of their own; each test of a store runs over
both kinds."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from tests.controlplane.places import ETCD, EtcdPlace, EtcdServer, SqlitePlace

LONGEST_S = 60


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """A test that is a coroutine is run to its end, with a bound."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def bounded():
        async with asyncio.timeout(LONGEST_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def shared_etcd(tmp_path_factory):
    """One etcd for all tests that leave it running."""
    if ETCD is None:
        pytest.skip("etcd is not installed: Debian package etcd-server")
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "etcd"])
def place(request, tmp_path):
    """Where a store is, of either kind: `place.store()` opens it."""
    if request.param == "sqlite":
        folder = tmp_path / "store"
        folder.mkdir()
        return SqlitePlace(folder)
    return EtcdPlace(request.getfixturevalue("shared_etcd"))


@pytest.fixture(params=["sqlite", "etcd"])
def own_place(request, tmp_path):
    """The same, but nobody else uses its server: it may be killed, and brought back older than it was."""
    folder = tmp_path / "store"
    folder.mkdir()
    if request.param == "sqlite":
        yield SqlitePlace(folder)
        return
    if ETCD is None:
        pytest.skip("etcd is not installed: Debian package etcd-server")
    server = EtcdServer(folder)
    server.start()
    yield EtcdPlace(server)
    server.stop()
