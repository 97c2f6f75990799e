"""The yardstick: our own raw TCP forwarder, see instruments/forward.c."""

from __future__ import annotations

from bench.instruments import InstrumentMissing, instrument
from bench.peers.base import Peer
from bench.shapes import GRPC, H1, H2, TCP, Shape


class Forwarder(Peer):
    name = "forwarder"
    is_yardstick = True
    wires = (H1, H2, GRPC, TCP)  # the same bytes on both sides, whatever they mean

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

    @classmethod
    def variant_for(cls, shape: Shape) -> str:
        return ""

    def command(self) -> list[str]:
        return [str(instrument("forward")), str(self.ports.listen), str(self.ports.backend)]
