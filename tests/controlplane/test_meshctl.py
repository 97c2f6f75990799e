"""meshctl as users type it, against a control plane in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys

import pytest

from controlplane.cli import main

MESHCTL = [sys.executable, "-c", "from controlplane.cli import main; main()"]
DOMAIN = "mesh.example.org"
MODEL = """
- {kind: service, namespace: shop, name: web, ports: [{port: 80, protocol: http2}]}
- {kind: endpoint, namespace: shop, service: web, name: web-1, address: 192.0.2.7, port: 8080,
   identity: "spiffe://mesh.example.org/ns/shop/sa/web", workload: web-1}
"""


class Running:
    """A control plane, and meshctl for it."""

    def __init__(self, folder, *flags: str) -> None:
        self.folder = folder
        self.log = open(folder.with_suffix(".log"), "w+")
        self._process = subprocess.Popen(
            [*MESHCTL, "control-plane", "run", "--data", str(folder), "--trust-domain", DOMAIN]
            + ["--listen", "127.0.0.1:0", "--metrics", "", "--drain", "1s", *flags],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        first = self._process.stdout.readline()
        assert first.startswith(f"control plane of {DOMAIN} at "), self._told()
        self.address = first.split()[-1]

    def _told(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def __call__(self, *words: str, text: str = "", at: str = "", code: int = 0, credentials: str = "") -> str:
        said = io.StringIO()
        flags = ["--control-plane", at or f"unix:{self.folder}/admin.sock"]
        flags += ["--credentials", credentials] if credentials else []
        before, sys.stdin = sys.stdin, io.StringIO(text)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
                main([*flags, *words])
        finally:
            sys.stdin = before
        assert ended.value.code == code, (words, said.getvalue())
        return said.getvalue()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)


@pytest.fixture(scope="module")
def meshctl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshctl")
    (folder / "roles.yaml").write_text(
        "- {identity: 'spiffe://mesh.example.org/ns/ops/sa/alice', may: [view], namespaces: [shop]}\n"
    )
    running = Running(folder / "plane", "--roles", str(folder / "roles.yaml"))
    yield running
    assert running.stop() == 0, running._told()


def test_what_is_applied_is_there_and_can_be_explained_and_deleted(meshctl):
    assert meshctl("apply", "-f", "-", text=MODEL, code=0).splitlines() == [
        "service shop/web created",
        "endpoint shop/web/web-1 created",
    ]
    assert "unchanged" in meshctl("apply", "-f", "-", text=MODEL)
    assert "192.0.2.7:8080 mTLS" in meshctl("get", "endpoints", "-n", "shop")
    found = json.loads(meshctl("get", "all", "-o", "json"))
    assert {item["kind"] for item in found["items"]} >= {"service", "endpoint"}
    said = meshctl("explain", "web.shop")
    assert "web.shop:80 is service shop/web" in said and "endpoint web-1: 192.0.2.7:8080, mTLS" in said
    assert json.loads(meshctl("explain", "192.0.2.7:8080", "-o", "json"))["means"] == "one endpoint"
    assert "outside the mesh" in meshctl("explain", "www.example.org")
    assert "not a port" in meshctl("explain", "web:x", code=1)
    assert meshctl("workload", "drain", "shop/web-1") == "drain shop/web-1 created\n"
    assert "takes no new requests" in meshctl("get", "drains", "-n", "shop")
    (told,) = json.loads(meshctl("explain", "web.shop", "-o", "json"))["endpoints"]
    assert not told["takes_requests"]
    assert meshctl("workload", "drain", "shop/web-1", "--undo") == "drain shop/web-1 deleted\n"
    assert json.loads(meshctl("explain", "web.shop", "-o", "json"))["endpoints"][0]["takes_requests"]
    assert "no workload" in meshctl("workload", "drain", "shop/nobody", code=1)
    assert meshctl("delete", "svc", "web", "-n", "shop") == "service shop/web deleted\n"
    meshctl("delete", "svc", "web", "-n", "shop", code=1)


def test_whether_a_workload_takes_requests_is_in_the_list(meshctl):
    model = "".join(
        f"- {{kind: workload, namespace: shop, name: {name}, account: web, addresses: [192.0.2.7]}}\n"
        f"- {{kind: endpoint, namespace: shop, service: web, name: {name}, address: 192.0.2.7, port: {port}, weight: {weight}, workload: {name}}}\n"
        for name, port, weight in (("up", 1, 5), ("late", 2, 0), ("held", 3, 5))
    )
    meshctl("apply", "-f", "-", text=model)
    meshctl("workload", "drain", "shop/held")
    rows = {line.split()[0]: line for line in meshctl("workload", "list", "-n", "shop").splitlines()[1:]}
    assert [word for name in ("up", "late", "held") for word in ("yes", "not now", "drained") if word in rows[f"shop/{name}"]] == ["yes", "not now", "drained"]


def test_a_mistake_in_a_file_is_told_with_its_place_and_nothing_is_written(meshctl):
    text = "- {kind: service, namespace: shop, name: other}\n- {kind: endpoint, namespace: shop, portz: 1}\n"
    said = meshctl("apply", "-f", "-", text=text, code=78)
    assert "<stdin>:2:" in said
    assert "No resources" in meshctl("get", "service", "other")


def test_tokens_are_made_listed_and_revoked(meshctl):
    token = meshctl("join-token", "create", "shop/web").strip()
    number = token.split(".")[1]
    assert number in meshctl("join-token", "list") and token.split(".")[2] not in meshctl("join-token", "list")
    assert "deleted" in meshctl("join-token", "revoke", number)
    assert number not in meshctl("join-token", "list")
    assert "expected NAMESPACE/ACCOUNT" in meshctl("join-token", "create", "web", code=2)


def test_an_operator_elsewhere_may_do_what_his_role_says(meshctl, tmp_path):
    token = meshctl("join-token", "create", "ops/alice")
    (tmp_path / "token").write_text(token)
    own = {"at": meshctl.address, "credentials": str(tmp_path / "own")}
    said = meshctl("login", "--roots", f"{meshctl.folder}/root.pem", "--token-file", str(tmp_path / "token"), **own)
    assert "ns/ops/sa/alice" in said and (tmp_path / "own/key.pem").stat().st_mode & 0o077 == 0
    meshctl("apply", "-f", "-", text="{kind: service, namespace: shop, name: seen}")
    meshctl("apply", "-f", "-", text="{kind: service, namespace: hidden, name: other}")
    seen = meshctl("get", "services", **own)
    assert "shop/seen" in seen and "hidden/other" not in seen
    assert "lacks the permission 'edit' in namespace 'shop'" in meshctl("apply", "-f", "-", text=MODEL, code=1, **own)
    assert "lacks the permission 'tokens'" in meshctl("join-token", "create", "shop/web", code=1, **own)
    meshctl("login", **own)  # once more, with the certificate
    # A token works once, and a machine without one gets nothing.
    assert "bad_proof" in meshctl(
        "login", "--roots", f"{meshctl.folder}/root.pem", "--token-file", str(tmp_path / "token"), code=1, **own
    )
    audit = (meshctl.folder / "audit.log").read_text()
    assert '"permission"' in audit and token.split(".")[2].strip() not in audit


def test_check_tells_each_line_and_a_way_out(meshctl):
    said = meshctl("check")
    assert said.splitlines()[0].endswith("[ok]") and said.endswith("Status check results are [ok]\n")
    away = meshctl("check", at="unix:/nowhere.sock", code=2)
    assert "[FAIL]  -- no control plane at unix:/nowhere.sock" in away and "hint: start it" in away
    assert json.loads(meshctl("check", "-o", "json"))["ok"] is True


def test_versions_and_completion(meshctl):
    lines = meshctl("version").splitlines()
    assert lines[0].removeprefix("Client") == lines[1].removeprefix("Server")
    assert meshctl("version", at="unix:/nowhere.sock").splitlines()[1] == "Server version: unavailable"
    assert "_MESHCTL_COMPLETE" in meshctl("completion", "bash")


def test_a_control_plane_comes_back_with_its_root_its_model_and_its_tokens(tmp_path):
    first = Running(tmp_path / "plane")
    root = (tmp_path / "plane/root.pem").read_bytes()
    first("apply", "-f", "-", text=MODEL)
    assert first.stop() == 0
    second = Running(tmp_path / "plane")
    assert (tmp_path / "plane/root.pem").read_bytes() == root
    assert "192.0.2.7:8080" in second("get", "endpoints")
    assert second.stop() == 0


def test_what_cannot_be_used_is_told_before_anything_is_served(tmp_path):
    done = subprocess.run(
        [*MESHCTL, "control-plane", "run", "--data", str(tmp_path), "--trust-domain", "Not One", "--metrics", "0.0.0.0:1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "trust_domain" in done.stderr and "loopback" in done.stderr
