"""Proxies that speak HTTP/2 over cleartext: ours, nginx, HAProxy, nghttpx. Owns the names that our configuration gives it.

Ours takes HTTP/2 by prior knowledge on any `http` listener; a peer is told so. `protocol: http2` on a cluster is upstream.
"""

from __future__ import annotations

import shutil

import pytest

from tests.scenario import proxies
from tests.scenario.proxies import Peer, config

# The keys of our configuration, in one place.
UPSTREAM_HTTP2 = {"protocol": "http2"}
STREAMS_LIMIT = "http2_max_streams"
STREAM_WINDOW = "http2_stream_window"
RESETS_LIMIT = "http2_max_resets"
DEFAULT_STREAMS = 100
DEFAULT_WINDOW_BYTES = 64 << 10

NGINX_SERVER = """
  upstream u{port} {{ {endpoints} keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{
      proxy_pass http://u{port}; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
      proxy_set_header Host $http_host; proxy_set_header Connection $hop; proxy_set_header Upgrade $http_upgrade;
      proxy_connect_timeout 1s; proxy_read_timeout 5s;
    }}
  }}
"""
HAPROXY_SERVER = """
frontend f{port}
  bind 127.0.0.1:{port} proto h2
  default_backend b{port}
backend b{port}
{endpoints}
"""


def chosen_speaks_http2_upstream() -> bool:
    return proxies.chosen_proxy() not in ("nginx",)


def h2_config(*, upstream: str = "http1", cluster: dict | None = None, **words) -> dict:
    """As `proxies.config`; `upstream` is what the endpoints speak, "http1" or "http2"."""
    if upstream == "http2":
        cluster = {**UPSTREAM_HTTP2, **(cluster or {})}
    return config(cluster=cluster, **words)


def start(configuration: dict):
    """A running proxy that takes HTTP/2."""
    kind = proxies.chosen_proxy()
    return proxies.start(configuration) if kind == "meshcore" else H2PeerProxy(kind, configuration)


class H2PeerProxy(Peer):
    """Another proxy as a process, its listeners speaking HTTP/2 only."""

    def _plain(self, configuration: dict) -> list[tuple[int, list[str]]]:
        clusters = {cluster["name"]: cluster for cluster in configuration["clusters"]}
        routes = {route["name"]: route for route in configuration["routes"]}
        plain = super()._plain(configuration)
        self._http2_upstream = set()
        for (port, _), listener in zip(plain, configuration["listeners"]):
            cluster = clusters[routes[(listener.get("routes") or list(routes))[0]]["to"]]
            if cluster.get("protocol") == "http2":
                if not chosen_speaks_http2_upstream():
                    pytest.skip(f"{self.kind} speaks no HTTP/2 to its upstreams")
                self._http2_upstream.add(port)
        return plain

    def _start_nginx(self, plain, times) -> None:
        written = {name: f"{int(value * 1000)}ms" for name, value in times.items()}
        servers = "".join(
            NGINX_SERVER.format(port=port, endpoints="".join(f"server {e} max_fails=0; " for e in endpoints)) for port, endpoints in plain)
        (self._dir / "nginx.conf").write_text(proxies.NGINX.format(dir=self._dir, servers=servers, **written))
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        self._spawn([binary, "-c", str(self._dir / "nginx.conf"), "-p", str(self._dir), "-e", str(self._dir / "error.log")])

    def _start_haproxy(self, plain, times) -> None:
        text = proxies.HAPROXY.format(**{name: int(value * 1000) for name, value in times.items()})
        for port, endpoints in plain:
            speaks = " proto h2" if port in self._http2_upstream else ""
            lines = "\n".join(f"  server s{i} {endpoint}{speaks}" for i, endpoint in enumerate(endpoints))
            text += HAPROXY_SERVER.format(port=port, endpoints=lines)
        (self._dir / "haproxy.cfg").write_text(text)
        self._spawn([shutil.which("haproxy") or "/usr/sbin/haproxy", "-f", str(self._dir / "haproxy.cfg"), "-db", "-q"])

    def _start_nghttpx(self, plain, times) -> None:
        wait = {name: f"{int(value * 1000)}ms" for name, value in times.items()}
        for port, endpoints in plain:
            speaks = ";;proto=h2" if port in self._http2_upstream else ""
            self._spawn([
                shutil.which("nghttpx") or "/usr/sbin/nghttpx", "--conf=/dev/null", f"--frontend=127.0.0.1,{port};no-tls", "--workers=1",
                "--accesslog-file=/dev/null", f"--errorlog-file={self._dir}/error{port}.log", "--single-process",
                *(f"--backend={endpoint.replace(':', ',')}{speaks}" for endpoint in endpoints),
                f"--frontend-http2-read-timeout={wait['keep_alive']}", f"--stream-read-timeout={wait['body']}",
                f"--stream-write-timeout={wait['body']}",
            ])

    @property
    def died(self) -> bool:
        return any(process.poll() is not None for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """The processes and their children."""
        found = [process.pid for process in self._processes]
        for pid in found:
            try:
                with open(f"/proc/{pid}/task/{pid}/children") as file:
                    found += [int(child) for child in file.read().split()]
            except OSError:
                pass
        return found
