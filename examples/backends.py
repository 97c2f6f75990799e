"""Three small HTTP/1.1 servers that behave differently: steady, slow, and sometimes failing.

    python examples/backends.py 9001 9002 9003      # to try a proxy by hand

They answer any request with a line that names them. The demo and the tests of the examples use them in-process.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

HANG_UP = 0  # in place of a status: close without an answer


@dataclass(frozen=True)
class Behaviour:
    """What one server does. `decide` waits as long as it wants and returns a status, or HANG_UP."""

    name: str
    says: str
    decide: Callable[[random.Random, float], Awaitable[int]]


async def steady(rng: random.Random, age_s: float) -> int:
    await asyncio.sleep(rng.uniform(0.001, 0.003))
    return 200


async def slow(rng: random.Random, age_s: float) -> int:
    await asyncio.sleep(0.04 + min(rng.expovariate(1 / 0.02), 0.2))
    return 200


async def flaky(rng: random.Random, age_s: float) -> int:
    """One request in twelve fails; for a second out of every eight, all do."""
    await asyncio.sleep(rng.uniform(0.001, 0.004))
    if age_s % 8 > 7 or rng.random() < 1 / 12:
        return HANG_UP if rng.random() < 0.25 else 503
    return 200


BEHAVIOURS = (
    Behaviour("steady", "answers in 2 ms", steady),
    Behaviour("slow", "answers in 40 to 200 ms", slow),
    Behaviour("flaky", "fails one in twelve, and everything for a second now and then", flaky),
)


async def serve_connection(
    behaviour: Behaviour, rng: random.Random, born_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answers one connection's requests in order, until the client closes it or the behaviour hangs up."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            for line in head.lower().split("\r\n"):
                if line.startswith("content-length:"):
                    await reader.readexactly(int(line.partition(":")[2]))
            status = await behaviour.decide(rng, monotonic() - born_s)
            if status == HANG_UP:
                return
            body = f"{behaviour.name} answered {head.partition(' HTTP/')[0]}\n".encode()
            reason = "OK" if status == 200 else "Service Unavailable"
            writer.write(b"HTTP/1.1 %d %s\r\ncontent-length: %d\r\n\r\n" % (status, reason.encode(), len(body)) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client left: nothing to tell anyone
    except asyncio.CancelledError:
        pass  # the program ends; asyncio before 3.12 would print it as a fault of this task
    finally:
        writer.close()


async def start(behaviour: Behaviour, port: int = 0, seed: int = 1) -> tuple[asyncio.Server, int]:
    """Listens on 127.0.0.1 (port 0: any). Returns the server and its port."""
    serve = partial(serve_connection, behaviour, random.Random(seed), monotonic())
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    return server, server.sockets[0].getsockname()[1]


async def _main(ports: list[int]) -> None:
    for behaviour, port in zip(BEHAVIOURS, ports):
        _, bound = await start(behaviour, port)
        print(f"{behaviour.name:8} http://127.0.0.1:{bound}   {behaviour.says}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        asyncio.run(_main([int(port) for port in sys.argv[1:]]))
    except KeyboardInterrupt:
        pass
