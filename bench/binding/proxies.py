"""A proxy in this process whose names an interpreter binds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from meshcore import Binding, Negative, Proxy
from meshcore.binder.binder import Binder
from meshcore.binder.policies import Policies
from meshcore.binder.rules import Rules
from meshcore.config import Config, Limits, Listener, Route, RouteLookup
from meshcore.namers.interpreter import Interpreter


class BinderBeside(Binder):
    """On the loop of another, which ends it, too. gRPC has one poller a process, which wakes all loops for each event of one: what a
    process with one proxy never pays."""

    def __init__(self, proxy: Proxy, other: Binder) -> None:
        super().__init__(proxy)
        self._loop.close()
        self._loop, self._thread = other._loop, other._thread

    def start(self, make: Callable[[], Awaitable[Sequence[Rules]]]) -> None:
        self.use(make)
        self._proxy.on_lookup(self._on_lookup)
        self._proxy.on_idle(self._on_idle)

    def stop(self) -> None:
        pass


class Noting(Proxy):
    """Calls a function each time that names were bound."""

    on_bound: Callable[[], None] | None = None

    def bind_many(self, answers: Iterable[tuple[str, str, str, Binding | Negative, float | None]]) -> None:
        super().bind_many(answers)
        if self.on_bound is not None:
            self.on_bound()


class BoundProxy:
    def __init__(
        self,
        interpreter: Callable[[], Interpreter],
        *,
        workers: int | str = "auto",
        clients: Policies | None = None,
        beside: BoundProxy | None = None,
        on_bound: Callable[[], None] | None = None,
    ) -> None:
        lookup = RouteLookup(by="header_token")
        self._proxy = Noting(
            Config(
                workers=workers,
                listeners=[Listener(name="in", address="127.0.0.1:0")],
                routes=[Route(name="names", lookup=lookup)],
                limits=Limits(max_requests_per_connection=0),
            )
        )
        self._proxy.on_bound = on_bound
        self.binder = Binder(self._proxy) if beside is None else BinderBeside(self._proxy, beside.binder)

        async def make() -> list[Rules]:
            return [Rules(route="names", interpreter=interpreter(), clients=clients or Policies())]

        self.binder.start(make)
        self._proxy.start()

    @property
    def address(self) -> tuple[str, int]:
        return self._proxy.addresses["in"]

    @property
    def histograms(self) -> int:
        return sum(worker.histograms for worker in self._proxy.stats().workers)

    def stop(self) -> None:
        self._proxy.stop()
        self.binder.stop()
