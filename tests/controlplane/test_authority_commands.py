"""`meshctl authority`: roots seen and replaced while the mesh goes on, each step told, asked about and refused before its time."""

from __future__ import annotations

import asyncio
import json
import time
import types

import pytest
from cryptography import x509

from controlplane.cli import main
from controlplane.identity import Authority, authority_files
from controlplane.identity.certificates import fingerprint
from controlplane.serving import roots as serving_roots
from controlplane.server import ControlPlane
from tests.controlplane.members import DOMAIN, join, settings
from tests.controlplane.test_replicas import etcd, two  # noqa: F401  # a fixture


async def meshctl(plane: ControlPlane, capsys, *words: str, code: int = 0) -> str:
    def run() -> str:
        with pytest.raises(SystemExit) as ended:
            main(["--control-plane", f"unix:{plane.settings.admin_path}", *words])
        said = capsys.readouterr()
        assert ended.value.code == code, said
        return said.out + said.err

    return await asyncio.to_thread(run)


async def shown(plane: ControlPlane, capsys) -> dict:
    return json.loads(await meshctl(plane, capsys, "authority", "roots", "-o", "json"))


def issuer_of(member) -> bytes:
    return member.leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


async def test_one_root_follows_another_step_by_step(tmp_path, capsys, monkeypatch):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        old = await join(plane)
        found = await shown(plane, capsys)
        assert found["phase"] == "steady" and [root["signs"] for root in found["roots"]] == [True] and found["roots"][0]["has_authority_here"]
        said = await meshctl(plane, capsys, "authority", "rotate", "begin", "--make-root", "--yes")
        assert "phase distributing" in said and "rotate switch" in said
        assert plane.bundle_pem.count(b"BEGIN") == 2
        pem = await meshctl(plane, capsys, "authority", "roots", "--pem")
        assert pem.encode() == plane.bundle_pem
        old.roots = plane.bundle_pem  # as its agent does, when it is told
        # Before its time it is refused, and nobody can hurry the old root's end.
        assert "have not confirmed" in await meshctl(plane, capsys, "authority", "rotate", "switch", "-y", code=1)
        assert "no old root" in await meshctl(plane, capsys, "authority", "rotate", "retire", "-y", code=1)
        assert "under way" in await meshctl(plane, capsys, "authority", "rotate", "begin", "--make-root", "-y", code=1)
        said = await meshctl(plane, capsys, "authority", "rotate", "switch", "--hurry", "-y")
        assert "phase retiring" in said
        fresh = await join(plane, "shop", "cart")
        assert issuer_of(fresh) != issuer_of(old)
        async with old.channel() as own, fresh.channel() as its:  # both are members
            for channel in (own, its):
                await asyncio.wait_for(channel.channel_ready(), 20)
        assert "only a root that does not sign" in await meshctl(plane, capsys, "authority", "rotate", "abort", "-y", code=1)
        assert "are valid for another" in await meshctl(plane, capsys, "authority", "rotate", "retire", "-y", code=1)
        later = types.SimpleNamespace(time=lambda: time.time() + 2 * 86_400)
        monkeypatch.setattr(serving_roots, "time", later)
        said = await meshctl(plane, capsys, "authority", "rotate", "retire", "-y", "-o", "json")
        (left,) = json.loads(said)["roots"]
        assert left["signs"] and left["fingerprint"] != found["roots"][0]["fingerprint"]
        # The old key is put away, and another rotation finds no trace of it.
        names = authority_files.names_in(tmp_path / "plane/authority")
        assert len(names) == 1 and len(list((tmp_path / "plane/authority/retired").iterdir())) == 2
        assert "there are none" in await meshctl(plane, capsys, "authority", "rotate", "begin", "-y", code=1)
    audit = (tmp_path / "plane/audit.log").read_text()
    for event in ("rotation_begin", "rotation_switch", "rotation_retire"):
        assert f'"{event}"' in audit
    async with ControlPlane(settings(tmp_path / "plane")) as plane:  # and it comes back with the new one
        assert (await shown(plane, capsys))["roots"][0]["fingerprint"] == left["fingerprint"]


async def test_a_root_is_given_up_before_it_signs(tmp_path, capsys):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        before = plane.bundle_pem
        await meshctl(plane, capsys, "authority", "rotate", "begin", "--make-root", "-y")
        assert "phase steady" in await meshctl(plane, capsys, "authority", "rotate", "abort", "-y")
        assert plane.bundle_pem == before
        # The same one may be begun with once more, by its name too.
        name = next(name for name in authority_files.names_in(tmp_path / "plane/authority") if name != "root")
        assert "no authority 'nobody'" in await meshctl(plane, capsys, "authority", "rotate", "begin", "--authority", "nobody", "-y", code=1)
        await meshctl(plane, capsys, "authority", "rotate", "begin", "--authority", name, "-y")


async def test_nothing_is_done_unasked(tmp_path, capsys, monkeypatch):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        said = await meshctl(plane, capsys, "authority", "rotate", "begin", "--make-root", code=2)
        assert "members trust a new root" in said and "--yes" in said
        from controlplane.cli import authority_rotate

        monkeypatch.setattr(authority_rotate.sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr(authority_rotate.click, "confirm", lambda *_, **__: False)
        assert "nothing was done" in await meshctl(plane, capsys, "authority", "rotate", "begin", "--make-root", code=1)
        monkeypatch.undo()
        assert (await shown(plane, capsys))["phase"] == "steady"


async def test_rotation_needs_a_permission_of_its_own(tmp_path, capsys):
    (tmp_path / "roles.yaml").write_text(f"- {{identity: 'spiffe://{DOMAIN}/ns/ops/sa/alice', may: [view, edit, tokens, tap]}}\n")
    async with ControlPlane(settings(tmp_path / "plane", roles=str(tmp_path / "roles.yaml"))) as plane:
        from meshcore.api import admin_pb2, admin_pb2_grpc

        for account, may_look in (("alice", True), ("bob", False)):
            member = await join(plane, "ops", account)
            async with member.channel() as own:
                stub = admin_pb2_grpc.AdminStub(own)
                with pytest.raises(Exception, match="PERMISSION_DENIED"):
                    await stub.RotateRoots(admin_pb2.RotationStep(step="begin", makes_root=True), timeout=20)
                if may_look:
                    assert json.loads((await stub.ShowRoots(admin_pb2.RootsQuery(), timeout=20)).json)["phase"] == "steady"
                else:
                    with pytest.raises(Exception, match="PERMISSION_DENIED"):
                        await stub.ShowRoots(admin_pb2.RootsQuery(), timeout=20)
        assert len(authority_files.names_in(tmp_path / "plane/authority")) == 1
        stub_error = await meshctl(plane, capsys, "authority", "rotate", "begin", "-y", code=1)
        assert "there are none" in stub_error


async def test_replicas_follow_each_with_an_authority_of_its_own(tmp_path, etcd, capsys):
    async with two(tmp_path, etcd) as (first, second):
        said = await meshctl(first, capsys, "authority", "rotate", "begin", "--make-root", "-y", code=1)
        assert "several replicas" in said
        root = Authority.new_root(DOMAIN, time.time())
        authority_files.save(tmp_path / "new", "root", root)
        folder = f"{first.settings.data}/authority"
        said = await meshctl(first, capsys, "authority", "new-intermediate", "--from", str(tmp_path / "new"), "--trust-domain", DOMAIN, "--out", folder, "--name", "next")
        assert "next.pem" in said
        await meshctl(first, capsys, "authority", "rotate", "begin", "-y")
        await meshctl(first, capsys, "authority", "rotate", "switch", "--hurry", "-y")
        async with asyncio.timeout(20):
            while second.trust.state.phase != "retiring":
                await asyncio.sleep(0.02)
        # The other one lacks it: it signs nothing, serves on, says so, and takes it as soon as it is there.
        with pytest.raises(Exception, match="UNAVAILABLE"):
            await join(second, "shop", "web")
        assert second.authority_left_s == 0 and (await shown(second, capsys))["phase"] == "retiring"
        authority_files.save(f"{second.settings.data}/authority", "next", root.new_intermediate(time.time()))
        async with asyncio.timeout(20):
            while second.authority_left_s == 0:
                await asyncio.sleep(0.05)
        assert (await join(second, "shop", "web")).leaf


async def test_authorities_of_a_folder_that_others_can_read_are_imported_whole_or_not(tmp_path, capsys):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        root = Authority.new_root(DOMAIN, time.time())
        given, own = tmp_path / "given", tmp_path / "own/authority"
        for name in ("root", "next"):
            authority_files.save(given, name, root.new_intermediate(time.time()))
        for path in given.iterdir():
            path.chmod(0o444)
        words = ["authority", "import", "--from", str(given), "--trust-domain", DOMAIN, "--out", str(own)]
        found = json.loads(await meshctl(plane, capsys, *words, "-o", "json"))
        assert {one["name"] for one in found["authorities"]} == {"root", "next"}
        assert {one["root"] for one in found["authorities"]} == {fingerprint(root.root)}
        assert set(authority_files.load_all(own, DOMAIN, time.time())) == {"root", "next"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in own.glob("*.key")) and own.stat().st_mode & 0o077 == 0
        (tmp_path / "later").touch()
        assert (tmp_path / "later").stat().st_mode & 0o044, "what the process writes afterwards is no secret"
        before = {path.name: path.read_bytes() for path in own.iterdir()}
        (given / "next.pem").chmod(0o644)
        (given / "next.pem").write_bytes(b"nothing")
        authority_files.save(given, "root", root.new_intermediate(time.time()))
        assert "next.pem" in await meshctl(plane, capsys, *words, code=1)
        assert {path.name: path.read_bytes() for path in own.iterdir()} == before
        assert "no authority here" in await meshctl(plane, capsys, "authority", "import", "--from", str(tmp_path / "plane"), "--trust-domain", DOMAIN, "--out", str(own), code=1)
        assert "holds an authority" in await meshctl(plane, capsys, "authority", "new-root", "--trust-domain", DOMAIN, "--out", str(own), code=1)
