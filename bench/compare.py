"""meshcore beside nginx, HAProxy, Envoy and a raw TCP forwarder: `python -m bench.compare --help`.

Runs the plan and writes the report. How one run is made: load, rounds, probes; how it is judged: gates.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import gates, h2load, machine, plot, probes, proofs, readme, table
from bench.backends import BACKENDS
from bench.credentials import Credentials
from bench.load import Load, LoadFailed, run_load
from bench.peers import PEERS, Meshcore, Peer, PeerFailed, Ports, free_ports
from bench.peers.meshcore import route_host, route_prefix
from bench.progress import Steps
from bench.rounds import MAX_REPEATS, Samples, paired_ratios, sample, spread
from bench.shapes import BY_KEY, H1, SHAPES, TLS, Shape
from bench.turns import first_in_line, my_turn

PROBES = ("cpu", "syscalls", "latency", "memory", "tls-memory", "pairs")
LARGE_TABLE, SMALL_TABLE = 10_000, 10


class Field:
    """The contenders of one comparison: starts what is asked for, once, and stops it at the end."""

    def __init__(self, names: list[str], directory: Path) -> None:
        self.directory = directory
        self.credentials = Credentials(directory / "credentials")
        self.missing: dict[str, str] = {}
        self.names: list[str] = []
        for name in names:
            reason = PEERS[name].unavailable()
            if reason:
                self.missing[name] = reason
            else:
                self.names.append(name)
        self._ports = iter(free_ports(160))
        self.backend_port = next(self._ports)
        self._running: dict[tuple[str, str], Peer] = {}

    def peer(self, name: str, variant: str = "") -> Peer:
        """Running and answering; a contender that has died in the meantime is started again."""
        key = (name, variant)
        if key not in self._running or not self._running[key].is_alive():
            self._running[key] = self._start(name, variant)
        return self._running[key]

    @contextmanager
    def fresh(self, name: str, variant: str = "") -> Iterator[Peer]:
        """A process of its own for a measurement that depends on what happened before."""
        peer = self._start(name, variant)
        try:
            yield peer
        finally:
            peer.stop()

    def retire(self, name: str, variant: str) -> None:
        self._running.pop((name, variant)).stop()

    def able(self, wire: str) -> list[str]:
        """Who can be asked to speak it."""
        return [name for name in self.names if wire in PEERS[name].wires]

    def proven(self, name: str, shape: Shape) -> Peer:
        """Like `peer`, with the variant for a shape, after it has shown that it does what the row says."""
        variant = PEERS[name].variant_for(shape)
        if shape.wire in proofs.PROOFS and (name, variant) not in self._running:
            with self.fresh(name, variant) as peer:
                proofs.prove(peer, shape.wire, self.directory)
        return self.peer(name, variant)

    def close(self) -> None:
        for peer in self._running.values():
            peer.stop()

    def _start(self, name: str, variant: str) -> Peer:
        peer = PEERS[name](Ports(next(self._ports), self.backend_port), self.directory, variant)
        peer.start()
        return peer


def measure_cpu(field: Field, shapes: list[Shape], options: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """CPU per request, rate and errors of every contender in every shape."""
    found: dict[str, Any] = {}
    for shape in shapes:
        peers: dict[str, Peer] = {}
        try:
            field.credentials.make()
            with loading(field, shape, options.seconds) as load_peer:
                for name in field.able(shape.wire):
                    try:
                        peers[name] = field.proven(name, shape)
                    except (PeerFailed, LoadFailed) as error:  # one contender less is better than no table
                        field.missing[f"{name}, {shape.key}"] = str(error)

                def run(
                    name: str,
                    shape: Shape = shape,
                    peers: dict[str, Peer] = peers,
                    load_peer: Callable[[Peer], Load] = load_peer,
                ) -> Load:
                    steps.say(f"{shape.label}: {name}")
                    return load_peer(peers[name])

                samples = sample(
                    list(peers),
                    options.rounds,
                    run,
                    lambda name, load: steps.done(_brief(load)),
                    max_repeats=options.max_repeats,
                )
        except (probes.Skipped, PeerFailed, ImportError) as error:
            field.missing[shape.label] = str(error)
            continue
        found[shape.key] = _shape_report(shape, samples)
        if shape.wire != H1:  # a process of each kind is enough beside the one that is measured
            for name, peer in peers.items():
                if peer.variant:
                    field.retire(name, peer.variant)
    return found


@contextmanager
def loading(field: Field, shape: Shape, seconds: float) -> Iterator[Callable[[Peer], Load]]:
    """How one contender is loaded once in the way of `shape`; what must stand behind it does until the end."""
    if not shape.streams:
        arguments = [*shape.load_arguments(), *field.credentials.load_arguments(shape.wire)]

        def by_instrument(peer: Peer) -> Load:
            load = run_load(
                peer.ports.listen,
                peer.ports.backend,
                arguments,
                seconds=seconds,
                # Thousands of connections need longer until all of them and the pools are open.
                warmup_seconds=0.2 + shape.conns / 2500,
                watched_pids=[peer.pid],
            )
            # A connection that was not secured as the row says is no sample of it.
            return replace(load, requests=0) if load.errors and shape.wire != H1 else load

        yield by_instrument
        return
    kind = BACKENDS[shape.wire]
    reason = h2load.unavailable() or kind.unavailable()
    if reason:
        raise probes.Skipped(reason)
    with kind(field.backend_port, field.directory) as backend:
        yield h2load.H2Load(shape, backend, seconds).run


def _brief(load: Load) -> str:
    return f"{load.cpu_us_per_request:.2f} µs/request, {load.main.rps:.0f}/s" + (
        f", {load.errors} errors: {load.first_error}" if load.errors else ""
    )


def _quantiles(mine: Samples) -> dict[str, Any]:
    """Latency, where the load tells it."""
    found = {}
    for name in ("p50_us", "p99_us"):
        values = [getattr(load.main, name) for load in mine.loads]
        if not any(math.isnan(value) for value in values):
            found[name] = spread(values).as_dict()
    return found


def _shape_report(shape: Shape, samples: dict[str, Samples]) -> dict[str, Any]:
    ours = samples.get("meshcore")
    return {
        "title": shape.title,
        "label": shape.label,
        "conns": shape.conns,
        "concurrency": shape.concurrency,
        "is_handshakes": shape.is_handshakes,
        "peers": {
            name: {
                "cpu_us": spread(mine.cpu_us).as_dict(),
                "rps": spread(mine.rps).as_dict(),
                **_quantiles(mine),
                "utilisation": spread(mine.values(lambda load: load.proxy_utilisation)).as_dict(),
                "cpu_us_by_round": mine.cpu_us,
                "errors": mine.errors,
                "first_error": mine.first_error,
                "disturbed": mine.disturbed,
            }
            for name, mine in samples.items()
            if mine.loads
        },
        "failed": {name: mine.failure for name, mine in samples.items() if mine.failure},
        "ratios": {
            name: spread(paired_ratios(ours.cpu_us, theirs.cpu_us)).as_dict()
            for name, theirs in samples.items()
            if ours and ours.loads and theirs.loads and name != "meshcore"
        },
    }


def measure_each(
    field: Field, steps: Steps, doing: str, read: Callable[[Peer], dict[str, Any]], wire: str = H1
) -> dict[str, Any]:
    """`read` on a fresh process of every contender; a reason instead of a figure where it cannot."""
    found: dict[str, Any] = {}
    for name in field.able(wire):
        steps.say(f"{doing}: {name}")
        try:
            with field.fresh(name, "" if wire == H1 else wire) as peer:
                found[name] = read(peer)
        except (probes.Skipped, PeerFailed, LoadFailed) as error:
            found[name] = {"skipped": str(error)}
        steps.done()
    return found


def measure_tls_memory(field: Field, steps: Steps) -> dict[str, Any]:
    """Bytes per idle TLS connection of all that terminate TLS."""
    field.credentials.make()
    return measure_each(
        field,
        steps,
        "idle TLS connections",
        lambda peer: {"bytes": probes.bytes_per_idle_connection(peer, probes.IDLE_TLS_CONNECTIONS, TLS)},
        TLS,
    )


def measure_latency(field: Field, options: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """p50, p99, p99.9 at a fixed rate, minus what the same rate costs without a proxy."""
    found: dict[str, Any] = {}
    peers = {name: field.peer(name) for name in field.names}
    kinds = {"cores kept awake": True, "idle cores may halt": False}
    for kind, awake in kinds.items():
        label = f"{probes.LATENCY_RATE} requests/s open loop, {probes.LATENCY_CONNS} connections, {kind}"
        run = probes.latency_runner(peers, seconds=options.latency_seconds, awake=awake)

        def watched(name: str, run: Callable[[str], Load] = run, label: str = label) -> Load:
            steps.say(f"{label}: {name}")
            return run(name)

        samples = sample(
            ["direct", *field.names],
            options.latency_rounds,
            watched,
            lambda name, load: steps.done(f"p50 {load.main.p50_us:.0f} µs, p99 {load.main.p99_us:.0f} µs"),
            max_repeats=0,  # the spinning instrument itself fills the cores
        )
        found[label] = {}
        for name, mine in samples.items():
            found[label][name] = {}
            if not mine.loads:
                continue
            for quantile in ("p50", "p99", "p99.9"):
                attribute = f"{quantile.replace('.', '')}_us"
                values = [getattr(load.main, attribute) for load in mine.loads]
                direct = [getattr(load.main, attribute) for load in samples["direct"].loads]
                added = [ours - theirs for ours, theirs in zip(values, direct, strict=False)]
                found[label][name][quantile] = spread(values).as_dict()
                found[label][name][f"added_{quantile}"] = spread(added).as_dict()
    return found


def measure_pairs(field: Field, options: argparse.Namespace, steps: Steps) -> dict[str, Any]:
    """meshcore against itself: a large against a small route table, a tap against none."""
    if "meshcore" not in field.names:
        return {}
    found: dict[str, Any] = {
        "routes": {"label": f"{LARGE_TABLE:,} routes / {SMALL_TABLE} routes"},
        "tap": {"label": "a tap at 1 request/s / no tap"},
    }
    for key, measure in (("routes", _sample_routes), ("tap", _sample_tap)):
        try:
            samples = measure(field, options, steps)
        except (PeerFailed, LoadFailed) as error:
            found[key]["skipped"] = str(error)
            continue
        with_it, without = samples.values()
        if with_it.failure or without.failure:
            found[key]["skipped"] = with_it.failure or without.failure
            continue
        errors = with_it.errors + without.errors
        if errors:
            found[key]["skipped"] = f"{errors} errors: {with_it.first_error or without.first_error}"
            continue
        found[key]["ratio"] = spread(paired_ratios(with_it.cpu_us, without.cpu_us)).as_dict()
        found[key]["cpu_us"] = {name: spread(mine.cpu_us).as_dict() for name, mine in samples.items()}
    return found


def _pair_load(peer: Peer, options: argparse.Namespace, arguments: list[str]) -> Load:
    return run_load(
        peer.ports.listen,
        peer.ports.backend,
        ["--conns=64", *arguments],
        seconds=options.pair_seconds,
        warmup_seconds=0.2,
        watched_pids=[peer.pid],
    )


def _sample_routes(field: Field, options: argparse.Namespace, steps: Steps) -> dict[str, Samples]:
    """Each table is asked for its last route, the worst one of a linear search."""
    sizes = {f"routes-{LARGE_TABLE}": LARGE_TABLE, f"routes-{SMALL_TABLE}": SMALL_TABLE}

    def run(variant: str) -> Load:
        steps.say(f"route tables: {variant}")
        last = sizes[variant] - 1
        path = f"{route_prefix(last)}/item"
        return _pair_load(
            field.peer("meshcore", variant), options, [f"--host={route_host(last)}", f"--path={path}"]
        )

    try:
        return sample(list(sizes), options.pairs, run, lambda name, load: steps.done(_brief(load)))
    finally:
        for variant in sizes:
            if ("meshcore", variant) in field._running:
                field.retire("meshcore", variant)


def _sample_tap(field: Field, options: argparse.Namespace, steps: Steps) -> dict[str, Samples]:
    """The same process with and without a tap: what differs is the tap alone."""
    with field.fresh("meshcore", "admin") as peer:
        assert isinstance(peer, Meshcore)

        def run(name: str) -> Load:
            steps.say(f"tap: {name}")
            if name == "none":
                return _pair_load(peer, options, [])
            tap = peer.start_tap(1.0)
            try:
                return _pair_load(peer, options, [])
            finally:
                tap.terminate()
                tap.wait()

        return sample(["tap", "none"], options.pairs, run, lambda name, load: steps.done(_brief(load)))


def count_steps(field: Field, shapes: list[Shape], options: argparse.Namespace) -> int:
    contenders = len(field.names)
    total = 0
    if "cpu" in options.probes:
        total += sum(len(field.able(shape.wire)) for shape in shapes) * options.rounds
    if "syscalls" in options.probes:
        total += contenders
    if "memory" in options.probes:
        total += contenders
    if "tls-memory" in options.probes:
        total += len(field.able(TLS))
    if "latency" in options.probes:
        total += 2 * (contenders + 1) * options.latency_rounds
    if "pairs" in options.probes and "meshcore" in field.names:
        total += 4 * options.pairs
    return total


def run_plan(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The whole comparison; the report as it is written to disk."""
    shapes = [BY_KEY[key] for key in options.shapes]
    with tempfile.TemporaryDirectory(prefix="meshcore-bench-") as directory:
        field = Field(options.peers, Path(directory))
        for name, reason in field.missing.items():
            console.print(f"{name} is left out: {reason}", highlight=False, markup=False)
        report: dict[str, Any] = {
            "date": datetime.date.today().isoformat(),
            "machine": machine.describe(),
            "machine_line": machine.one_line(),
            "versions": {name: PEERS[name].version() for name in field.names},
            "missing": field.missing,
            "settings": {
                "rounds": options.rounds,
                "seconds": options.seconds,
                "pairs": options.pairs,
                "idle_connections": probes.IDLE_CONNECTIONS,
                "idle_tls_connections": probes.IDLE_TLS_CONNECTIONS,
            },
        }
        try:
            with Steps(console, count_steps(field, shapes, options)) as steps:
                chosen = options.probes
                report["shapes"] = measure_cpu(field, shapes, options, steps) if "cpu" in chosen else {}
                report["pairs"] = measure_pairs(field, options, steps) if "pairs" in chosen else {}
                report["latency"] = measure_latency(field, options, steps) if "latency" in chosen else {}
                report["memory"] = measure_each(
                    field, steps, "idle connections", lambda p: {"bytes": probes.bytes_per_idle_connection(p)}
                ) if "memory" in chosen else {}
                report["tls_memory"] = measure_tls_memory(field, steps) if "tls-memory" in chosen else {}
                report["syscalls"] = measure_each(
                    field, steps, "system calls", probes.syscalls_per_request
                ) if "syscalls" in chosen else {}
        finally:
            field.close()
    report["gates"] = [gate.as_dict() for gate in gates.evaluate(report)]
    return report


def save(report: dict[str, Any], folder: Path) -> Path:
    """Writes .json, .md and .svg of one stem; returns the path of the .json."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{report['date']}-{machine.name()}"
    versions = "\n".join(f"- {name} {version}" for name, version in report["versions"].items())
    stem.with_suffix(".md").write_text(
        f"# meshcore and its peers, {report['date']}\n\n{report['machine_line']}\n\n{versions}\n\n"
        + (f"![CPU per request]({stem.name}.svg)\n\n" if report["shapes"] else "")
        + table.markdown(report)
        + "\n"
    )
    if report["shapes"]:
        stem.with_suffix(".svg").write_text(plot.svg(report))
    path = stem.with_suffix(".json")
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    every = ", ".join(shape.key for shape in SHAPES)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of: {', '.join(PEERS)}")
    parser.add_argument("--shapes", default="", help=f"of: {every} (default all)")
    parser.add_argument("--probes", default=",".join(PROBES), help=f"of: {', '.join(PROBES)}")
    parser.add_argument("--rounds", type=int, help="interleaved rounds per shape (default 5; quick 2)")
    parser.add_argument("--seconds", type=float, help="length of one run (default 1.2; quick 0.4)")
    parser.add_argument("--quick", action="store_true", help="under 4 minutes; too coarse to quote")
    parser.add_argument("--save", action="store_true", help="keep a quick or partial run in bench/results")
    parser.add_argument("--no-readme", action="store_true", help="leave README.md alone")
    parser.add_argument("--meshcore-cmd", help="how to start meshcore (default: this Python -m meshcore)")
    parser.add_argument("--first", action="store_true", help="run ahead of other work (nice -15; root)")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a gate or a contender fails")
    options = parser.parse_args(arguments)
    options.is_whole = not options.quick and not options.shapes and options.probes == ",".join(PROBES)
    for name, known in (("peers", list(PEERS)), ("shapes", list(BY_KEY)), ("probes", list(PROBES))):
        chosen = [word for word in getattr(options, name).split(",") if word] or known
        unknown = [word for word in chosen if word not in known]
        if unknown:
            parser.error(f"--{name}: {', '.join(unknown)}: known are {', '.join(known)}")
        setattr(options, name, chosen)
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (0.4 if options.quick else 1.2)
    options.max_repeats = 1 if options.quick else MAX_REPEATS
    options.pairs = 4 if options.quick else 12
    options.pair_seconds = 0.5 if options.quick else 0.8
    options.latency_rounds = 1 if options.quick else 3
    options.latency_seconds = 1.0 if options.quick else 3.0
    return options


def main() -> int:
    options = read_options()
    if options.meshcore_cmd:
        Meshcore.use_command(options.meshcore_cmd)
    # 5000 idle connections are 10000 sockets in a forwarder.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    console = Console(width=None if sys.stdout.isatty() else 240)
    with my_turn(console.print), first_in_line(options.first, console.print):
        report = run_plan(options, console)
    table.render(report, console)
    keep = options.is_whole or options.save
    path = save(report, readme.RESULTS if keep else readme.ROOT / "bench" / "build" / "results")
    console.print(f"{path}, .md and .svg written", highlight=False)
    if keep and not options.no_readme and readme.update(readme.ROOT / "README.md", report, path.stem):
        console.print("README.md updated", highlight=False)
    failed = [gate for gate in report["gates"] if not gate["holds"]]
    failed += [shape["failed"] for shape in report["shapes"].values() if shape["failed"]]
    failed += [name for name in report["missing"] if name not in PEERS]  # installed, but not up for a row
    return 1 if failed and options.strict else 0


if __name__ == "__main__":
    raise SystemExit(main())
