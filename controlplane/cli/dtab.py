"""`meshctl dtab`: tables of a namerd, read, written, compared, brought back and explained. As namerctl, and then some."""

from __future__ import annotations

import difflib
import http.client
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from meshcore import naming

from .namerd_client import DTAB, NamerdClient, Refused, quoted, with_namerd
from .output import escaped, is_json, output_option, show_json, show_table

EPILOG = """
\b
Examples:
  meshctl dtab list
  meshctl dtab get default > default.dtab
  meshctl dtab update default default.dtab
  meshctl dtab diff default
  meshctl dtab rollback default 41
  meshctl dtab explain /svc/users -n default

A table is text (`/svc => /srv ;`) or JSON ([{"prefix": "/svc", "dst": "/srv"}]); - reads it from standard input.
"""

HEARTBEAT_S = 10
SILENCE_S = 30.0
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)


@click.group("dtab", epilog=EPILOG)
def dtab() -> None:
    """Tables of names: read, write, compare, bring back, explain."""


@dtab.command("list")
@output_option
@with_namerd
def list_(client: NamerdClient, output: str) -> None:
    """Namespaces, and what is wrong with the table of one."""
    names = client.json("/dtabs")
    faults = _faults(client)
    if is_json(output):
        show_json([{"namespace": name, "fault": faults.get(name, "")} for name in names])
        return
    show_table(("NAMESPACE", "FAULT"), [(name, faults.get(name, "-")) for name in names])


def _faults(client: NamerdClient) -> dict[str, str]:
    try:
        return dict(client.json("/faults")["tables"])
    except Refused:
        return {}  # a namerd of others does not tell


@dtab.command()
@with_namerd
def check(client: NamerdClient) -> None:
    """Whether namerd reaches its store and every stored table is the one in use. Exit: 1 when not."""
    told = client.json("/faults")
    found = [("store", told["store"])] if told["store"] else []
    found += sorted(told["tables"].items())
    for name, fault in found:
        click.echo(f"bad    {name}: {escaped(fault)}")
        hint = "it binds by the tables it has" if name == "store" else f"the one before is in use; meshctl dtab history {name}"
        click.echo(f"       {hint}")
    if found:
        raise SystemExit(1)
    click.echo(f"good   {len(client.json('/dtabs'))} tables, all in use")


@dtab.command()
@click.argument("namespace")
@click.option("--revision", type=int, default=None, help="As it was then (see history).")
@output_option
@with_namerd
def get(client: NamerdClient, namespace: str, revision: int | None, output: str) -> None:
    """One table, with its version."""
    if revision is None:
        data, version = client.ask("GET", f"/dtabs/{quoted(namespace)}", accept=DTAB)
        text = data.decode()
    else:
        record = _record(_history(client, namespace), revision, namespace)
        text, version = record["dtab"] or "", record["version"]
    table = naming.read_dtab(text)
    if is_json(output):
        show_json({"version": version, "dtab": json.loads(naming.dtab_to_json(table))})
        return
    click.echo(f"# version {version}\n{naming.show_pretty(table)}", nl=False)


@dtab.command()
@click.argument("namespace")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--allow-faults", is_flag=True, help="Write it even if it can never work.")
@with_namerd
def create(client: NamerdClient, namespace: str, file: Any, allow_faults: bool) -> None:
    """Make a namespace with the table in FILE; it must not exist."""
    text, _ = _read(file)
    client.ask("POST", _path(namespace, allow_faults), text.encode(), kind=DTAB)
    click.echo(f"created {namespace}")


@dtab.command()
@click.argument("namespace")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--version", default="", help="Only over this one.  [default: the one in FILE's first line, else the present one]")
@click.option("--allow-faults", is_flag=True, help="Write it even if it can never work.")
@with_namerd
def update(client: NamerdClient, namespace: str, file: Any, version: str, allow_faults: bool) -> None:
    """Replace a table by that in FILE, unless somebody else has done so meanwhile."""
    text, told = _read(file)
    expected = version or told or client.ask("HEAD", f"/dtabs/{quoted(namespace)}")[1]
    _, now = client.ask("PUT", _path(namespace, allow_faults), text.encode(), kind=DTAB, match=expected)
    click.echo(f"updated {namespace}{f', version {now}' if now else ''}")


@dtab.command()
@click.argument("namespace")
@click.option("--version", default="", help="Only if it is this one.")
@with_namerd
def delete(client: NamerdClient, namespace: str, version: str) -> None:
    """Remove a namespace; its history stays."""
    client.ask("DELETE", f"/dtabs/{quoted(namespace)}", match=version)
    click.echo(f"deleted {namespace}")


@dtab.command()
@click.argument("namespace")
@output_option
@with_namerd
def history(client: NamerdClient, namespace: str, output: str) -> None:
    """Who wrote a table when, and how much of it."""
    records = _history(client, namespace)
    if is_json(output):
        show_json(records)
        return
    rows, before = [], ""
    for record in records:
        text = record["dtab"]
        lines = list(_changes(before, text or ""))
        added = sum(line.startswith("+") for line in lines)
        removed = sum(line.startswith("-") for line in lines)
        what = "deleted" if text is None else f"+{added} -{removed}"
        rows.append((str(record["revision"]), _when(record["time"]), record["by"] or "-", what, record["version"] or "-"))
        before = text or ""
    show_table(("REVISION", "TIME", "BY", "ENTRIES", "VERSION"), rows)


@dtab.command()
@click.argument("namespace")
@click.argument("revisions", nargs=-1, type=int)
@click.option("--file", type=click.File(encoding="utf-8"), default=None, help="Compare with the table in it instead.")
@with_namerd
def diff(client: NamerdClient, namespace: str, revisions: tuple[int, ...], file: Any) -> None:
    """What changed: between two REVISIONS, since one, or by the last write. Exit: 1 when there is a difference."""
    if len(revisions) > 2 or (file is not None and len(revisions) > 1):
        raise click.UsageError("at most two revisions, or one and a file")
    records = _history(client, namespace)
    if file is not None:
        before = _record(records, revisions[0], namespace) if revisions else records[-1]
        names = (f"revision {before['revision']}", file.name)
        lines = list(_changes(before["dtab"] or "", _read(file)[0], names))
    else:
        after = _record(records, revisions[1], namespace) if len(revisions) == 2 else records[-1]
        if revisions:
            before = _record(records, revisions[0], namespace)
        else:
            before = records[-2] if len(records) > 1 else {"revision": 0, "dtab": ""}
        names = (f"revision {before['revision']}", f"revision {after['revision']}")
        lines = list(_changes(before["dtab"] or "", after["dtab"] or "", names))
    for line in lines:
        click.echo(line)
    if lines:
        raise SystemExit(1)


@dtab.command()
@click.argument("namespace")
@click.argument("revision", type=int)
@with_namerd
def rollback(client: NamerdClient, namespace: str, revision: int) -> None:
    """Write the table as it was at REVISION, over the present one. The history keeps both."""
    records = _history(client, namespace)
    record = _record(records, revision, namespace)
    if record["dtab"] is None:
        raise click.ClickException(f"at revision {revision} '{namespace}' was deleted: meshctl dtab delete {namespace}")
    latest = records[-1]
    path = _path(namespace, allow_faults=True)  # it was accepted once
    if latest["dtab"] is None:
        client.ask("POST", path, record["dtab"].encode(), kind=DTAB)
    else:
        client.ask("PUT", path, record["dtab"].encode(), kind=DTAB, match=latest["version"])
    click.echo(f"{namespace} is as it was at revision {revision}")


@dtab.command()
@click.argument("path")
@click.option("-n", "--namespace", default="default", show_default=True, help="Whose table is used.")
@click.option("--dtab", "local", default="", metavar="DTAB", help="Goes over it, as l5d-dtab of a request does.")
@output_option
@with_namerd
def explain(client: NamerdClient, path: str, namespace: str, local: str, output: str) -> None:
    """What PATH is bound to now, with its addresses, and every alternative on the way. Exit: 1 when it is not bound."""
    query = f"?path={quoted(path)}" + (f"&dtab={quoted(local)}" if local else "")
    shown = client.json(f"/delegate/{quoted(namespace)}{query}")
    if is_json(output):
        show_json(shown)
    else:
        show_table(("NAME", "BY", "RESULT"), list(_rows(shown, 0, True)))
    if not _binds(shown):
        raise SystemExit(1)


@dtab.command()
@click.argument("namespace")
@click.option("--count", type=int, default=0, help="Stop after so many tables.  [default: never]")
@output_option
@with_namerd
def watch(client: NamerdClient, namespace: str, count: int, output: str) -> None:
    """Every revision of a table as it is written. Goes on where it was when namerd was away."""
    token, told, failures = "", 0, 0
    while True:
        try:
            query = f"?watch=true&heartbeat={HEARTBEAT_S}&resume={quoted(token)}"
            for line in client.lines(f"/dtabs/{quoted(namespace)}{query}", SILENCE_S):
                failures = 0
                if not line.strip():
                    continue
                event = json.loads(line)
                token = event["token"]
                _show_event(namespace, event, output)
                told += 1
                if told == count:
                    return
        except Refused as error:
            if error.status < 500:
                raise
            _complain(error.format_message(), failures)
        except click.ClickException as error:
            _complain(error.format_message(), failures)
        except (OSError, http.client.HTTPException) as error:
            _complain(str(error) or type(error).__name__, failures)
        time.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)] * random.uniform(0.5, 1.0))
        failures += 1


def _complain(message: str, failures: int) -> None:
    if not failures:
        click.echo(f"meshctl: {message}; trying again", err=True)


def _show_event(namespace: str, event: dict[str, Any], output: str) -> None:
    if is_json(output):
        click.echo(json.dumps(event))
    elif "fault" in event:
        click.echo(f"# {namespace}, version {event['version']}: bad, not used: {escaped(event['fault'])}")
    elif event["dtab"] is None:
        click.echo(f"# {namespace} deleted")
    else:
        table = naming.dtab_from_json(json.dumps(event["dtab"]))
        click.echo(f"# {namespace}, version {event['version']}\n{naming.show_pretty(table)}", nl=False)
    sys.stdout.flush()


def _path(namespace: str, allow_faults: bool) -> str:
    return f"/dtabs/{quoted(namespace)}" + ("?faults=allowed" if allow_faults else "")


def _read(file: Any) -> tuple[str, str]:
    """The table as text, and the version that `get` has written into its first line."""
    text = file.read()
    version = ""
    if text.startswith("# version "):
        version = text.split("\n", 1)[0].removeprefix("# version ").strip()
    try:
        stripped = text.lstrip()
        if stripped.startswith("{"):  # namerctl's own JSON: {"version": …, "dtab": […]}
            told = json.loads(stripped)
            version, stripped = version or str(told.get("version") or ""), json.dumps(told.get("dtab"))
        table = naming.dtab_from_json(stripped) if stripped.startswith("[") else naming.read_dtab(text)
    except naming.DtabSyntaxError as error:
        raise click.ClickException(f"{file.name}:{error.line}:{error.column}: {error}") from None
    except (naming.NamingError, ValueError) as error:
        raise click.ClickException(f"{file.name}: {error}") from None
    return naming.show_dtab(table), version


def _history(client: NamerdClient, namespace: str) -> list[dict[str, Any]]:
    return list(client.json(f"/dtabs/{quoted(namespace)}/history"))


def _record(records: list[dict[str, Any]], revision: int, namespace: str) -> dict[str, Any]:
    for record in records:
        if record["revision"] == revision:
            return record
    known = ", ".join(str(record["revision"]) for record in records[-10:])
    raise click.ClickException(f"'{namespace}' has no revision {revision} in its history; the last ones are {known}")


def _pretty(text: str) -> list[str]:
    """A line per entry, each as it is: aligned arrows would show a change in every line."""
    try:
        return [naming.show_dentry(dentry).replace("=>", " => ", 1) + " ;" for dentry in naming.read_dtab(text)]
    except naming.NamingError:
        return [text]


def _changes(before: str, after: str, names: tuple[str, str] = ("", "")) -> Iterator[str]:
    lines = difflib.unified_diff(_pretty(before), _pretty(after), *names, lineterm="", n=2)
    for index, line in enumerate(lines):
        if names[0] or index > 1:  # without names the two lines of the header say nothing
            yield line


def _when(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s)) if time_s else "-"


def _rows(node: dict[str, Any], depth: int, is_reached: bool) -> Iterator[tuple[str, str, str]]:
    """A row per node: the name, the entry that led to it, what came of it."""
    entry = node.get("dentry")
    by = f"{entry['prefix']} => {entry['dst']}" if entry else ""
    result = _result(node)
    if not is_reached:
        result = f"({result}: not tried)" if result else "(not tried)"
    yield f"{'  ' * depth}{node.get('path', '')}", by, result
    for child in _children(node):
        yield from _rows(child, depth + 1, is_reached)
        if node["type"] == "alt" and is_reached and child["type"] != "neg" and not _is_neg(child):
            is_reached = False


_SIGNS = {"neg": "~ no such name", "fail": "! fails here", "empty": "$ no instances", "alt": "the first of"}


def _result(node: dict[str, Any]) -> str:
    if "bound" in node:
        bound = node["bound"]
        rest = f", rest {bound['path']}" if bound.get("path", "/") != "/" else ""
        return f"bound to {bound['id']}{rest}: {_addresses(bound.get('addr') or {})}"
    if node["type"] == "union":
        return "split " + " : ".join(f"{branch['weight']:g}" for branch in node["union"])
    if node["type"] == "exception":
        return f"failed: {node.get('message', '')}"
    return _SIGNS.get(node["type"], "")


def _addresses(addr: dict[str, Any]) -> str:
    found = [f"{one['ip']}:{one['port']}" for one in addr.get("addrs", ())]
    if addr.get("type") == "bound":
        return ", ".join(found[:5]) + (f", and {len(found) - 5} more" if len(found) > 5 else "") or "no addresses"
    return str(addr.get("cause") or {"neg": "no such name", "pending": "no answer yet"}.get(addr.get("type", ""), "?"))


def _children(node: dict[str, Any]) -> list[dict[str, Any]]:
    if "delegate" in node:
        return [node["delegate"]]
    return list(node.get("alt") or [branch["tree"] for branch in node.get("union") or ()])


def _is_neg(node: dict[str, Any]) -> bool:
    children = _children(node)
    return node["type"] == "neg" or bool(children) and all(map(_is_neg, children))


def _binds(node: dict[str, Any]) -> bool:
    """Whether the winner is bound."""
    if node["type"] == "alt":
        winner = next((child for child in node["alt"] if not _is_neg(child)), None)
        return winner is not None and _binds(winner)
    children = _children(node)
    return node["type"] == "leaf" or any(map(_binds, children))
