"""The short form of outages.py: kills of a replica, of etcd and of both, a second each, with traffic through proxies all the while."""

import pytest

from tests.controlplane.places import ETCD

from .outages import run


@pytest.mark.timeout(180)
@pytest.mark.skipif(ETCD is None, reason="etcd is not installed: Debian package etcd-server")
async def test_no_write_is_lost_and_every_revision_is_seen_in_order_through_kills(tmp_path, monkeypatch):
    ledger = await run(tmp_path, 1.0, most=200)
    assert len(ledger.acknowledged) > 3 and len(ledger.recovered_s) == 3
    assert min(ledger.in_outages) > 10, "requests went through all the while"
