"""Client and server in their own namespaces, a sidecar beside each, neither aware of them: everything passes.

The first test of a pair without them would pass as well; that the sidecars carried it is read from their numbers.
"""

from __future__ import annotations

import contextlib
import re
import subprocess

import pytest

from tests.interception.namespaces import Machines, program
from tests.scenario.certificates import Authority
from tests.scenario.servers import eventually

SERVER, SERVER6 = Machines.SERVER, Machines.SERVER6
HTTP, H2C, GRPC, MAIL_KNOWN, MAIL_UNKNOWN, POSTGRES = 8080, 8081, 50051, 25, 2525, 5432
PAGE = "the page itself, in the clear"


@pytest.fixture(scope="module", params=[("nft", "mutual TLS"), ("iptables", "plaintext")], ids=lambda both: "-".join(both))
def mesh(request, machines, sidecar, folder):
    """Both sidecars, and how many connections each direction carried during one test."""
    tool, between = request.param
    if program(tool) is None:
        pytest.skip(f"{tool} is not here")
    change = _identities(folder("identities")) if between == "mutual TLS" else {}
    made = {role: sidecar(getattr(machines, role), tool=tool, change=change.get(role, lambda _: None))
            for role in ("client", "server")}  # fmt: skip
    yield made
    for one in made.values():
        one.stop()


def _identities(directory):
    """What makes the two sidecars know and require each other: a change of the configuration for each."""
    root = Authority("mesh")
    ids = {role: f"spiffe://mesh.test/ns/default/sa/{role}" for role in ("client", "server")}
    files = {role: root.leaf(name).write(directory, role) for role, name in ids.items()}
    ca = root.write(directory)
    for path in directory.iterdir():
        path.chmod(0o644)  # the proxy runs as another user

    def client(configuration):
        (outside,) = (one for one in configuration["clusters"] if one["name"] == "outbound")
        outside["tls"] = {"ca": ca, "expected_identity": [ids["server"]], **files["client"]}

    def server(configuration):
        for one in configuration["listeners"]:
            if one["name"].startswith("inbound"):
                one["tls"] = {"certificates": [files["server"]], "client_ca": ca, "client_auth": "required",
                              "allowed_clients": [ids["client"]]}  # fmt: skip

    return {"client": client, "server": server}


@pytest.fixture(scope="module")
def pages(folder):
    made = folder("pages")
    (made / "page").write_text(PAGE)
    return made


@pytest.fixture(scope="module")
def http(machines, application, pages):
    application(machines.server, HTTP, "python3", "-m", "http.server", "--bind", "::", str(HTTP), cwd=pages)


@pytest.fixture
def carried(mesh):
    """`carried(kind, n)`: both sidecars carried exactly n more of a kind (http or tcp) since the test began."""
    routes = [(mesh["client"], "outbound"), (mesh["server"], "inbound")]
    before = {(name, kind): one.requests(f"{name}-{kind}") for one, name in routes for kind in ("http", "tcp")}

    def check(kind: str, n: int) -> None:
        for one, name in routes:
            eventually(lambda one=one, name=name: one.requests(f"{name}-{kind}") - before[name, kind] == n)

    return check


def curl(machines, *words):
    return machines.client.run("curl", "-sS", "--max-time", "15", *words)


def test_http_passes(mesh, machines, http, carried):
    assert curl(machines, f"http://{SERVER}:{HTTP}/page") == PAGE
    carried("http", 1)


def test_http_passes_over_ipv6(mesh, machines, http, carried):
    assert curl(machines, f"http://[{SERVER6}]:{HTTP}/page") == PAGE
    carried("http", 1)


def test_several_requests_of_one_connection_pass(mesh, machines, http, carried):
    assert curl(machines, *[f"http://{SERVER}:{HTTP}/page"] * 3) == PAGE * 3
    carried("http", 3)


def test_h2c_passes(mesh, machines, application, pages, carried):
    application(machines.server, H2C, "nghttpd", "--no-tls", "--address=0.0.0.0", "-d", pages, str(H2C))
    if program("nghttp") is None:
        pytest.skip("nghttp is not here: tools/setup.sh test")
    assert machines.client.run("nghttp", f"http://{SERVER}:{H2C}/page") == PAGE
    carried("http", 1)


def test_a_grpc_call_passes(mesh, machines, peer, ask, carried):
    peer(machines.server, "grpc-server", GRPC)
    assert ask(machines.client, "grpc-client", SERVER, GRPC) == "you said hello\n"
    carried("http", 1)


@pytest.mark.parametrize("port", [MAIL_KNOWN, MAIL_UNKNOWN], ids=["on a known port", "on any port"])
def test_a_server_that_speaks_first_is_heard(port, mesh, machines, peer, ask, carried):
    if f":{port} " not in machines.server.run("ss", "-Hltn"):
        peer(machines.server, "mail", port)
    assert ask(machines.client, "mail-client", SERVER, port) == "spoken\n"
    carried("tcp", 1)


@pytest.fixture(scope="module")
def postgres(machines, application, folder):
    if program("initdb") is None:
        pytest.skip("initdb is not here: tools/setup.sh test")
    home, nobody = folder("postgres"), 65534
    data = home / "data"
    machines.server.run("initdb", "-D", data, "-A", "trust", "-U", "app", "-N", uid=nobody, cwd=home, timeout_s=60)
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.77.0.0/24 trust\n")
    application(machines.server, POSTGRES, "postgres", "-D", data, "-h", "0.0.0.0", "-k", home, uid=nobody, cwd=home)

    def answers() -> bool:
        with contextlib.suppress(AssertionError):  # it listens before it lets anybody in
            machines.server.run("pg_isready", "-q", "-h", home, uid=nobody, cwd=home)
            return True
        return False

    eventually(answers, 60)


def test_postgres_passes(mesh, machines, postgres, carried):
    if program("psql") is None:
        pytest.skip("psql is not here: tools/setup.sh test")
    said = machines.client.run("psql", "-h", SERVER, "-U", "app", "-d", "postgres", "-Atc",
                               "select 6 * 7, inet_server_port()", uid=65534)  # fmt: skip
    assert said == "42|5432\n"
    carried("tcp", 1)


@pytest.fixture
def capture(machines, folder):
    """What passes between the machines while the test runs: a function that ends the capture and returns its file."""
    if program("tcpdump") is None:
        pytest.skip("tcpdump is not here: tools/setup.sh test")
    home = folder("capture")
    file, log = home / "packets", home / "log"
    running = machines.between.start("tcpdump", "-Z", "root", "-i", "bridge", "-U", "--immediate-mode", "-s", "0",
                                     "-w", file, "tcp", log=log)  # fmt: skip
    eventually(lambda: b"listening on" in log.read_bytes())

    def ended() -> Path:
        running.terminate()
        running.wait(10)
        return file

    return ended


def test_on_the_way_a_connection_has_the_addresses_its_client_meant(mesh, machines, http, capture):
    curl(machines, f"http://{SERVER}:{HTTP}/page")
    shown = subprocess.run([str(program("tcpdump")), "-nr", str(capture())], capture_output=True, text=True,
                           check=True).stdout  # fmt: skip
    assert f"IP {Machines.CLIENT}." in shown and f"> {SERVER}.{HTTP}: " in shown
    assert not re.search(r"\.(4140|4143)\b", shown)


def test_nothing_readable_passes_between_the_sidecars(request, mesh, machines, http, capture):
    if "plaintext" in request.node.callspec.id:
        pytest.skip("these do not encrypt")
    assert curl(machines, f"http://{SERVER}:{HTTP}/page") == PAGE
    seen = capture().read_bytes()
    assert PAGE.encode() not in seen
    assert b"\x17\x03\x03" in seen  # a TLS record of application data; the handshake may be of a pooled connection
