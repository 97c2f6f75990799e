"""Certificates, keys and bundles change while traffic runs: new handshakes see the new ones, open connections nothing."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading

import pytest

from tests.scenario.certificates import Authority, pem
from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S, eventually
from tests.scenario.tls import CLIENT_ID, SERVER_NAME, pki, plain_socket, tls_client  # noqa: F401 (fixtures)

import meshcore

pytestmark = pytest.mark.usefixtures("only_meshcore")


def serial_shown(running, pki) -> int:  # noqa: F811
    from cryptography import x509

    context = pki.client_context()
    with context.wrap_socket(plain_socket(running), server_hostname=SERVER_NAME) as sock:
        return x509.load_der_x509_certificate(sock.getpeercert(binary_form=True)).serial_number


def replace(pki, leaf, name="server") -> None:  # noqa: F811
    """As rotation tools do: the new files are renamed over the old ones."""
    files = leaf.write(pki.folder, "next")
    os.replace(files["key"], pki.folder / f"{name}.key")
    os.replace(files["cert"], pki.folder / f"{name}.pem")


def test_a_reload_reads_the_files_again_and_touches_no_connection(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    before = tls_client(running)
    assert before.get().status == 200
    fresh = pki.root.leaf(SERVER_NAME)
    replace(pki, fresh)
    changes = running.reload()
    assert changes.certificates_changed == ("listener web",) and "certificates of listener web" in str(changes)
    assert serial_shown(running, pki) == fresh.certificate.serial_number
    assert before.get().status == 200
    assert not running.reload()


def test_a_key_of_another_certificate_changes_nothing(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    pki.file("server.key", pki.client.key_pem)
    with pytest.raises(meshcore.ConfigError, match="listener 'web': tls: certificates.0.: key is not the one of cert"):
        running.reload()
    assert serial_shown(running, pki) == pki.server.certificate.serial_number


@pytest.mark.parametrize(
    "spoil, told",
    [
        (lambda p: (p.folder / "server.pem").unlink(), "cannot read .*server.pem: No such file"),
        (lambda p: p.file("server.pem", b"nothing"), "cert holds no usable PEM certificate chain"),
        (lambda p: p.file("server.pem", p.server.cert_pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n"), "cert holds no usable"),
        (lambda p: p.file("server.key", b"nothing"), "key holds no readable PEM private key"),
        (lambda p: p.file("ca.pem", b""), "the bundle holds no usable PEM certificate"),
        (lambda p: p.file("ca.pem", pem(p.root.certificate) + b"-----BEGIN CERTIFICATE-----\n!\n"), "the bundle holds no usable"),
        (lambda p: p.file("crl", b"x"), "crl holds no usable PEM revocation list"),
    ],
)
def test_files_that_cannot_be_used_are_named_and_nothing_starts(spoil, told, pki):  # noqa: F811
    crl = pki.file("crl", pki.root.crl())
    plan = config(listeners=pki.mutual(crl=crl), to="127.0.0.1:1")
    spoil(pki)
    with pytest.raises(meshcore.ConfigError, match=told):
        meshcore.Proxy(plan).start()


def test_python_hands_over_a_certificate_and_takes_it_back(proxy, raw_server, pki):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener())
    fresh = pki.root.leaf(SERVER_NAME)
    running.set_certificate("web", fresh.cert_pem, fresh.key_pem)
    assert serial_shown(running, pki) == fresh.certificate.serial_number
    running.reload()
    assert serial_shown(running, pki) == fresh.certificate.serial_number
    with pytest.raises(meshcore.ConfigError, match="key is not the one of cert"):
        running.set_certificate("web", fresh.cert_pem, pki.client.key_pem)
    assert serial_shown(running, pki) == fresh.certificate.serial_number
    running.set_certificate("web", None, None)
    assert serial_shown(running, pki) == pki.server.certificate.serial_number
    with pytest.raises(meshcore.ConfigError, match="no listener 'other' with a tls section"):
        running.set_certificate("other", fresh.cert_pem, fresh.key_pem)


def test_python_changes_whom_to_trust(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.mutual())
    second = Authority("second")
    inside = tls_client(running, pki.client)
    assert inside.get().status == 200
    running.set_trust_bundle("web", pem(second.certificate))
    assert tls_client(running, second.leaf(CLIENT_ID)).get().status == 200
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        tls_client(running, pki.client).get()
    assert inside.get().status == 200
    eventually(lambda: running.stats().reasons == {"tls_unknown_ca": 1})


def test_the_program_reads_certificates_again_when_their_files_change(pki, raw_server, tmp_path):  # noqa: F811
    import json
    import sys

    server = raw_server()
    file = tmp_path / "mesh.yaml"
    file.write_text(json.dumps(config(listeners=pki.listener(), to=server)))
    program = subprocess.Popen(
        [sys.executable, "-m", "meshcore", "run", "-c", str(file), "--admin", f"unix:{tmp_path}/admin"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert program.stdout
        seen = []
        threading.Thread(target=lambda: seen.extend(iter(program.stdout.readline, "")), daemon=True).start()
        eventually(lambda: any("127.0.0.1:" in line for line in seen))
        fresh = pki.root.leaf(SERVER_NAME)
        replace(pki, fresh)
        eventually(lambda: any("certificates of listener web" in line for line in seen), 20)
    finally:
        program.terminate()
        program.wait(PATIENCE_S)
