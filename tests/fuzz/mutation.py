"""Octets that are almost right: a corpus of good ones, broken at random from a printed seed. Judges nothing.

`MESHCORE_FUZZ_SECONDS` is how long each subject is fed (default 1.5); `MESHCORE_SEED` replays a run. By hand, and under
sanitizers: `MESHCORE_FUZZ_SECONDS=300 make asan ARGS="tests/fuzz -q"`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence

SECONDS = float(os.environ.get("MESHCORE_FUZZ_SECONDS") or 1.5)
# What parsers trip over: ends of ranges, signs, separators, lengths that point behind the end.
WORDS = [b"\0", b"\xff", b"\x7f", b"\x80", b"\r\n", b"\n", b" ", b":", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x40\x00", b"\x16\x03\x01", b"HTTP/1.1"]


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One of many ways to break `data`, a few at a time; `other` lends pieces."""
    octets = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(octets) + 1)
        kind = rng.randrange(8)
        if kind == 0 and at < len(octets):
            octets[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(octets):
            octets[at] = rng.randrange(256)
        elif kind == 2:
            octets[at:at] = rng.choice(WORDS)
        elif kind == 3:
            del octets[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            octets[at:at] = octets[at : at + rng.randrange(1, 40)]
        elif kind == 5 and other:
            start = rng.randrange(len(other))
            octets[at : at + rng.randrange(20)] = other[start : start + rng.randrange(1, 60)]
        elif kind == 6:
            word = rng.choice(WORDS)
            octets[at : at + len(word)] = word
        else:
            del octets[at:]
    return bytes(octets[:70_000])


def broken(rng: random.Random, corpus: Sequence[bytes], seconds: float = SECONDS) -> Iterator[bytes]:
    """The corpus itself, then mutations of it, and of some of them again, until the time is over."""
    pool = list(corpus)
    yield from pool
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(50):
            made = mutated(rng, rng.choice(pool), rng.choice(pool))
            if rng.random() < 0.02:
                # A few go on: two faults in one place need a second step.
                if len(pool) < 400:
                    pool.append(made)
                else:
                    pool[rng.randrange(len(corpus), 400)] = made
            yield made
