"""`meshctl check`: whether the control plane is well, line by line, each with a way out when it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from meshcore.api import admin_pb2

from .connection import admin, where
from .output import escaped, is_json, output_option, show_json
from .version import package_version

LINE_CHARS = 80  # as Conduit's check: label, dots and the word fill a terminal's line
DAY_S = 86_400


class Result(NamedTuple):
    """One line."""

    subsystem: str
    what: str
    is_ok: bool
    message: str = ""
    hint: str = ""


@click.command()
@output_option
@click.pass_context
def check(ctx: click.Context, output: str) -> None:
    """Check the control plane; the exit code is 2 unless all is well."""
    results = list(_results(ctx))
    is_ok = all(result.is_ok for result in results)
    if is_json(output):
        show_json({"ok": is_ok, "checks": [result._asdict() for result in results]})
    else:
        for result in results:
            click.echo(line(result))
            if not result.is_ok and result.hint:
                click.echo(f"    hint: {escaped(result.hint)}")
        click.echo(f"\nStatus check results are [{'ok' if is_ok else 'FAIL'}]")
    if not is_ok:
        raise click.exceptions.Exit(2)


def line(result: Result) -> str:
    """`subsystem: what......[ok]`, or `[FAIL]  -- message`."""
    label = f"{result.subsystem}: {result.what}"
    dots = "." * max(1, LINE_CHARS - len(label) - len("[ok]") - 1)
    return f"{label}{dots}[ok]" if result.is_ok else f"{label}{dots}[FAIL]  -- {escaped(result.message)}"


def _results(ctx: click.Context) -> Iterator[Result]:
    address, _ = where(ctx)
    try:
        with admin(ctx) as stub:
            status = json.loads(stub.Status(admin_pb2.StatusQuery(), timeout=10).json)
            listing = stub.Get(admin_pb2.Query(), timeout=30)
    except click.ClickException as error:
        yield Result(
            "control-plane",
            "can be asked",
            False,
            error.format_message(),
            "start it with `meshctl control-plane run`, or name it with --control-plane",
        )
        return
    yield Result("control-plane", f"can be asked at {address}", True)
    yield from _of_status(status)
    yield _versions(status)
    yield from _of_model(listing, status)


def _versions(status: dict[str, Any]) -> Result:
    mine, its = package_version(), status["version"]
    return Result("version", "meshctl and control plane agree", mine == its, f"meshctl is {mine}, the server {its}",
                  "install the same version on both")  # fmt: skip


def _of_status(status: dict[str, Any]) -> Iterator[Result]:
    figures = status["figures"]
    stale_s = figures["store_stale_seconds"]
    yield Result("control-plane", "takes new proxies", not status["is_draining"], "it is draining", "wait for its successor")
    yield Result(
        "store",
        f"{status['store']} answers",
        stale_s == 0,
        f"no answer for {stale_s:.0f} s; proxies are served what was known before",
        "is etcd running, and reachable from the control plane?" if status["store"] == "etcd" else "is the disk full?",
    )
    left_days = figures["authority_expiry_seconds"] / DAY_S
    yield Result(
        "identity",
        "can sign certificates",
        left_days > 0,
        "this replica has no authority below the signing root, or it has ended",
        "give it an authority below the root that signs; see docs/controlplane.md, A new root",
    )
    yield Result(
        "identity",
        "authority lives for 30 more days",
        left_days > 30,
        f"it ends in {left_days:.0f} days",
        "begin a new root now: every certificate ends with it",
    )
    yield Result(
        "identity",
        "own certificate is fresh",
        figures["certificate_expiry_seconds"] > 0,
        "it has run out",
        "its log tells why it could not be renewed",
    )
    phase = status["trust"]["phase"]
    unconfirmed = int(figures["trust_unconfirmed"])
    yield Result(
        "identity",
        f"members trust the roots (phase {phase})",
        phase == "steady" or unconfirmed == 0,
        f"{unconfirmed} members have not confirmed the new bundle",
        "they confirm when they connect; do not switch before",
    )
    for source in status["sources"]:
        yield Result(
            "discovery",
            f"{source['name']} is followed",
            not source["error"],
            f"{source['error']}; for {source['stale_s']:.0f} s, what was known before is kept",
            source.get("hint", ""),
        )


def _of_model(listing: Any, status: dict[str, Any]) -> Iterator[Result]:
    yield Result(
        "model",
        "every value can be read",
        not listing.unreadable,
        f"{len(listing.unreadable)} cannot: {', '.join(listing.unreadable[:3])}",
        "a newer version wrote them, or somebody by hand; `meshctl delete` removes them",
    )
    values = [(entry.kind, json.loads(entry.json)) for entry in listing.entries]
    services = {(value["namespace"], value["name"]) for kind, value in values if kind == "service"}
    services |= {(value["namespace"], value["service"]) for kind, value in values if kind == "endpoint"}
    lost = [
        f"{value['namespace']}/{value['name']}"
        for kind, value in values
        if kind in ("route_policy", "traffic_policy") and (value["namespace"], value["service"]) not in services
    ]
    yield Result(
        "model",
        "policies point to services that exist",
        not lost,
        f"{', '.join(lost[:3])} {'does' if len(lost) == 1 else 'do'} not",
        "is the service's name right? `meshctl get services`",
    )
    holding = int(status["figures"]["subjects_holding"])
    yield Result(
        "model",
        "watched services have endpoints",
        holding == 0,
        f"{holding} have lost their last one; it is kept until others come",
        "`meshctl explain NAME` tells which; are their workloads running?",
    )
