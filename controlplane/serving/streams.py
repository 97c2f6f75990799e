"""How many streams there may be, of each identity and of all. Counts; ends none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import Denied
from ..settings import Bounds
from .peers import Peer


class Streams:
    """What is open now."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._of: dict[str, int] = {}
        self.count = 0
        self.refused = 0

    @contextlib.contextmanager
    def one(self, peer: Peer) -> Iterator[None]:
        """One more, as long as the block lasts; Denied beyond the bound."""
        name = peer.name
        own = self._of.get(name, 0)
        if self.count >= self._bounds.streams or (own >= self._bounds.streams_per_identity and not peer.is_local):
            self.refused += 1
            raise Denied("too_many_streams", f"{name} has {own} streams, there are {self.count}")
        self._of[name] = own + 1
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
            if self._of[name] == 1:
                del self._of[name]
            else:
                self._of[name] -= 1
