"""The yardstick: our own raw TCP forwarder, see instruments/forward.c."""

from __future__ import annotations

from bench.instruments import InstrumentMissing, instrument
from bench.peers.base import Peer


class Forwarder(Peer):
    name = "forwarder"
    is_yardstick = True

    @classmethod
    def unavailable(cls) -> str | None:
        try:
            instrument("forward")
        except InstrumentMissing as error:
            return str(error)
        return None

    @classmethod
    def version(cls) -> str:
        return "epoll, 64 KiB"

    def command(self) -> list[str]:
        return [str(instrument("forward")), str(self.ports.listen), str(self.ports.backend)]
