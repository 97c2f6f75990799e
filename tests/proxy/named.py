"""A proxy whose routes look names up, and somebody who answers: what is known at once, what is not when the test says so."""

from __future__ import annotations

import threading
import time

import meshcore
from meshcore import Binding, BoundCluster, BoundEndpoint
from tests.scenario.servers import PATIENCE_S


def binding(*targets, name: str = "", settings=None, routes=(), trees=None, **endpoint) -> Binding:
    """A binding to one cluster of these servers or addresses."""
    addresses = [target if isinstance(target, str) else target.address for target in targets]
    cluster = BoundCluster(
        name=name or "-".join(addresses) or "nobody",
        endpoints=tuple(BoundEndpoint(address=address, **endpoint) for address in addresses),
        settings=settings,
    )
    return Binding(clusters=(cluster,), routes=tuple(routes), trees=trees or {})


def clusters(**servers) -> tuple[BoundCluster, ...]:
    """Clusters of one endpoint each, or of a list of them."""
    listed = {name: one if isinstance(one, (list, tuple)) else [one] for name, one in servers.items()}
    return tuple(
        BoundCluster(
            name=name,
            endpoints=tuple(BoundEndpoint(address=one if isinstance(one, str) else one.address) for one in several),
        )
        for name, several in listed.items()
    )


class NamedProxy:
    """A started proxy. `known`: name -> what it means, answered at once; all others wait for `bind`."""

    def __init__(self, known=None, *, lookup=None, route=None, routes=None, on_start=None, **sections):
        self.known = dict(known or {})
        self.asked: list[meshcore.Lookup] = []
        self.idle: list[tuple[str, str, str]] = []
        self._changed = threading.Condition()
        configuration = {
            "workers": 1,
            "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
            "routes": routes or [{"name": "out", "lookup": lookup or {}, **(route or {})}],
            **sections,
        }
        self.proxy = meshcore.Proxy(configuration)
        self.proxy.on_lookup(self._look_up)
        self.proxy.on_idle(self._let_go)
        if on_start is not None:
            on_start(self.proxy)
        self.proxy.start()

    def _look_up(self, batch: list[meshcore.Lookup]) -> None:
        for one in batch:
            if one.name in self.known:
                self.proxy.bind(one.route, one.name, self.known[one.name], overrides=one.overrides)
        with self._changed:
            self.asked += batch
            self._changed.notify_all()

    def _let_go(self, keys) -> None:
        with self._changed:
            self.idle += keys
            self._changed.notify_all()

    def wait_asked(self, count: int = 1) -> list[meshcore.Lookup]:
        """Until so many names were asked for."""
        return self._wait(lambda: len(self.asked) >= count and self.asked)

    def wait_idle(self, count: int = 1) -> list[tuple[str, str, str]]:
        return self._wait(lambda: len(self.idle) >= count and self.idle)

    def _wait(self, ready):
        with self._changed:
            assert self._changed.wait_for(ready, PATIENCE_S), f"asked for {[one.name for one in self.asked]}"
            return list(ready())

    def bind(self, name: str, bound, **options) -> None:
        self.proxy.bind("out", name, bound, **options)

    @property
    def addresses(self):
        return self.proxy.addresses

    def stats(self):
        return self.proxy.stats()

    def stop(self) -> None:
        self.proxy.stop()


def until(ready, what: str = "it"):
    """Wait for what other threads bring about."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)
    return found
