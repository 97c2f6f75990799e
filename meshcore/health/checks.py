"""The thread that asks endpoints: when each is asked, what the answers add up to, who is told. Not how one is asked.

Checks are rare, so they need no speed: one asyncio loop on one thread per proxy, there only while a cluster wants checks.
Whoever changes what is asked does so on that loop, so nothing here has two writers; statistics are read racily.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

from .probes import PASSED, RESULTS, UNASKED, CheckFailed, ask
from .targets import Target
from .verdict import Verdict

MOST_AT_ONCE = 128  # checks under way: descriptors, and SYNs that leave together
MOST_GRPC_AT_ONCE = 16  # each takes a thread of grpcio's
JITTER = 0.1  # of the interval, either way

_log = logging.getLogger("meshcore.health")


class _Checked:
    """One endpoint under watch."""

    __slots__ = ("counts", "error", "is_told_healthy", "target", "task", "verdict")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.verdict = Verdict()
        self.is_told_healthy = True  # what the engine knows: statistics never run ahead of it
        self.counts = dict.fromkeys(RESULTS, 0)
        self.error = ""
        self.task: asyncio.Task[None] | None = None


class HealthChecks:
    """The checks of one proxy. `set_unhealthy(cluster, address, flag)` takes the verdicts.

    `apply` and `stop` are called by one thread at a time, which is never the one of the checks.
    """

    def __init__(self, set_unhealthy: Callable[[str, str, bool], None]) -> None:
        self._set_unhealthy = set_unhealthy
        self._checked: dict[tuple[str, str], _Checked] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def apply(self, targets: Iterable[Target]) -> None:
        """Watch these from now on, and nobody else. Who stays keeps his verdict; a new one is healthy until shown not to be."""
        wanted = {(target.cluster, target.address): target for target in targets}
        if any(target.check.type == "grpc" for target in wanted.values()):
            from . import grpc_probe  # noqa: F401  # takes a while: not on the loop, where others' timeouts run
        if wanted and self._thread is None:
            self._start()
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._reconcile(wanted), self._loop).result()
        if not wanted:
            self.stop()

    def stop(self) -> None:
        """End every check now; returns when the thread is gone. Verdicts stay as they are. Safe to repeat."""
        if self._thread is None:
            return
        assert self._loop is not None and self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = None

    def row(self, cluster: str, address: str) -> dict[str, Any]:
        """What an endpoint's statistics show; nothing for one that is not asked."""
        checked = self._checked.get((cluster, address))
        if checked is None:
            return {}
        counts = {f"checks_{result}": count for result, count in checked.counts.items()}
        return {"checked": True, "healthy": checked.is_told_healthy, "check_error": checked.error, **counts}

    # --- on the thread ---

    def _start(self) -> None:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="meshcore-health", daemon=True)
        self._thread.start()
        started.wait()

    def _run(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve(started))  # and then cancels what is still under way

    async def _serve(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._grpc_slots = asyncio.Semaphore(MOST_GRPC_AT_ONCE)
        self._loop = asyncio.get_running_loop()
        started.set()
        await self._stopping.wait()

    async def _reconcile(self, wanted: dict[tuple[str, str], Target]) -> None:
        for key in self._checked.keys() - wanted.keys():
            gone = self._checked.pop(key)
            assert gone.task is not None
            gone.task.cancel()
            self._set_unhealthy(*key, False)
        for key, target in wanted.items():
            checked = self._checked.get(key)
            if checked is None:
                checked = self._checked[key] = _Checked(target)
            # Always: the state behind a name may be another one now.
            self._set_unhealthy(*key, not checked.verdict.healthy)
            checked.is_told_healthy = checked.verdict.healthy
            if checked.task is None or checked.target != target:
                if checked.task is not None:
                    checked.task.cancel()
                    checked.target = target
                    checked.verdict.streak = 0  # counted under other rules
                checked.task = asyncio.create_task(self._watch(checked, target))

    async def _watch(self, checked: _Checked, target: Target) -> None:
        loop = asyncio.get_running_loop()
        slots = self._grpc_slots if target.check.type == "grpc" else self._slots
        # Endpoints that came together, and proxies that started together, are not asked together.
        due = loop.time() + random.random() * target.interval_s
        while True:
            await asyncio.sleep(due - loop.time())
            async with slots:
                result, words = await _result(target)
            try:
                if checked.target is target:
                    self._note(checked, result, words)
            except Exception:  # a watch that ended would leave its endpoint as it is for ever
                _log.exception("the check of endpoint %s could not be noted", target.address)
            due = max(loop.time(), due + target.interval_s * random.uniform(1 - JITTER, 1 + JITTER))

    def _note(self, checked: _Checked, result: str, words: str) -> None:
        target, check = checked.target, checked.target.check
        checked.counts[result] += 1
        checked.error = words
        if result == UNASKED or not checked.verdict.count(result == PASSED, rise=check.rise, fall=check.fall):
            return
        self._set_unhealthy(target.cluster, target.address, result != PASSED)
        checked.is_told_healthy = result == PASSED
        label = f"endpoint {target.address} of cluster {target.cluster}"
        if result == PASSED:
            _log.warning("%s is healthy again: %d checks in a row passed", label, check.rise)
        else:
            _log.warning("%s is unhealthy: %d checks in a row failed, the last: %s", label, check.fall, words)


async def _result(target: Target) -> tuple[str, str]:
    try:
        await ask(target)
    except CheckFailed as failed:
        return failed.result, failed.words
    except Exception as error:  # ours, whatever it is: endpoints do not pay for it, and the watch goes on
        return UNASKED, f"{type(error).__name__}: {error}"[:200]
    return PASSED, ""
