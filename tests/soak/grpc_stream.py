"""One gRPC call of a million messages each way, through two proxies: every message comes back once, in order, and nothing grows.

    python -m tests.soak.grpc_stream --messages 1000000

Both proxies run in this process, so that its memory is theirs; client and server are processes of their own. The client keeps
a bounded number of messages on their way, so that it measures a stream and not the client's own queue.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection

from meshcore import Proxy
from tests.soak.memory import MemoryUse

ON_THEIR_WAY = 256
SAMPLES_PER_S = 4


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    asked = parser.parse_args(argv)
    trouble, line = stream(asked.messages)
    print(line)
    for one in trouble:
        print(f"TROUBLE: {one}")
    return bool(trouble)


def stream(messages: int) -> tuple[list[str], str]:
    """What went wrong, and a line of figures."""
    spawn = multiprocessing.get_context("spawn")
    ours, servers = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(servers,), daemon=True)
    server.start()
    address = ours.recv()
    with Proxy(_config(address)) as far, Proxy(_config(_text(far))) as near:
        here, clients = spawn.Pipe()
        client = spawn.Process(target=_call, args=(clients, _text(near), messages), daemon=True)
        client.start()
        memory, began = MemoryUse(), time.monotonic()
        memory.sample()
        while not here.poll(1 / SAMPLES_PER_S):
            memory.sample()
            if not client.is_alive() and not here.poll():
                break
        took_s = time.monotonic() - began
        returned = here.recv() if here.poll() else "the client died"
        client.join(10)
        reasons = {**near.stats().reasons, **far.stats().reasons}
    ours.send("done")
    server.join(10)
    trouble = memory.troubles(most_percent=2)
    if returned != messages:
        trouble.append(f"{returned} of {messages} messages came back in order")
    trouble += [f"{name}: {n}" for name, n in reasons.items() if n]
    return trouble, f"{returned} messages each way in {took_s:.0f} s, {memory}"


def _config(upstream: str) -> dict[str, object]:
    return {
        "workers": 1,
        "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
        "clusters": [{"name": "next", "protocol": "http2", "endpoints": [upstream]}],
        "routes": [{"name": "all", "to": "next"}],
    }


def _text(proxy: Proxy) -> str:
    host, port = proxy.addresses["web"]
    return f"{host}:{port}"


def _serve(pipe: Connection) -> None:
    from tests.proxy.grpc_ends import EchoServer

    server = EchoServer()
    pipe.send(server.address)
    pipe.recv()
    server.stop()


def _call(pipe: Connection, address: str, messages: int) -> None:
    import threading

    import grpc

    from tests.proxy.grpc_ends import OPTIONS, SERVICE

    room = threading.Semaphore(ON_THEIR_WAY)

    def sent():
        for n in range(messages):
            room.acquire()
            yield b"%d" % n

    returned = 0
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        for message in channel.stream_stream(f"/{SERVICE}/Both")(sent()):
            if message != b"echo %d" % returned:
                break
            returned += 1
            room.release()
    pipe.send(returned)


if __name__ == "__main__":
    sys.exit(main())
