"""Sources followed and begun again, and what each told last kept on disk. Owns no kind of source.

A control plane that starts while a source is away knows what it knew before; one that never knew waits, because to say
that a name does not exist would send proxies elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from meshcore.errors import MeshError

from ..errors import Unreadable
from ..model import KINDS, Named, encode, read
from ..resolve import View
from .configured import file_name
from .source import Groups, Source

RETRY_S = (0.5, 30.0)
SAVE_S = 1.0  # a burst of changes is one file
_log = logging.getLogger("controlplane.discovery")


class Feed:
    """One source, and how it is doing. It is the listener of its source."""

    def __init__(self, source: Source, view: View, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self.error = ""
        self.events = 0
        self.failures = 0
        self._view = view
        self._path = folder / f"{file_name(source.name)}.json"
        self._clock = clock
        self._well_at_s = 0.0
        self._failing_since_s = 0.0
        self._is_unsaved = False

    # -- listening --------------------------------------------------------------------------------------------------

    def whole(self, groups: Groups) -> None:
        self._view.hear(self.source.name, groups, is_whole=True)
        self._heard()

    def some(self, groups: Groups) -> None:
        self._view.hear(self.source.name, groups, is_whole=False)
        self._heard()

    def well(self) -> None:
        self.error, self._failing_since_s = "", 0.0

    def wrong(self, why: str) -> None:
        if why != self.error:
            _log.warning("%s: %s; what was known before stays", self.source.name, why)
        self.failures += 1
        self.error = why[:1_000]
        self._failing_since_s = self._failing_since_s or self._clock()

    def _heard(self) -> None:
        self.events += 1
        self._is_unsaved = True
        self.well()

    @property
    def stale_s(self) -> float:
        """For how long it has not been able to say how things are."""
        return self._clock() - self._failing_since_s if self._failing_since_s else 0.0

    def state(self) -> dict[str, Any]:
        """For `meshctl check`."""
        return {
            "name": self.source.name,
            "values": len(self._view.layers.told_by(self.source.name)),
            "error": self.error or ("nothing was told yet" if self.source.name in self._view.unheard else ""),
            "stale_s": self.stale_s,
        }

    # -- living -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        self._load()
        saving = asyncio.create_task(self._keep_saving())
        wait_s = RETRY_S[0]
        try:
            while True:
                events = self.events
                try:
                    await self.source.follow(self)
                    why = "it ended by itself"
                except (MeshError, OSError, ValueError) as error:
                    why = str(error) or type(error).__name__
                self.wrong(why)
                wait_s = RETRY_S[0] if self.events > events else min(wait_s * 2, RETRY_S[1])
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
        finally:
            saving.cancel()

    async def _keep_saving(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            if self._is_unsaved:
                self._is_unsaved = False
                with contextlib.suppress(OSError):  # a full disk costs a warm start, and no endpoint
                    await asyncio.to_thread(self._save, list(self._view.layers.told_by(self.source.name).values()))

    def _save(self, values: Iterable[Named]) -> None:
        octets = msgspec.json.encode([[value.kind, msgspec.Raw(encode(value))] for value in values])
        fresh = self._path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(octets)
        os.replace(fresh, self._path)

    def _load(self) -> None:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=list[tuple[str, dict[str, Any]]])
            values = [read(kind, plain) for kind, plain in found if kind in KINDS]
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError, MeshError, Unreadable) as error:
            _log.warning("%s: what was saved cannot be read: %s", self.source.name, str(error)[:200])
            return
        self._view.hear(self.source.name, {"saved": values}, is_whole=True)


def rows(feeds: Iterable[Feed]) -> Iterator[tuple[str, str, str, float]]:
    """Figures over all sources, as the metrics page has them."""
    known = list(feeds)
    yield "sources", "gauge", "Sources of discovery.", len(known)
    yield "sources_failing", "gauge", "Those that cannot say how things are.", sum(bool(one.state()["error"]) for one in known)
    stale_s = max((one.stale_s for one in known), default=0.0)
    yield "source_stale_seconds", "gauge", "For how long the one that fails longest has not.", stale_s
    yield "source_events_total", "counter", "Times a source had something to tell.", sum(one.events for one in known)
    yield "source_failures_total", "counter", "Times a source could not.", sum(one.failures for one in known)
