"""`meshproxy check`: whether a proxy would run here, one line per check, with the way out on failure."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click

from meshcore._fastpath import parse_request
from meshcore.certificates import Certificates, paths_of
from meshcore.cli.addresses import socket_directory
from meshcore.cli.client import AdminClient, choose_admin
from meshcore.cli.output import verdict
from meshcore.config import Cluster, Config, load
from meshcore.config import check as warnings_of
from meshcore.config.plan import descriptor_limit
from meshcore.errors import ConfigError

LINE_WIDTH = 79  # the verdict ends here, as in `linkerd check`'s ancestor

EPILOG = """
\b
Examples:
  meshproxy check -c mesh.yaml           before a deployment: file, ports, limits, names, sockets
  meshproxy check --linkerd l5d.yaml     the same of a file of Linkerd 1.x, and what of it has no meaning here
  meshproxy check                        this machine alone
  meshproxy check --live                 a running proxy: exit 0 when ready (for containers without curl)

Exit: 0 all is well, 1 a check failed, 78 the configuration file is wrong.
"""


class Failure(Exception):
    """A check that failed: what is, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Outcome(NamedTuple):
    check: str
    ok: bool
    message: str
    hint: str


@click.command(epilog=EPILOG)
@click.option(
    "-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path), help="Configuration file (YAML)."
)
@click.option("--linkerd", metavar="FILE", type=click.Path(path_type=Path), help="Configuration file of Linkerd 1.x.")
@click.option("--live", is_flag=True, help="Ask a running proxy whether it is ready, and nothing else.")
@click.option("--admin", metavar="ADDR", envvar="MESHPROXY_ADMIN", help="With --live: its admin address.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per check.")
def check(path: Path | None, linkerd: Path | None, live: bool, admin: str | None, as_json: bool) -> None:
    """Check whether a proxy would run well here."""
    if live:
        checks = iter([("proxy: is ready", lambda: _is_ready(choose_admin(admin)))])
    else:
        # A wrong file ends the command with exit 78: nothing else can be said before it is right.
        checks = all_checks(_configuration(path, linkerd))
    outcomes = []
    for name, probe in checks:
        outcomes.append(outcome := perform(name, probe))
        click.echo(json.dumps(outcome._asdict()) if as_json else line_of(outcome))
    ok = all(outcome.ok for outcome in outcomes)
    if not as_json:
        click.echo(f"\nStatus check results are {verdict('[ok]' if ok else '[FAIL]', good=ok)}")
    if not ok:
        raise SystemExit(1)


def _configuration(path: Path | None, linkerd: Path | None) -> Config | None:
    if linkerd is None:
        return None if path is None else load(path)
    if path is not None:
        raise click.UsageError("name one file: -c FILE, or --linkerd FILE")
    from meshcore.cli.run_linkerd import checked_linkerd

    return checked_linkerd(linkerd)


def perform(name: str, probe: Callable[[], str]) -> Outcome:
    try:
        return Outcome(name, True, probe(), "")
    except Failure as failure:
        return Outcome(name, False, str(failure), failure.hint)
    except Exception as error:  # a check that can not be made has not passed
        return Outcome(name, False, f"{type(error).__name__}: {error}", "this check could not be made")


def line_of(outcome: Outcome) -> str:
    if outcome.ok:
        note = f" ({outcome.message})" if outcome.message else ""
        return f"{_dotted(outcome.check + note, 4)}{verdict('[ok]', good=True)}"
    return f"{_dotted(outcome.check, 6)}{verdict('[FAIL]', good=False)}  -- {outcome.message}; {outcome.hint}"


def _certificates(config: Config) -> str:
    try:
        Certificates().prepare(config)
    except ConfigError as error:
        raise Failure(str(error), "the files that `tls` names are read as a proxy would") from None
    return f"{len(paths_of(config))} files"


def _grpc_checks(config: Config) -> str:
    from meshcore.health import require_grpc

    try:
        require_grpc(config)
    except ConfigError as error:
        raise Failure(str(error), "pip install 'meshcore[mesh]'") from None
    return ""


def _dotted(label: str, verdict_width: int) -> str:
    return label + "." * max(3, LINE_WIDTH - verdict_width - len(label))


def all_checks(config: Config | None) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "engine: HTTP parser", _engine
    yield "system: clock", _clock
    if config is None:
        yield "system: open files", lambda: _open_files(None)
        yield "admin: socket directory", lambda: _socket_directory(str(socket_directory() / "x"))
        return
    yield "config: is valid", lambda: _valid(config)
    yield "system: open files", lambda: _open_files(config)
    if paths_of(config):
        yield "tls: certificates, keys and bundles are usable", lambda: _certificates(config)
    if any(one.health_check is not None and one.health_check.type == "grpc" for one in config.clusters):
        yield "health: grpc checks can be made", lambda: _grpc_checks(config)
    for listener in config.listeners:
        yield (
            f"listener {listener.name}: {listener.address} can be bound",
            functools.partial(_bindable, listener.address),
        )
    for host in sorted(set(_hosts(config))):
        yield f"dns: {host} resolves", functools.partial(_resolves, host)
    address = config.admin.address
    if address is None:
        yield "admin: socket directory", lambda: _socket_directory(str(socket_directory() / "x"))
    elif address.startswith("unix:"):
        yield "admin: socket directory", lambda: _socket_directory(address.removeprefix("unix:"))
    else:
        yield f"admin: {address} can be bound", lambda: _bindable(address)


# --- the checks: each returns a note or raises Failure --------------------------------------------------------------


def _engine() -> str:
    """The layout of the parser's structs is proved at import; here the whole way through it, once each way."""
    good, _ = parse_request([b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"])
    both = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    bad, _ = parse_request([both])  # RFC 9112 6.3: both lengths present -> reject
    if good != "done" or bad in ("done", "more"):
        raise Failure(
            f"verdicts are {good} and {bad}", "reinstall meshcore and httptools: pip install --force-reinstall meshcore"
        )
    return f"httptools {importlib.metadata.version('httptools')}"


def _clock() -> str:
    resolution = time.get_clock_info("monotonic").resolution
    if resolution > 1e-6:
        raise Failure(
            f"the monotonic clock steps by {resolution * 1e6:g}µs",
            "latencies will be coarse; check the machine's clock source",
        )
    if time.time() < 1_700_000_000:
        raise Failure(f"the wall clock says {time.strftime('%Y-%m-%d', time.gmtime())}", "set the time, e.g. with NTP")
    try:
        source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        return ""
    if source in ("hpet", "acpi_pm", "jiffies"):
        raise Failure(
            f"the kernel reads time from {source}, a system call each",
            "use tsc or a paravirtual clock if the machine has one",
        )
    return source


def _open_files(config: Config | None) -> str:
    # The soft limit is raised to the hard one at the start.
    most = descriptor_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limit = config.limits.max_connections if config is not None else "auto"
    if config is None or not isinstance(limit, int):
        # "auto" fits itself to the limit; below this it would refuse what a small service gets.
        if most < 4096:
            raise Failure(f"ulimit -Hn is {most}", "raise it: LimitNOFILE=65536 in the unit, or `ulimit -n 65536` by root")
        return str(most)
    workers = config.workers if isinstance(config.workers, int) else len(os.sched_getaffinity(0))
    # A client connection with a request needs one upstream; the rest is sockets, pipes and room for the process itself.
    wanted = 2 * workers * limit + 64
    if most < wanted:
        raise Failure(
            f"ulimit -Hn is {most}, limits.max_connections may need {wanted}",
            f"raise it, or lower max_connections to {max(1, (most - 64) // 2 // workers)}",
        )
    return str(most)


def _valid(config: Config) -> str:
    warnings = warnings_of(config)
    if warnings:
        first, more = warnings[0], f" (and {len(warnings) - 1} more)" if len(warnings) > 1 else ""
        raise Failure(f"{first}{more}", "allowed, but seldom meant")
    return f"{len(config.routes)} routes, {len(config.clusters)} clusters"


def _bindable(address: str) -> str:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # As the workers do: a proxy of this user that runs already is no obstacle, anything else is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind((host or "0.0.0.0", int(port)))
        except PermissionError:
            raise Failure(
                "permission denied", "ports below 1024 need CAP_NET_BIND_SERVICE; use another or grant it"
            ) from None
        except OSError as error:
            hint = {98: f"find who has it: ss -ltnp 'sport = :{port}'", 99: "this machine has no such address"}
            raise Failure(
                os.strerror(error.errno or 0).lower(), hint.get(error.errno or 0, "choose another address")
            ) from None
    return ""


def _hosts(config: Config) -> Iterator[str]:
    """Names among the endpoints; literal addresses need no resolver."""
    for cluster in config.clusters:
        for address in addresses_of(cluster):
            host = address.rpartition(":")[0].strip("[]")
            if not address.startswith("unix:") and not _is_literal(host):
                yield host


def addresses_of(cluster: Cluster) -> list[str]:
    return [endpoint if isinstance(endpoint, str) else endpoint.address for endpoint in cluster.endpoints]


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _resolves(host: str) -> str:
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise Failure(
            str(error.strerror or error).lower(), "check the spelling, /etc/resolv.conf and /etc/hosts"
        ) from None
    return ", ".join(str(address) for address in sorted(found)[:2])


def _socket_directory(path: str) -> str:
    directory = Path(path).parent
    if not directory.is_dir():
        if directory == socket_directory() and os.access(directory.parent, os.W_OK):
            return "will be made"
        raise Failure(f"{directory} does not exist", f"mkdir -m 0700 {directory}, or choose another with admin.address")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Failure(f"{directory} can not be written", "choose another with admin.address, or change its owner")
    return str(directory)


def _is_ready(address: str) -> str:
    status, text = AdminClient(address).get_text("/ready")
    if status != 200:
        raise Failure(f"it is {text.strip() or status}", "see its log")
    return address
