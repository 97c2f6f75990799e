"""Proxies that are attached to this control plane now, each by one relay stream. Owns the list; the streams are relays'."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from .directory import Member


class Attachment(Protocol):
    """One proxy on its stream. Nothing here waits: what it cannot take is dropped and counted."""

    member: Member

    def begin(self, session: int, ask: bytes) -> bool:
        """Ask it to begin a tap: an encoded Ask. False: it cannot be told."""

    def end(self, session: int) -> None:
        """Ask it to end one."""


class Attached:
    """Those that are here, and who wants to know of coming and going."""

    def __init__(self) -> None:
        self._here: dict[int, Attachment] = {}
        self._numbers = itertools.count(1)
        self.on_change: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._here)

    def add(self, one: Attachment) -> int:
        number = next(self._numbers)
        self._here[number] = one
        self._tell()
        return number

    def remove(self, number: int) -> None:
        self._here.pop(number, None)
        self._tell()

    def get(self, number: int) -> Attachment | None:
        return self._here.get(number)

    def each(self) -> Iterator[tuple[int, Attachment]]:
        yield from list(self._here.items())

    def members(self) -> Iterator[Member]:
        """Each workload once, however many proxies speak for it."""
        yield from {one.member.key: one.member for one in self._here.values()}.values()

    def _tell(self) -> None:
        for told in list(self.on_change):
            told()
