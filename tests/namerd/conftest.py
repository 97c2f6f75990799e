"""Fixtures of namerd's tests: one served in this process, and clients for it."""

from __future__ import annotations

from tests.controlplane.conftest import pytest_pyfunc_call, shared_etcd
from tests.namers.conftest import zookeeper

__all__ = ["pytest_pyfunc_call", "shared_etcd", "zookeeper"]
