"""TokenReview, against a small API server that speaks its protocol over HTTP and TLS."""

import http.server
import json
import ssl
import threading
import time

import pytest

from controlplane.errors import Denied, StoreUnavailable
from controlplane.identity import JoinToken, KubernetesTokens, ServiceAccountToken
from controlplane.spiffe import SpiffeId
from tests.controlplane.asking import DOMAIN

GOOD = "eyJhbGciOiJSUzI1NiJ9.good.signature"


class ApiServer:
    """Answers TokenReviews as kube-apiserver does; `accounts` says whose tokens it knows, and for which audiences."""

    def __init__(self, tls=None):
        self.accounts = {GOOD: ("system:serviceaccount:shop:web", ["meshcore", "https://kubernetes.default.svc"])}
        self.seen: list[dict] = []
        self.answer = None  # (status, bytes) instead of a review
        self.knows_audiences = True
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.seen.append({"path": self.path, "authorization": self.headers["authorization"], "body": body})
                status, data = outer.answer or outer.review(self.headers["authorization"], body)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                if status in (301, 307):
                    self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def review(self, authorization, body):
        if authorization != "Bearer own-token":
            return 401, b'{"kind":"Status","status":"Failure","code":401}'
        spec, status = body["spec"], {"authenticated": False, "user": {}, "error": "invalid bearer token"}
        name, audiences = self.accounts.get(spec["token"], (None, []))
        both = [audience for audience in spec.get("audiences", []) if audience in audiences]
        if name and (both or not self.knows_audiences):
            status = {
                "authenticated": True,
                "user": {"username": name, "uid": "1", "groups": ["system:serviceaccounts"]},
            }
            if self.knows_audiences:
                status["audiences"] = both
        return 201, json.dumps({**body, "status": status}).encode()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api():
    server = ApiServer()
    yield server
    server.stop()


@pytest.fixture
def own_token(tmp_path):
    path = tmp_path / "token"
    path.write_text("own-token\n")
    return path


def tokens_of(api, own_token, **words):
    return KubernetesTokens(api.url, DOMAIN, own_token_file=own_token, **words)


async def denied(tokens, text) -> str:
    with pytest.raises(Denied) as caught:
        await tokens.prove(ServiceAccountToken(text), time.time())
    return caught.value.why


async def test_a_service_account_is_who_the_api_server_says(api, own_token):
    proved = await tokens_of(api, own_token).prove(ServiceAccountToken(GOOD), time.time())
    assert proved.identity == SpiffeId(DOMAIN, "shop", "web")
    assert api.seen[0]["path"] == "/apis/authentication.k8s.io/v1/tokenreviews"
    assert api.seen[0]["body"]["spec"] == {"token": GOOD, "audiences": ["meshcore"]}
    assert (
        api.seen[0]["body"]["kind"] == "TokenReview" and api.seen[0]["body"]["apiVersion"] == "authentication.k8s.io/v1"
    )
    assert GOOD not in proved.by + repr(ServiceAccountToken(GOOD))


async def test_a_token_for_another_audience_opens_nothing(api, own_token):
    api.accounts[GOOD] = ("system:serviceaccount:shop:web", ["https://kubernetes.default.svc"])
    assert "does not accept" in await denied(tokens_of(api, own_token), GOOD)
    # An API server that ignores audiences answers without any: then nobody checked.
    api.knows_audiences = False
    assert "not meant for" in await denied(tokens_of(api, own_token), GOOD)


@pytest.mark.parametrize(
    "name",
    [
        "alice",
        "system:node:n1",
        "system:serviceaccount:shop",
        "system:serviceaccount:shop:web:x",
        "system:serviceaccount:shop:../../admin",
        "system:serviceaccount::web",
        "",
        None,
        5,
    ],
)
async def test_who_is_no_service_account_is_nobody(api, own_token, name):
    status = {"authenticated": True, "audiences": ["meshcore"], "user": {"username": name}}
    api.answer = (201, json.dumps({"status": status}).encode())
    await denied(tokens_of(api, own_token), GOOD)


@pytest.mark.parametrize("text", ["", "a b", "a\r\nHost: x", "ü", "x" * 20_000, "\0"])
async def test_what_is_no_token_is_never_sent(api, own_token, text):
    await denied(tokens_of(api, own_token), text)
    with pytest.raises(Denied):
        await tokens_of(api, own_token).prove(JoinToken("x"), time.time())
    assert api.seen == []


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"{}"),
        (403, b"{}"),
        (307, b"{}"),
        (201, b"not json"),
        (201, b"[]"),
        (201, b"{}"),
        (201, b'{"status": "Success"}'),
        (200, b'{"status":{"authenticated":true}}' + b" " * 400_000),
    ],
)
async def test_an_api_server_that_does_not_say_is_no_yes(api, own_token, answer):
    api.answer = answer
    with pytest.raises(StoreUnavailable):
        await tokens_of(api, own_token).prove(ServiceAccountToken(GOOD), time.time())


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": "true", "audiences": ["meshcore"], "user": {"username": "system:serviceaccount:a:b"}},
        {"authenticated": 1, "audiences": ["meshcore"], "user": {"username": "system:serviceaccount:a:b"}},
        {"authenticated": True, "audiences": ["other"], "user": {"username": "system:serviceaccount:a:b"}},
        {"authenticated": True},
        {},
        {"authenticated": True, "audiences": "meshcore", "user": {"username": "system:serviceaccount:a:b"}},
    ],
)
async def test_a_yes_is_exactly_true(api, own_token, status):
    api.answer = (201, json.dumps({"status": status}).encode())
    await denied(tokens_of(api, own_token), GOOD)


async def test_nobody_there_is_no_yes_and_tells_no_token(api, own_token):
    api.stop()
    with pytest.raises(StoreUnavailable) as caught:
        await tokens_of(api, own_token).prove(ServiceAccountToken(GOOD), time.time())
    assert "own-token" not in str(caught.value) and GOOD not in str(caught.value)
    with pytest.raises(StoreUnavailable):
        await tokens_of(api, own_token.with_name("gone")).prove(ServiceAccountToken(GOOD), time.time())


async def test_our_own_token_is_read_anew_each_time(api, own_token):
    tokens = tokens_of(api, own_token)
    own_token.write_text("old-token")
    with pytest.raises(StoreUnavailable):
        await tokens.prove(ServiceAccountToken(GOOD), time.time())
    own_token.write_text("own-token")
    await tokens.prove(ServiceAccountToken(GOOD), time.time())


async def test_the_api_server_must_show_the_certificate_we_expect(tmp_path, own_token):
    import subprocess

    for name in ("right", "wrong"):
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                f"{name}.key",
                "-out",
                f"{name}.pem",
                "-subj",
                "/CN=api",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-days",
                "1",
            ],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            timeout=20,
        )
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(tmp_path / "right.pem", tmp_path / "right.key")
    server = ApiServer(server_tls)
    try:
        right, wrong = (ssl.create_default_context(cafile=tmp_path / f"{name}.pem") for name in ("right", "wrong"))
        await tokens_of(server, own_token, tls=right).prove(ServiceAccountToken(GOOD), time.time())
        for tls in (wrong, None):
            with pytest.raises(StoreUnavailable):
                await tokens_of(server, own_token, tls=tls).prove(ServiceAccountToken(GOOD), time.time())
    finally:
        server.stop()
    assert len(server.seen) == 1
