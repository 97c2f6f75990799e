"""A filter in Python: meshcore beside mitmproxy and aiohttp. `python -m bench.filters --help`.

All three read one request header and set another; the backend counts every request that lacks it as an
error. The raw TCP forwarder runs along, filtering nothing: no gateway on this machine can be faster, so its
row says how far the ratios can reach. mitmproxy lives in an environment of its own, because it pins what it
depends on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import machine, readme
from bench.load import Load, LoadFailed, run_load
from bench.peers import Forwarder
from bench.peers.base import Peer, PeerFailed, Ports, first_match, free_ports
from bench.peers.meshcore import Meshcore
from bench.progress import Steps
from bench.rounds import Samples, paired_ratios, sample, spread
from bench.turns import first_in_line, my_turn

GATEWAYS = Path(__file__).parent / "gateways"
MITMPROXY_HOME = Path(__file__).parent / "build" / "mitmproxy-venv"
LIMITS = {"mitmproxy": 50.0, "aiohttp": 15.0}
P99_LIMIT = 1.10  # of an unfiltered route; below that two runs of the same thing differ as much
CLOSED_LOOP = ["--conns=64", "--header=x-user: alice"]
FILTERED = [*CLOSED_LOOP, "--require=hello alice"]
PLAIN_RATE, BACKGROUND_RATE = 1000, 5000


class MeshcoreGateway(Peer):
    name = "meshcore"

    @classmethod
    def version(cls) -> str:
        return Meshcore.version()

    def command(self) -> list[str]:
        path = f"PYTHONPATH={Meshcore.environment()['PYTHONPATH']}"
        return ["env", path, *_program("with_meshcore.py", self.ports, sys.executable)]


class AiohttpGateway(Peer):
    name = "aiohttp"

    @classmethod
    def version(cls) -> str:
        import aiohttp

        return aiohttp.__version__

    def command(self) -> list[str]:
        return _program("with_aiohttp.py", self.ports, sys.executable)


class MitmproxyGateway(Peer):
    name = "mitmproxy"

    @classmethod
    def version(cls) -> str:
        return first_match([str(MITMPROXY_HOME / "bin" / "mitmdump"), "--version"], r"Mitmproxy: (\S+)")

    def command(self) -> list[str]:
        return [
            str(MITMPROXY_HOME / "bin" / "mitmdump"),
            *("--mode", f"reverse:http://127.0.0.1:{self.ports.backend}"),
            *("--listen-host", "127.0.0.1", "-p", str(self.ports.listen)),
            *("--quiet", "--set", "flow_detail=0", "--set", f"confdir={self.directory}"),
            *("-s", str(GATEWAYS / "with_mitmproxy.py")),
        ]


KINDS: dict[str, type[Peer]] = {
    kind.name: kind for kind in (MeshcoreGateway, Forwarder, AiohttpGateway, MitmproxyGateway)
}


def _program(name: str, ports: Ports, python: str) -> list[str]:
    return [python, str(GATEWAYS / name), str(ports.listen), str(ports.backend)]


def install_mitmproxy(console: Console) -> None:
    """Once per clone, under bench/build."""
    if (MITMPROXY_HOME / "bin" / "mitmdump").exists():
        return
    console.print("installing mitmproxy under bench/build (half a minute, once)")
    venv.create(MITMPROXY_HOME, with_pip=True, clear=True)
    pip = [str(MITMPROXY_HOME / "bin" / "python"), "-m", "pip", "install", "-q", "mitmproxy"]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise PeerFailed(f"pip install mitmproxy: {done.stderr.strip()[-300:]}")


def measure_rates(peers: dict[str, Peer], rounds: int, seconds: float, steps: Steps) -> dict[str, Samples]:
    """Requests/s through the filter, closed loop, 64 connections."""

    def run(name: str) -> Load:
        steps.say(f"filtered, closed loop: {name}")
        peer = peers[name]
        return run_load(
            peer.ports.listen,
            peer.ports.backend,
            CLOSED_LOOP if peer.is_yardstick else FILTERED,
            seconds=seconds,
            warmup_seconds=0.5,
            watched_pids=[peer.pid],
        )

    return sample(list(peers), rounds, run, lambda name, load: steps.done(f"{load.main.rps:.0f}/s"))


def measure_isolation(peer: Peer, rounds: int, seconds: float, steps: Steps) -> dict[str, Samples]:
    """p99 of the unfiltered route, while the same extra load goes through the filter or past it."""
    paths = {"filtered load beside it": "/", "plain load beside it": "/plain/other"}

    def run(name: str) -> Load:
        steps.say(f"unfiltered route at {PLAIN_RATE}/s, {name}")
        arguments = [
            *("--path=/plain/page", "--conns=16", f"--rate={PLAIN_RATE}", "--keep-awake=1"),
            *(f"--background-path={paths[name]}", f"--background-rate={BACKGROUND_RATE}"),
            "--header=x-user: alice",
        ]
        return run_load(peer.ports.listen, peer.ports.backend, arguments, seconds=seconds, warmup_seconds=0.3)

    return sample(list(paths), rounds, run, lambda name, load: steps.done(), max_repeats=0)


def report_of(rates: dict[str, Samples], isolation: dict[str, Samples], versions: dict[str, str]) -> dict[str, Any]:
    ours = rates.get("meshcore")
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(),
        "versions": versions,
        "gateways": {
            name: {
                "rps": spread(mine.rps).as_dict(),
                "cpu_us": spread(mine.cpu_us).as_dict(),
                "p99_us": spread(mine.values(lambda load: load.main.p99_us)).as_dict(),
                "errors": mine.errors,
                "first_error": mine.first_error,
                "disturbed": mine.disturbed,
                "times": spread(paired_ratios(ours.rps, mine.rps)).as_dict() if ours else None,
            }
            for name, mine in rates.items()
        },
    }
    if isolation:
        with_filter, without = (mine.values(lambda load: load.main.p99_us) for mine in isolation.values())
        found["isolation"] = {
            "p99_us_beside_filtered": spread(with_filter).as_dict(),
            "p99_us_beside_plain": spread(without).as_dict(),
            "ratio": spread(paired_ratios(with_filter, without)).as_dict(),
        }
    return found


def render(report: dict[str, Any], console: Console) -> bool:
    """Prints the table; True when every gate holds."""
    table = Table(title=f"one header read, one set, in Python; {machine.one_line()}")
    for column in ("gateway", "requests/s", "CPU µs/request", "p99 µs", "meshcore / it", "gate"):
        table.add_column(column, justify="left" if column == "gateway" else "right")
    holds = True
    for name, found in report["gateways"].items():
        times = found["times"]["median"] if found["times"] else None
        limit = LIMITS.get(name)
        gate = ""
        if limit and times is not None:
            holds &= times >= limit
            gate = f"{'PASS' if times >= limit else 'FAIL'} {times:.1f} × (≥ {limit:g})"
        is_ceiling = KINDS[name].is_yardstick
        label = f"{name} {report['versions'][name]}{' (filters nothing: the ceiling)' if is_ceiling else ''}"
        if found["errors"]:
            label += f"  {found['errors']} errors: {found['first_error']}"
            holds = False
        if found["disturbed"]:
            label += f"  ~{found['disturbed']} rounds disturbed"
        table.add_row(
            label,
            f"{found['rps']['median']:.0f} ({found['rps']['min']:.0f}..{found['rps']['max']:.0f})",
            f"{found['cpu_us']['median']:.1f}",
            f"{found['p99_us']['median']:.0f}",
            f"{times:.2f} ×" if times and name != "meshcore" else "",
            gate,
        )
    console.print(table)
    if "isolation" in report:
        found = report["isolation"]
        ratio = found["ratio"]["median"]
        holds &= ratio <= P99_LIMIT
        console.print(
            f"p99 of an unfiltered route at {PLAIN_RATE}/s: {found['p99_us_beside_plain']['median']:.0f} µs beside "
            f"{BACKGROUND_RATE}/s of unfiltered load, {found['p99_us_beside_filtered']['median']:.0f} µs beside the "
            f"same load through the filter: {ratio:.2f} ({'PASS' if ratio <= P99_LIMIT else 'FAIL'} ≤ {P99_LIMIT})",
            highlight=False,
        )
    return holds


def measure(names: list[str], options: argparse.Namespace, directory: Path, console: Console) -> dict[str, Any]:
    """Starts the gateways, measures them in interleaved rounds, stops them; returns the report."""
    peers: dict[str, Peer] = {}
    backend, *listens = free_ports(1 + len(names))
    try:
        for name, listen in zip(names, listens, strict=True):
            peer = KINDS[name](Ports(listen, backend), directory)
            try:
                peer.start()
                peers[name] = peer
            except PeerFailed as error:
                console.print(str(error), markup=False)
        isolated_rounds = options.rounds * 2 if "meshcore" in peers else 0
        with Steps(console, len(peers) * options.rounds + 2 * isolated_rounds) as steps:
            rates = measure_rates(peers, options.rounds, options.seconds, steps)
            isolation: dict[str, Samples] = {}
            if isolated_rounds:
                isolation = measure_isolation(peers["meshcore"], isolated_rounds, options.seconds, steps)
    finally:
        for peer in peers.values():
            peer.stop()
    return report_of(rates, isolation, {name: KINDS[name].version() for name in peers})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.filters", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--gateways", default=",".join(KINDS), help=f"of: {', '.join(KINDS)}")
    parser.add_argument("--first", action="store_true", help="run ahead of other work (nice -15; root)")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a gate fails")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    names = options.gateways.split(",")
    if "mitmproxy" in names:
        install_mitmproxy(console)
    with my_turn(console.print), tempfile.TemporaryDirectory(prefix="meshcore-bench-") as directory:
        try:
            with first_in_line(options.first, console.print):
                report = measure(names, options, Path(directory), console)
        except LoadFailed as error:
            console.print(str(error), markup=False)
            return 1
    whole = set(report["gateways"]) == set(KINDS) and options.rounds >= 3
    folder = readme.RESULTS if whole else readme.ROOT / "bench" / "build" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report['date']}-{machine.name()}{readme.FILTERS_SUFFIX}"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"{path} written", highlight=False)
    return 0 if render(report, console) or not options.strict else 1


if __name__ == "__main__":
    raise SystemExit(main())
