"""`meshproxy sidecar`: a proxy beside one application, told by the control plane where names lead and who is who."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshcore.cli.version import package_version
from meshcore.errors import ConfigError

if TYPE_CHECKING:
    from meshcore.agent.agent import AgentSettings
    from meshcore.agent.registration import Claim
    from meshcore.agent.sidecar import SidecarSettings

EPILOG = """
\b
Examples:
  meshproxy sidecar --control-plane 10.0.0.5:8086 --trust-bundle root.pem --join-token token \\
      --workload shop/web --app-port 8080 --register web:80 -- ./web --port 8080
  meshproxy sidecar --control-plane mesh.test:8086 --trust-bundle root.pem --workload shop/deploy/web \\
      --interception redirect

\b
Without interception an application calls others through the outbound address, as an HTTP proxy
(http_proxy=http://127.0.0.1:4140) or by a port of its own for each (--forward 127.0.0.1:5432=db.shop:5432).
With it ('meshproxy intercept --apply') an application knows nothing of this.

\b
SIGTERM drains. SIGHUP renews the certificate, where there is no COMMAND that it is passed on to.

\b
Exit: the application's status, when there is one (128 and the signal that ended it); else 0 after a drain,
78 when the flags or files cannot be used, 1 when the control plane refuses this workload.
"""

KINDS = {
    "deploy": "deployment", "deployment": "deployment", "ds": "daemonset", "daemonset": "daemonset", "sts": "statefulset",
    "statefulset": "statefulset", "job": "job", "rc": "replicationcontroller", "rs": "replicaset", "po": "pod", "pod": "pod",
    "vm": "workload", "workload": "workload",
}  # fmt: skip
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@click.command(epilog=EPILOG, context_settings={"ignore_unknown_options": False})
@click.option("--control-plane", "control_plane", required=True, multiple=True, metavar="HOST:PORT[,…]",
              help="Where it is; several are tried in turn.")  # fmt: skip
@click.option("--workload", required=True, metavar="[NS/][KIND/]NAME", help="Who this is: shop/web, shop/deploy/web.")
@click.option("--account", metavar="NAME", help="The account that makes the identity.  [default: the workload's name]")
@click.option("--trust-bundle", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="PEM file with the roots of the mesh: what the control plane must prove.")  # fmt: skip
@click.option("--trust-domain", default="", metavar="NAME", help="Of the identity.  [default: as the roots name it]")
@click.option("--join-token", type=click.Path(path_type=Path), metavar="FILE",
              help="File with a join token or a Kubernetes token, for the first certificate.")  # fmt: skip
@click.option("--state-dir", type=click.Path(path_type=Path), metavar="DIR",
              help="Key, certificate, and what was known last; mode 0700.  [default: below $XDG_STATE_HOME or /var/lib]")  # fmt: skip
@click.option("--inbound", default=":4143", metavar="ADDR", show_default=True, help="Where others call the application.")
@click.option("--outbound", default="127.0.0.1:4140", metavar="ADDR", show_default=True, help="Where it calls others.")
@click.option("--admin", default="127.0.0.1:4191", metavar="ADDR", show_default=True, help="Metrics, readiness, taps.")
@click.option("--app-port", type=click.IntRange(1, 65_535), metavar="PORT",
              help="Where the application listens on loopback; needed without interception.")  # fmt: skip
@click.option("--interception", type=click.Choice(["off", "redirect", "tproxy"]), default="off", show_default=True,
              help="How connections come here: see 'meshproxy intercept'.")  # fmt: skip
@click.option("--opaque-ports", default=None, metavar="PORTS",
              help="Intercepted ports whose bytes are not looked at: 3306,5432.  [default: the usual ones where servers speak first]")  # fmt: skip
@click.option("--require-mtls", is_flag=True, help="Refuse callers that are no members.  [default: they come in as nobody]")
@click.option("--forward", "forwards", multiple=True, metavar="ADDR=NAME:PORT",
              help="Listen there for that one name. May be repeated.")  # fmt: skip
@click.option("--register", "registered", multiple=True, metavar="SERVICE[:PORT]",
              help="Register as an endpoint of this service while this runs. May be repeated.")  # fmt: skip
@click.option("--advertise", metavar="IP", help="The address others reach this machine at.  [default: as the system routes]")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Of this workload. May be repeated.")
@click.option("--zone", default="", metavar="NAME", help="Where this machine stands.")
@click.option("--node", default="", metavar="NAME", help="Which machine this is.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Engine threads.")
@click.option("--drain", default="30s", metavar="DURATION", show_default=True, help="How long running requests may take at the end.")
@click.option("-v", "--verbose", is_flag=True, help="Tell more of what the agent does.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def sidecar(command: tuple[str, ...], verbose: bool, **given: Any) -> None:
    """Run a proxy beside one application: mutual TLS, names and policies from a control plane.

    A COMMAND after -- is started when the proxy is ready, gets the signals, and its status is the exit status.
    """
    # grpcio writes its own lines to stderr, in a form of its own; what matters is told here. Before it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO if verbose else logging.WARNING, format="meshproxy: %(message)s", force=True
    )
    try:
        from meshcore.agent.agent import Agent
    except ImportError as error:
        raise ConfigError(f"a sidecar needs the packages of meshcore[mesh]: {error}; pip install 'meshcore[mesh]'") from None
    from meshcore.cli.sidecar_life import SidecarLife

    settings = sidecar_settings(**given)
    agent = Agent(agent_settings(settings, **given))
    sys.exit(SidecarLife(agent, settings, command).run())


def sidecar_settings(**given: Any) -> SidecarSettings:
    """What the flags say about listeners. ConfigError where they contradict each other."""
    from meshcore.agent.sidecar import SidecarSettings

    if given["interception"] == "off" and given["app_port"] is None and (given["registered"]):
        raise ConfigError("without interception nothing says where the application listens; add --app-port")
    forwards: dict[str, str] = {}
    for forward in given["forwards"]:
        address, equals, name = forward.partition("=")
        if not equals or ":" not in name or not address:
            raise ConfigError(f"--forward {forward}: expected ADDR=NAME:PORT, as in 127.0.0.1:5432=db.shop:5432")
        forwards[address] = name.lower()
    return SidecarSettings(
        inbound=given["inbound"],
        outbound=given["outbound"],
        admin=given["admin"],
        interception=given["interception"],
        has_ipv6=_has_ipv6(),
        app_port=given["app_port"] or 0,
        opaque_ports=_opaque_ports(given["opaque_ports"], given["interception"]),
        require_mtls=given["require_mtls"],
        forwards=forwards,
        workers=given["workers"],
        drain=given["drain"],
    )


def _has_ipv6() -> bool:
    """Networks of containers often have none."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _opaque_ports(text: str | None, interception: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    if interception == "off":
        raise ConfigError("--opaque-ports is about intercepted connections; it needs --interception")
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= 65_535 for part in parts):
        raise ConfigError(f"--opaque-ports {text[:80]}: expected ports, as in 3306,5432")
    return tuple(int(part) for part in parts)


def agent_settings(settings: SidecarSettings, **given: Any) -> AgentSettings:
    """What the flags say about us and the control plane."""
    from meshcore.agent.agent import AgentSettings

    namespace, kind, name = workload_of(given["workload"])
    labels = {"namespace": namespace, kind: name, **dict(_pair("--label", text) for text in given["labels"])}
    addresses = tuple(one.strip() for text in given["control_plane"] for one in text.split(",") if one.strip())
    for address in addresses:
        if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", address):
            raise ConfigError(f"--control-plane {address}: expected HOST:PORT")
    account = given["account"] or name
    return AgentSettings(
        control_plane=addresses,
        namespace=namespace,
        workload=name,
        account=account,
        trust_bundle=given["trust_bundle"],
        trust_domain=given["trust_domain"],
        join_token=given["join_token"],
        state_directory=given["state_dir"] or _state_directory(namespace, name),
        claim=_claim(settings, name, labels, given) if given["registered"] else None,
        app_port=settings.app_port,
        version=package_version(),
        labels=labels,
    )


def workload_of(text: str) -> tuple[str, str, str]:
    """Namespace, kind and name; ConfigError for anything else."""
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["default", "workload", *parts]
    elif len(parts) == 2:
        parts = ["default", *parts] if parts[0] in KINDS else [parts[0], "workload", parts[1]]
    if len(parts) != 3 or parts[1] not in KINDS or not all(_LABEL.fullmatch(part) for part in (parts[0], parts[2])):
        raise ConfigError(f"--workload {text}: expected [NS/][KIND/]NAME, as in shop/web or shop/deploy/web")
    return parts[0], KINDS[parts[1]], parts[2]


def _claim(settings: SidecarSettings, name: str, labels: dict[str, str], given: dict[str, Any]) -> Claim:
    from meshcore.agent.registration import Claim, Served

    address = given["advertise"] or _own_address(given["control_plane"][0].partition(",")[0])
    # Without interception callers reach us at the inbound port; with it, at the application's own.
    port = int(settings.inbound.rpartition(":")[2]) if settings.interception == "off" else settings.app_port
    if not port:
        raise ConfigError("--register: nothing says at which port callers reach this; add --app-port")
    served = []
    for text in given["registered"]:
        service, colon, service_port = text.partition(":")
        if not _LABEL.fullmatch(service) or (colon and not service_port.isdigit()):
            raise ConfigError(f"--register {text}: expected SERVICE or SERVICE:PORT")
        served.append(Served(service=service, address=address, port=port, service_port=int(service_port or 0)))
    # Several of one workload stand beside each other: the address tells them apart.
    member = f"{name}-{re.sub('[^a-z0-9]+', '-', address.lower()).strip('-')}-{port}"
    return Claim(
        name=member, labels=labels, zone=given["zone"], node=given["node"], addresses=(address,), served=tuple(served)
    )


def _own_address(control_plane: str) -> str:
    """The address this system would reach the control plane from."""
    host, _, port = control_plane.rpartition(":")
    host = host.strip("[]")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"no way to {control_plane} is known ({error}); say with --advertise where this machine is reached") from None


def _state_directory(namespace: str, name: str) -> Path:
    if base := os.environ.get("XDG_STATE_HOME"):
        parent = Path(base)
    else:
        parent = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local/state"
    return parent / "meshproxy" / f"{namespace}-{name}"


def _pair(flag: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"{flag} {text}: expected KEY=VALUE")
    return key, value
