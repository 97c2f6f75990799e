"""The last good answers on disk, for the start of a proxy whose control plane is away. Bounded, checked, whole or not there.

The file is a line that names the form, the SHA-256 of the rest, and msgpack. One that is damaged, of another form, or open
to others is told and left out: a proxy that starts with nothing is better than one that starts with a stranger's answers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping

import msgspec

from .answers import Answer
from .state_directory import StateDirectory, StateError

FILE = "answers"
FORM = b"meshcore answers 1\n"
MAX_NAMES = 10_000
MAX_BYTES = 32 << 20
MAX_AGE_S = 7 * 86_400  # addresses a week old are somebody else's by now


class Saved(msgspec.Struct, frozen=True):
    """What was known, of which mesh, and when."""

    identity: str
    saved_at_s: float
    answers: dict[str, Answer]


class SavedAnswers:
    """Keeps answers in a state directory. `clock` is the time of day."""

    def __init__(self, state: StateDirectory, identity: str, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._identity = identity
        self._clock = clock
        self._last: bytes = b""

    def save(self, answers: Mapping[str, Answer]) -> bool:
        """Write them, the most recently used last; of too many the first are left out. False: it is there already."""
        names = list(answers)[-MAX_NAMES:]
        packed = msgspec.msgpack.encode({name: answers[name] for name in names})
        while len(packed) > MAX_BYTES:
            names = names[len(names) // 2 :]
            packed = msgspec.msgpack.encode({name: answers[name] for name in names})
        digest = hashlib.sha256(packed).digest()
        if digest == self._last:
            return False
        body = msgspec.msgpack.encode(Saved(self._identity, self._clock(), {name: answers[name] for name in names}))
        self._state.write(FILE, FORM + hashlib.sha256(body).digest() + body)
        self._last = digest
        return True

    def load(self) -> dict[str, Answer]:
        """What was saved. StateError tells why nothing of it can be used; nothing at all when there is no file."""
        data = self._state.read(FILE, MAX_BYTES + (MAX_BYTES >> 3))
        if data is None:
            return {}
        place = self._state.place_of(FILE)
        body = data[len(FORM) + 32 :]
        if not data.startswith(FORM):
            raise StateError(f"{place}: written by another version; it is passed over")
        if hashlib.sha256(body).digest() != data[len(FORM) : len(FORM) + 32]:
            raise StateError(f"{place}: damaged; it is passed over")
        try:
            saved = msgspec.msgpack.decode(body, type=Saved)
        except msgspec.MsgspecError as error:
            raise StateError(f"{place}: {error}; it is passed over") from None
        if saved.identity != self._identity:
            raise StateError(f"{place}: of {saved.identity}, not of {self._identity}; it is passed over")
        age_s = self._clock() - saved.saved_at_s
        if age_s > MAX_AGE_S:
            raise StateError(f"{place}: {age_s / 86_400:.0f} days old; it is passed over")
        return dict(list(saved.answers.items())[-MAX_NAMES:])
