"""One proxy whose listeners answer alike, by a plain route and by names: `python -m bench.binding.served BACKEND NAMES`.

Prints the port of each of WAYS, and ends with its input. All lead to the same address, in one process: what differs between two of
them is the way there. `routes` has as many plain routes as there are names, each for one host. `linkerd` is bound as a router of Linkerd's would be, with the headers that tell how; `told` is a plain route
that sets the same headers.
"""

from __future__ import annotations

import json
import sys

from bench.binding.client import bench_name
from meshcore import Binding, BoundCluster, BoundEndpoint, Proxy
from meshcore.binder.bound import bound
from meshcore.binder.rules import Rules
from meshcore.config import Cluster, Config, HeaderEdits, Limits, Listener, Match, Route, RouteLookup
from meshcore.namers.interpreter import LocalInterpreter, Resolution
from meshcore.namers.namer import LiveNamers
from meshcore.namers.states import Address, Replicas
from meshcore.naming import EMPTY_DTAB, Bound, Leaf, Path

WAYS = ("route", "routes", "name", "few", "told", "linkerd")
FEW = 10


def serve(backend: int, names: int) -> None:
    address = f"127.0.0.1:{backend}"
    by_host = RouteLookup(by="host")
    told = HeaderEdits(
        set={"l5d-dst-service": "/svc/n000000.test:40000", "l5d-dst-client": f"/$/inet/127.0.0.1/{backend}"}, remove=["l5d-dtab", "l5d-ctx-dtab"]
    )
    hosts = {f"host-{number}": Match(host=bench_name(number)) for number in range(names)}
    routes = (
        *(Route(name=name, match=match, to="web", timeout=0) for name, match in hosts.items()),
        Route(name="route", to="web", timeout=0),
        Route(name="name", lookup=by_host),
        Route(name="few", lookup=by_host),
        Route(name="told", to="web", request_headers=told, timeout=0),
        Route(name="linkerd", lookup=RouteLookup(by="header_token")),
    )
    proxy = Proxy(
        Config(
            workers=1,
            listeners=[Listener(name=way, address="127.0.0.1:0", routes=[way] if way != "routes" else list(hosts)) for way in WAYS],
            routes=routes,
            clusters=[Cluster(name="web", endpoints=[address])],
            limits=Limits(max_bound_names=3 * names, max_requests_per_connection=0),
        )
    )
    proxy.start()
    ports = [proxy.addresses[way][1] for way in WAYS]
    same = Binding(
        clusters=(BoundCluster(name="bound", endpoints=(BoundEndpoint(address=address),)),), routes=(Route(to="bound", timeout=0),)
    )
    proxy.bind_many([("name", bench_name(number), "", same, None) for number in range(names)])
    proxy.bind_many([("few", bench_name(number), "", same, None) for number in range(FEW)])
    id = Path.of("$", "inet", "127.0.0.1", str(backend))
    found = Resolution(tree=Leaf(Bound(id)), replicas={id: Replicas((Address("127.0.0.1", backend),))})
    rules = Rules(route="linkerd", interpreter=LocalInterpreter(LiveNamers(), EMPTY_DTAB))
    paths = [Path.of("svc", f"{bench_name(number)}:{ports[-1]}") for number in range(names)]
    proxy.bind_many([("linkerd", str(path), "", bound(rules, path, EMPTY_DTAB, found), None) for path in paths])
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    proxy.stop()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
