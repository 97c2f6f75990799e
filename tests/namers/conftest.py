"""Coroutine tests run in a loop of their own, with a bound: as in the control plane's. One ZooKeeper for all tests."""

from __future__ import annotations

import pytest

from tests.controlplane.conftest import pytest_pyfunc_call, shared_etcd
from tests.namers.zookeeper_server import IS_HERE, ZooKeeperServer

__all__ = ["pytest_pyfunc_call", "shared_etcd", "zookeeper"]


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory):
    """A ZooKeeper that a test may stop, if it starts it again."""
    if not IS_HERE:
        pytest.skip("ZooKeeper is not installed: Debian packages default-jre-headless libzookeeper-java")
    server = ZooKeeperServer(tmp_path_factory.mktemp("zookeeper"))
    server.start()
    yield server
    server.stop()
