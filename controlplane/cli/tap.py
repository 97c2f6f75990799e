"""`meshctl tap`: single requests of many proxies as they happen, one line per moment."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
import grpc
import msgspec

from meshcore.api import observation_pb2, observation_pb2_grpc
from meshcore.api.tap_wire import ask_of, event_of
from meshcore.taps import DEFAULT_MAX_RPS, TapEvent, TapFilterError, captured_lines, format_json, format_line, tap_filter

from ..observation.resources import DEFAULT_NAMESPACE, KINDS, Resource
from .connection import channel
from .traffic_asking import message, own_namespace, resource, side

EPILOG = """
\b
Examples:
  meshctl tap deploy/web -n shop                      at most one request a second, and how it ended
  meshctl tap deploy/web -n shop --to svc/users --max-rps 10 --path /users
  meshctl tap ns/shop --status 5xx --min-latency 100ms
  meshctl tap po/web-1 -n shop --from deploy/api --headers
  meshctl tap ns/shop -o json | jq .

\b
Lines:
  req id=0:17 src=10.0.0.7:40112 dst=web-1 :method=GET :authority=web.shop :path=/x
  rsp id=0:17 src=10.0.0.7:40112 dst=web-1 :status=200 latency=769µs      request to response head
  end id=0:17 src=10.0.0.7:40112 dst=web-1 duration=117µs response-length=560B  response head to its end

Traffic never waits for a tap: what is above --max-rps is hidden, what is too much for a reader is lost, and both are counted.
Every session is on the control plane's audit.
"""


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="TYPE [NAME] | TYPE/NAME")
@click.option("-n", "--namespace", default=DEFAULT_NAMESPACE, show_default=True, help="Of the resource.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Of every namespace that you may tap.")
@click.option("--to", default="", metavar="TYPE/NAME|IP[:PORT]", help="Only requests that go there.")
@click.option("--to-namespace", default="", help="Of --to.  [default: --namespace]")
@click.option(
    "--from", "from_", default="", metavar="TYPE/NAME|IP|CIDR|ns/N/sa/A", help="Only requests that come from there."
)
@click.option("--from-namespace", default="", help="Of --from.  [default: --namespace]")
@click.option("--max-rps", default=str(DEFAULT_MAX_RPS), show_default=True, metavar="RATE", help="Requests per second, of all proxies together.")
@click.option("--scheme", default="", help="http or https.")
@click.option("--method", default="", help="Request method.")
@click.option("--authority", default="", metavar="HOST[:PORT]", help="Exact authority.")
@click.option("--path", default="", metavar="PREFIX", help="Path prefix; the query does not count.")
@click.option("--status", default="", metavar="404|5xx|500-504", help="How it ended: the response's status.")
@click.option("--min-latency", default="", metavar="TIME", help="At least this long to the response: 250us, 100ms, 2s.")
@click.option("--reason", default="", help="Why a proxy answered itself, or cut it short.")
@click.option("--headers", is_flag=True, help="Show header fields; those with secrets without their values.")
@click.option("--body", default="", metavar="BYTES", help="Show the first BYTES of both bodies, at most 16384.")
@click.option("-o", "--output", type=click.Choice(["default", "wide", "json"]), default="default", help="wide adds labels.")
@click.option("--json", "as_json", is_flag=True, help="Same as -o json.")
@click.pass_context
def tap(
    ctx: click.Context, /, words: tuple[str, ...], namespace: str, all_namespaces: bool, to: str, to_namespace: str, from_: str,
    from_namespace: str, output: str, as_json: bool, **conditions: Any,
) -> None:  # fmt: skip
    """Watch single requests of a resource's proxies as they happen."""
    target = resource(words, namespace, everywhere=all_namespaces)
    near = own_namespace(target, namespace)
    there, to_address = _side(to, to_namespace, near, "destination")
    origin, from_address = _side(from_, from_namespace, near, "source")
    try:
        asked = tap_filter(**conditions, to=to_address, from_=from_address)
    except TapFilterError as error:
        raise click.UsageError(str(error)) from None
    request = observation_pb2.TapRequest(target=message(target), ask=ask_of(asked))
    if there is not None:
        request.to.CopyFrom(message(there))
    if origin is not None:
        getattr(request, "from").CopyFrom(message(origin))
    form = "json" if as_json else output
    last = observation_pb2.Progress()
    try:
        with channel(ctx) as opened:
            is_first = True
            for told in observation_pb2_grpc.ObservationStub(opened).Tap(request):
                for seen in told.seen:
                    if (event := event_of(seen.seen)) is not None:
                        _show(event, seen.workload, form)
                _warn(told.progress, last, target, is_first)
                is_first, last = False, told.progress
    except (KeyboardInterrupt, grpc.FutureCancelledError):
        pass
    finally:
        if last.hidden or last.dropped:
            click.echo(f"({last.hidden} requests were above --max-rps, {last.dropped} events were lost)", err=True)


def _side(text: str, namespace: str, near: str, what: str) -> tuple[Resource | None, str]:
    """A resource, or an address or identity that proxies compare themselves."""
    kind = text.partition("/")[0]
    if text and (kind not in KINDS or "/sa/" in text):
        return None, text
    return side(text, namespace, near, what), ""


def _show(event: TapEvent, workload: str, form: str) -> None:
    if form == "json":
        click.echo(f'{{"workload":{json.dumps(workload)},{format_json(event)[1:]}')
        return
    if form == "default" and event.dst_labels.get("pod"):
        # As in Conduit 0.4: a pod by its name, without the port.
        event = msgspec.structs.replace(event, dst=event.dst_labels["pod"])
    click.echo(format_line(event, wide=form == "wide"))
    for line in captured_lines(event):
        click.echo(line)


def _warn(now: observation_pb2.Progress, before: observation_pb2.Progress, target: Resource, is_first: bool) -> None:
    if is_first and not now.proxies:
        print(f"(no proxy of {target} is attached yet; waiting)", file=sys.stderr)
    if is_first and now.unmeshed:
        print(f"({now.unmeshed} workloads of {target} have no proxy attached)", file=sys.stderr)
    if now.dropped > before.dropped:
        print(f"({now.dropped - before.dropped} events were lost: somebody is too slow)", file=sys.stderr)
    sys.stderr.flush()
