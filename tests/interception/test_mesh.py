"""Two machines with a sidecar each, told by a control plane; the applications know of neither.

What is of the mesh goes by mutual TLS and by name, what is not goes where it was going.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from meshcore.cli.client import AdminClient
from tests.agent.mesh import TRUST_DOMAIN, Plane, until
from tests.interception.namespaces import PROXY_UID, READS_ALL, ROOT, Machines, Namespace

PLANE = "10.77.0.9"
WEB, ECHO, OUTSIDE = 8080, 7000, 9090
CLIENT = f"spiffe://{TRUST_DOMAIN}/ns/shop/sa/client"
ECHOES = (
    "import socketserver\n"
    "class Echo(socketserver.BaseRequestHandler):\n"
    "    def handle(self):\n"
    "        while data := self.request.recv(100): self.request.sendall(data.upper())\n"
    "socketserver.ThreadingTCPServer.allow_reuse_address = True\n"
    f"socketserver.ThreadingTCPServer(('0.0.0.0', {ECHO}), Echo).serve_forever()\n"
)


def start_sidecar(machine: Namespace, plane: Plane, folder: Path, account: str) -> Path:
    """A sidecar that intercepts; its admin socket."""
    token, log, state = plane.token(folder, account), folder / "log", folder / "state"
    bundle = folder / "root.pem"
    bundle.write_bytes(plane.bundle.read_bytes())
    state.mkdir(mode=0o700)
    for path in (state, token):
        os.chown(path, PROXY_UID, PROXY_UID)
    process = machine.start(
        sys.executable, "-m", "meshcore", "sidecar", "--control-plane", plane.address, "--trust-bundle", bundle, "--join-token", token,
        "--workload", f"shop/{account}", "--state-dir", state, "--admin", f"unix:{state}/admin", "--interception", "redirect", "-v",
        log=log, uid=PROXY_UID, capabilities=READS_ALL,
    )  # fmt: skip
    machine.until_listening(4143, process, log)
    until(lambda: "connected to the control plane" in log.read_text(), f"{account} is connected")
    machine.run(sys.executable, "-m", "meshcore", "intercept", "--apply", cwd=ROOT)
    return state / "admin"


@pytest.fixture(scope="module")
def mesh(machines, folder, application):
    server, client = machines.server, machines.client
    machines.between.ip("addr", "add", f"{PLANE}/24", "dev", "bridge")
    base = folder("plane")
    plane = Plane(base, address=f"{PLANE}:8086", within=("ip", "netns", "exec", machines.between.name))
    try:
        plane.service("web")
        plane.service("echo", port=ECHO)
        plane.endpoint("web", "web-1", WEB, account="web", address=Machines.SERVER)
        plane.endpoint("echo", "echo-1", ECHO, account="web", address=Machines.SERVER, protocol="tcp")
        for port, name in ((WEB, "web-1"), (OUTSIDE, "outside")):
            application(server, port, sys.executable, "tests/agent/app_program.py", str(port), name, "0.0.0.0")
        application(server, ECHO, sys.executable, "-c", ECHOES)
        admin = start_sidecar(server, plane, folder("server"), "web")
        start_sidecar(client, plane, folder("client"), "client")
        yield AdminClient(f"unix:{admin}")
        for machine in (client, server):
            machine.run(sys.executable, "-m", "meshcore", "intercept", "--undo", cwd=ROOT)
    finally:
        plane.stop()


def handshakes(server: AdminClient) -> int:
    """TLS that the server's sidecar has begun."""
    return sum(row["tls_handshakes"] for row in server.get_json("/stats")["listeners"])


def get(machines, url: str, *words: str) -> str:
    return machines.client.run("curl", "-sS", "-m", "20", "--noproxy", "*", *words, url)


def test_a_name_of_the_mesh_is_found_and_its_caller_is_known_though_nobody_asked_for_tls(mesh, machines):
    # No resolver here: the address is any, the name is what counts.
    answer = get(machines, f"http://{Machines.SERVER}:{WEB}/x", "-H", "host: web.shop")
    assert answer == f"web-1 GET /x by {CLIENT}\n"


def test_the_address_of_a_member_is_as_good_as_its_name(mesh, machines):
    assert get(machines, f"http://{Machines.SERVER}:{WEB}/x") == f"web-1 GET /x by {CLIENT}\n"


def test_what_is_not_of_the_mesh_goes_where_it_was_going(mesh, machines):
    assert get(machines, f"http://{Machines.SERVER}:{OUTSIDE}/x") == "outside GET /x by nobody\n"
    assert get(machines, f"http://{Machines.SERVER}:{OUTSIDE}/x", "-H", "host: example.org") == "outside GET /x by nobody\n"


def test_any_other_protocol_is_carried_by_mutual_tls_too(mesh, machines):
    code = (
        "import socket\n"
        f"peer = socket.create_connection(('{Machines.SERVER}', {ECHO}), 20)\n"
        "peer.sendall(b'\\x00\\x01hello'); print(peer.recv(100))\n"
    )
    before = handshakes(mesh)
    assert "HELLO" in machines.client.run(sys.executable, "-c", code)
    assert handshakes(mesh) == before + 1
