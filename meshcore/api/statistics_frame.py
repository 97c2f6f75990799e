"""The msgpack inside a frame of statistics.proto: what one proxy counted since its frame before. Sends nothing.

A frame holds differences, and a proxy keeps one until it is received: sent again under the same sequence it is counted once,
whichever of the two messages was lost. Rows of things without traffic are left out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from meshcore.stats import Histogram

# Far above what a proxy counts in a second of its busiest life; a frame that has more is refused whole.
MAX_ROWS = 20_000
MAX_FRAME_BYTES = 4_194_304

Direction = Literal["in", "out"]


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One route of requests that came in, or one endpoint of requests that went out.

    labels: of the other side, as far as the proxy was told: the endpoint's. latency: see `Histogram.changes`.
    secure: requests over TLS, of `requests`. tcp_*: connections relayed as they are, which are no requests: how many came about, how many
    did not or were cut, how many are open now; bytes_out went to the endpoint. A success is an answer below 500 whose gRPC status is no failure of a server.
    """

    direction: Direction
    route: str
    service: str
    labels: dict[str, str]
    requests: int
    successes: int
    failures: int
    secure: int = 0
    retries: int = 0
    latency: bytes = b""
    tcp_opened: int = 0
    tcp_failed: int = 0
    tcp_open: int = 0
    bytes_out: int = 0
    bytes_in: int = 0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame. span_s: the time since the frame before, by the proxy's monotonic clock."""

    rows: tuple[Row, ...] = ()
    span_s: float = 1.0
    reasons: dict[str, int] = {}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Report)


def encode(report: Report) -> bytes:
    return _encoder.encode(report)


def decode(raw: bytes) -> Report:
    """The report in these bytes; ValueError for anything that is none, is too large, or counts below zero."""
    if len(raw) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(raw)} bytes; at most {MAX_FRAME_BYTES} are read")
    report = _decoder.decode(raw)
    if len(report.rows) > MAX_ROWS:
        raise ValueError(f"a frame of {len(report.rows)} rows; at most {MAX_ROWS} are read")
    for row in report.rows:
        counts = (
            row.requests, row.successes, row.failures, row.secure, row.retries,
            row.tcp_opened, row.tcp_failed, row.tcp_open, row.bytes_out, row.bytes_in,
        )  # fmt: skip
        if min(counts) < 0 or max(counts) >= 2**53 or row.secure > row.requests:
            raise ValueError(f"row '{row.route}/{row.service}' counts {counts}; expected numbers that can be")
        if len(row.latency) % 6 or len(row.labels) > 64:
            raise ValueError(f"row '{row.route}/{row.service}' has {len(row.latency)} bytes of latencies, {len(row.labels)} labels")
    Histogram.of_changes(row.latency for row in report.rows)  # ValueError for a bucket that there is not
    return report
