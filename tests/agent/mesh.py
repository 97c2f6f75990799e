"""A mesh for scenarios: a control plane that can be killed, sidecars, and applications beside them, all as processes.

What is started here is stopped here.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from controlplane.home import AUTHORITY
from controlplane.identity import Authority, authority_files
from tests.controlplane.places import free_ports

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 40.0
TRUST_DOMAIN = "mesh.test"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: Callable[[], Any], why: str, patience_s: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < deadline, f"in vain: {why}"
        time.sleep(0.02)
    return found


class Plane:
    """The control plane's process."""

    def __init__(self, folder: Path, *, leaf_s: int = 86_400, root_age_s: int = 0, address: str = "", within: tuple[str, ...] = (),
                 etcd: str = "") -> None:  # fmt: skip
        self.data = folder / "plane"
        if root_age_s:
            self.data.mkdir(mode=0o700)
            authority_files.save(self.data / "authority", AUTHORITY, Authority.new_root(TRUST_DOMAIN, time.time() - root_age_s))
        self.address = address or f"127.0.0.1:{free_ports(1)[0]}"
        self.log = folder / "plane.log"
        self._within = within
        self._leaf_s = leaf_s
        self._etcd = etcd
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def bundle(self) -> Path:
        return self.data / "root.pem"

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "tests.agent.plane_program", str(self.data), self.address, str(self._leaf_s), self._etcd],
                cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the control plane did not start: {self.log.read_text()}"

    def kill(self) -> None:
        """As the machine's power would. `within` may be a process of its own around it."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def do(self, what: str, **words: Any) -> Any:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"do": what, **words}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or '{"error": "it ended"}')
        assert "ok" in answer, f"{answer}: {self.log.read_text()}"
        return answer["ok"]

    def service(self, name: str, namespace: str = "shop", port: int = 80) -> None:
        self.do("put", values=[("service", {"namespace": namespace, "name": name, "ports": [{"port": port}]})])

    def endpoint(self, service: str, name: str, port: int, *, account: str = "", namespace: str = "shop", **more: Any) -> None:
        identity = f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}" if account else ""
        value = {"namespace": namespace, "service": service, "name": name, "address": "127.0.0.1", "port": port, "identity": identity}
        value.update(more)
        self.do("put", values=[("endpoint", value)])

    def gone(self, service: str, name: str, namespace: str = "shop") -> None:
        self.do("delete", kind="endpoint", key=f"{namespace}/{service}/{name}")

    def token(self, folder: Path, account: str, namespace: str = "shop", **more: Any) -> Path:
        path = folder / f"token-{account}-{time.monotonic_ns()}"
        path.write_text(self.do("token", identity=[namespace, account], **more))
        path.chmod(0o600)
        return path


class Sidecar:
    """`meshproxy sidecar` as a process."""

    def __init__(self, folder: Path, plane: Plane, account: str, *words: str, token: Path | None = None, app_port: int = 0,
                 command: tuple[str, ...] = (), ready: bool = True, name: str = "") -> None:  # fmt: skip
        self.name = name or account
        self.inbound, self.outbound = free_port(), free_port()
        # A unix socket's path has room for 107 bytes.
        self.admin = Path(f"/tmp/mc-{os.getpid()}-{self.outbound}.sock")
        self.state = folder / f"state-{self.name}"
        self.log = folder / f"{self.name}.log"
        self._words = [
            "sidecar", "--control-plane", plane.address, "--trust-bundle", str(plane.bundle), "--workload", f"shop/{self.name}",
            "--account", account, "--state-dir", str(self.state), "--inbound", f"127.0.0.1:{self.inbound}",
            "--outbound", f"127.0.0.1:{self.outbound}", "--admin", f"unix:{self.admin}", "-v",
            *(("--join-token", str(token)) if token is not None else ()),
            *(("--app-port", str(app_port)) if app_port else ()), *words, *(("--", *command) if command else ()),
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.start(ready)

    def start(self, ready: bool = True) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "meshcore", *self._words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        if ready:
            self.until_ready()

    def until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process is not None and self.process.poll() is None, f"{self.name} ended: {self.said()}"
            return self.admin_page("/ready") == "ready\n"

        until(is_ready, f"{self.name} is ready; it said: {self.said()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def admin_page(self, path: str) -> str:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            try:
                sock.connect(str(self.admin))
                connection = http.client.HTTPConnection("mesh")
                connection.sock = sock
                connection.request("GET", path)
                return connection.getresponse().read().decode()
            except OSError:
                return ""

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, patience_s: float = PATIENCE_S) -> int:
        assert self.process is not None
        return self.process.wait(patience_s)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self.admin.unlink(missing_ok=True)

    def get(self, url: str, method: str = "GET", body: bytes | None = None, patience_s: float = 20, **headers: str) -> tuple[int, str, dict[str, str]]:
        """Through the outbound listener, as through any HTTP proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.outbound, timeout=patience_s)
        try:
            connection.request(method, url, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace"), dict(response.getheaders())
        finally:
            connection.close()


class Steady:
    """Requests through a sidecar, one after another on each of a few kept connections, until stopped. Counts what came."""

    def __init__(self, sidecar: Sidecar, url: str, threads: int = 3, pause_s: float = 0.004) -> None:
        self.statuses: Counter[str] = Counter()
        self.failures: list[str] = []
        self.bodies: Counter[str] = Counter()
        self._sidecar, self._url, self._pause_s = sidecar, url, pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._sidecar.outbound, timeout=20)
        while not self._stop.wait(self._pause_s):
            try:
                connection.request("GET", self._url)
                response = connection.getresponse()
                body = response.read().decode(errors="replace")
                self.statuses[str(response.status)] += 1
                self.bodies[body.split(" ", 1)[0].strip()] += 1
                if response.status != 200:
                    self.failures.append(f"{response.status} {response.getheader('x-mesh-reason')} {body[:60]}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
                connection = http.client.HTTPConnection("127.0.0.1", self._sidecar.outbound, timeout=20)
        connection.close()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    @property
    def requests(self) -> int:
        return self.statuses.total() + len([one for one in self.failures if not one[:1].isdigit()])
