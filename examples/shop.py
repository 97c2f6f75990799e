"""An application of the demo: answers like one of the backends, and may ask another service first. Knows of no mesh.

    python examples/shop.py b-1 9001 steady --calls c.demo --via 127.0.0.1:4140

--via is an HTTP proxy, as any program is told of one; without it the name is simply connected to.
"""

import argparse
import asyncio
import contextlib
import random
import signal
from functools import partial
from time import monotonic

import backends


class Other:
    """Another service, called over kept connections."""

    def __init__(self, name: str, via: str) -> None:
        self.name = name
        self._host, _, port = (via or f"{name}:80").rpartition(":")
        self._port = int(port)
        self._form = f"http://{name}" if via else ""
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def get(self, path: str) -> int:
        """The status of its answer; 0 when there is none."""
        writer = None
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
            writer.write(f"GET {self._form}{path} HTTP/1.1\r\nhost: {self.name}\r\n\r\n".encode())
            async with asyncio.timeout(10):  # wait_for of 3.11 may swallow the cancellation that ends this program
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next((int(x.partition(":")[2]) for x in head.split("\r\n") if x.startswith("content-length:")), 0)
            await reader.readexactly(length)
            if "connection: close" in head:
                writer.close()
            else:
                self._idle.append((reader, writer))
            return int(head.split(" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            if writer is not None:
                writer.close()
            return 0


async def main(options: argparse.Namespace) -> None:
    other = Other(options.calls, options.via) if options.calls else None
    like = next(one for one in backends.BEHAVIOURS if one.name == options.behaviour)

    async def decide(rng: random.Random, age_s: float) -> int:
        status = await like.decide(rng, age_s)
        if other is None or status != 200:
            return status
        return 200 if 200 <= await other.get(f"/stock/{rng.randrange(100)}") < 500 else 503

    behaviour = backends.Behaviour(options.name, like.says, decide)
    serve = partial(backends.serve_connection, behaviour, random.Random(options.port), monotonic())
    server = await asyncio.start_server(serve, options.host, options.port)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("port", type=int)
    parser.add_argument("behaviour", choices=[one.name for one in backends.BEHAVIOURS])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--calls", default="", metavar="NAME")
    parser.add_argument("--via", default="", metavar="HOST:PORT")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args()))
