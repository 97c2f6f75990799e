"""The process that is measured: proxies with relay and statistics. Commands on stdin, answers on stdout; owns no load."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path

import grpc

from meshcore import Proxy
from meshcore.agent.relay import Relay
from meshcore.agent.statistics import Statistics


def workers_ns() -> int:
    """What the kernel has charged to the threads that carry traffic."""
    threads = [one.native_id for one in threading.enumerate() if one.name.startswith("meshcore-worker")]
    return sum(int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) for number in threads)


async def serve(folder: Path, count: int) -> None:
    backend = (folder / "backend").read_text()
    address, roots = (folder / "address").read_text(), (folder / "roots.pem").read_bytes()
    proxies = [
        Proxy({
            "workers": 1, "listeners": [{"name": "web", "address": "127.0.0.1:0"}], "routes": [{"name": "all", "to": "app"}],
            "clusters": [{"name": "app", "endpoints": [backend]}],
        }).start()
        for _ in range(count)
    ]  # fmt: skip
    channels = []
    for number in range(count):
        key, chain = ((folder / f"{name}-{number}.pem").read_bytes() for name in ("key", "chain"))
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        words = [("grpc.ssl_target_name_override", "control-plane"), ("grpc.use_local_subchannel_pool", 1)]
        channels.append(grpc.aio.secure_channel(address, credentials, options=words))
    relays = [
        asyncio.create_task(Relay(proxy, f"bench/web-{number}", "bench", lambda route: "in")(channels[number]))
        for number, proxy in enumerate(proxies)
    ]
    pushing: list[asyncio.Task[None]] = []
    while True:
        word = (await asyncio.to_thread(sys.stdin.readline)).strip()
        answer: object = True
        if word == "ports":
            answer = [proxy.addresses["web"][1] for proxy in proxies]
        elif word == "mark":
            answer = {
                "requests": sum(proxy.stats().requests for proxy in proxies),
                "cpu_ns": time.process_time_ns(),
                "workers_ns": workers_ns(),
            }
        elif word == "statistics on":
            pushing = [
                asyncio.create_task(
                    Statistics(proxy, f"bench/web-{number}", lambda route: "in", lambda cluster: False)(channels[number])
                )
                for number, proxy in enumerate(proxies)
            ]
            await asyncio.sleep(1.5)  # the first frame has all that was counted before
        elif word == "statistics off":
            for task in pushing:
                task.cancel()
            await asyncio.gather(*pushing, return_exceptions=True)
        elif not word:
            break
        print(json.dumps(answer), flush=True)
    for task in relays:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
