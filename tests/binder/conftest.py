"""A proxy with a binder beside it, over a table that the test changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from meshcore import Proxy
from meshcore.binder.binder import Binder
from meshcore.binder.rules import Rules
from meshcore.config import Config, Limits, Listener, Route, RouteLookup, Timeouts
from meshcore.namers.interpreter import LocalInterpreter
from meshcore.namers.live import Cell
from meshcore.namers.namer import LiveNamers
from meshcore.naming import Dtab, read_dtab


class Bound:
    """A proxy whose names are bound by a table of its own."""

    def __init__(self, dtab: str, *, lookup: dict[str, object] | None = None, trusts: bool = False, interpreter=None,
                 limits: dict[str, object] | None = None, timeouts: dict[str, object] | None = None, **rules: object) -> None:  # fmt: skip
        self.table: Cell[Dtab] = Cell(read_dtab(dtab))
        keys = {"by": "header_token", "overrides": True, "timeout": "5s", **(lookup or {})}
        self.proxy = Proxy(
            Config(
                listeners=[Listener(name="in", address="127.0.0.1:0", trust_mesh_headers=trusts)],
                routes=[Route(name="names", lookup=RouteLookup(**keys))],
                limits=Limits(**(limits or {})),
                timeouts=Timeouts(**(timeouts or {})),
            )
        )
        self.binder = Binder(self.proxy)

        async def make() -> list[Rules]:
            if interpreter is not None:
                return [Rules(route="names", interpreter=interpreter(), **rules)]
            local = LocalInterpreter(LiveNamers(), self.table, keeps_alternatives=True)
            return [Rules(route="names", interpreter=local, **rules)]

        self.binder.start(make)
        self.proxy.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.proxy.addresses["in"]

    def set_table(self, dtab: str) -> None:
        """As an edit of the table arrives: on the binder's loop."""

        async def change() -> None:
            self.table.set(read_dtab(dtab))

        asyncio.run_coroutine_threadsafe(change(), self.binder._loop).result(5)

    def stop(self) -> None:
        self.proxy.stop()
        self.binder.stop()


@pytest.fixture
def bound() -> Iterator[object]:
    """`bound("/svc/* => /$/inet/127.0.0.1/9000", …)`: a started Bound."""
    started: list[Bound] = []

    def start(dtab: str, **keys: object) -> Bound:
        started.append(Bound(dtab, **keys))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for one in started:
        one.stop()
