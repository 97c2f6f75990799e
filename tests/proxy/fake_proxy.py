"""Stands in for the running proxy where only its admin side is tested: fixed statistics, a tap fed by hand."""

import threading

from meshcore.stats import Stats, snapshot
from meshcore.taps import TapEvent, TapSession, tap_filter

from tests.proxy.fake_engine import raw_stats


class FakeProxy:
    def __init__(self) -> None:
        self.times = 1
        self.waiting: list[TapEvent] = []
        self.open_taps = 0
        self.asked: list[dict] = []

    def stats(self) -> Stats:
        return snapshot(raw_stats(self.times), started_ns=0)

    def tap(self, **conditions) -> TapSession:
        self.asked.append(conditions)
        wanted = tap_filter(**conditions)
        self.open_taps += 1

        def drain() -> list[TapEvent]:
            events, self.waiting = self.waiting, []
            return [event for event in events if wanted.matches(event)]

        def close() -> None:
            self.open_taps -= 1

        return TapSession(drain, close)


class FakeRunningProxy(FakeProxy):
    """The same with a life: tells in `calls` what was asked of it. drain lasts until `drained` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = {"default": ("0.0.0.0", 8080)}
        self.calls: list[str] = []
        self.drained = threading.Event()
        self.drained.set()
        self.refuse: Exception | None = None

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def drain(self, timeout_s: float) -> None:
        self.calls.append("drain")
        self.drained.wait(timeout_s)

    def reload(self, config) -> str:
        if self.refuse is not None:
            raise self.refuse
        self.calls.append("reload")
        return f"now {len(config.routes)} routes"
