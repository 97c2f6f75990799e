"""Taps of operators: which proxies are asked while a session runs, and who may. Owns the sessions' lives; see tap_session.

Proxies that attach while a tap runs are asked as well. A session is audited twice: when it begins, with what was asked, and
when it ends, with what was shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable

import msgspec

from meshcore.api.tap_wire import ask_of
from meshcore.taps import TapEvent, TapFilter

from ..audit import Audit
from ..errors import Denied
from .attached import Attached, Attachment
from .directory import Directory, Member
from .resources import Resource
from .tap_session import Progress, Shown, TapSession

MAX_SESSIONS = 64  # of all operators; a proxy serves eight at a time
PROGRESS_S = 1.0


class Taps:
    """All sessions of this control plane."""

    def __init__(
        self, attached: Attached, directory: Directory, audit: Audit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._attached = attached
        self._directory = directory
        self._audit = audit
        self._clock = clock
        self._sessions: dict[int, tuple[TapSession, asyncio.Event, Callable[[Member], bool]]] = {}
        self._numbers = itertools.count(1)
        attached.on_change.append(self._ask_newcomers)

    @property
    def count(self) -> int:
        return len(self._sessions)

    async def watch(
        self, target: Resource, to: Resource | None, origin: Resource | None, asked: TapFilter, by: str,
        may_tap: Callable[[Member], bool],
    ) -> AsyncIterator[tuple[list[Shown], Progress]]:
        """What is seen, and how it stands, until the caller ends it. may_tap: a proxy that this operator may not tap is
        passed over."""  # fmt: skip
        if len(self._sessions) >= MAX_SESSIONS:
            raise Denied("too_many_taps", f"{by} asked for one more tap than {MAX_SESSIONS}")
        number = next(self._numbers)
        session = TapSession(number, target, to, origin, asked, self._directory)
        wake = asyncio.Event()
        words = {name: value for name, value in asked.to_query().items()}
        self._audit.record(
            "tap_begin", outcome="done", actor=by, session=number, target=str(target), to=str(to or ""), source=str(origin or ""),
            conditions=[f"{name}={value}" for name, value in words.items()],
        )  # fmt: skip
        began_s = self._clock()
        self._sessions[number] = (session, wake, may_tap)
        try:
            self._ask_newcomers()
            told: Progress | None = None
            while True:
                progress = session.progress(self._unmeshed(session, may_tap))
                shown = session.read()
                if shown or progress != told:
                    told = progress
                    yield shown, progress
                for proxy, share in session.shares(self._clock()).items():
                    if (attachment := self._attached.get(proxy)) is not None:
                        ask = msgspec.structs.replace(session.ask(), max_rps=share)
                        attachment.begin(number, ask_of(ask).SerializeToString())
                if not shown:
                    wake.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PROGRESS_S):
                            await wake.wait()
        finally:
            del self._sessions[number]
            for proxy, attachment in self._attached.each():
                if proxy in session.tapped:
                    attachment.end(number)
            progress = session.progress()
            self._audit.record(
                "tap_end", outcome="done", actor=by, session=number, seconds=round(self._clock() - began_s, 3),
                requests=session.requests, hidden=progress.hidden, dropped=progress.dropped,
            )  # fmt: skip

    def _ask_newcomers(self) -> None:
        for session, wake, may_tap in self._sessions.values():
            newcomers = [
                (proxy, attachment) for proxy, attachment in self._attached.each()
                if proxy not in session.tapped and session.wants(attachment.member) and may_tap(attachment.member)
            ]  # fmt: skip
            share = session.first_share(len(newcomers))
            for proxy, attachment in newcomers:
                self._ask(session, proxy, attachment, share)
            wake.set()

    def _ask(self, session: TapSession, proxy: int, attachment: Attachment, share: float) -> None:
        ask = msgspec.structs.replace(session.ask(), max_rps=share)
        if attachment.begin(session.number, ask_of(ask).SerializeToString()):
            session.begun(proxy, share)

    def _unmeshed(self, session: TapSession, may_tap: Callable[[Member], bool]) -> int:
        here = {member.key for member in self._attached.members()}
        return sum(
            1 for member in self._directory.members()
            if member.key not in here and session.wants(member) and may_tap(member)
        )  # fmt: skip

    # --- what relays tell ---

    def take(self, proxy: int, session: int, events: list[TapEvent], hidden: int, dropped: int) -> None:
        found = self._sessions.get(session)
        if found is None or proxy not in found[0].tapped:
            return
        attachment = self._attached.get(proxy)
        if attachment is not None and found[0].take(proxy, attachment.member, events, hidden, dropped, self._clock()):
            found[1].set()

    def ended(self, proxy: int, session: int, why: str) -> None:
        if (found := self._sessions.get(session)) is not None:
            found[0].left(proxy)
            found[1].set()

    def left(self, proxy: int) -> None:
        for session, wake, _ in self._sessions.values():
            session.left(proxy)
            wake.set()
