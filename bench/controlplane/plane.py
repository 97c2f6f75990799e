"""A control plane in a process of its own, and what an instrument writes into it. Measures nothing by itself.

It runs as `meshctl control-plane run` starts it: SQLite on disk, its door with mTLS, its metrics page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.model import Endpoint, Service, encode
from meshcore.api import admin_pb2, admin_pb2_grpc, identity_pb2, identity_pb2_grpc

DOMAIN = "bench.example.org"
NAME = "control-plane"
ENDPOINTS = 5  # of each service
VALUES = 100  # of one call of Admin.Apply


class Plane:
    """One, and its figures."""

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
        local = [("grpc.default_authority", "localhost")]
        self._operators = grpc.insecure_channel(f"unix:{folder}/admin.sock", options=local)
        self.admin = admin_pb2_grpc.AdminStub(self._operators)

    def close(self) -> None:
        self._operators.close()
        self.process.kill()
        self.process.wait()

    def cpu_s(self) -> float:
        """User and system time so far, of all its threads."""
        return time.clock_gettime(~self.process.pid << 3 | 2)  # CPUCLOCK_SCHED of that process, in the kernel's words

    def rss_mib(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    def figures(self) -> dict[str, float]:
        """Its metrics."""
        with urllib.request.urlopen(self._metrics, timeout=20) as page:
            rows = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
        return {name.removeprefix("meshcore_control_plane_"): float(value) for name, value in rows}

    def apply(self, values: Sequence[Any]) -> None:
        """Writes values; returns when they are on disk."""
        for first in range(0, len(values), VALUES):
            part = values[first : first + VALUES]
            entries = [admin_pb2.Entry(kind=value.kind, key=value.key, json=encode(value)) for value in part]
            self.admin.Apply(admin_pb2.Values(entries=entries), timeout=60)

    def fill(self, services: int) -> None:
        """So many services, each with its endpoints."""
        values: list[Any] = [Service(namespace="shop", name=f"s{number}") for number in range(services)]
        values += [endpoint(service, number) for service in range(services) for number in range(ENDPOINTS)]
        self.apply(values)

    def member(self) -> dict[str, str]:
        """Files of a member's certificate, made with a join token: roots, chain and key, as paths."""
        roots = self.folder / "root.pem"
        made = self.admin.MakeJoinToken(admin_pb2.TokenWish(namespace="shop", account="bench"), timeout=20)
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        options = [("grpc.ssl_target_name_override", NAME)]
        with grpc.secure_channel(
            self.address, grpc.ssl_channel_credentials(roots.read_bytes()), options=options
        ) as newcomer:
            answer = identity_pb2_grpc.IdentityStub(newcomer).Certify(
                identity_pb2.CertifyRequest(
                    token=made.token.encode(),
                    certificate_signing_request=request.public_bytes(serialization.Encoding.DER),
                ),
                timeout=20,
            )
        pem = serialization.Encoding.PEM
        files = {"roots": roots, "chain": self.folder / "member.pem", "key": self.folder / "member.key"}
        files["chain"].write_bytes(x509.load_der_x509_certificate(answer.leaf_certificate).public_bytes(pem))
        words = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        files["key"].write_bytes(key.private_bytes(*words))
        return {name: str(path) for name, path in files.items()}


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


@contextmanager
def running(core: int | None = None) -> Iterator[Plane]:
    """Starts one, and ends it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        plane = Plane(Path(folder) / "plane", 20_000 + os.getpid() % 10_000, core)
        try:
            yield plane
        finally:
            plane.close()
