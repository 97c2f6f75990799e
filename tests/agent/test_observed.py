"""Sidecars as those see them who watch the mesh: taps and statistics, by way of the control plane."""

import subprocess
import sys

from tests.agent.mesh import ROOT, Steady, until


def meshctl(plane, *words: str) -> list[str]:
    return [sys.executable, "-c", "from controlplane.cli import main; main()", "--control-plane", f"unix:{plane.data}/admin.sock", *words]


def test_a_tap_of_the_control_plane_shows_requests_of_both_sides(mesh):
    plane = mesh.plane()
    plane.service("web")
    mesh.served(plane, "web", "web-1")
    client = mesh.sidecar(plane, "client")
    assert client.get("http://web/")[0] == 200
    tap = subprocess.Popen(meshctl(plane, "tap", "deploy/client", "-n", "shop", "--max-rps", "50"), cwd=ROOT, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    load = Steady(client, "http://web/tapped", threads=1, pause_s=0.05)
    try:
        lines: list[str] = []
        assert tap.stdout is not None
        while not any(line.startswith("end id=") for line in lines):
            line = tap.stdout.readline()
            assert line, f"the tap ended: {lines} {client.said()}"
            lines.append(line)
        assert any(":method=GET :authority=web" in line and ":path=/tapped" in line for line in lines), lines
    finally:
        load.stop()
        tap.terminate()
        tap.wait(20)
        tap.stdout.close()
    assert not load.failures, load.failures[:3]


def test_statistics_of_the_control_plane_tell_that_traffic_is_secured(mesh):
    plane = mesh.plane()
    plane.service("web")
    mesh.served(plane, "web", "web-1")
    client = mesh.sidecar(plane, "client")
    load = Steady(client, "http://web/", threads=1, pause_s=0.02)

    def row() -> list[str]:
        output = subprocess.run(meshctl(plane, "stat", "deploy", "-n", "shop"), cwd=ROOT, text=True, capture_output=True, check=True).stdout
        return next((line.split() for line in output.splitlines() if line.split()[:1] == ["web-1"] or line.split()[:1] == ["web"]), [])

    try:
        found = until(lambda: (cells := row()) and "100.00%" in cells and cells, "web has statistics")
        assert found[-1] == "100%", found
    finally:
        load.stop()
