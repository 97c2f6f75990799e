"""OpenSSL as the judge of certificates: its command, and TLS handshakes of Python's ssl module, in memory."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from controlplane.identity.certificates import pem_of


def verify(folder: Path, chain, roots_pem: bytes, *, purpose="sslclient", at_s: float | None = None) -> str:
    """ "OK", or what `openssl verify` complained about."""
    (folder / "roots.pem").write_bytes(roots_pem)
    (folder / "leaf.pem").write_bytes(pem_of(chain[:1]))
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        purpose,
        "-CAfile",
        str(folder / "roots.pem"),
        "-no-CApath",
    ]
    if len(chain) > 1:
        (folder / "between.pem").write_bytes(pem_of(chain[1:]))
        command += ["-untrusted", str(folder / "between.pem")]
    if at_s is not None:
        command += ["-attime", str(int(at_s))]
    done = subprocess.run([*command, str(folder / "leaf.pem")], capture_output=True, text=True, timeout=20)
    return "OK" if done.returncode == 0 else done.stderr


def text_of(certificate) -> str:
    """What `openssl x509 -text` says."""
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-text"], input=pem_of([certificate]), capture_output=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


class Party:
    """One side of a handshake: its key and chain, and whom it trusts."""

    def __init__(self, folder: Path, key, chain, bundle_pem: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        key.save(folder / "key.pem")
        (folder / "chain.pem").write_bytes(pem_of(chain))
        self._folder, self._bundle = folder, bundle_pem

    def context(self, side) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._bundle)
        context.load_cert_chain(self._folder / "chain.pem", self._folder / "key.pem")
        return context


def handshake(client: Party, server: Party) -> tuple[str, str]:
    """The URI that each side saw in the other's certificate; ssl.SSLError when one refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_client, to_server, server_side=False)
    two = server.context(ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True)
    waiting = [one, two]
    for _ in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            # TLS 1.3 clients are done before the server has judged them: one byte each way shows it.
            for sender, receiver in ((one, two), (two, one)):
                sender.write(b"x")
                assert receiver.read(1) == b"x"
            return uri_of(one), uri_of(two)
    raise AssertionError("the handshake does not end")


def uri_of(side: ssl.SSLObject) -> str:
    return next(value for kind, value in side.getpeercert()["subjectAltName"] if kind == "URI")
