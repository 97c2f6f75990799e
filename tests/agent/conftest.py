"""Fixture `mesh`: a control plane, sidecars and applications as processes, stopped at the end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.mesh import ROOT, Plane, Sidecar, free_port


class Mesh:
    """What a scenario starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.planes: list[Plane] = []
        self.sidecars: list[Sidecar] = []
        self.apps: list[subprocess.Popen[str]] = []

    def plane(self, **options) -> Plane:
        folder = self.folder / f"plane-{len(self.planes)}"
        folder.mkdir()
        self.planes.append(Plane(folder, **options))
        return self.planes[-1]

    def app(self, name: str, port: int = 0) -> tuple[subprocess.Popen[str], int]:
        """A server that answers with its name, and its port."""
        process = subprocess.Popen(
            [sys.executable, "tests/agent/app_program.py", str(port), name], cwd=ROOT, text=True, stdout=subprocess.PIPE, start_new_session=True
        )  # fmt: skip
        self.apps.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline().rsplit(" ", 1)[1])

    def sidecar(self, plane: Plane, account: str, *words: str, joins: bool = True, **options) -> Sidecar:
        token = plane.token(self.folder, account) if joins else None
        self.sidecars.append(Sidecar(self.folder, plane, account, *words, token=options.pop("token", token), **options))
        return self.sidecars[-1]

    def served(self, plane: Plane, service: str, name: str, *words: str, **options) -> tuple[Sidecar, subprocess.Popen[str]]:
        """An application with its sidecar, as an endpoint of a service."""
        app, port = self.app(name)
        sidecar = self.sidecar(plane, service, *words, name=name, app_port=port, **options)
        plane.endpoint(service, name, sidecar.inbound, account=service)
        return sidecar, app

    def close(self) -> None:
        for sidecar in reversed(self.sidecars):
            sidecar.stop()
        for app in self.apps:
            app.kill()
            app.wait()
            if app.stdout is not None:
                app.stdout.close()
        for plane in self.planes:
            plane.stop()


@pytest.fixture
def mesh(tmp_path):
    made = Mesh(tmp_path)
    yield made
    made.close()


__all__ = ["Mesh", "free_port", "mesh"]
