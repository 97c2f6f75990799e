"""HAProxy, configured fairly: one thread, connections shared and never purged, no log."""

from __future__ import annotations

from bench.peers.base import Peer, find_program, first_match

CONFIG = """
global
  nbthread 1
  maxconn {maxconn}
  {pipes}
  tune.maxaccept 64
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  option http-keep-alive
  {splice}
  http-reuse always
  no log
frontend f
  bind 127.0.0.1:{listen} defer-accept
  option forwardfor
  http-request set-header via "1.1 haproxy"
  default_backend b
backend b
  server s 127.0.0.1:{backend} pool-max-conn -1 pool-purge-delay 300s
"""


class HAProxy(Peer):
    name = "haproxy"

    @classmethod
    def unavailable(cls) -> str | None:
        return None if find_program("haproxy") else "haproxy is not installed (apt-get install haproxy)"

    @classmethod
    def version(cls) -> str:
        return first_match([find_program("haproxy") or "haproxy", "-v"], r"version (\S+)")

    @classmethod
    def variant_for(cls, shape: str) -> str:
        return "splice" if shape == "1m" else ""

    def command(self) -> list[str]:
        path = self.directory / "haproxy.cfg"
        splices = self.variant == "splice"
        path.write_text(
            CONFIG.format(
                listen=self.ports.listen,
                backend=self.ports.backend,
                # Pipes cost descriptors; it refuses to start when the sum passes the limit.
                maxconn=1000 if splices else 9000,
                pipes="maxpipes 500\n  tune.pipesize 1048576" if splices else "",
                splice="option splice-auto" if splices else "",
            )
        )
        return [find_program("haproxy") or "haproxy", "-db", "-f", str(path)]
