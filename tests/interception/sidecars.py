"""Sidecars for scenarios: a proxy of its own user beside a machine's applications, and the rules that bring them to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from meshcore.cli.client import AdminClient
from tests.interception.namespaces import PROXY_UID, READS_ALL, ROOT, Namespace
from tests.scenario.servers import eventually

INBOUND, OUTBOUND = 4143, 4140
DETECT_TIMEOUT = "100ms"  # a server that speaks first on a port nobody knows of


def configuration(admin: Path, *, mode: str = "redirect", **clusters: dict[str, Any]) -> dict[str, Any]:
    """One proxy for both directions. clusters: more keys for `inbound` and `outbound`."""
    listeners = []
    for name, addresses, how in (
        ("inbound", (f"0.0.0.0:{INBOUND}", f"[::]:{INBOUND}"), mode),
        ("outbound", (f"127.0.0.1:{OUTBOUND}", f"[::1]:{OUTBOUND}"), "redirect"),
    ):
        for address, version in zip(addresses, ("", "6"), strict=True):
            listeners.append(
                {"name": name + version, "address": address, "protocol": "detect", "detect_timeout": DETECT_TIMEOUT,
                 "original_destination": how, "routes": [f"{name}-http"], "tcp_route": f"{name}-tcp"}
            )  # fmt: skip
    return {
        "workers": 2,
        "admin": {"address": f"unix:{admin}"},
        "listeners": listeners,
        "routes": [{"name": f"{name}-{kind}", "to": name} for name in ("inbound", "outbound") for kind in ("http", "tcp")],
        "clusters": [
            {"name": name, "type": "original_destination", **clusters.get(name, {})} for name in ("inbound", "outbound")
        ],
    }


class Sidecar:
    """A running proxy and the rules around it. The applications of its machine know nothing of either."""

    # directory: one that the proxy's user can write to.
    # change: of the configuration, before the start. rules: more words for `meshproxy intercept`; None: no rules.
    def __init__(self, machine: Namespace, directory: Path, *, mode: str = "redirect", tool: str | None = None,
                 change: Callable[[dict[str, Any]], None] = lambda _: None, rules: tuple[str, ...] | None = (),
                 **clusters: dict[str, Any]) -> None:  # fmt: skip
        self.machine = machine
        self.admin = directory / "admin"
        self.log = directory / "log"
        self.file = directory / "mesh.yaml"
        self.configuration = configuration(self.admin, mode=mode, **clusters)
        change(self.configuration)
        self.file.write_text(yaml.safe_dump(self.configuration))
        self.process = machine.start(
            sys.executable, "-m", "meshcore", "run", "-c", self.file, log=self.log, uid=PROXY_UID,
            capabilities=(*READS_ALL, *(("net_admin",) if mode == "tproxy" else ())),
        )  # fmt: skip
        machine.until_listening(INBOUND, self.process, self.log)
        eventually(self.admin.exists)
        if rules is not None:
            self.intercept("--apply", *(("--tool", tool) if tool else ()), "--mode", mode, *rules)

    def intercept(self, *words: str, check: bool = True) -> str:
        return self.machine.run(sys.executable, "-m", "meshcore", "intercept", *words, check=check, cwd=ROOT)

    def stop(self) -> None:
        self.intercept("--undo")
        died = self.process.poll()
        self.process.terminate()
        self.process.wait(10)
        assert died is None, f"the proxy ended by itself ({died}): {self.log.read_text(errors='replace')}"

    def reload(self, change: Callable[[dict[str, Any]], None]) -> None:
        change(self.configuration)
        self.file.write_text(yaml.safe_dump(self.configuration))
        self.machine.run("curl", "-sSf", "--unix-socket", self.admin, "-X", "POST", "http://admin/reload")

    def reasons(self) -> dict[str, int]:
        return dict(self.stats()["reasons"])

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = AdminClient(f"unix:{self.admin}").get_json("/stats")
        return stats

    def cluster(self, name: str) -> dict[str, Any]:
        return next(row for row in self.stats()["clusters"] if row["name"] == name)

    def requests(self, route: str) -> int:
        return int(next(row["requests"] for row in self.stats()["routes"] if row["name"] == route))

    def tap(self, *words: str, log: Path) -> subprocess.Popen[bytes]:
        command = (sys.executable, "-m", "meshcore", "tap", "--admin", f"unix:{self.admin}", *words)
        return self.machine.start(*command, log=log)
