"""Starts the `meshproxy` given as argument in front of one server, sends one request, expects its answer. Exit 0 or 1."""

import http.client
import http.server
import signal
import socket
import subprocess
import sys
import threading
import time

import meshcore

BODY = b"hello from behind the proxy"


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def main(meshproxy: str) -> int:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    started = time.monotonic()
    command = [meshproxy, "proxy", "--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{server.server_port}"]
    proxy = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        while True:
            try:
                status, body = get(port)
                break
            except OSError as error:
                if proxy.poll() is not None or time.monotonic() - started > 20:
                    print(f"no answer through {' '.join(command)}: {error!r}", file=sys.stderr)
                    return 1
                time.sleep(0.02)
        waited_s = time.monotonic() - started
    finally:
        proxy.send_signal(signal.SIGTERM)
        exit_code = proxy.wait(15)
        server.shutdown()
    print(f"{meshcore.__file__}: {status} {body!r} after {waited_s:.2f} s; the proxy exited with {exit_code}")
    return 0 if (status, body, exit_code) == (200, BODY, 0) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
