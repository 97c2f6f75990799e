"""How a sidecar gets its certificate, and what it does when it gets none."""

import contextlib
import os
import signal
import socket
import ssl
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from controlplane.home import AUTHORITY
from controlplane.identity import authority_files
from controlplane.spiffe import SpiffeId
from meshcore.agent.certificate import Request, save
from meshcore.agent.state_directory import StateDirectory
from tests.agent.mesh import Steady, until


def refused(mesh, plane, account="web", **options) -> str:
    """What a sidecar said that ended because it may not join."""
    sidecar = mesh.sidecar(plane, account, joins=False, ready=False, **options)
    assert sidecar.wait() == 1, sidecar.said()
    return sidecar.said()


def test_a_token_works_once(mesh):
    plane = mesh.plane()
    token = plane.token(mesh.folder, "web")
    first = mesh.sidecar(plane, "web", joins=False, token=token, app_port=1)
    first.stop()
    said = refused(mesh, plane, token=token, name="again")
    assert "refuses to certify spiffe://mesh.test/ns/shop/sa/web" in said and "Traceback" not in said


def test_a_token_for_somebody_else_an_unknown_one_and_none_are_refused(mesh):
    plane = mesh.plane()
    somebody = plane.token(mesh.folder, "db")
    assert "refuses to certify" in refused(mesh, plane, token=somebody, name="one")
    unknown = mesh.folder / "unknown"
    unknown.write_text("mesh1.0123456789abcdef." + "A" * 43)
    said = refused(mesh, plane, token=unknown, name="two")
    assert "refuses to certify" in said and "A" * 20 not in said, "a token is no text for a log"
    assert "no --join-token to ask for one" in refused(mesh, plane, name="three")
    assert "No such file" in refused(mesh, plane, token=mesh.folder / "nowhere", name="four")


def test_a_restarted_sidecar_needs_no_second_token(mesh):
    plane = mesh.plane()
    sidecar = mesh.sidecar(plane, "web", app_port=1)
    sidecar.stop()
    sidecar.start()
    assert sidecar.said().count("certificate of spiffe://") == 1, "the second start used what lay on disk"


def test_a_control_plane_of_another_mesh_gets_no_token(mesh):
    plane, other = mesh.plane(), mesh.plane()
    token = plane.token(mesh.folder, "web")
    lost = mesh.sidecar(plane, "web", "--trust-bundle", str(other.bundle), joins=False, token=token, ready=False, name="lost")
    until(lambda: "no certificate yet" in lost.said(), "it says that it gets none")
    lost.kill()
    # The token was not even shown.
    mesh.sidecar(plane, "web", joins=False, token=token, app_port=1, name="found")


def test_a_sidecar_waits_for_a_control_plane_that_is_not_there_yet(mesh):
    plane = mesh.plane()
    token = plane.token(mesh.folder, "web")
    plane.kill()
    early = mesh.sidecar(plane, "web", joins=False, token=token, app_port=1, ready=False)
    until(lambda: "no certificate yet" in early.said(), "it says that it waits")
    plane.start()
    early.until_ready()


def test_a_second_address_is_tried_when_the_first_is_dead(mesh):
    plane = mesh.plane()
    sidecar = mesh.sidecar(plane, "web", "--control-plane", f"127.0.0.1:1,{plane.address}", app_port=1)
    assert "certificate of" in sidecar.said()


def saved_pair(mesh, name: str, *, age_s: float, lifetime_s: int = 300) -> None:
    """A certificate below the control plane's own authority, as if it had been issued some time ago."""
    now_s = time.time() - age_s
    authority = authority_files.load(mesh.planes[0].data / "authority", AUTHORITY, "mesh.test", time.time())
    request = Request("spiffe://mesh.test/ns/shop/sa/web")
    key = x509.load_der_x509_csr(request.der).public_key()
    leaf = authority.issue(key, SpiffeId.of("mesh.test", "shop", "web"), now_s, lifetime_s)
    certificate = request.accept([one.public_bytes(Encoding.DER) for one in leaf.chain], [authority.root], now_s)
    save(certificate, StateDirectory(mesh.folder / f"state-{name}"))


def test_an_expired_certificate_on_disk_is_replaced_by_token_and_without_one_told(mesh):
    plane = mesh.plane(root_age_s=86_400)
    saved_pair(mesh, "late", age_s=4_000)
    saved_pair(mesh, "lost", age_s=4_000)
    mesh.sidecar(plane, "web", app_port=1, name="late")
    assert "no --join-token" in refused(mesh, plane, name="lost")


def test_a_certificate_past_its_time_to_renew_is_renewed_with_itself(mesh):
    plane = mesh.plane(root_age_s=86_400)
    saved_pair(mesh, "due", age_s=200)
    due = mesh.sidecar(plane, "web", joins=False, app_port=1, name="due")
    until(lambda: "certificate of spiffe://" in due.said(), "a new certificate, without a token")


def test_a_state_directory_that_others_can_read_is_refused(mesh):
    plane = mesh.plane()
    state = mesh.folder / "state-web"
    state.mkdir()
    os.chmod(state, 0o755)
    sidecar = mesh.sidecar(plane, "web", app_port=1, ready=False)
    assert sidecar.wait() == 78 and "chmod 700" in sidecar.said()


def test_no_request_fails_while_certificates_are_renewed(mesh):
    plane = mesh.plane()
    plane.service("web")
    web, _ = mesh.served(plane, "web", "web-1", "--require-mtls")
    client = mesh.sidecar(plane, "client")
    assert client.get("http://web/")[0] == 200
    load = Steady(client, "http://web/")
    try:
        for sidecar in (web, client, web, client):
            before = sidecar.said().count("certificate of spiffe://")
            sidecar.signal(signal.SIGHUP)
            until(lambda s=sidecar, n=before: s.said().count("certificate of spiffe://") > n, "it has a new certificate")
            time.sleep(0.2)
    finally:
        load.stop()
    assert not load.failures, load.failures[:5]
    assert load.requests > 50


def test_a_member_whose_certificate_expired_is_not_spoken_to(mesh):
    """Its sidecar would have renewed it: here a server of another make shows the old one."""
    plane = mesh.plane(root_age_s=86_400)
    plane.service("web")
    saved_pair(mesh, "old", age_s=4_000)
    state = mesh.folder / "state-old"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(state / "chain.pem", state / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    context.wrap_socket(connection, server_side=True).recv(1)

        threading.Thread(target=serve, daemon=True).start()
        plane.endpoint("web", "web-1", server.getsockname()[1], account="web")
        client = mesh.sidecar(plane, "client")
        status, _, headers = client.get("http://web/")
        server.shutdown(socket.SHUT_RDWR)
    assert (status, headers["x-mesh-reason"]) == (502, "tls_upstream_expired")


def test_both_roots_are_trusted_while_the_mesh_changes_its_root(mesh):
    plane = mesh.plane()
    plane.service("web")
    web, _ = mesh.served(plane, "web", "web-1")
    client = mesh.sidecar(plane, "client")
    assert client.get("http://web/")[0] == 200
    plane.do("rotate")
    for sidecar in (web, client):
        until(lambda s=sidecar: (s.state / "roots.pem").read_text().count("BEGIN") == 2, "both roots are on its disk")
    assert client.get("http://web/")[0] == 200
    client.stop()
    client.start()
    assert client.get("http://web/")[0] == 200
