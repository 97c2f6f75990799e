"""Linkerd 1.x files are served: the same requests go the same ways."""

import re
import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest

from meshcore import Proxy
from meshcore.binder.binder import Binder
from meshcore.linkerd import read_text
from meshcore.linkerd.serving import configuration, rules, tls_contexts
from tests.binder.test_binder import inet, naming
from tests.scenario.clients import RawClient
from tests.scenario.proxies import free_port
from tests.scenario.servers import eventually
from tests.scenario.tls import over_tls, pki  # noqa: F401 (fixture)


class Program:
    """`meshproxy run --linkerd` on a file, with the ports of its servers."""

    def __init__(self, folder, text):
        self.file = folder / "l5d.yaml"
        self.file.write_text(dedent(text))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshcore", "run", "--linkerd", str(self.file)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("reload:"):
                return
        raise AssertionError("it did not start:\n" + self.process.stderr.read())

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=20)
        return errors


@pytest.fixture
def program(tmp_path):
    """`program(text)`: the file, served by the program itself."""
    started = []

    def start(text):
        started.append(Program(tmp_path, text))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.stop()


class Served:
    """The same without a process of its own."""

    def __init__(self, text):
        found = read_text(dedent(text))

        async def make():
            return await rules(found, "l5d.yaml")

        self.proxy = Proxy(configuration(found.file))
        for one in tls_contexts(found.file):
            self.proxy.set_tls_context(one.name, ca=one.ca, cert=one.cert, key=one.key)
        self.binder = Binder(self.proxy)
        self.binder.start(make)
        self.proxy.start()

    def stop(self):
        self.proxy.stop()
        self.binder.stop()


@pytest.fixture
def linkerd(tmp_path, monkeypatch):
    """`linkerd(text)`: the file, served from the test's folder."""
    monkeypatch.chdir(tmp_path)
    started = []

    def start(text):
        started.append(Served(text))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def ports():
    return free_port(), free_port(), free_port()


def ask(port, host="web", target="/", headers=()):
    client = RawClient(("127.0.0.1", port))
    answer = client.get(target, host=host, headers=headers)
    client.close()
    return answer


def test_a_file_with_the_filesystem_namer_is_served_and_follows_it(raw_server, linkerd, ports, tmp_path):
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    disco = tmp_path / "disco"
    disco.mkdir()
    (disco / "web").write_text(f"127.0.0.1 {old.port}\n")
    linkerd(f"""\
        namers:
        - kind: io.l5d.fs
          rootDir: disco
        routers:
        - protocol: http
          dtab: |
            /svc => /#/io.l5d.fs ;
          servers:
          - port: {ports[0]}
            socketOptions: {{noDelay: true}}
        """)
    assert ask(ports[0]).body == b"old"
    assert ask(ports[0], "nobody").status == 502
    (disco / "web.next").write_text(f"127.0.0.1 {new.port}\n")
    (disco / "web.next").rename(disco / "web")
    eventually(lambda: ask(ports[0]).body == b"new")


def test_two_routers_make_a_node_of_a_mesh(raw_server, linkerd, ports, tmp_path):
    """Outgoing requests go to the incoming router of the node, which passes them to its own application."""
    server = raw_server(naming("web"))
    disco = tmp_path / "disco"
    disco.mkdir()
    (disco / "web").write_text(f"127.0.0.1 {server.port}\n192.0.2.1 {server.port}\n")
    linkerd(f"""\
        admin: {{port: {ports[2]}}}
        namers: [{{kind: io.l5d.fs, rootDir: disco}}]
        routers:
        - protocol: http
          label: outgoing
          dtab: /svc => /#/io.l5d.fs
          interpreter:
            transformers:
            - {{kind: io.l5d.specificHost, host: 127.0.0.1}}
            - {{kind: io.l5d.port, port: {ports[1]}}}
          servers: [{{port: {ports[0]}}}]
        - protocol: http
          label: incoming
          dtab: /svc => /#/io.l5d.fs
          interpreter:
            transformers: [{{kind: io.l5d.localhost}}]
          servers: [{{port: {ports[1]}, ip: 127.0.0.1, clearContext: true}}]
        """)
    assert ask(ports[0]).body == b"web"
    head = server.requests[0]
    assert head.get("l5d-dst-client") == "/%/io.l5d.localhost/#/io.l5d.fs/web"
    assert len(head.all("via")) == 2


def test_names_of_paths_are_consumed_and_policies_hold_by_name(raw_server, linkerd, ports):
    server = raw_server(naming("web"))

    def silent(connection):
        connection.read_request()
        connection.wait_closed()

    hanging = raw_server(silent)
    linkerd(f"""\
        admin: {{port: {ports[1]}}}
        routers:
        - protocol: http
          identifier: {{kind: io.l5d.path, segments: 1, consume: true}}
          dtab: /svc/web => {inet(server)} ; /svc/slow => {inet(hanging)}
          service:
            kind: io.l5d.static
            configs:
            - {{prefix: /svc/slow, totalTimeoutMs: 200}}
          servers: [{{port: {ports[0]}}}]
        """)
    assert ask(ports[0], target="/web/users?id=7").body == b"web"
    assert server.requests[0].target == b"/users?id=7"
    answer = ask(ports[0], target="/slow/x")
    assert (answer.status, answer.get("x-mesh-reason")) == (504, "total_timeout")
    assert ask(ports[0], target="/").status == 400


def test_an_edit_of_the_file_is_applied_and_a_mistake_in_it_is_not(raw_server, program, ports):
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    text = """\
        admin: {{port: {admin}}}
        routers:
        - protocol: http
          dtab: /svc/web => {to}
          servers: [{{port: {port}}}]
        """
    running = program(text.format(admin=ports[1], port=ports[0], to=inet(old)))
    assert ask(ports[0]).body == b"old"
    running.file.write_text(dedent(text.format(admin=ports[1], port=ports[0], to="not a tree")))
    running.process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert ask(ports[0]).body == b"old"
    running.file.write_text(dedent(text.format(admin=ports[1], port=ports[0], to=inet(new))))
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: ask(ports[0]).body == b"new")
    assert "'dtab' of router 'http'" in running.stop()


def test_what_has_no_meaning_is_told_and_a_namer_that_nobody_knows_is_refused(program, ports, tmp_path):
    with pytest.raises(AssertionError) as caught:
        program(f"""\
            admin: {{port: {ports[1]}}}
            namers:
            - kind: io.l5d.fz
              rootDir: disco
            routers:
            - protocol: http
              servers: [{{port: {ports[0]}, announce: [x]}}]
            """)
    told = str(caught.value)
    assert re.search(r"l5d.yaml:7:\d+: 'announce' of server of router 'http' 1 has no meaning here", told)
    assert "l5d.yaml:3:9: namer kind 'io.l5d.fz' is unknown; did you mean 'io.l5d.fs'?" in told


def test_a_file_is_checked_without_being_served(tmp_path):
    file = tmp_path / "l5d.yaml"
    text = "namers: [{kind: io.l5d.fs, rootDir: disco}]\nrouters: [{protocol: http, servers: [{port: 0, engine: {kind: netty4}}]}]\n"
    command = [sys.executable, "-m", "meshcore", "check", "--linkerd", str(file)]
    file.write_text(text)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "'engine' of server of router 'http' 1 has no meaning here" in done.stderr and "[ok]" in done.stdout
    file.write_text(text.replace("rootDir", "rootDirectory"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "unknown key 'rootDirectory'; did you mean 'rootDir'?" in done.stderr


def test_run_wants_one_file(tmp_path):
    done = subprocess.run([sys.executable, "-m", "meshcore", "run"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "-c FILE, or --linkerd FILE" in done.stderr


def test_clients_with_tls_say_nothing_to_an_endpoint_that_is_another(raw_server, linkerd, ports, pki):  # noqa: F811
    """Who an endpoint must be, the prefix of its client has captured."""
    right = raw_server(over_tls(pki.server_context(pki.root.leaf("web.test")), naming("web")))
    wrong = raw_server(over_tls(pki.server_context(pki.root.leaf("other.test")), naming("other")))
    linkerd(f"""\
        admin: {{port: {ports[1]}}}
        namers: [{{kind: io.l5d.static, names: {{/web: ["127.0.0.1 {right.port}"], /stranger: ["127.0.0.1 {wrong.port}"]}}}}]
        routers:
        - protocol: http
          dtab: /svc => /#/io.l5d.static
          client:
            kind: io.l5d.static
            configs:
            - prefix: "/#/io.l5d.static/{{service}}"
              tls: {{commonName: "{{service}}.test", trustCerts: [{pki.ca}]}}
          servers: [{{port: {ports[0]}}}]
        """)
    assert ask(ports[0]).body == b"web"
    answer = ask(ports[0], "stranger")
    assert (answer.status, answer.get("x-mesh-reason")) == (502, "tls_upstream_wrong_identity")
    assert not wrong.requests
