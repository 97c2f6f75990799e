"""How soon watching proxies learn of a change, and what that costs the control plane. Measures; judges nothing.

    python -m bench.controlplane.discovery                      100 proxies that watch 1,000 services each
    python -m bench.controlplane.discovery --proxies 5000 --services 10 --changes 100

The control plane runs in a process of its own, with SQLite on disk and its door, as `meshctl control-plane run` starts
it. Watchers are gRPC streams over mTLS, `--streams` of them on one connection, in this process. A change is one endpoint
written by `Admin.Apply`; its latency is the time from before that call until a watcher has read the message, fsync
included. CPU is that of the control plane's process (all threads, user and system), read from /proc around the changes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.model import Endpoint, Service, encode
from meshcore.api import (
    admin_pb2,
    admin_pb2_grpc,
    discovery_pb2,
    discovery_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
)

DOMAIN = "bench.example.org"
LONGEST_S = 60.0
ENDPOINTS = 5


class ControlPlane:
    """One, in a process of its own."""

    def __init__(self, folder: Path, metrics_port: int, core: int | None) -> None:
        self.folder = folder
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        words = [sys.executable, "-c", "from controlplane.cli import main; main()", "control-plane", "run"]
        words += ["--data", str(folder), "--trust-domain", DOMAIN, "--listen", "127.0.0.1:0", "--drain", "0s"]
        words += ["--metrics", f"127.0.0.1:{metrics_port}"]
        if core is not None:
            words = ["taskset", "-c", str(core), *words]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[-1]
        self.admin = f"unix:{folder}/admin.sock"

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    def figures(self) -> dict[str, float]:
        """Its metrics."""
        with urllib.request.urlopen(self._metrics, timeout=20) as page:
            rows = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
        return {name.removeprefix("meshcore_control_plane_"): float(value) for name, value in rows}


@contextmanager
def running(core: int | None) -> Iterator[ControlPlane]:
    """Starts one, and ends it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plane = ControlPlane(Path(folder) / "plane", 20_000 + os.getpid() % 20_000, core)
        try:
            yield plane
        finally:
            plane.process.kill()
            plane.process.wait()


async def credentials(plane: ControlPlane, admin: Any) -> grpc.ChannelCredentials:
    """A member's certificate, by a join token."""
    roots = (plane.folder / "root.pem").read_bytes()
    made = await admin.MakeJoinToken(admin_pb2.TokenWish(namespace="shop", account="bench"))
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    async with channel(plane, grpc.ssl_channel_credentials(roots)) as newcomer:
        answer = await identity_pb2_grpc.IdentityStub(newcomer).Certify(
            identity_pb2.CertifyRequest(
                token=made.token.encode(), certificate_signing_request=request.public_bytes(serialization.Encoding.DER)
            )
        )
    pem = serialization.Encoding.PEM
    chain = x509.load_der_x509_certificate(answer.leaf_certificate).public_bytes(pem)
    words = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return grpc.ssl_channel_credentials(roots, key.private_bytes(*words), chain)


def channel(plane: ControlPlane, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    words = [("grpc.ssl_target_name_override", "control-plane"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(plane.address, credentials, options=words)


async def apply(admin: Any, values: list[Any]) -> None:
    for first in range(0, len(values), 100):
        part = values[first : first + 100]
        entries = [admin_pb2.Entry(kind=value.kind, key=value.key, json=encode(value)) for value in part]
        await admin.Apply(admin_pb2.Values(entries=entries))


def endpoint(service: int, number: int, weight: int = 100) -> Endpoint:
    return Endpoint(
        namespace="shop",
        service=f"s{service}",
        name=f"e{number}",
        address=f"10.{service >> 8}.{service & 255}.{number + 1}",
        port=8080,
        weight=weight,
        identity=f"spiffe://{DOMAIN}/ns/shop/sa/s{service}",
        protocol="http2",
        labels={"version": "v1"},
        workload=f"s{service}-{number}",
    )


class Watchers:
    """All streams, and when each read what."""

    def __init__(self, services: int) -> None:
        self.services = services
        self.read_at: list[float] = []
        self.names = 0
        self.lost = 0
        self.woken = asyncio.Event()

    async def one(self, opened: grpc.aio.Channel) -> None:
        """One proxy's stream, until it is cancelled."""
        call = discovery_pb2_grpc.DiscoveryStub(opened).Watch()
        try:
            await call.write(discovery_pb2.Asked(hello=discovery_pb2.Hello(version="bench")))
            beating = asyncio.create_task(self._beat(call))
            names = [discovery_pb2.Begin(id=number + 1, path=f"s{number}.shop") for number in range(self.services)]
            await call.write(discovery_pb2.Asked(begins=discovery_pb2.Begins(names=names)))
            while True:
                told = await call.read()
                if told is grpc.aio.EOF:
                    break
                now_s = time.monotonic()
                for change in told.changes:
                    if change.is_whole:
                        self.names += 1
                    else:
                        self.read_at.append(now_s)
                self.woken.set()
            beating.cancel()
        except grpc.aio.AioRpcError as error:
            if self.lost < 3:
                print(error.code(), error.details(), file=sys.stderr)
        self.lost += 1

    async def _beat(self, call: Any) -> None:
        while True:
            await asyncio.sleep(15)
            await call.write(discovery_pb2.Asked(heartbeat=discovery_pb2.Heartbeat()))

    async def until(self, claim: Any) -> None:
        async with asyncio.timeout(LONGEST_S * 4):
            while not claim():
                self.woken.clear()
                await self.woken.wait()


async def measure(plane: ControlPlane, arguments: argparse.Namespace) -> dict[str, Any]:
    """The run."""
    async with grpc.aio.insecure_channel(plane.admin, options=[("grpc.default_authority", "localhost")]) as local:
        admin = admin_pb2_grpc.AdminStub(local)
        values: list[Any] = [Service(namespace="shop", name=f"s{number}") for number in range(arguments.services)]
        values += [endpoint(service, number) for service in range(arguments.services) for number in range(ENDPOINTS)]
        await apply(admin, values)
        member = await credentials(plane, admin)
        empty_mib = plane.rss_mib()
        watchers = Watchers(arguments.services)
        opened = [channel(plane, member) for _ in range(-(-arguments.proxies // arguments.streams))]
        started_s = time.monotonic()
        tasks = [
            asyncio.create_task(watchers.one(opened[number % len(opened)])) for number in range(arguments.proxies)
        ]
        await watchers.until(lambda: watchers.names >= arguments.proxies * arguments.services)
        joined_s = time.monotonic() - started_s
        latencies, waits = [], []
        # The first change warms what the rest finds warm.
        await change(admin, watchers, arguments.proxies, 0, 999)
        full_mib, before, cpu_s = plane.rss_mib(), plane.figures(), plane.cpu_s()
        for number in range(arguments.changes):
            wait_s, seen = await change(admin, watchers, arguments.proxies, number % arguments.services, number)
            waits.append(wait_s)
            latencies += seen
            await asyncio.sleep(arguments.pause_ms / 1_000)
        cpu_s, after, end_mib = plane.cpu_s() - cpu_s, plane.figures(), plane.rss_mib()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in opened:
            await one.close()
    updates = len(latencies)
    octets = after["discovery_bytes_total"] - before["discovery_bytes_total"]
    ordered = sorted(latencies)
    return {
        "proxies": arguments.proxies,
        "services_each": arguments.services,
        "connections": len(opened),
        "changes": arguments.changes,
        "updates": updates,
        "lost_streams": watchers.lost,
        "join_s": round(joined_s, 2),
        "latency_ms": {
            "p50": round(statistics.median(ordered) * 1e3, 2),
            "p99": round(ordered[int(updates * 0.99)] * 1e3, 2),
            "max": round(ordered[-1] * 1e3, 2),
        },
        "last_watcher_ms_p50": round(statistics.median(waits) * 1e3, 2),
        "cpu_us_per_change": round(cpu_s / arguments.changes * 1e6, 1),
        "cpu_us_per_update": round(cpu_s / updates * 1e6, 1),
        "bytes_per_update": round(octets / updates, 1),
        "refreshes_per_change": round((after["refreshes_total"] - before["refreshes_total"]) / arguments.changes, 2),
        "rss_mib": {"empty": round(empty_mib, 1), "watched": round(full_mib, 1), "after": round(end_mib, 1)},
    }


async def change(admin: Any, watchers: Watchers, proxies: int, service: int, number: int) -> tuple[float, list[float]]:
    """One endpoint gets another weight; how long until each watcher has read it."""
    watchers.read_at.clear()
    started_s = time.monotonic()
    await apply(admin, [endpoint(service, 0, weight=1 + number % 60_000)])
    await watchers.until(lambda: len(watchers.read_at) >= proxies)
    seen = [at_s - started_s for at_s in watchers.read_at]
    return max(seen), seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--proxies", type=int, default=100)
    parser.add_argument("--services", type=int, default=1_000, help="that each of them watches")
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--streams", type=int, default=100, help="on one connection")
    parser.add_argument("--pause-ms", type=float, default=20.0, help="between two changes")
    parser.add_argument("--core", type=int, help="the control plane's own")
    arguments = parser.parse_args()
    with running(arguments.core) as plane:
        result = asyncio.run(asyncio.wait_for(measure(plane, arguments), 900))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
