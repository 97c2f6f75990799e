"""Who may come in over mutual TLS: every fault of a certificate has its reason, and who is known is told upstream."""

from __future__ import annotations

import datetime
import ssl
import subprocess

import pytest

from tests.scenario.certificates import HOUR, Authority, Usage, pem, rsa_key, self_signed
from tests.scenario.proxies import config
from tests.scenario.servers import PATIENCE_S, eventually
from tests.scenario.tls import CLIENT_ID, SERVER_NAME, pki, tls_client  # noqa: F401 (fixtures)

pytestmark = pytest.mark.usefixtures("only_meshcore")

SECOND = datetime.timedelta(seconds=1)


def answer_of(tls_client, running, leaf, **options) -> int | str:  # noqa: F811
    """The status of one request, or "refused"."""
    try:
        return tls_client(running, leaf, **options).get().status
    except (ssl.SSLError, ConnectionError, AssertionError):
        return "refused"


def deep_chain(root: Authority, n: int) -> Authority:
    for i in range(n):
        root = Authority(f"intermediate {i}", above=root)
    return root


FAULTS = {
    "tls_no_client_certificate": lambda root: None,
    "tls_expired": lambda root: root.leaf(CLIENT_ID, begins=-3 * HOUR, lasts=-HOUR),
    "tls_not_yet_valid": lambda root: root.leaf(CLIENT_ID, begins=HOUR),
    "tls_self_signed": lambda root: self_signed(CLIENT_ID),
    "tls_unknown_ca": lambda root: Authority("stranger").leaf(CLIENT_ID),
    "tls_wrong_purpose": lambda root: root.leaf(CLIENT_ID, usage=[Usage.SERVER_AUTH]),
    "tls_bad_identity": lambda root: root.leaf(CLIENT_ID, "spiffe://td.test/second"),
    "tls_chain_too_deep": lambda root: deep_chain(root, 50).leaf(CLIENT_ID),
    "tls_key_too_weak": lambda root: root.leaf(CLIENT_ID, key=rsa_key(1024)),
    "tls_wrong_identity": None,
}
MORE_FAULTS = [
    ("tls_expired", lambda root: Authority("old", above=root, lasts=-HOUR / 2).leaf(CLIENT_ID)),
    ("tls_unknown_ca", lambda root: Authority("between", above=root).leaf(CLIENT_ID, chain=False)),
    ("tls_chain_too_deep", lambda root: deep_chain(root, 10).leaf(CLIENT_ID)),
    ("tls_wrong_purpose", lambda root: root.leaf(CLIENT_ID, usage=[])),
    ("tls_wrong_purpose", lambda root: root.leaf(CLIENT_ID, ca=True)),
    ("tls_bad_identity", lambda root: root.leaf("spiffe://td.test/a/../b")),
    ("tls_bad_identity", lambda root: root.leaf("spiffe://td.test:99/a")),
    ("tls_bad_identity", lambda root: root.leaf(CLIENT_ID, "https://td.test/other")),
]


@pytest.mark.parametrize(
    "reason, make", [(reason, make) for reason, make in FAULTS.items() if make] + MORE_FAULTS, ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_each_fault_of_a_certificate_is_refused_with_its_reason(reason, make, version, proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.mutual())
    leaf = make(pki.root)
    context = pki.client_context(maximum_version=getattr(ssl.TLSVersion, version))
    if leaf is not None:
        files = leaf.write(pki.folder, "faulty")
        if reason == "tls_key_too_weak":
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(files["cert"], files["key"])
    assert answer_of(tls_client, running, None, context=context) == "refused"
    eventually(lambda: running.stats().reasons)
    assert running.stats().reasons == {reason: 1}
    assert running.stats().listeners[0].tls_failures == 1
    assert not server.requests


def test_a_key_above_8192_bits_is_refused_before_it_is_used(proxy, raw_server, pki):  # noqa: F811
    # Made ready: a key of that size takes a minute to find. Its numbers need not be right: nothing is verified by it.
    from cryptography.hazmat.primitives.asymmetric import rsa

    class Huge:
        def public_key(self):
            return rsa.RSAPublicNumbers(65537, (1 << 16383) | 1).public_key()

    running = proxy(to=raw_server(), listeners=pki.mutual())
    above = Authority("huge", above=pki.root)
    leaf = above.leaf(CLIENT_ID)
    from tests.scenario.certificates import _build

    huge = _build(above.name, Huge(), pki.root.name, pki.root.key, [], -HOUR, HOUR)
    leaf.above = [huge]
    files = leaf.write(pki.folder, "huge")
    subprocess.run(
        ["openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", "127.0.0.1:%d" % running.addresses["web"][1], "-cert",
         files["cert"], "-key", files["key"], "-cert_chain", files["cert"]],
        input=b"", capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    eventually(lambda: running.stats().reasons)
    assert running.stats().reasons == {"tls_key_too_large": 1}


# --- identity -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules, names, status",
    [
        ([CLIENT_ID], [CLIENT_ID], 200),
        (["spiffe://TD.test/ns/web/sa/client"], [CLIENT_ID], 200),
        (["spiffe://td.test/ns/web/sa/Client"], [CLIENT_ID], 403),
        (["spiffe://td.test/ns/web/sa"], [CLIENT_ID], 403),
        (["spiffe://td.test/*"], [CLIENT_ID], 200),
        (["spiffe://td.tes/*"], [CLIENT_ID], 403),
        (["spiffe://other/*", CLIENT_ID], [CLIENT_ID], 200),
        (["dns:c.test"], ["c.test"], 200),
        (["dns:c.test"], ["x.test", "C.test"], 200),
        (["dns:x.c.test"], ["*.c.test"], 200),
        (["dns:c.test"], ["*.c.test"], 403),
        (["dns:c.test"], [CLIENT_ID], 403),
        (["spiffe://td.test/*"], ["c.test"], 403),
    ],
)
def test_only_allowed_identities_are_served_others_are_told_403(rules, names, status, proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.mutual(allowed_clients=rules))
    client = tls_client(running, pki.root.leaf(*names))
    answer = client.get()
    assert answer.status == status
    if status == 403:
        assert answer.get("x-mesh-reason") == "tls_wrong_identity"
        assert not server.requests and running.stats().reasons == {"tls_wrong_identity": 1}


def test_who_is_not_allowed_reaches_no_filter_and_no_body(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.mutual(allowed_clients=["spiffe://td.test/other"]))
    seen = []
    running.on_request("all")(lambda request: seen.append(request))
    assert tls_client(running, pki.client).post("/", b"x" * 100_000).status == 403
    assert not seen


@pytest.mark.parametrize("trusted", [False, True])
def test_the_identity_is_told_upstream_and_cannot_be_claimed(trusted, proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    listeners = pki.mutual()
    listeners[0]["trust_mesh_headers"] = trusted
    running = proxy(to=server, listeners=listeners)
    spoofed = {"l5d-client-id": "spiffe://td.test/admin", "L5D_Client_Id": "spiffe://td.test/admin"}
    assert tls_client(running, pki.client).get("/", spoofed).status == 200
    assert server.requests[0].all("l5d-client-id") == [CLIENT_ID]
    assert not server.requests[0].all("l5d_client_id")


@pytest.mark.parametrize("mode", ["sanitize", "set"])
def test_a_certificate_is_described_only_on_request_and_never_by_the_client(mode, proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.mutual(forwarded_client_cert=mode))
    assert tls_client(running, pki.client).get("/", {"X-Forwarded-Client-Cert": "URI=spiffe://td.test/admin"}).status == 200
    from cryptography.hazmat.primitives import hashes

    told = f"Hash={pki.client.certificate.fingerprint(hashes.SHA256()).hex()};URI={CLIENT_ID}"
    assert server.requests[0].all("x-forwarded-client-cert") == ([told] if mode == "set" else [])


def test_an_anonymous_client_where_certificates_are_optional_has_no_identity(proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    running = proxy(to=server, listeners=pki.mutual(client_auth="optional"))
    assert tls_client(running).get("/", {"l5d-client-id": CLIENT_ID}).status == 200
    assert tls_client(running, pki.client).get().status == 200
    assert [message.get("l5d-client-id") for message in server.requests] == [None, CLIENT_ID]
    assert answer_of(tls_client, running, self_signed(CLIENT_ID)) == "refused"


def test_filters_and_taps_see_who_it_is(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.mutual())
    seen = []
    running.on_request("all")(lambda request: seen.append((request.peer_identity, request.secure)))
    with running.tap(scheme="https", max_rps=100) as tap:
        assert tls_client(running, pki.client).get().status == 200
        events = []
        while len(events) < 3:
            events += tap.read(PATIENCE_S)
    assert seen == [(CLIENT_ID, True)]
    assert (events[0].tls, events[0].src_id, events[0].scheme) == (True, CLIENT_ID, "https")


def test_several_roots_in_a_bundle_count(proxy, raw_server, pki, tls_client):  # noqa: F811
    second = Authority("second")
    bundle = pki.file("bundle", pem(pki.root.certificate, second.certificate))
    running = proxy(to=raw_server(), listeners=pki.listener(client_ca=bundle))
    for authority in (pki.root, second, Authority("below", above=second)):
        assert tls_client(running, authority.leaf(CLIENT_ID)).get().status == 200


def test_a_revoked_certificate_is_refused(proxy, raw_server, pki, tls_client):  # noqa: F811
    bad = pki.root.leaf(CLIENT_ID)
    running = proxy(to=raw_server(), listeners=pki.mutual(crl=pki.file("crl", pki.root.crl(bad))))
    assert tls_client(running, pki.client).get().status == 200
    assert answer_of(tls_client, running, bad) == "refused"
    eventually(lambda: running.stats().reasons == {"tls_revoked": 1})


@pytest.mark.parametrize("make", [lambda pki: pki.root.crl(lasts=-HOUR), lambda pki: Authority("other").crl()])
def test_without_a_valid_crl_nobody_is_let_in(make, proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.mutual(crl=pki.file("crl", make(pki))))
    assert answer_of(tls_client, running, pki.client) == "refused"
    eventually(lambda: running.stats().reasons == {"tls_crl_unusable": 1})


# --- resumption -----------------------------------------------------------------------------------------------------------


def resume(tls_client, running, context, first=None):  # noqa: F811
    client = tls_client(running, context=context, session=first)
    status = client.get().status
    return client.sock.session, client.sock.session_reused, status


@pytest.mark.parametrize("kind", ["tickets", "stateful"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("mutual", [False, True])
def test_a_session_is_resumed_and_the_identity_with_it(kind, version, mutual, proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()
    listeners = (pki.mutual if mutual else pki.listener)(session_resumption=kind)
    running = proxy(to=server, listeners=listeners, workers=2)
    context = pki.client_context(pki.client if mutual else None, maximum_version=getattr(ssl.TLSVersion, version))
    session, reused, _ = resume(tls_client, running, context)
    assert not reused
    for _ in range(4):
        session, reused, status = resume(tls_client, running, context, session)
        assert reused and status == 200
    assert {message.get("l5d-client-id") for message in server.requests} == {CLIENT_ID if mutual else None}
    listener = running.stats().listeners[0]
    assert (listener.tls_handshakes, listener.tls_resumed) == (5, 4)


def test_each_resumption_brings_a_new_ticket_since_clients_use_one_once(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(session_resumption="tickets"))
    context = pki.client_context()
    session, _, _ = resume(tls_client, running, context)
    for _ in range(4):
        following, reused, _ = resume(tls_client, running, context, session)
        assert reused
        assert following.id != session.id
        session = following


def test_sessions_are_not_resumed_where_that_is_off(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(session_resumption="off"))
    context = pki.client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    session, _, _ = resume(tls_client, running, context)
    assert not resume(tls_client, running, context, session)[1]


@pytest.mark.parametrize("kind", ["tickets", "stateful"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_session_of_a_certificate_that_expired_meanwhile_is_not_resumed(kind, version, proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.mutual(session_resumption=kind))
    short = pki.root.leaf(CLIENT_ID, lasts=3 * SECOND)
    context = pki.client_context(short, maximum_version=getattr(ssl.TLSVersion, version))
    session, _, status = resume(tls_client, running, context)
    assert status == 200
    # Valid through the whole of its last second.
    eventually(lambda: short.certificate.not_valid_after_utc + SECOND < datetime.datetime.now(datetime.timezone.utc))
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        resume(tls_client, running, context, session)
    eventually(lambda: running.stats().reasons == {"tls_expired": 1})


@pytest.mark.parametrize("kind", ["tickets", "stateful"])
def test_after_the_rules_changed_a_session_counts_no_more(kind, proxy, raw_server, pki, tls_client):  # noqa: F811
    server = raw_server()

    def rules(*allowed):
        return config(to=server, listeners=[{**pki.mutual(allowed_clients=list(allowed), session_resumption=kind)[0]}])

    running = proxy(config=rules(CLIENT_ID))
    context = pki.client_context(pki.client)
    session, _, status = resume(tls_client, running, context)
    assert status == 200
    running.reload(rules("spiffe://td.test/other"))
    _, reused, status = resume(tls_client, running, context, session)
    assert (reused, status) == (False, 403)


def test_tickets_outlive_a_new_server_certificate(proxy, raw_server, pki, tls_client):  # noqa: F811
    running = proxy(to=raw_server(), listeners=pki.listener(session_resumption="tickets"))
    context = pki.client_context()
    session, _, _ = resume(tls_client, running, context)
    fresh = pki.root.leaf(SERVER_NAME)
    running.set_certificate("web", fresh.cert_pem, fresh.key_pem)
    assert resume(tls_client, running, context, session)[1]
