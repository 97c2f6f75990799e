"""One root follows another: at no moment of it does a member that follows the plan refuse another."""

import asyncio
import ssl
import time

import msgspec
import pytest

from controlplane.audit import AuditMemory
from controlplane.errors import Conflict, Denied
from controlplane.identity import Authority, PrivateKey, RotationError, Trust, rotation
from controlplane.identity.authority import DAY_S, LEAF_S
from controlplane.identity.certificates import pem_of
from controlplane.spiffe import SpiffeId
from controlplane.store import SqliteStore
from tests.controlplane.asking import DOMAIN
from tests.controlplane.openssl import Party, handshake, verify

NOW_S = float(int(time.time()))
WEB = SpiffeId(DOMAIN, "shop", "web")


def pem(authority) -> str:
    return pem_of([authority.root]).decode()


def states(old, new):
    """The record after each step, at the earliest moment each is allowed."""
    first = rotation.first(DOMAIN, pem(old), NOW_S)
    distributing = rotation.begin(first, pem(new), NOW_S)
    retiring = rotation.switch(distributing, NOW_S, unconfirmed=0)
    return first, distributing, retiring, rotation.retire(retiring, rotation.may_retire_at_s(retiring))


def test_the_plan_goes_through_its_phases_in_order():
    old, new = Authority.new_root(DOMAIN, NOW_S), Authority.new_root(DOMAIN, NOW_S)
    first, distributing, retiring, last = states(old, new)
    assert [state.phase for state in (first, distributing, retiring, last)] == [
        "steady",
        "distributing",
        "retiring",
        "steady",
    ]
    assert [len(state.roots) for state in (first, distributing, retiring, last)] == [1, 2, 2, 1]
    assert first.signing == distributing.signing != retiring.signing == last.signing
    for state, step in [
        (first, lambda s: rotation.switch(s, NOW_S, unconfirmed=0)),
        (first, lambda s: rotation.retire(s, NOW_S)),
        (distributing, lambda s: rotation.begin(s, pem(new), NOW_S)),
        (distributing, lambda s: rotation.retire(s, NOW_S)),
        (retiring, lambda s: rotation.abort(s, NOW_S)),
        (first, lambda s: rotation.begin(s, pem(old), NOW_S)),
        (first, lambda s: rotation.begin(s, "no pem", NOW_S)),
        (first, lambda s: rotation.begin(s, pem_of([new.new_intermediate(NOW_S).chain[0]]).decode(), NOW_S)),
        (first, lambda s: rotation.begin(s, pem(Authority.new_root(DOMAIN, NOW_S)), NOW_S + 4_000 * DAY_S)),
    ]:
        with pytest.raises(RotationError):
            step(state)
    assert rotation.abort(distributing, NOW_S).roots == first.roots


def test_nothing_is_signed_with_a_root_that_somebody_may_not_know():
    _, distributing, _, _ = states(Authority.new_root(DOMAIN, NOW_S), Authority.new_root(DOMAIN, NOW_S))
    with pytest.raises(RotationError, match="2 members"):
        rotation.switch(distributing, NOW_S + LEAF_S, unconfirmed=2)
    # Who has not been heard of for longer than a leaf lives has none that is valid.
    assert rotation.switch(distributing, rotation.may_switch_at_s(distributing), unconfirmed=2).phase == "retiring"


def test_the_old_root_is_trusted_until_its_longest_leaf_has_run_out():
    old, new = Authority.new_root(DOMAIN, NOW_S), Authority.new_root(DOMAIN, NOW_S)
    longer = rotation.noted(rotation.first(DOMAIN, pem(old), NOW_S), 3 * DAY_S)
    assert rotation.noted(longer, 5.0) is longer
    retiring = rotation.switch(rotation.begin(longer, pem(new), NOW_S), NOW_S, unconfirmed=0)
    leaf = old.issue(PrivateKey.generate().public, WEB, NOW_S, 3 * DAY_S)
    with pytest.raises(RotationError, match="another"):
        rotation.retire(retiring, leaf.not_after_s)
    rotation.retire(retiring, rotation.may_retire_at_s(retiring))
    assert rotation.may_retire_at_s(retiring) > leaf.not_after_s


def test_at_every_moment_every_two_members_accept_each_other(tmp_path):
    """A member has a leaf of its phase and the bundle of its phase; of two neighbouring phases some live at the same
    time."""
    old, new = Authority.new_root(DOMAIN, NOW_S).new_intermediate(NOW_S), Authority.new_root(DOMAIN, NOW_S)
    signers = {rotation.root_of(pem(one), NOW_S).fingerprint: one for one in (old, new)}
    phases = states(old, new)
    members = []
    for index, state in enumerate(phases):
        key = PrivateKey.generate()
        leaf = signers[state.signing].issue(key.public, WEB, NOW_S)
        members.append((Party(tmp_path / f"p{index}", key, leaf.chain, state.bundle_pem), leaf, state))
    # The plan lets these live at the same time: the waits see to it that no member of `steady` meets one of `retiring`.
    together = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)]
    for one, two in together:
        for client, server in ((one, two), (two, one)):
            assert handshake(members[client][0], members[server][0]) == (str(WEB), str(WEB)), (client, server)
            assert verify(tmp_path, members[server][1].chain, members[client][2].bundle_pem.encode()) == "OK"
    # And the plan is needed: without its waits they would refuse each other.
    for one, two in [(0, 2), (0, 3), (1, 3)]:
        with pytest.raises(ssl.SSLError):
            handshake(members[one][0], members[two][0])


async def test_replicas_follow_a_rotation_without_a_restart(place):
    old, new = Authority.new_root(DOMAIN, NOW_S), Authority.new_root(DOMAIN, NOW_S)
    async with place.store() as store:
        audit = AuditMemory()
        one = Trust(store, audit, DOMAIN, [old.new_intermediate(NOW_S)])
        two = Trust(store, audit, DOMAIN, [old.new_intermediate(NOW_S)])
        await one.open(NOW_S)
        await two.open(NOW_S)
        following = asyncio.create_task(two.follow())

        async def two_is_in(phase):
            while two.state.phase != phase:
                assert not following.done(), following.result()
                await asyncio.sleep(0)

        await one.begin(new.new_intermediate(NOW_S), NOW_S, by="alice")
        await two_is_in("distributing")
        assert {root.subject for root in two.roots} == {old.root.subject, new.root.subject} and len(two.roots) == 2
        assert two.authority().root == old.root
        with pytest.raises(RotationError, match="3 members"):
            await one.switch(NOW_S, unconfirmed=3, by="alice")
        with pytest.raises(RotationError, match="no authority"):
            await two.switch(NOW_S, unconfirmed=0, by="bob")
        await one.switch(NOW_S, unconfirmed=0, by="alice")
        await two_is_in("retiring")
        with pytest.raises(Denied) as caught:
            two.authority()  # it was not given one below the new root: it signs nothing rather than with the old one
        assert caught.value.reason == "unavailable"
        two.add(new.new_intermediate(NOW_S))
        assert two.authority().root == new.root
        await one.retire(rotation.may_retire_at_s(one.state), by="alice")
        await two_is_in("steady")
        assert two.roots == (new.root,)
        following.cancel()
        done = [(record.event, record.outcome) for record in audit.records]
        assert done == [
            ("trust_begin", "done"),
            ("rotation_begin", "done"),
            ("rotation_switch", "denied"),
            ("rotation_switch", "done"),
            ("rotation_retire", "done"),
        ]


async def test_a_broken_or_deleted_record_does_not_take_trust_away(place):
    async with place.store() as store:
        audit = AuditMemory()
        trust = Trust(store, audit, DOMAIN, [Authority.new_root(DOMAIN, NOW_S)])
        await trust.open(NOW_S)
        before, following = trust.state, asyncio.create_task(trust.follow())
        await store.put("trust", DOMAIN, b"{broken")
        while not [record for record in audit.records if record.event == "trust_follow"]:
            assert not following.done()
            await asyncio.sleep(0.01)
        await store.delete("trust", DOMAIN)
        again = msgspec.json.encode(rotation.noted(before, 9e5))
        await store.put("trust", DOMAIN, again)
        while trust.state == before:
            assert not following.done()
            assert trust.roots
            await asyncio.sleep(0.01)
        following.cancel()


async def test_two_replicas_that_begin_at_once_have_one_root(place):
    async with place.store() as store:
        authorities = [Authority.new_root(DOMAIN, NOW_S) for _ in range(4)]
        trusts = [Trust(store, AuditMemory(), DOMAIN, [authority]) for authority in authorities]
        await asyncio.gather(*(trust.open(NOW_S) for trust in trusts))
        assert len({trust.state.signing for trust in trusts}) == 1


async def test_of_two_operators_that_rotate_at_once_one_is_told(tmp_path):
    async with SqliteStore(tmp_path / "mesh.db") as store:
        old = Authority.new_root(DOMAIN, NOW_S)
        trusts = [Trust(store, AuditMemory(), DOMAIN, [old]) for _ in range(2)]
        for trust in trusts:
            await trust.open(NOW_S)
        ends = await asyncio.gather(
            *(trust.begin(Authority.new_root(DOMAIN, NOW_S), NOW_S, by="x") for trust in trusts), return_exceptions=True
        )
        assert [type(end) for end in ends if end is not None] in ([Conflict], [RotationError])
        assert len((await reopened(store, old)).state.roots) == 2


async def reopened(store, authority):
    trust = Trust(store, AuditMemory(), DOMAIN, [authority])
    await trust.open(NOW_S)
    return trust


async def test_a_mesh_without_any_authority_does_not_begin(tmp_path):
    async with SqliteStore(tmp_path / "mesh.db") as store:
        with pytest.raises(RotationError, match="no authority"):
            await Trust(store, AuditMemory(), DOMAIN, []).open(NOW_S)
