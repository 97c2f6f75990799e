"""HAProxy, configured fairly: one thread, connections shared and never purged, no log."""

from __future__ import annotations

from bench.credentials import BACKEND_NAME
from bench.peers.base import Peer, find_program, first_match
from bench.shapes import GRPC, H1, H2, H2_H1, MTLS, TCP, TLS, Shape

CONFIG = """
global
  nbthread 1
  maxconn {maxconn}
  {pipes}
  tune.maxaccept 64
defaults
  mode {mode}
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  {http}
  {splice}
  no log
frontend f
  bind 127.0.0.1:{listen} defer-accept{bind}
  {edits}
  default_backend b
backend b
  server s 127.0.0.1:{backend} pool-max-conn -1 pool-purge-delay 300s{server}
"""


class HAProxy(Peer):
    name = "haproxy"
    wires = (H1, H2_H1, H2, GRPC, TLS, MTLS, TCP)

    @classmethod
    def unavailable(cls) -> str | None:
        return None if find_program("haproxy") else "haproxy is not installed (apt-get install haproxy)"

    @classmethod
    def version(cls) -> str:
        return first_match([find_program("haproxy") or "haproxy", "-v"], r"version (\S+)")

    @classmethod
    def variant_for(cls, shape: Shape) -> str:
        return "splice" if shape.key == "1m" else super().variant_for(shape)

    def command(self) -> list[str]:
        path = self.directory / "haproxy.cfg"
        splices = self.variant in ("splice", TCP)
        is_tcp = self.variant == TCP
        path.write_text(
            CONFIG.format(
                listen=self.ports.listen,
                backend=self.ports.backend,
                # Pipes cost descriptors; it refuses to start when the sum passes the limit.
                maxconn=1000 if splices else 9000,
                pipes="maxpipes 500\n  tune.pipesize 1048576" if splices else "",
                splice="option splice-auto" if splices else "",
                mode="tcp" if is_tcp else "http",
                http="" if is_tcp else "option http-keep-alive\n  http-reuse always",
                edits="" if is_tcp else 'option forwardfor\n  http-request set-header via "1.1 haproxy"',
                bind=self._bind(),
                server=self._server(),
            )
        )
        return [find_program("haproxy") or "haproxy", "-db", "-f", str(path)]

    def _bind(self) -> str:
        held = self.credentials
        tls = f" ssl crt {held.both('server')} alpn http/1.1 ssl-min-ver TLSv1.3"
        asks = f" verify required ca-file {held.ca}"
        h2 = " proto h2"
        return {H2: h2, H2_H1: h2, GRPC: h2, TLS: tls, MTLS: tls + asks}.get(self.variant, "")

    def _server(self) -> str:
        held = self.credentials
        tls = (
            f" ssl crt {held.both('client')} verify required ca-file {held.ca} verifyhost {BACKEND_NAME}"
            f" sni str({BACKEND_NAME}) alpn http/1.1 ssl-min-ver TLSv1.3"
        )
        return {H2: " proto h2", GRPC: " proto h2", MTLS: tls}.get(self.variant, "")
