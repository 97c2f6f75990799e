"""`meshproxy tap`: live exchanges of a running proxy, one line per moment."""

from __future__ import annotations

import sys

import click
import msgspec

from meshcore.cli.client import AdminClient, choose_admin
from meshcore.taps import DEFAULT_MAX_RPS, TapEvent, TapFilterError, format_json, format_line, tap_filter

EPILOG = """
\b
Examples:
  meshproxy tap                                  at most one request a second, and how it ended
  meshproxy tap --max-rps 10 --path /users       requests whose path begins with /users
  meshproxy tap --method POST --to users -o wide what goes to cluster users, with route and reason
  meshproxy tap --from 10.0.0.0/8 -o json | jq . one JSON object a line

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
@click.option("--scheme", default="", help="http or https.")
@click.option("--method", default="", help="Request method.")
@click.option("--authority", default="", metavar="HOST[:PORT]", help="Exact authority.")
@click.option("--to", default="", metavar="CLUSTER|IP[:PORT]", help="Cluster, or address of the endpoint.")
@click.option("--from", "from_", default="", metavar="IP[:PORT]|CIDR", help="Address of the client.")
@click.option("--route", default="", metavar="NAME", help="Route that matched.")
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
def tap(output: str, as_json: bool, admin: str | None, **conditions: str) -> None:
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
        if event.dropped > dropped:
            click.echo(f"({event.dropped - dropped} events were lost: this reader is too slow)", file=sys.stderr)
            dropped = event.dropped
