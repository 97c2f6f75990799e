"""Sidecars as operators see them: meshctl tap and the tables, over a mesh of real processes."""

import json
import subprocess
import sys

from tests.agent.mesh import ROOT, until

MESHCTL = [sys.executable, "-c", "from controlplane.cli import main; main()"]


def meshctl(plane, *words):
    return [*MESHCTL, "--control-plane", f"unix:{plane.data}/admin.sock", *words]


def said(plane, *words):
    done = subprocess.run(meshctl(plane, *words, "--json"), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_call_between_sidecars_is_in_a_tap_and_in_the_tables(mesh):
    plane = mesh.plane()
    plane.service("web")
    mesh.served(plane, "web", "web-1")
    client = mesh.sidecar(plane, "client")
    assert client.get("http://web/")[0] == 200
    tap = subprocess.Popen(
        meshctl(plane, "tap", "ns/shop", "--to", "svc/web", "--path", "/seen", "--max-rps", "100", "-o", "json"),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        asked = []

        def is_tapped():
            # A tap shows what comes after it has begun.
            client.get("http://web/seen")
            asked.append(1)
            return said(plane, "stat", "deploy", "-n", "shop") and len(asked) > 3

        until(is_tapped, "requests while a tap runs")
        lines = [json.loads(tap.stdout.readline()) for _ in range(3)]
    finally:
        tap.terminate()
        tap.wait(20)
        tap.stdout.close()
    request = lines[0]
    assert (request["kind"], request["path"], request["method"]) == ("req", "/seen", "GET")
    assert request["direction"] == "out" and request["workload"].startswith("shop/client")
    assert request["dst_labels"]["service"] == "web" and request["src_labels"]["serviceaccount"] == "client"
    (edge,) = until(lambda: [one for one in said(plane, "edges", "deploy", "-n", "shop") if one["requests"] >= 4], "the edge is there")
    assert edge["source"]["name"].startswith("client") and edge["secured_percent"] == 100.0 and edge["success_percent"] == 100.0
    web = until(lambda: [one for one in said(plane, "stat", "deploy", "-n", "shop") if one["name"].startswith("web") and one["requests"] >= 4], "web counts")
    assert web[0]["secured_percent"] == 100.0 and web[0]["p99_ms"] > 0
