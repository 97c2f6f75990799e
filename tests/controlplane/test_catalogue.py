"""The model in a store: checked on the way in, typed on the way out, audited, and not stalled by one bad record."""

import pytest

from controlplane.audit import AuditMemory
from controlplane.catalogue import Catalogue
from controlplane.errors import Conflict, Invalid, Unreadable
from controlplane.model import Changes, Endpoint, Service, Snapshot, Workload

WEB = Service(namespace="shop", name="web")


def endpoint(name, **words):
    return Endpoint(namespace="shop", service="web", name=name, address="192.0.2.1", port=80, **words)


async def test_values_go_in_checked_and_come_out_typed(place):
    async with place.store() as store:
        audit = AuditMemory()
        catalogue = Catalogue(store, audit)
        position = await catalogue.put(WEB, endpoint("1"), by="alice", expected=0)
        entry = await catalogue.get(Service, "shop/web")
        assert entry.value == WEB and entry.revision == position.revision
        assert [entry.value for entry in (await catalogue.list(Endpoint, prefix="shop/web/")).entries] == [
            endpoint("1")
        ]
        with pytest.raises(Conflict):
            await catalogue.put(WEB, by="bob", expected=0)
        with pytest.raises(Invalid):
            await catalogue.put(WEB, endpoint("1", weight=-1), by="bob")
        await catalogue.delete(Service, "shop/web", by="alice", expected=position.revision)
        assert await catalogue.get(Service, "shop/web") is None
        assert [(record.event, record.outcome, record.actor) for record in audit.records] == [
            ("model_put", "done", "alice"),
            ("model_put", "failed", "bob"),
            ("model_delete", "done", "alice"),
        ]
        assert audit.records[0].fields["what"] == ["service shop/web", "endpoint shop/web/1"]


async def test_what_is_registered_lives_as_long_as_its_lease(place):
    async with place.store() as store:
        catalogue = Catalogue(store, AuditMemory())
        lease = await catalogue.register(Workload(namespace="shop", name="vm-1"), endpoint("1"), ttl_s=60, by="vm-1")
        assert (await catalogue.get(Endpoint, "shop/web/1")).value.lease == lease.id
        await store.revoke(lease.id)
        assert (await catalogue.list()).entries == ()
        with pytest.raises(Invalid):
            await catalogue.register(endpoint("x", weight=-1), ttl_s=60, by="vm-1")


async def test_a_record_nobody_can_read_stalls_nobody(place):
    async with place.store() as store:
        catalogue = Catalogue(store, AuditMemory())
        await catalogue.put(WEB, by="alice")
        await store.put("service", "shop/broken", b"{not json")
        listing = await catalogue.list(Service)
        assert [entry.key for entry in listing.entries] == ["shop/web"] and listing.unreadable == (
            "service shop/broken",
        )
        with pytest.raises(Unreadable):
            await catalogue.get(Service, "shop/broken")
        events = catalogue.watch(None, Service)
        first = await anext(events)
        assert isinstance(first, Snapshot) and [entry.value for entry in first.entries] == [WEB]
        await store.put("service", "shop/web", b"broken too")
        await catalogue.put(Service(namespace="shop", name="cart"), by="alice")
        told = []
        while len(told) < 2:
            event = await anext(events)
            assert isinstance(event, Changes)
            told += [(change.key, change.value) for change in event.changes]
        assert told == [("shop/web", None), ("shop/cart", Service(namespace="shop", name="cart"))]
        await events.aclose()


async def test_other_kinds_in_the_store_are_no_part_of_the_model(place):
    async with place.store() as store:
        await store.put("join_token", "0123456789abcdef", b"hash")
        catalogue = Catalogue(store, AuditMemory())
        assert (await catalogue.list()).entries == ()
        assert (await catalogue.list()).unreadable == ()
