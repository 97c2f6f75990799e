"""nginx, configured fairly: one worker, upstream keep-alive for every connection of a run, no log."""

from __future__ import annotations

from bench.peers.base import Peer, find_program, first_match

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
    listen 127.0.0.1:{listen} reuseport backlog=4096 deferred;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Via "1.1 nginx";
    }}
  }}
}}
"""


class Nginx(Peer):
    name = "nginx"

    @classmethod
    def unavailable(cls) -> str | None:
        return None if find_program("nginx") else "nginx is not installed (apt-get install nginx-light)"

    @classmethod
    def version(cls) -> str:
        return first_match([find_program("nginx") or "nginx", "-v"], r"nginx/(\S+)")

    @classmethod
    def variant_for(cls, shape: str) -> str:
        return "big" if shape == "64k" else ""

    def command(self) -> list[str]:
        path = self.directory / "nginx.conf"
        path.write_text(
            CONFIG.format(
                directory=self.directory,
                listen=self.ports.listen,
                backend=self.ports.backend,
                buffers=BIG_BUFFERS if self.variant == "big" else "",
            )
        )
        return [find_program("nginx") or "nginx", "-c", str(path), "-e", str(self.directory / "err")]
