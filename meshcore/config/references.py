"""What is wrong or doubtful between sections: names that point nowhere, duplicates, conflicts. Reads no single value.

Works on lists that may have gaps (None where a section could not be read), so that the reader of a file can report
these problems together with the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ..errors import Problem
from .addresses import split_address
from .lookup import TCP_NAME_KINDS
from .routes import Route
from .suggest import nearest

Paths = tuple[str | int, ...]


def problems_between(
    listeners: Sequence[Any],
    routes: Sequence[Any],
    clusters: Sequence[Any],
    admin: Any,
    lost: dict[str, set[str]] | None = None,
) -> list[Problem]:
    """Errors. `lost` holds names of sections that could not be read, per list: references to them are no error."""
    lost = lost or {}
    anything = "*"  # in `lost`: a section without a readable name, which may be the one that is meant
    problems: list[Problem] = []
    cluster_names = _unique(clusters, "clusters", "cluster", problems) | lost.get("clusters", set())
    route_names = _unique(routes, "routes", "route", problems) | lost.get("routes", set())
    _unique(listeners, "listeners", "listener", problems)

    def unknown(noun: str, label: str, name: str, known: Collection[str], path: Paths) -> None:
        if anything in known:
            return
        near = nearest(name, known) if len(name) <= 64 else None
        listed = sorted(known)
        shown = ", ".join(listed[:20]) + (", …" if len(listed) > 20 else "")
        have = f"{noun}s are: {shown}" if listed else f"there are no {noun}s"
        problems.append(
            Problem(
                message=f"{label} names unknown {noun} '{name}'",
                hint=f"did you mean '{near}'? {have}" if near else have,
                path=path,
                got=name,
                expected=f"the name of a {noun}",
            )
        )

    for index, route in enumerate(routes):
        if route is None:
            continue
        if route.to is not None and route.to not in cluster_names:
            unknown("cluster", f"route '{route.name}'", route.to, cluster_names, ("routes", index, "to"))
        for share_index, share in enumerate(route.split):
            if share.cluster not in cluster_names:
                where = ("routes", index, "split", share_index, "cluster")
                unknown("cluster", f"route '{route.name}'", share.cluster, cluster_names, where)
    for index, listener in enumerate(listeners):
        if listener is not None and listener.tcp_route is not None and listener.tcp_route not in route_names:
            path = ("listeners", index, "tcp_route")
            unknown("route", f"listener '{listener.name}'", listener.tcp_route, route_names, path)
        for name_index, name in enumerate(() if listener is None else listener.tls_routes):
            if name not in route_names:
                path = ("listeners", index, "tls_routes", name_index)
                unknown("route", f"listener '{listener.name}'", name, route_names, path)
        if listener is None or listener.routes is None:
            continue
        for name_index, name in enumerate(listener.routes):
            if name not in route_names:
                path = ("listeners", index, "routes", name_index)
                unknown("route", f"listener '{listener.name}'", name, route_names, path)
    _tcp_routes(listeners, routes, problems)
    _tls_routes(listeners, routes, problems)
    _names(listeners, routes, problems)
    _proxy_headers(listeners, routes, clusters, problems)
    _original_destinations(listeners, routes, clusters, problems)
    _addresses(listeners, admin, problems)
    return problems


def _unique(items: Sequence[Any], key: str, noun: str, problems: list[Problem]) -> set[str]:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if item is None:
            continue
        if item.name in first:
            problems.append(
                Problem(
                    message=f"duplicate {noun} name '{item.name}'",
                    hint=f"it is also the name of {noun} {first[item.name] + 1}",
                    path=(key, index, "name"),
                    got=item.name,
                )
            )
        else:
            first[item.name] = index
    return set(first)


# Keys of a route that speak of HTTP, and a route that leaves them out.
_HTTP_KEYS = ("match", "respond", "rewrite", "request_headers", "response_headers", "max_body")
_PLAIN = Route(to="any")


def tcp_route_names(listeners: Sequence[Any]) -> set[str]:
    """Routes for connections that are not HTTP: requests take them only where `routes` names them too."""
    plain = {listener.tcp_route for listener in listeners if listener is not None and listener.tcp_route is not None}
    return plain | tls_route_names(listeners)


def tls_route_names(listeners: Sequence[Any]) -> set[str]:
    """Routes for TLS that is relayed as it is, by the name its client asks for."""
    return {name for listener in listeners if listener is not None for name in listener.tls_routes}


def route_names_of(config: Any, listener: Any) -> list[str]:
    """Names of the routes that requests on a listener may take, in their order."""
    if listener.protocol == "tcp":
        return []
    if listener.routes is not None:
        return list(listener.routes)
    tcp = tcp_route_names(config.listeners)
    return [route.name for route in config.routes if route.name not in tcp]


def _tcp_routes(listeners: Sequence[Any], routes: Sequence[Any], problems: list[Problem]) -> None:
    named = tcp_route_names(listeners)
    by_name = tls_route_names(listeners)
    for index, route in enumerate(routes):
        if route is None:
            continue
        if route.match.sni is not None and route.name not in by_name:
            problems.append(
                Problem(
                    message=f"route '{route.name}' matches by sni, but is in no listener's tls_routes",
                    hint="add it there, or match by host: that is what a request names",
                    path=("routes", index, "match", "sni"),
                )
            )
        if route.name not in named:
            continue
        for key in _HTTP_KEYS:
            if key == "match" and route.match.sni is not None:
                continue
            if getattr(route, key) != getattr(_PLAIN, key):
                problems.append(
                    Problem(
                        message=f"route '{route.name}' is a {'tls_route' if route.name in by_name else 'tcp_route'}: "
                        f"'{key}' has no meaning there",
                        hint="leave it out, or give the listener another route",
                        path=("routes", index, key),
                    )
                )


def _tls_routes(listeners: Sequence[Any], routes: Sequence[Any], problems: list[Problem]) -> None:
    """Of one listener: no name twice, and none that would leave it nothing to end itself."""
    known = {route.name: route for route in routes if route is not None}
    for index, listener in enumerate(listeners):
        first: dict[str | None, str] = {}
        for number, name in enumerate(() if listener is None else listener.tls_routes):
            if name not in known:
                continue
            sni = known[name].match.sni
            path: Paths = ("listeners", index, "tls_routes", number)
            if sni is None and listener.tls is not None:
                message = f"route '{name}' takes every name, so that the tls of listener '{listener.name}' would never be used"
                problems.append(Problem(message=message, hint="give it a match.sni, or leave tls out", path=path))
            if sni is not None and sni in first:
                message = f"routes '{first[sni]}' and '{name}' match the same sni"
                problems.append(Problem(message=message, hint="keep one of them", path=path))
            first.setdefault(sni, name)


def _names(listeners: Sequence[Any], routes: Sequence[Any], problems: list[Problem]) -> None:
    """What a name is made of must be there: a connection that is not HTTP has no head, one that came directly no destination."""
    tcp = tcp_route_names(listeners)
    for index, route in enumerate(routes):
        if route is None or route.lookup is None:
            continue
        path: Paths = ("routes", index, "lookup", "by")
        if route.name in tcp and route.lookup.by not in TCP_NAME_KINDS:
            problems.append(
                Problem(
                    message=f"route '{route.name}' is a tcp_route: there is no request to make a name of by "
                    f"{route.lookup.by}",
                    hint=f"one of {', '.join(TCP_NAME_KINDS)}",
                    path=path,
                )
            )
        needs = route.lookup.by == "destination" or (route.lookup.by == "authority" and route.name in tcp)
        for listener in listeners:
            if needs and listener is not None and listener.original_destination == "off" and _serves(listener, route.name, tcp):
                problems.append(
                    Problem(
                        message=f"route '{route.name}' looks up where connections were going, but listener "
                        f"'{listener.name}' intercepts none",
                        hint="set original_destination: redirect on the listener, or another lookup.by",
                        path=path,
                    )
                )


def _proxy_headers(
    listeners: Sequence[Any], routes: Sequence[Any], clusters: Sequence[Any], problems: list[Problem]
) -> None:
    told = {cluster.name: index for index, cluster in enumerate(clusters) if cluster and cluster.proxy_protocol != "off"}
    if not told:
        return
    tcp = tcp_route_names(listeners)
    http = {name for one in listeners if one is not None for name in one.routes or ()}
    for route in routes:
        if route is None or (route.name in tcp and route.name not in http):
            continue
        for name in [route.to, *(share.cluster for share in route.split)]:
            if name in told:
                problems.append(
                    Problem(
                        message=f"cluster '{name}' is told each connection's client, but route '{route.name}' serves HTTP",
                        hint="clients share connections there; x-forwarded-for tells the client of each request",
                        path=("clusters", told.pop(name), "proxy_protocol"),
                    )
                )


def _original_destinations(
    listeners: Sequence[Any], routes: Sequence[Any], clusters: Sequence[Any], problems: list[Problem]
) -> None:
    """A cluster without endpoints of its own needs connections that were going somewhere."""
    wanting = {one.name for one in clusters if one is not None and one.type == "original_destination"}
    if not wanting:
        return
    tcp = tcp_route_names(listeners)
    for index, listener in enumerate(listeners):
        if listener is None or listener.original_destination != "off":
            continue
        for route in routes:
            if route is None or not _serves(listener, route.name, tcp):
                continue
            for name in [route.to, *(share.cluster for share in route.split)]:
                if name in wanting:
                    problems.append(
                        Problem(
                            message=f"listener '{listener.name}' intercepts nothing, but its route '{route.name}' goes to "
                            f"cluster '{name}', which sends connections where they were going",
                            hint="set original_destination: redirect on the listener, or name its routes without this one",
                            path=("listeners", index),
                        )
                    )


def _serves(listener: Any, route_name: str, tcp_routes: Collection[str]) -> bool:
    if listener.tcp_route == route_name or route_name in listener.tls_routes:
        return True
    if listener.protocol == "tcp":
        return False
    return route_name in listener.routes if listener.routes is not None else route_name not in tcp_routes


def _addresses(listeners: Sequence[Any], admin: Any, problems: list[Problem]) -> None:
    """Two sockets on one address would share its connections at random (SO_REUSEPORT): refused."""
    taken: dict[int, list[tuple[str, str]]] = {}
    places: list[tuple[str, str, Paths]] = [
        (f"listener '{listener.name}'", listener.address, ("listeners", index, "address"))
        for index, listener in enumerate(listeners)
        if listener is not None
    ]
    if admin is not None and admin.address is not None and not admin.address.startswith("unix:"):
        places.append(("admin", admin.address, ("admin", "address")))
    for label, address, path in places:
        host, port = split_address(address)
        if port == 0:
            continue
        for other_host, other_label in taken.get(port, ()):
            if host == other_host or _covers(host, other_host) or _covers(other_host, host):
                problems.append(
                    Problem(
                        message=f"{label} listens on '{address}', which {other_label} already takes",
                        hint="give each its own address or port",
                        path=path,
                        got=address,
                    )
                )
                break
        taken.setdefault(port, []).append((host, label))


def _covers(host: str, other: str) -> bool:
    if host == "0.0.0.0":
        return ":" not in other
    return host == "::" and ":" in other


def _hidden_routes(config: Any) -> dict[str, str]:
    """Routes that are served, but behind one that matches the same wherever they are; and which that is."""
    routes = {route.name: route for route in config.routes}
    hidden: dict[str, str] = {}
    reached: set[str] = set()
    for names in {tuple(route_names_of(config, listener)) for listener in config.listeners}:
        first_of: dict[Any, str] = {}
        for name in names:
            match = routes[name].match
            same = (match.host, match.path, (match.prefix or "/").rstrip("/"), frozenset(match.methods), frozenset(match.headers.items()))
            if first_of.setdefault(same, name) == name:
                reached.add(name)
            else:
                hidden[name] = first_of[same]
    return {name: other for name, other in hidden.items() if name not in reached}


def warnings_of(config: Any) -> list[Problem]:
    """What is allowed but seldom meant."""
    found: list[Problem] = []
    clusters = {cluster.name: cluster for cluster in config.clusters}
    used: set[str] = set()

    def warn(message: str, hint: str, *path: str | int) -> None:
        found.append(Problem(message=message, hint=hint, path=path))

    if not config.routes:
        warn("there are no routes", "every request is answered 404")
    tcp = tcp_route_names(config.listeners)
    hidden_by = _hidden_routes(config)
    for index, route in enumerate(config.routes):
        label = f"route '{route.name}'"
        targets = [route.to] if route.to else [share.cluster for share in route.split]
        used.update(targets)
        if route.total_timeout and route.timeout > route.total_timeout:
            warn(
                f"{label}: timeout {route.timeout} is longer than total_timeout {route.total_timeout}",
                "the total ends the exchange first",
                "routes", index, "timeout",
            )  # fmt: skip
        for target in targets:
            cluster = clusters[target]
            if route.timeout and cluster.connect_timeout > route.timeout:
                warn(
                    f"{label}: timeout {route.timeout} is shorter than the connect_timeout "
                    f"{cluster.connect_timeout} of cluster '{target}'",
                    "a slow connect leaves no time for the answer",
                    "routes", index, "timeout",
                )  # fmt: skip
        if route.name in hidden_by:
            hint = f"route '{hidden_by[route.name]}' above matches the same"
            warn(f"{label} is never reached", hint, "routes", index, "match")
    listed = [listener.routes for listener in config.listeners if listener.protocol != "tcp"]
    if all(names is not None for names in listed):
        served = {name for names in listed for name in names} | tcp
        for index, route in enumerate(config.routes):
            if route.name not in served:
                warn(f"route '{route.name}' is on no listener", "add it to the routes of one", "routes", index)
    for index, cluster in enumerate(config.clusters):
        label = f"cluster '{cluster.name}'"
        if cluster.name not in used:
            warn(f"{label} is used by no route", "", "clusters", index, "name")
        if cluster.type == "original_destination":
            continue
        if not cluster.endpoints:
            warn(f"{label} has no endpoints", "its routes are answered 503", "clusters", index)
        elif not any(endpoint.weight for endpoint in cluster.endpoints):
            warn(f"{label}: all endpoints have weight 0", "its routes are answered 503", "clusters", index, "endpoints")
    limits = config.limits
    for key in ("field_size", "target_size"):
        if getattr(limits, key) > limits.head_size:
            warn(f"limits: {key} is larger than head_size", "head_size refuses first", "limits", key)
    return found
