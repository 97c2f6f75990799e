"""A browser through the proxy: Chromium over HTTP/2 and TLS, with many requests at a time, uploads, WebSocket and gRPC-Web.

Skipped where Chromium is missing (Debian: chromium). What the page saw it posts to /done.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.proxy.grpc_ends import SERVICE, EchoServer
from tests.scenario.proxies import config
from tests.scenario.servers import eventually, response
from tests.scenario.tls import SERVER_NAME, pki  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.usefixtures("only_meshcore"),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

PATIENCE_S = 90  # a browser takes seconds to begin on a busy machine

PAGE = """<!doctype html><script>
const told = {};
async function asked() {
  const answers = await Promise.all(Array.from({length: 60}, (_, n) => fetch(`/item/${n}`).then(answer => answer.text())));
  told.items = answers.filter((text, n) => text === `/item/${n}`).length;
  const body = new Uint8Array(300000).fill(65);
  told.upload = await (await fetch("/upload", {method: "POST", body})).text();
  told.protocols = [...new Set(performance.getEntriesByType("resource").map(entry => entry.nextHopProtocol))];
  told.missing = (await fetch("/missing")).status;
  const reader = (await fetch("/large")).body.getReader();
  told.large = 0;
  for (let part; !(part = await reader.read()).done;) told.large += part.value.length;
  const call = new Uint8Array([0, 0, 0, 0, 5, ...new TextEncoder().encode("hello")]);
  const answer = await fetch("/test.Echo/Unary", {method: "POST", body: call, headers: {"content-type": "application/grpc-web+proto"}});
  const octets = new Uint8Array(await answer.arrayBuffer());
  told.call = new TextDecoder().decode(octets.slice(5, 10)) + " " + new TextDecoder().decode(octets.slice(15)).includes("grpc-status: 0");
  told.socket = await new Promise((done, failed) => {
    const socket = new WebSocket(`wss://${location.host}/chat`);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = event => done(event.data);
    socket.onerror = () => failed("no WebSocket");
  });
}
asked().catch(error => told.error = String(error)).finally(() => {
  fetch("/done", {method: "POST", body: JSON.stringify(told)});
});
</script>"""


def serving(connection):
    while True:
        request = connection.read_request()
        path = request.path
        if path == "/chat":
            key = request.get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            connection.switch(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
            head = connection.receive_tunnel(6)           # a masked text of less than 126 octets
            data = connection.receive_tunnel(head[1] & 127)
            text = bytes(octet ^ head[2 + n % 4] for n, octet in enumerate(data))
            connection.send(b"\x81" + bytes([len(text)]) + text)
            connection.wait_closed()
            return
        if path == "/":
            connection.send(response(200, PAGE.encode(), {"Content-Type": "text/html"}))
        elif path == "/upload":
            connection.send(response(200, str(request.body_bytes).encode()))
        elif path == "/large":
            connection.send(response(200, bytes(3_000_000)))
        else:
            connection.send(response(404 if path == "/missing" else 200, path.encode()))


@contextlib.contextmanager
def browsing(url: str, pin: str, folder):
    """A browser with this page open, until the block ends."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={folder}",
        f"--ignore-certificate-errors-spki-list={pin}", f"--host-resolver-rules=MAP {SERVER_NAME} 127.0.0.1",
        "--disable-background-networking", "--no-first-run", "--no-proxy-server", "--remote-debugging-port=0", url,
    ]  # fmt: skip
    log = folder.with_suffix(".log")
    with log.open("wb") as words:
        browser = subprocess.Popen(command, stdout=words, stderr=words, env={**os.environ, "HOME": str(folder)}, start_new_session=True)
        try:
            yield log
        finally:
            # Its processes are a group: none of them outlives the test.
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait(10)


def test_a_browser_over_http2(raw_server, proxy, pki, tmp_path):  # noqa: F811
    from cryptography.hazmat.primitives import serialization

    web, calls = raw_server(serving), EchoServer()
    try:
        running = proxy(
            config=config(
                listeners=pki.listener(),
                routes=[{"name": "calls", "match": {"prefix": f"/{SERVICE}"}, "to": "calls", "grpc_web": True}, {"name": "all", "to": "web"}],
                clusters=[{"name": "web", "endpoints": [web.address]}, {"name": "calls", "endpoints": [calls.address], "protocol": "http2"}],
            )
        )
        key = pki.server.certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        pin = base64.b64encode(hashlib.sha256(key).digest()).decode()
        with browsing(f"https://{SERVER_NAME}:{running.addresses['web'][1]}/", pin, tmp_path / "profile") as log:
            try:
                eventually(lambda: any(request.path == "/done" for request in web.requests), PATIENCE_S)
            except AssertionError:
                raise AssertionError(log.read_text(errors="replace")[-2000:]) from None
    finally:
        calls.stop()
    [done] = [request for request in web.requests if request.path == "/done"]
    assert json.loads(done.body) == {
        "items": 60, "upload": "300000", "protocols": ["h2"], "missing": 404, "large": 3_000_000, "call": "hello true", "socket": "hello",
    }  # fmt: skip
    listener = running.stats().listeners[0]
    # All of it on one or two connections; the WebSocket may ride too (RFC 8441).
    assert listener.requests >= 66 and listener.accepted <= 4, (listener.requests, listener.accepted)
