"""A sidecar and its application: what starts when, which signal reaches whom, and what the exit tells."""

import json
import signal
import socket
import subprocess
import sys
import time

from prometheus_client.parser import text_string_to_metric_families

from tests.agent.mesh import ROOT, Steady, free_port, until
from tests.agent.rollout_soak import Rollouts
from tests.scenario.other_thread import signal_another_thread

APP = (sys.executable, str(ROOT / "tests/agent/app_program.py"))


def test_the_application_starts_when_the_proxy_is_ready_and_its_status_is_the_exit_status(mesh):
    plane = mesh.plane()
    code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))).close(); print('reached'); sys.exit(9)"
    port = free_port()
    sidecar = mesh.sidecar(plane, "web", "--forward", f"127.0.0.1:{port}=x.shop:80", app_port=1, ready=False,
                           command=(sys.executable, "-c", code, str(port)))  # fmt: skip
    assert sidecar.wait() == 9, sidecar.said()
    assert "reached" in sidecar.said()


def test_signals_reach_the_application_and_its_end_by_one_is_told(mesh):
    plane = mesh.plane()
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('usr1', flush=True))\n"
        "signal.signal(signal.SIGHUP, lambda *_: print('hup', flush=True))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    sidecar = mesh.sidecar(plane, "web", app_port=1, command=(sys.executable, "-c", code))
    until(lambda: "up" in sidecar.said(), "the application runs")
    for number, word in ((signal.SIGUSR1, "usr1"), (signal.SIGHUP, "hup")):
        sidecar.signal(number)
        until(lambda word=word: word in sidecar.said(), f"the application says {word}")
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait() == 128 + signal.SIGTERM


def test_an_application_that_ends_may_call_others_until_it_has_ended(mesh):
    plane = mesh.plane()
    plane.service("db")
    mesh.served(plane, "db", "db-1")
    code = (
        "import http.client, signal, sys, time\n"
        "def last(*_):\n"
        "    connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=20)\n"
        "    connection.request('GET', '/bye', headers={'host': 'db.shop'})\n"
        "    print('last words:', connection.getresponse().status, flush=True)\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, last)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    port = free_port()
    sidecar = mesh.sidecar(plane, "web", "--forward", f"127.0.0.1:{port}=db.shop:80", app_port=1,
                           command=(sys.executable, "-c", code, str(port)))  # fmt: skip
    until(lambda: "up" in sidecar.said(), "the application runs")
    sidecar.signal(signal.SIGTERM)
    assert sidecar.wait() == 0
    assert "last words: 200" in sidecar.said()


def test_a_program_that_is_not_there_is_told(mesh):
    plane = mesh.plane()
    sidecar = mesh.sidecar(plane, "web", app_port=1, ready=False, command=("/nonexistent/program",))
    assert sidecar.wait() == 127, sidecar.said()
    assert "/nonexistent/program" in sidecar.said() and "Traceback" not in sidecar.said()


def test_a_second_signal_ends_the_wait_for_what_is_under_way(mesh):
    plane = mesh.plane()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sidecar = mesh.sidecar(plane, "web", "--drain", "10m", app_port=mute.getsockname()[1])
        with socket.create_connection(("127.0.0.1", sidecar.inbound)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            mute.settimeout(20)
            asked, _ = mute.accept()
            with asked:
                asked.settimeout(20)
                assert asked.recv(100).startswith(b"GET / ")
                sidecar.signal(signal.SIGTERM)
                until(lambda: "draining" in sidecar.said(), "it drains")
                sidecar.signal(signal.SIGTERM)
                assert sidecar.wait() == 0, sidecar.said()


def test_a_signal_that_another_thread_takes_ends_it_as_well(mesh):
    plane = mesh.plane()
    code = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.1)\n"
    sidecar = mesh.sidecar(plane, "web", app_port=1, command=(sys.executable, "-c", code))
    until(lambda: "up" in sidecar.said(), "the application runs")
    signal_another_thread(sidecar.process.pid, signal.SIGTERM)
    assert sidecar.wait() == 128 + signal.SIGTERM, sidecar.said()


def registered(plane) -> list[str]:
    return sorted(f"{one['service']}:{one['port']}" for one in plane.do("endpoints"))


def test_a_registered_workload_is_found_and_forgotten_when_it_ends(mesh):
    plane = mesh.plane()
    plane.service("web")
    _, port = mesh.app("vm-1")
    vm = mesh.sidecar(plane, "web", "--register", "web", "--advertise", "127.0.0.1", app_port=port, name="vm-1")
    client = mesh.sidecar(plane, "client")
    until(lambda: client.get("http://web/")[0] == 200, "the machine serves")
    assert registered(plane) == [f"web:{vm.inbound}"]
    vm.stop()
    until(lambda: registered(plane) == [], "it is forgotten")


def test_callers_are_told_of_a_member_while_its_application_listens(mesh):
    plane = mesh.plane()
    plane.service("web")
    port = free_port()
    vm = mesh.sidecar(plane, "web", "--register", "web", "--advertise", "127.0.0.1", app_port=port, name="vm-1")
    client = mesh.sidecar(plane, "client")

    def is_told_as_drained():
        return [one.get("weight") for one in plane.do("endpoints")] == [0]

    until(is_told_as_drained, "it is registered")
    assert client.get("http://web/")[0] == 503
    assert not json.loads(vm.admin_page("/agent"))["takes_requests"]
    app = subprocess.Popen([*APP, str(port), "vm-1"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: client.get("http://web/")[0] == 200, "it serves")
        assert json.loads(vm.admin_page("/agent"))["takes_requests"]
        app.kill()
        app.wait()
        until(is_told_as_drained, "it is known that the application is gone")
        assert json.loads(vm.admin_page("/agent"))["is_registered"]
        app = subprocess.Popen([*APP, str(port), "vm-1"], stdout=subprocess.DEVNULL)
        until(lambda: client.get("http://web/")[0] == 200, "it serves again")
        vm.signal(signal.SIGTERM)
        assert vm.wait() == 0
        assert registered(plane) == []
    finally:
        app.kill()
        app.wait()


def test_a_rollout_of_registered_members_fails_no_request(mesh):
    """Each is replaced by a new one, in turn, by the signals that an orchestrator sends."""
    plane = mesh.plane()
    plane.service("web")
    client = mesh.sidecar(plane, "client")

    def member(name):
        port = free_port()
        return mesh.sidecar(plane, "web", "--register", "web", "--advertise", "127.0.0.1", "--drain", "5s", app_port=port, name=name,
                            command=(*APP, str(port), name))  # fmt: skip

    olds = [member("old-1"), member("old-2")]
    until(lambda: len(registered(plane)) == 2, "both are registered")
    until(lambda: client.get("http://web/")[0] == 200, "they serve")
    load = Steady(client, "http://web/")
    try:
        for number, old in enumerate(olds):
            before = len(registered(plane))
            member(f"new-{number}")
            until(lambda n=before: len(registered(plane)) == n + 1, "the new one is registered")
            time.sleep(0.5)
            old.signal(signal.SIGTERM)
            assert old.wait() == 0, old.said()
        time.sleep(0.5)
    finally:
        load.stop()
    assert not load.failures, load.failures[:5]
    assert load.bodies["new-0"] and load.bodies["new-1"], load.bodies


def test_a_drained_member_gets_no_more_requests_and_may_be_ended_and_replaced(mesh, rng):
    rollouts = Rollouts(mesh, rng)
    try:
        rollouts.turn("drain")
    finally:
        rollouts.load.stop()
    assert not rollouts.load.failures, rollouts.load.failures[:5]
    assert rollouts.after_drain == 0


def test_what_an_agent_knows_stands_on_the_admin_page_and_in_metrics(mesh):
    plane = mesh.plane()
    sidecar = mesh.sidecar(plane, "web", app_port=1)
    sidecar.get("http://web.shop/")
    agent = json.loads(sidecar.admin_page("/agent"))
    assert agent["identity"] == "spiffe://mesh.test/ns/shop/sa/web"
    assert agent["link"]["is_connected"] and agent["link"]["address"] == plane.address
    assert agent["watched"] == 1
    page = sidecar.admin_page("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(page)}
    info, = families["mesh_workload_info"].samples
    assert info.labels == {"namespace": "shop", "workload": "web", "identity": "spiffe://mesh.test/ns/shop/sa/web"}
    assert families["mesh_control_plane_connected"].samples[0].value == families["mesh_watched_names"].samples[0].value == 1
    assert families["mesh_certificate_expiry_seconds"].samples[0].value == agent["certificate_until_s"]


def test_a_sidecar_that_waits_for_its_certificate_says_so(mesh, tmp_path):
    plane = mesh.plane()
    token = plane.token(tmp_path, "web")
    plane.kill()
    sidecar = mesh.sidecar(plane, "web", joins=False, token=token, app_port=1, ready=False)
    until(lambda: sidecar.admin_page("/ready") == "waiting for a certificate\n", "its admin server answers")
    assert sidecar.admin_page("/live") == "live\n"
    assert sidecar.admin_page("/stats").startswith("no proxy yet: waiting for a certificate")
    assert "mesh_workload_info{" in sidecar.admin_page("/metrics")
    until(lambda: json.loads(sidecar.admin_page("/agent"))["last_error"], "the reason is told")
    plane.start()
    sidecar.until_ready()
    assert "mesh_listener_connections{" in sidecar.admin_page("/metrics")
