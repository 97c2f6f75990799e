"""The proxy under test: ours inside this process, or any other one behind the same face. Owns its life, not its rules.

`MESHCORE_TEST_PROXY` (or `pytest --proxy`) chooses it: `meshcore` (default), `nginx`, `haproxy`, or a command line with
`{port}` and `{upstream}` in it that listens on 127.0.0.1:{port} and proxies to {upstream} (host:port). A peer only takes
plain configurations, one listener to one cluster: scenarios that ask for more are skipped with it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest


def chosen_proxy() -> str:
    return os.environ.get("MESHCORE_TEST_PROXY", "meshcore")


def config(*, to=None, route: dict | None = None, cluster: dict | None = None, routes: list | None = None,
           clusters: list | None = None, listeners: list | None = None, **sections) -> dict:
    """A configuration in a few words: one listener `web`, one route `all` to one cluster `backend`.

    `to` is a server, an address, or a list of them; `route` and `cluster` add settings to the only route and cluster.
    Any other section (`limits`, `timeouts`, `forwarding`, `workers`) is passed on.
    """
    if clusters is None:
        targets = to if isinstance(to, list) else [to] if to is not None else []
        endpoints = [t if isinstance(t, (str, dict)) else t.address for t in targets]
        clusters = [{"name": "backend", "endpoints": endpoints, **(cluster or {})}]
    if routes is None:
        routes = [{"name": "all", "to": "backend", **(route or {})}]
    return {
        "workers": 1,
        "listeners": listeners or [{"name": "web", "address": "127.0.0.1:0"}],
        "routes": routes,
        "clusters": clusters,
        **sections,
    }


def start(configuration: dict):
    """A running proxy with `addresses`, to be stopped with `stop()`."""
    chosen = chosen_proxy()
    if chosen == "meshcore":
        import meshcore

        proxy = meshcore.Proxy(configuration)
        proxy.start()
        return proxy
    return Peer(chosen, configuration)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _seconds(text: str | None, default: float) -> float:
    if text in (None, "0"):
        return default
    for unit, scale in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * scale
    raise ValueError(text)


NGINX = """\
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log info;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  client_header_timeout {head}; client_body_timeout {body}; send_timeout {body}; keepalive_timeout {keep_alive}; client_max_body_size 0;
  map $http_upgrade $hop {{ default ""; websocket upgrade; }}
  {servers}
}}
"""
NGINX_SERVER = """
  upstream u{port} {{ {endpoints} keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://u{port}; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host; proxy_set_header Connection $hop; proxy_set_header Upgrade $http_upgrade;
      proxy_connect_timeout 1s; proxy_read_timeout 5s;
    }}
  }}
"""
HAPROXY = """\
global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout client {body}ms
  timeout http-request {head}ms
  timeout http-keep-alive {keep_alive}ms
  timeout server 5s
  timeout connect 1s
  timeout tunnel 60s
  option http-server-close
  option http-keep-alive
"""
HAPROXY_SERVER = """
frontend f{port}
  bind 127.0.0.1:{port}
  default_backend b{port}
backend b{port}
{endpoints}
"""


class Peer:
    """Another proxy as a process, on plain configurations."""

    def __init__(self, kind: str, configuration: dict):
        self.kind = kind
        self.addresses: dict[str, tuple[str, int]] = {}
        self._dir = Path(tempfile.mkdtemp(prefix=f"peer-{kind.split()[0].rsplit('/')[-1]}-"))
        self._processes: list[subprocess.Popen] = []
        plain = self._plain(configuration)
        timeouts = configuration.get("timeouts", {})
        times = {
            "head": _seconds(timeouts.get("head"), 5.0),
            "keep_alive": _seconds(timeouts.get("keep_alive"), 5.0),
            "body": _seconds(configuration.get("limits", {}).get("body_min_rate_grace"), 5.0),
        }
        start_kind = getattr(self, f"_start_{kind}", None)
        if start_kind is not None:
            start_kind(plain, times)
        else:
            for port, endpoints in plain:
                self._spawn(shlex.split(kind.format(port=port, upstream=endpoints[0])))
        for (port, _), listener in zip(plain, configuration["listeners"]):
            self._wait_listening(port)
            self.addresses[listener["name"]] = ("127.0.0.1", port)

    def _plain(self, configuration: dict) -> list[tuple[int, list[str]]]:
        routes = {route["name"]: route for route in configuration["routes"]}
        clusters = {cluster["name"]: cluster for cluster in configuration["clusters"]}
        plain = []
        for listener in configuration["listeners"]:
            names = listener.get("routes") or list(routes)
            unusual = set(routes[names[0]]) - {"name", "to", "idle_timeout", "timeout", "connect"}
            if len(names) != 1 or unusual or not all(isinstance(e, str) for c in clusters.values() for e in c["endpoints"]):
                pytest.skip(f"{self.kind} is only run on plain configurations")
            plain.append((free_port(), clusters[routes[names[0]]["to"]]["endpoints"]))
        return plain

    def _start_nginx(self, plain, times) -> None:
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        # nginx counts timeouts in whole milliseconds and takes them written so.
        written = {name: f"{int(value * 1000)}ms" for name, value in times.items()}
        servers = "".join(
            NGINX_SERVER.format(port=port, endpoints="".join(f"server {e} max_fails=0; " for e in endpoints)) for port, endpoints in plain
        )
        (self._dir / "nginx.conf").write_text(NGINX.format(dir=self._dir, servers=servers, **written))
        self._spawn([binary, "-c", str(self._dir / "nginx.conf"), "-p", str(self._dir), "-e", str(self._dir / "error.log")])

    def _start_haproxy(self, plain, times) -> None:
        binary = shutil.which("haproxy") or "/usr/sbin/haproxy"
        text = HAPROXY.format(**{name: int(value * 1000) for name, value in times.items()})
        for port, endpoints in plain:
            lines = "\n".join(f"  server s{i} {endpoint}" for i, endpoint in enumerate(endpoints))
            text += HAPROXY_SERVER.format(port=port, endpoints=lines)
        (self._dir / "haproxy.cfg").write_text(text)
        self._spawn([binary, "-f", str(self._dir / "haproxy.cfg"), "-db", "-q"])

    def _spawn(self, command: list[str]) -> None:
        log = open(self._dir / "output", "ab")
        self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        log.close()

    def _wait_listening(self, port: int) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                died = [p.returncode for p in self._processes if p.poll() is not None]
                if died or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.kind} does not listen: {(self._dir / 'output').read_text()}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._dir, ignore_errors=True)


def raw_stats(proxy) -> dict:
    """Counters of our proxy as plain dictionaries, summed over its workers."""
    return proxy._engine.stats()
