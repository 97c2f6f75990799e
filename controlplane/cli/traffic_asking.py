"""What the commands about traffic share: resources as words, namespaces, and the question to the control plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from meshcore.api import observation_pb2, observation_pb2_grpc

from ..errors import Invalid
from ..observation.resources import DEFAULT_NAMESPACE, Resource, parse_resource
from .connection import channel

TIMEOUT_S = 30.0
Rows = observation_pb2.StatRequest


def resource(words: tuple[str, ...], namespace: str, *, everywhere: bool = False, what: str = "target") -> Resource:
    """From `deploy/web` or `deploy web`."""
    if not 1 <= len(words) <= 2:
        raise click.UsageError(f"{what} resource invalid: expected TYPE, TYPE/NAME or TYPE NAME")
    try:
        return parse_resource(words, "" if everywhere else namespace)
    except Invalid as error:
        raise click.UsageError(f"{what} resource invalid: {error}") from None


def side(text: str, namespace: str, near: str, what: str) -> Resource | None:
    """The other side: `--to deploy/b --to-namespace x`. A namespace alone is one; without one it is that of the target."""
    if text:
        return resource((text,), namespace or near, what=what)
    return parse_resource("ns", namespace) if namespace else None


def own_namespace(target: Resource, namespace: str) -> str:
    """Where the other side is looked for unless it is said: where the target is."""
    return target.name if target.label == "namespace" and target.name else namespace


def message(one: Resource) -> observation_pb2.Resource:
    return observation_pb2.Resource(kind=one.label, name=one.name, namespace=one.namespace)


def table(
    ctx: click.Context, target: Resource, window_s: float, rows: int, to: Resource | None = None, origin: Resource | None = None
) -> observation_pb2.StatTable:
    """The control plane's answer."""
    request = observation_pb2.StatRequest(target=message(target), window_s=window_s, rows=rows)
    if to is not None:
        request.to.CopyFrom(message(to))
    if origin is not None:
        getattr(request, "from").CopyFrom(message(origin))
    with channel(ctx) as opened:
        told: observation_pb2.StatTable = observation_pb2_grpc.ObservationStub(opened).Stat(request, timeout=TIMEOUT_S)
    return told


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Namespace, window and form: as all tables of traffic take them."""
    from .traffic_output import Window

    options = (
        click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Of the resource."),
        click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace."),
        click.option("-t", "--time-window", "window_s", type=Window(), default="1m", show_default=True, help="How far back, to 24h."),
        click.option("-o", "--output", type=click.Choice(["default", "wide", "json"]), default="default", help="wide: finer."),
        click.option("--json", "as_json", is_flag=True, help="Same as -o json."),
    )
    for option in reversed(options):
        command = option(command)
    return command
