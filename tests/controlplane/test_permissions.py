"""Who may do what, by file."""

from __future__ import annotations

import os

import pytest

from controlplane.audit import AuditMemory
from controlplane.errors import Denied, Invalid
from controlplane.serving.peers import LOCAL, Peer, Peers
from controlplane.serving.permissions import Permissions, grants_of
from controlplane.spiffe import SpiffeId
from meshcore.errors import ConfigError

ALICE = Peer(SpiffeId("mesh.example.org", "ops", "alice"), False, "192.0.2.1")
BOB = Peer(SpiffeId("mesh.example.org", "ops", "bob"), False, "192.0.2.1")
ROLES = """
- identity: spiffe://mesh.example.org/ns/ops/sa/alice
  may: [view, edit]
  namespaces: [shop]
- identity: spiffe://mesh.example.org/ns/ops/sa/*
  may: [view]
"""


def permissions(path, text: str = ROLES) -> tuple[Permissions, AuditMemory]:
    path.write_text(text)
    audit = AuditMemory()
    return Permissions(str(path), audit), audit


def test_an_identity_may_do_what_it_was_granted_where_it_was_granted(tmp_path):
    given, audit = permissions(tmp_path / "roles.yaml")
    given.check(ALICE, "edit", "shop")
    given.check(BOB, "view", "shop")
    for peer, word, namespace in ((ALICE, "edit", "other"), (ALICE, "edit", ""), (BOB, "edit", "shop"), (ALICE, "tap", "shop")):
        with pytest.raises(Denied):
            given.check(peer, word, namespace)
    assert [record.outcome for record in audit.records] == ["denied"] * 4
    assert audit.records[0].actor == str(ALICE.identity)


def test_without_a_file_operators_of_this_machine_alone_may_do_anything():
    given = Permissions("", AuditMemory())
    given.check(LOCAL, "edit", "shop")
    with pytest.raises(Denied):
        given.check(ALICE, "view", "shop")
    with pytest.raises(Denied):
        given.check(Peer(None, False, "192.0.2.1"), "view", "shop")


def test_a_changed_file_counts_and_a_broken_one_changes_nothing(tmp_path):
    path = tmp_path / "roles.yaml"
    given, _ = permissions(path)
    path.write_text(ROLES.replace("[view, edit]", "[view, tap]"))
    os.utime(path, ns=(1, 1))
    assert given.allows(ALICE, "tap", "shop") and not given.allows(ALICE, "edit", "shop")
    path.write_text("- identity: [")
    os.utime(path, ns=(2, 2))
    assert given.allows(ALICE, "tap", "shop")


@pytest.mark.parametrize(
    "text",
    [
        "- {identity: spiffe://d/ns/ops/sa/*/x, may: [view]}",
        "- {identity: spiffe://d/*, may: [view]}",
        "- {identity: spiffe://d/ns/ops/sa/a, may: [everything]}",
        "- {identity: spiffe://d/ns/ops/sa/a, mayy: [view]}",
        "{identity: a}",
    ],
)
def test_a_mistake_in_the_file_is_refused(text):
    with pytest.raises((Invalid, ConfigError)):
        grants_of(text, "roles.yaml")


class Context:
    """Metadata as gRPC hands it over."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        self._fields = fields

    def invocation_metadata(self):
        return self._fields


def test_an_identity_is_taken_only_whole_and_only_once():
    peers = Peers("mesh.example.org", is_local=False)
    mine = "spiffe://mesh.example.org/ns/ops/sa/alice"
    assert str(peers.of(Context(("l5d-client-id", mine))).identity) == mine
    for fields in (
        (),
        (("l5d-client-id", mine), ("l5d-client-id", mine)),
        (("l5d-client-id", "spiffe://elsewhere.org/ns/ops/sa/alice"),),
        (("l5d-client-id", f"{mine}/x"),),
        (("x-client-id", mine),),
    ):
        assert peers.of(Context(*fields)).identity is None, fields
