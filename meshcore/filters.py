"""What a Python filter returns, and the functions registered per route. Runs nothing: see the engine's filter thread.

A filter is a function of one argument. `on_request` gets a `Request`, `on_response` a `ResponseHead`; both are changed
in place. Returning None lets the exchange go on; returning a `Response` answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshcore._fastpath import Headers, Request, ResponseHead

__all__ = ["Headers", "Registry", "Request", "Response", "ResponseHead"]

RequestFilter = Callable[[Request], "Response | None"]
ResponseFilter = Callable[[ResponseHead], "Response | None"]

ON_REQUEST = 1
ON_RESPONSE = 2


class Response(msgspec.Struct, frozen=True):
    """An answer a filter gives itself. status: 200..599. The length and the connection fields are the proxy's."""

    status: int
    body: bytes | str = b""
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = {}


class Registry:
    """Filters by route name, in the order they were registered. The route name "*" means every route."""

    def __init__(self) -> None:
        self._on_request: list[tuple[str, RequestFilter]] = []
        self._on_response: list[tuple[str, ResponseFilter]] = []

    def add_request(self, route: str, function: RequestFilter) -> None:
        self._on_request.append((route, function))

    def add_response(self, route: str, function: ResponseFilter) -> None:
        self._on_response.append((route, function))

    def routes(self) -> set[str]:
        """Route names that filters ask for, "*" left out."""
        return {name for name, _ in (*self._on_request, *self._on_response)} - {"*"}

    def of(self, route: str) -> tuple[tuple[RequestFilter, ...], tuple[ResponseFilter, ...]]:
        """The functions for one route."""
        return (
            tuple(function for name, function in self._on_request if name in (route, "*")),
            tuple(function for name, function in self._on_response if name in (route, "*")),
        )

    def mark(self, plan: dict[str, Any]) -> None:
        """Set the `filters` bits of a plan's routes, so that the engine parks their exchanges and no others'."""
        for route in plan["routes"]:
            on_request, on_response = self.of(route["name"])
            route["filters"] = (ON_REQUEST if on_request else 0) | (ON_RESPONSE if on_response else 0)
