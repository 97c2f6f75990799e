"""A real Prometheus scrapes proxies and the control plane, and its own linter finds nothing in what they say."""

import asyncio
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from meshcore.admin import AdminServer, AdminSources
from meshcore.metrics import render
from tests.controlplane.observation.meshes import mesh
from tests.scenario.proxies import free_port

UNPACKED = Path(__file__).resolve().parents[3] / ".ci-build/prometheus/usr/bin"


def program(name):
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        pytest.skip(f"{name} is not here: tools/setup.sh test unpacks Debian's")
    return found


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


async def test_prometheus_scrapes_a_proxy_and_the_control_plane(tmp_path, raw_server, proxy, raw_client):
    prometheus = program("prometheus")
    running = proxy(to=raw_server())
    own, port = free_port(), free_port()
    pages = f"127.0.0.1:{free_port()}"
    admin = AdminServer(
        f"127.0.0.1:{port}", sources=AdminSources(stats=running.stats, tap=running.tap, describe_config=dict)
    )
    admin.start()
    try:
        async with mesh(metrics=pages) as made:
            await made.attach(running, "shop", "web")
            for _ in range(7):
                await asyncio.to_thread(raw_client(running).get, "/")
            jobs = [{"job_name": name, "static_configs": [{"targets": [target]}]} for name, target in (("proxy", f"127.0.0.1:{port}"), ("plane", pages))]
            (tmp_path / "prometheus.yml").write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
            process = await asyncio.create_subprocess_exec(
                prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}",
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            try:
                async def value(query):
                    try:
                        told = json.loads(await asyncio.to_thread(fetched, f"http://127.0.0.1:{own}/api/v1/query?query={query}"))
                    except OSError:
                        return {}
                    return {one["metric"].get("job"): float(one["value"][1]) for one in told["data"]["result"]}

                async with asyncio.timeout(45):
                    while await value("up") != {"proxy": 1.0, "plane": 1.0}:
                        await asyncio.sleep(0.3)
                    while (await value("sum(mesh_requests_total)by(job)")).get("proxy") != 7.0:
                        await asyncio.sleep(0.3)
                    while (await value("meshcore_control_plane_proxies_attached")).get("plane") != 1.0:
                        await asyncio.sleep(0.3)
            finally:
                process.terminate()
                await process.wait()
    finally:
        admin.close()


async def test_the_linter_of_prometheus_finds_nothing(raw_server, proxy, raw_client):
    promtool = program("promtool")
    running = proxy(to=raw_server())
    raw_client(running).get("/")
    pages = f"127.0.0.1:{free_port()}"
    async with mesh(metrics=pages):
        texts = {"plane": await asyncio.to_thread(fetched, f"http://{pages}/metrics"), "proxy": render(running.stats()).encode()}
    for name, text in texts.items():
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60)
        assert done.returncode == 0, f"{name}: {done.stdout.decode()}{done.stderr.decode()}"
