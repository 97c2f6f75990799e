"""Coroutine tests run in a loop of their own, with a bound: as in the control plane's."""

from __future__ import annotations

from tests.controlplane.conftest import pytest_pyfunc_call, shared_etcd

__all__ = ["pytest_pyfunc_call", "shared_etcd"]
