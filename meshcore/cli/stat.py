"""`meshproxy stat`: success, rate and latencies of a running proxy, as a table."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from meshcore.admin import MAX_WINDOW_SECONDS
from meshcore.cli.client import AdminClient, choose_admin
from meshcore.cli.output import coloured, count, is_plain, milliseconds, percent, rate, table

EPILOG = """
\b
Examples:
  meshproxy stat                    endpoints, measured for one second
  meshproxy stat -t 10s routes      routes, measured for ten seconds
  meshproxy stat -t 0               since the proxy started
  meshproxy stat -t 0 reasons       what the proxy answered itself, and why
  meshproxy stat --watch            again and again, until Ctrl-C
  meshproxy stat --json | jq .      everything, exact

Latencies are those of the whole window; '-' means that nothing happened in it.
"""

HEADERS = ("NAME", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99")
WIDE_HEADERS = ("LATENCY_P999", "LATENCY_MAX", "REQUESTS")
ENDPOINT_HEADERS = ("ACTIVE", "CONNS", "RETRIES", "EJECTED", "HEALTHY")


class Window(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4 only
    """A span such as 500ms, 10s or 1m; 0 means since the start."""

    name = "window"
    _UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)|0", str(value))
        seconds = float(match[1]) * self._UNITS[match[2]] if match and match[1] else 0.0
        if not match or seconds > MAX_WINDOW_SECONDS:
            self.fail(
                f"got {value!r}; expected a duration up to {MAX_WINDOW_SECONDS:.0f}s such as 500ms or 10s, or 0",
                param,
                ctx,
            )
        return seconds


@click.command(epilog=EPILOG)
@click.argument("what", type=click.Choice(["endpoints", "clusters", "routes", "reasons"]), default="endpoints")
@click.option(
    "-t",
    "--time-window",
    "window",
    type=Window(),
    default="1s",
    show_default=True,
    help="How long to measure; 0: since the start.",
)
@click.option("-w", "--watch", is_flag=True, help="Show window after window until Ctrl-C.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["default", "wide", "json"]),
    default="default",
    help="wide adds P99.9, totals and connections.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as -o json.")
@click.option(
    "--admin",
    metavar="ADDR",
    envvar="MESHPROXY_ADMIN",
    help="Admin address, unix:/path or 127.0.0.1:PORT; not needed when one proxy runs here.",
)
def stat(what: str, window: float, watch: bool, output: str, as_json: bool, admin: str | None) -> None:
    """Show success, rate and latencies per endpoint, cluster or route; or the reasons of refusals."""
    client = AdminClient(choose_admin(admin))
    form = "json" if as_json else output
    if watch:
        _watch(client, what, window or 1.0, form)
        return
    stats = _measure(client, window)
    if form == "json":
        click.echo(json.dumps(stats, indent=2))
        return
    rows = rows_of(stats, what)
    if not any(row.get("requests") for row in rows):
        click.echo("No traffic found.", err=True)
    if rows:
        show(*columns(rows, what, wide=form == "wide"))


def _measure(client: AdminClient, window: float) -> dict[str, Any]:
    stats: dict[str, Any] = client.get_json("/stats", {"window": window} if window else None, wait_s=window)
    return stats


def _watch(client: AdminClient, what: str, window: float, form: str) -> None:
    if form == "json" or is_plain():
        while True:
            stats = _measure(client, window)
            if form == "json":
                click.echo(json.dumps(stats))
            else:
                show(*columns(rows_of(stats, what), what, wide=form == "wide"))
                click.echo()
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        while True:
            headers, cells = columns(rows_of(_measure(client, window), what), what, wide=form == "wide")
            live.update(coloured(headers, cells), refresh=True)


def rows_of(stats: dict[str, Any], what: str) -> list[dict[str, Any]]:
    """The rows of a /stats reply, each with a `name`."""
    if what == "endpoints":
        return [
            {**endpoint, "name": f"{cluster['name']}/{endpoint['address']}"}
            for cluster in stats["clusters"]
            for endpoint in cluster["endpoints"]
        ]
    if what == "reasons":
        return [{"name": reason, "requests": number} for reason, number in sorted(stats["reasons"].items())]
    rows: list[dict[str, Any]] = stats[what]
    return rows


def columns(rows: list[dict[str, Any]], what: str, *, wide: bool) -> tuple[tuple[str, ...], list[list[str]]]:
    """Headers and cells of a table."""
    if what == "reasons":
        return ("REASON", "COUNT"), [[row["name"], count(row["requests"])] for row in rows]
    headers: tuple[str, ...] = HEADERS
    if wide:
        headers += WIDE_HEADERS + (ENDPOINT_HEADERS if what == "endpoints" else ())
    return headers, [_cells(row, what, wide) for row in rows]


def show(headers: tuple[str, ...], cells: list[list[str]]) -> None:
    if is_plain():
        click.echo("\n".join(table(headers, cells)))
        return
    from rich.console import Console

    # On a narrow terminal lines run on, as in a pipe: a shortened figure would be a wrong one.
    console = Console()
    console.width = max(console.width, *(len(line) + len(headers) for line in table(headers, cells)))
    console.print(coloured(headers, cells))


def _cells(row: dict[str, Any], what: str, wide: bool) -> list[str]:
    latency = row["latency"]
    busy = bool(row["requests"])
    cells = [row["name"], percent(row["success_percent"]), rate(row["rps"] if busy else None)]
    cells += [milliseconds(latency[name]) for name in ("p50_ms", "p95_ms", "p99_ms")]
    if wide:
        cells += [milliseconds(latency["p999_ms"]), milliseconds(latency["max_ms"]), count(row["requests"])]
        if what == "endpoints":
            cells += [
                count(row["active"]),
                count(row["open_connections"]),
                count(row["retries"]),
                "yes" if row["ejected"] else "no",
                ("yes" if row["healthy"] else "no") if row["checked"] else "-",
            ]
    return cells
