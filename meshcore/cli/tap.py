"""`meshproxy tap`: live exchanges of a running proxy, one line per moment."""

from __future__ import annotations

import sys

import click
import msgspec

from meshcore.cli.client import AdminClient, choose_admin
from meshcore.taps import DEFAULT_MAX_RPS, TapEvent, TapFilterError, captured_lines, format_json, format_line, tap_filter

EPILOG = """
\b
Examples:
  meshproxy tap                                  at most one request a second, and how it ended
  meshproxy tap --max-rps 10 --path /users       requests whose path begins with /users
  meshproxy tap --method POST --to users -o wide what goes to cluster users, with route and reason
  meshproxy tap --from 10.0.0.0/8 -o json | jq . one JSON object a line
  meshproxy tap --status 5xx --min-latency 100ms slow failures, shown once they are that
  meshproxy tap --headers --body 200             with fields and the first 200 bytes of bodies, secrets hidden

\b
Lines:
  req id=WORKER:STREAM src=IP:PORT dst=IP:PORT :method=GET :authority=a.test :path=/x
  rsp id=WORKER:STREAM src=… dst=… :status=200 latency=769µs        request to response head
  end id=WORKER:STREAM src=… dst=… duration=117µs response-length=560B   response head to its end
"""


@click.command(epilog=EPILOG)
@click.option(
    "--max-rps",
    default=str(DEFAULT_MAX_RPS),
    metavar="RATE",
    show_default=True,
    help="Show at most this many requests per second; their responses always follow.",
)
@click.option("--path", default="", metavar="PREFIX", help="Path prefix; the query does not count.")
@click.option("--scheme", default="", help="http, https, or tcp: connections relayed as they are.")
@click.option("--method", default="", help="Request method.")
@click.option("--authority", default="", metavar="HOST[:PORT]", help="Exact authority.")
@click.option("--to", default="", metavar="CLUSTER|IP[:PORT]", help="Cluster, or address of the endpoint.")
@click.option(
    "--from",
    "from_",
    default="",
    metavar="IP[:PORT]|CIDR|ns/NAME[/sa/ACCOUNT]",
    help="Address of the client, or the identity it has proved.",
)
@click.option("--route", default="", metavar="NAME", help="Route that matched.")
@click.option("--status", default="", metavar="404|5xx|500-504", help="How it ended: the response's status.")
@click.option("--min-latency", default="", metavar="TIME", help="At least this long to the response: 250us, 100ms, 2s.")
@click.option("--reason", default="", help="Why the proxy answered itself, or cut it short: see docs/reasons.md.")
@click.option("--headers", is_flag=True, help="Show header fields; those with secrets without their values.")
@click.option("--body", default="", metavar="BYTES", help="Show the first BYTES of both bodies, at most 16384.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["default", "wide", "json"]),
    default="default",
    help="wide adds cluster, reason and route.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as -o json.")
@click.option(
    "--admin",
    metavar="ADDR",
    envvar="MESHPROXY_ADMIN",
    help="Admin address, unix:/path or 127.0.0.1:PORT; not needed when one proxy runs here.",
)
def tap(output: str, as_json: bool, admin: str | None, **conditions: str | bool) -> None:
    """Watch exchanges as they happen. Traffic never waits for a tap."""
    try:
        asked = tap_filter(**conditions)
    except TapFilterError as error:
        raise click.UsageError(str(error)) from None
    form = "json" if as_json else output
    decoder = msgspec.json.Decoder(TapEvent)
    dropped = 0
    for line in AdminClient(choose_admin(admin)).stream("/tap", asked.to_query()):
        event = decoder.decode(line)
        click.echo(format_json(event) if form == "json" else format_line(event, wide=form == "wide"))
        for line_under in captured_lines(event) if form != "json" else ():
            click.echo(line_under)
        if event.dropped > dropped:
            click.echo(f"({event.dropped - dropped} events were lost: this reader is too slow)", file=sys.stderr)
            dropped = event.dropped
