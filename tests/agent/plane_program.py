"""A control plane as a process of its own, told by lines on its standard input: for tests that kill it.

    python -m tests.agent.plane_program DATA HOST:PORT [LEAF_SECONDS [ETCD]]

Each line is a JSON object {"do": "put" | "delete" | "token" | "rotate", …}; each is answered by one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import msgspec

from controlplane import model
from controlplane.identity import Authority
from controlplane.server import ControlPlane
from controlplane.settings import Settings
from controlplane.spiffe import SpiffeId

TRUST_DOMAIN = "mesh.test"
KINDS = {"service": model.Service, "endpoint": model.Endpoint, "drain": model.Drain, "route_policy": model.RoutePolicy, "traffic_policy": model.TrafficPolicy}


async def obey(plane: ControlPlane, line: dict[str, Any]) -> Any:
    what = line.pop("do")
    if what == "put":
        values = [msgspec.convert(value, KINDS[kind]) for kind, value in line["values"]]
        return str(await plane.catalogue.put(*values, by="test"))
    if what == "delete":
        return str(await plane.catalogue.delete(KINDS[line["kind"]], line["key"], by="test"))
    if what == "endpoints":
        listing = await plane.catalogue.list(model.Endpoint)
        return [msgspec.to_builtins(entry.value) for entry in listing.entries]
    if what == "token":
        made = await plane.join_tokens.make(SpiffeId.of(TRUST_DOMAIN, *line["identity"]), time.time(), by="test", ttl_s=line.get("ttl_s", 600))
        return made.text
    if what == "rotate":
        await plane.trust.begin(Authority.new_root(TRUST_DOMAIN, time.time()), time.time(), by="test")
        return "begun"
    raise ValueError(what)


async def main(data: str, listen: str, leaf_s: str = "86400", etcd: str = "") -> None:
    settings = Settings(data=data, trust_domain=TRUST_DOMAIN, listen=listen, leaf_s=int(leaf_s), etcd=(etcd,) if etcd else ())
    lines: asyncio.StreamReader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with ControlPlane(settings) as plane:
        print(json.dumps({"address": plane.address}), flush=True)
        while line := await lines.readline():
            try:
                answer: Any = {"ok": await obey(plane, json.loads(line))}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
