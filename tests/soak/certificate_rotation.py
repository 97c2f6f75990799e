"""Mutual TLS on both sides of a proxy under load while every certificate of it is replaced again and again: nothing fails.

    python -m tests.soak.certificate_rotation --seconds 60 --every 1

Clients are of both sorts: those that make a connection, use it three times and come back with its session, and those that
keep one connection all along. Certificates come as files that are replaced, then from memory, in turns.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import meshcore
from tests.scenario.clients import request_bytes
from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S, RawServer
from tests.scenario.tls import CLIENT_ID, SERVER_NAME, Pki, over_tls

REQUEST = request_bytes("POST", "/", body=b"x" * 100)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="between two rotations")
    parser.add_argument("--clients", type=int, default=4)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        load = rotate(Path(folder), seconds=asked.seconds, every_s=asked.every, clients=asked.clients)
    print(
        f"{load.served} requests on {load.connections} connections ({load.resumed} resumed) during {load.rotations} rotations: "
        f"{len(load.failures)} failed"
    )
    for line in load.failures[:10]:
        print(f"TROUBLE: {line}")
    return bool(load.failures or not load.served)


@dataclass
class Load:
    served: int = 0
    connections: int = 0
    resumed: int = 0
    rotations: int = 0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, **by: int) -> None:
        with self._lock:
            for name, n in by.items():
                setattr(self, name, getattr(self, name) + n)


def rotate(folder: Path, *, seconds: float, every_s: float, clients: int = 4) -> Load:
    """Load of so many clients of each sort for so long. At least two rotations are made, however short that is."""
    pki, load, ending = Pki(folder), Load(), threading.Event()
    server = RawServer(over_tls(pki.server_context(clients=True)))
    settings = config(to=server, listeners=pki.mutual(), cluster=pki.upstream(**pki.client_files), workers=2)
    context = pki.client_context(pki.client)
    try:
        with meshcore.Proxy(settings) as running:
            threads = [
                threading.Thread(target=visit, args=(running, context, keeps, load, ending))
                for keeps in [False] * clients + [True] * clients
            ]
            for thread in threads:
                thread.start()
            end = time.monotonic() + seconds
            while load.rotations < 2 or time.monotonic() < end:
                by_file = load.rotations % 2 == 0
                _replace(running, pki, by_file)
                load.count(rotations=1)
                time.sleep(every_s)
            ending.set()
            for thread in threads:
                thread.join(PATIENCE_S)
            load.failures += [f"{reason}: {n}" for reason, n in running.stats().reasons.items() if n]
    finally:
        ending.set()
        server.stop()
    return load


def visit(running: meshcore.Proxy, context: ssl.SSLContext, keeps: bool, load: Load, ending: threading.Event) -> None:
    """Ask until the end; on one connection, or on one after another."""
    session = None
    while not ending.is_set():
        try:
            plain = socket.create_connection(running.addresses["web"], PATIENCE_S)
            with context.wrap_socket(plain, server_hostname=SERVER_NAME, session=session) as sock:
                load.count(connections=1, resumed=int(bool(sock.session_reused)))
                asked = 0
                while not ending.is_set() and (keeps or asked < 3):
                    sock.sendall(REQUEST)
                    answer = sock.recv(65536)
                    if not answer.startswith(b"HTTP/1.1 200"):
                        raise AssertionError(f"answered {answer[:200]!r}")
                    asked += 1
                    load.count(served=1)
                    if keeps:
                        time.sleep(0.005)
                session = sock.session
                if not keeps:
                    sock.unwrap()  # a session whose connection was only dropped would not be resumed
        except (OSError, AssertionError) as error:
            load.failures.append(repr(error))


def _replace(running: meshcore.Proxy, pki: Pki, by_file: bool) -> None:
    owners = [("web", False, pki.root.leaf(SERVER_NAME), "server"), ("backend", True, pki.root.leaf(CLIENT_ID), "client")]
    for owner, is_cluster, leaf, name in owners:
        if not by_file:
            running.set_certificate(owner, leaf.cert_pem, leaf.key_pem, cluster=is_cluster)
            continue
        # As rotation tools do: the new files are renamed over the old ones.
        files = leaf.write(pki.folder, "next")
        os.replace(files["key"], pki.folder / f"{name}.key")
        os.replace(files["cert"], pki.folder / f"{name}.pem")
        running.set_certificate(owner, None, None, cluster=is_cluster)
    if by_file:
        running.reload()


if __name__ == "__main__":
    sys.exit(main())
