"""`make demo`: a control plane; deployments a, b and c, each member with its sidecar; traffic, taps, a table.

a calls b, b calls c; all of it is mutual TLS between sidecars, and the applications know nothing of it. As root each member
gets a machine of its own (a network namespace) and connections are intercepted; otherwise each has its ports on 127.0.0.1,
and its sidecar is the HTTP proxy it calls others by. DEMO_PLACES=ports asks for the latter.
DEMO_SECONDS says how long (default 20); Ctrl-C ends it earlier. Exit 0 when the mesh worked and all is cleared away.
"""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from demo_places import MESHPROXY, PROXY_UID, ROOT, Between, Machine, Port, die_with_parent, free_port, why_no_machines
from load import Outcome

MESHCTL = MESHPROXY.with_name("meshctl")
TRUST_DOMAIN = "demo.mesh"
NAMESPACE = "demo"
REQUESTS_PER_SECOND = 100
TAPPED_PER_SECOND = 2
# Members: name, deployment, how its application behaves, whom it calls.
MEMBERS = (("a-1", "a", "", "b"), ("b-1", "b", "steady", "c"), ("b-2", "b", "slow", "c"), ("c-1", "c", "flaky", ""), ("c-2", "c", "steady", ""))
VIRTUAL = {"b": "10.79.1.2", "c": "10.79.1.3"}  # where a machine's resolver finds the services; nobody has these addresses
MODEL = "\n".join(
    f"- {{kind: service, namespace: {NAMESPACE}, name: {name}, ports: [{{port: 80, protocol: http1}}], addresses: [{address}]}}"
    for name, address in VIRTUAL.items()
)

PLAIN = not sys.stdout.isatty() or "NO_COLOR" in os.environ
WIDTH = 110 if PLAIN else min(shutil.get_terminal_size().columns, 140)


def paint(text: str, code: str) -> str:
    return text if PLAIN else f"\x1b[{code}m{text}\x1b[0m"


BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"


def title(text: str) -> None:
    print(f"\n{paint(text, BOLD)}", flush=True)


# --- what a proxy says -----------------------------------------------------------------------------------------------


def admin_get(admin: Path, path: str) -> tuple[int, bytes]:
    """One request on the admin socket. Blocks for a moment only: the socket is local."""
    connection = http.client.HTTPConnection("mesh", timeout=5)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(5)
        sock.connect(str(admin))
        connection.sock = sock
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def tap_line(line: str) -> str:
    """Colours a line of a tap; cuts it to the terminal's width."""
    line = line.rstrip()
    shown = line if PLAIN or len(line) <= WIDTH - 2 else line[: WIDTH - 3] + "…"
    if line.startswith("rsp"):
        status = line.partition(":status=")[2][:1]
        return paint(shown, {"2": GREEN, "5": RED}.get(status, YELLOW))
    return paint(shown, DIM if line.startswith("end") and "reset" not in line else CYAN)


# --- processes --------------------------------------------------------------------------------------------------------


async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C reaches the demo alone, which then ends things in the right order.
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent, cwd=ROOT, **options
    )


async def end(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
    return await process.wait()


@contextlib.contextmanager
def terminal_of_our_own() -> Iterator[None]:
    """Puts the demo into the terminal's foreground by itself.

    Ctrl-C goes to every process in the foreground, `make` among them, which would report a failed target. As a
    shell does with a job, we take the terminal for our own process group and hand it back at the end.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
        before = os.tcgetpgrp(terminal)
        if before != os.getpgrp():
            raise OSError("in the background: the terminal is not ours to take")
    except OSError:
        yield  # no terminal, no Ctrl-C
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # tcsetpgrp from the background asks for it
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody would be left to wake us up
    try:
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpgrp())
        yield
    finally:
        os.tcsetpgrp(terminal, before)
        os.close(terminal)


# --- the demo ---------------------------------------------------------------------------------------------------------


async def until(what: Callable[[], bool], who: str, *processes: asyncio.subprocess.Process, patience_s: float = 60) -> None:
    deadline = monotonic() + patience_s
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            if what():
                return
        if any(process.returncode is not None for process in processes) or monotonic() > deadline:
            raise RuntimeError(f"{who} did not become ready; what it said is above")
        await asyncio.sleep(0.1)


async def print_lines(process: asyncio.subprocess.Process, shown: Callable[[str], str | None]) -> None:
    """Print each line of a process's output as `shown` has it, until the output ends."""
    assert process.stdout is not None
    async for line in process.stdout:
        if (text := shown(line.decode().rstrip())) is not None:
            print(" ", text, flush=True)


class Member:
    """One member: its place, its sidecar with the application behind it, and how that is asked."""

    def __init__(self, row: tuple[str, str, str, str], place: Port | Machine, private: Path) -> None:
        self.name, self.deployment, self.behaviour, self.calls = row
        self.place = place
        self.admin = private / f"{self.name}.sock"
        self.state = private / f"{self.name}.state"
        self.process: asyncio.subprocess.Process | None = None

    def application(self) -> list[str]:
        """Its command; none of a, which is the load, started when all are there."""
        if not self.behaviour:
            return []
        words = [sys.executable, str(ROOT / "examples/shop.py"), self.name, str(self.place.app), self.behaviour]
        words += ["--host", "0.0.0.0"] if self.place.is_own_machine else []
        words += ["--calls", f"{self.calls}.{NAMESPACE}", *(["--via", self.place.via] if self.place.via else [])] if self.calls else []
        return words

    def sidecar(self, control_plane: str, bundle: Path, token: Path) -> list[str]:
        registered = ["--register", self.deployment, "--advertise", self.place.address, "--label", f"pod={self.name}"] if self.behaviour else []
        # On a machine of its own the application is another user's: what the proxy's user sends is not intercepted.
        beside = ["--", *self.application()] if self.behaviour and not self.place.is_own_machine else []
        return self.place.command(
            str(MESHPROXY), "sidecar", "--control-plane", control_plane, "--trust-bundle", str(bundle), "--join-token", str(token),
            "--workload", f"{NAMESPACE}/deploy/{self.deployment}", "--state-dir", str(self.state), "--admin", f"unix:{self.admin}",
            *self.place.sidecar_words(), *registered, *beside, uid=PROXY_UID if self.place.is_own_machine else None,
        )  # fmt: skip

    def is_ready(self) -> bool:
        if admin_get(self.admin, "/ready")[0] != 200:
            return False
        agent = json.loads(admin_get(self.admin, "/agent")[1])
        return bool(agent["link"]["is_connected"] and (agent["is_registered"] or not self.behaviour))

    def takes_requests(self) -> bool:
        return bool(json.loads(admin_get(self.admin, "/agent")[1])["takes_requests"])


class Demo:
    """The control plane, the members, the tap and the load; `close` ends what was started, in the reverse order."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.why_ports = why_no_machines()
        # Not in .demo: a unix socket's path has room for 107 bytes only, and a clone may lie deep.
        self.private = Path(tempfile.mkdtemp(prefix="meshcore-demo-"))
        self.private.chmod(0o711)
        self.members: list[Member] = []
        self.load: asyncio.subprocess.Process | None = None
        self._between: Between | None = None
        self._processes: list[asyncio.subprocess.Process] = []
        self._printing: list[asyncio.Task[None]] = []

    @property
    def ctl(self) -> list[str]:
        return [str(MESHCTL), "--control-plane", f"unix:{self.private}/plane/admin.sock"]

    # --- the control plane ---

    async def start_control_plane(self) -> None:
        words = [str(MESHCTL), "control-plane", "run", "--data", str(self.private / "plane"), "--trust-domain", TRUST_DOMAIN, "--metrics", ""]
        if self.why_ports:
            self.control_plane = f"127.0.0.1:{free_port()}"
        else:
            self._between = Between()
            self.control_plane = f"{self._between.address(0)}:8086"
            words = self._between.command(*words)
        log = (self.private / "plane.log").open("wb")
        process = await start(*words, "--listen", self.control_plane, stdout=log, stderr=log)
        self._processes.append(process)
        socket_ = self.private / "plane" / "admin.sock"
        await until(socket_.exists, "the control plane", process)
        await self.ctl_says("apply", "-f", "-", given=MODEL)
        # What sidecars must be able to read; the rest of the folder is the control plane's own.
        shutil.copyfile(self.private / "plane" / "root.pem", self.private / "root.pem")
        (self.private / "root.pem").chmod(0o644)
        print(f"  {'control plane':16}{self.control_plane:22}meshctl control-plane run --trust-domain {TRUST_DOMAIN}")
        print(f"  {'for a second terminal:':24}{' '.join(self.ctl)} tap deploy/b -n {NAMESPACE}")

    async def ctl_says(self, *words: str, given: str = "") -> str:
        process = await asyncio.create_subprocess_exec(
            *self.ctl, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT
        )
        output, _ = await process.communicate(given.encode())
        if process.returncode:
            raise RuntimeError(f"meshctl {' '.join(words)}: {output.decode()}")
        return output.decode()

    # --- the members ---

    async def start_members(self) -> None:
        hosts = self.private / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {name}.{NAMESPACE}\n" for name, ip in VIRTUAL.items()))
        for number, row in enumerate(MEMBERS, start=1):
            place = Port(row[0]) if self._between is None else await asyncio.to_thread(Machine, row[0], number, self._between, hosts)
            self.members.append(Member(row, place, self.private))
        await asyncio.gather(*(self._start_member(member) for member in self.members))
        for member in self.members:
            place = member.place
            says = f"sidecar {place.address}:{place.inbound}, application :{place.app}" if member.behaviour else f"sidecar {place.via or place.address}, the clients"
            print(f"  {'deploy/' + member.deployment:10}{member.name:6}{member.behaviour:8}{says}")

    async def _start_member(self, member: Member) -> None:
        token, log = self.private / f"{member.name}.token", self.private / f"{member.name}.log"
        token.write_text(await self.ctl_says("join-token", "create", f"{NAMESPACE}/{member.deployment}"))
        token.chmod(0o600)
        if member.place.is_own_machine:
            member.state.mkdir(mode=0o700)
            for path in (member.state, token):
                os.chown(path, PROXY_UID, PROXY_UID)
            member.admin = member.state / "admin.sock"
        output = log.open("wb")
        member.process = await start(*member.sidecar(self.control_plane, self.private / "root.pem", token), stdout=output, stderr=output)
        self._processes.append(member.process)
        try:
            await until(member.is_ready, member.name, member.process)
        except RuntimeError:
            print(log.read_text(errors="replace"), (self.private / "plane.log").read_text(errors="replace"), sep="\n")
            raise
        if member.place.is_own_machine:
            await member.place.intercept()
            if member.behaviour:
                self._processes.append(await start(*member.place.command(*member.application()), stdout=output, stderr=output))
        if member.behaviour:
            await until(member.takes_requests, f"the application of {member.name}", member.process)

    async def start_tap(self) -> None:
        title(f"live: meshctl tap deploy/a -n {NAMESPACE} --max-rps {TAPPED_PER_SECOND}")
        await self._show(*self.ctl, "tap", "deploy/a", "-n", NAMESPACE, "--max-rps", str(TAPPED_PER_SECOND), shown=tap_line)

    async def run_load(self) -> Outcome:
        client = self.members[0].place
        words = [sys.executable, str(ROOT / "examples/load.py"), "80" if client.is_own_machine else str(client.outbound), "--json", "--name", f"b.{NAMESPACE}",
                 "--rps", str(REQUESTS_PER_SECOND), "--seconds", str(self.seconds)]  # fmt: skip
        words += ["--host", f"b.{NAMESPACE}"] if client.is_own_machine else []
        self.load = await start(*client.command(*words), stdout=asyncio.subprocess.PIPE)
        self._processes.append(self.load)
        assert self.load.stdout is not None
        seen = json.loads(await self.load.stdout.read() or b"{}")
        return Outcome(**{**seen, "statuses": Counter({int(k): n for k, n in seen.get("statuses", {}).items()})})

    def stop_load(self) -> None:
        self.seconds = 0.0
        if self.load is not None and self.load.returncode is None:
            self.load.terminate()

    async def close(self) -> None:
        # The tap first, then callers before whom they call.
        for process in [self._processes[-1], *self._processes[1:-1], self._processes[0]] if self._processes else []:
            await end(process)
        await asyncio.gather(*self._printing)
        for member in self.members:
            member.place.close()
        if self._between is not None:
            self._between.close()
        shutil.rmtree(self.private, ignore_errors=True)

    async def _show(self, *command: str, shown: Callable[[str], str | None]) -> None:
        process = await start(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        self._processes.append(process)
        self._printing.append(asyncio.create_task(print_lines(process, shown)))


def report(demo: Demo, seen: Outcome, stats: dict[str, str], secured: dict[str, str]) -> None:
    for what, kind in (("what each endpoint did", "po"), ("what each deployment did", "deploy")):
        title(f"{what}: meshctl stat {kind} -n {NAMESPACE}")
        for line in stats[kind].splitlines():
            print(" ", line)
    good = 100 * seen.good / max(1, seen.requests)
    print(f"\n  Clients: {seen.good} of {seen.requests} requests answered well ({good:.2f} %; a 404 is an answer), "
          f"p50 {seen.quantile_ms(.5):.1f} ms, p99 {seen.quantile_ms(.99):.1f} ms.")
    print(f"  Mutual TLS: {', '.join(f'{name} is {identity}' for name, identity in secured.items())}.")
    title("look further")
    for what, how in (
        ("one proxy, no mesh", ".venv/bin/meshproxy proxy --listen :8080 --to 127.0.0.1:9001"),
        ("a sidecar by hand", ".venv/bin/meshproxy sidecar --help"),
        ("a control plane", ".venv/bin/meshctl control-plane run --help"),
        ("from Python", "examples/embedded_gateway.py"),
        ("to read", "README.md, docs/, ARCHITECTURE.md"),
    ):
        print(f"  {what:20}{paint(how, CYAN)}")


async def run(seconds: float) -> int:
    demo = Demo(seconds)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, demo.stop_load)
    where = "each member on a machine of its own" if not demo.why_ports else f"by port ({demo.why_ports})"
    print(f"{paint('meshcore demo', BOLD)}   a control plane, deployments a -> b -> c with sidecars, {where}; {seconds:g} s, Ctrl-C ends it")
    try:
        await demo.start_control_plane()
        await demo.start_members()
        await demo.start_tap()
        seen = await demo.run_load()
        stats = {kind: await demo.ctl_says("stat", kind, "-n", NAMESPACE) for kind in ("po", "deploy")}
        secured = {f"deploy/{one.deployment}": json.loads(admin_get(one.admin, "/agent")[1])["identity"] for one in demo.members}
    finally:
        await demo.close()
    report(demo, seen, stats, secured)
    return 0 if seen.good else 1


def main() -> int:
    os.chdir(ROOT)
    with terminal_of_our_own():
        return asyncio.run(run(float(os.environ.get("DEMO_SECONDS", "20"))))


if __name__ == "__main__":
    sys.exit(main())
