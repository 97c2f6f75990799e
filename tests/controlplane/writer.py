"""A program that writes one entry after the other, and prints the number of each that was acknowledged. To be
killed."""

import asyncio
import sys

from controlplane.errors import StoreUnavailable
from controlplane.store import SqliteStore
from controlplane.store.etcd import EtcdStore


async def main(kind: str, place: str, *rest: str) -> None:
    store = SqliteStore(place) if kind == "sqlite" else EtcdStore([place], prefix=rest[0])
    async with store:
        lock = asyncio.Lock()

        async def write(first: int) -> None:
            for number in range(first, 1_000_000, 4):
                await store.put("written", f"n/{number}", str(number).encode() * 20)
                async with lock:
                    print(number, flush=True)

        # Several at once: they share commits, and a commit is cut in the middle of some of them.
        await asyncio.gather(*(write(first) for first in range(4)))


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except StoreUnavailable:
        sys.exit(3)
