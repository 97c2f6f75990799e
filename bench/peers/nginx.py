"""nginx, configured fairly: one worker, upstream keep-alive for every connection of a run, no log."""

from __future__ import annotations

from bench.credentials import BACKEND_NAME
from bench.peers.base import Peer, find_program, first_match
from bench.shapes import GRPC, H1, H2_H1, MTLS, TLS, Shape

# Large bodies: with the default buffers (8 x 4 KiB) a 64 KiB answer costs nginx twice as much. At
# 1 MiB the defaults are the better of the two, so they stay.
BIG_BUFFERS = """
  proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_busy_buffers_size 256k;
  proxy_max_temp_file_size 0;
"""

# keepalive 2048: the often documented 128 makes nginx reconnect above 128 busy connections.
CONFIG = """
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off; master_process off;
pid {directory}/pid;
error_log {directory}/err error;
events {{ worker_connections 16384; multi_accept on; use epoll; }}
http {{
  access_log off; server_tokens off; sendfile off; tcp_nodelay on;
  keepalive_requests 100000000; keepalive_timeout 300s;
  proxy_temp_path {directory}/proxy; client_body_temp_path {directory}/body;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  {buffers}
  upstream backend {{
    server 127.0.0.1:{backend} max_fails=0;
    keepalive 2048; keepalive_requests 100000000; keepalive_timeout 300s;
  }}
  server {{
    listen 127.0.0.1:{listen}{speaking} reuseport backlog=4096 deferred;
    {server}
    location / {{
      {upstream}
    }}
  }}
}}
"""
HTTP = """
      proxy_pass {scheme}://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Via "1.1 nginx";
"""
# It speaks HTTP/2 with upstreams for gRPC alone.
GRPC_PASS = """
      grpc_pass grpc://backend;
      grpc_set_header X-Forwarded-For $remote_addr;
      grpc_set_header Via "2 nginx";
"""


class Nginx(Peer):
    name = "nginx"
    wires = (H1, H2_H1, GRPC, TLS, MTLS)

    @classmethod
    def unavailable(cls) -> str | None:
        return None if find_program("nginx") else "nginx is not installed (apt-get install nginx-light)"

    @classmethod
    def version(cls) -> str:
        return first_match([find_program("nginx") or "nginx", "-v"], r"nginx/(\S+)")

    @classmethod
    def variant_for(cls, shape: Shape) -> str:
        return "big" if shape.key == "64k" else super().variant_for(shape)

    def command(self) -> list[str]:
        path = self.directory / "nginx.conf"
        path.write_text(
            CONFIG.format(
                directory=self.directory,
                listen=self.ports.listen,
                backend=self.ports.backend,
                buffers=BIG_BUFFERS if self.variant == "big" else "",
                speaking={H2_H1: " http2", GRPC: " http2", TLS: " ssl", MTLS: " ssl"}.get(self.variant, ""),
                server=self._tls() if self.variant in (TLS, MTLS) else "",
                upstream=self._upstream(),
            )
        )
        return [find_program("nginx") or "nginx", "-c", str(path), "-e", str(self.directory / "err")]

    def _tls(self) -> str:
        held = self.credentials
        # Tickets are on, as they are by default; the cache is for clients without them.
        lines = [
            f"ssl_certificate {held.cert('server')}; ssl_certificate_key {held.key('server')};",
            "ssl_protocols TLSv1.3; ssl_session_cache shared:tls:40m; ssl_session_timeout 1h;",
        ]
        if self.variant == MTLS:
            lines.append(f"ssl_verify_client on; ssl_client_certificate {held.ca};")
        return " ".join(lines)

    def _upstream(self) -> str:
        if self.variant == GRPC:
            return GRPC_PASS
        if self.variant != MTLS:
            return HTTP.format(scheme="http")
        held = self.credentials
        return HTTP.format(scheme="https") + (
            f"proxy_ssl_certificate {held.cert('client')}; proxy_ssl_certificate_key {held.key('client')};"
            f"proxy_ssl_trusted_certificate {held.ca}; proxy_ssl_verify on; proxy_ssl_name {BACKEND_NAME};"
            "proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;"
        )
