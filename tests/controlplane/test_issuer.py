"""From a request to a certificate: every proof, every refusal, and what the audit says of it."""

import asyncio

import pytest
from cryptography.hazmat.primitives import serialization

from controlplane.audit import AuditFile, AuditMemory
from controlplane.errors import Denied, Throttled
from controlplane.identity import (
    Attempts,
    Authority,
    Issuer,
    IssuingPolicy,
    JoinToken,
    JoinTokens,
    PeerCertificate,
    PeerCertificates,
    PrivateKey,
    ServiceAccountToken,
    Trust,
)
from controlplane.spiffe import SpiffeId
from tests.controlplane.asking import DOMAIN, Clock, new_key, request
from tests.controlplane.openssl import Party, handshake, verify
from tests.controlplane.test_kubernetes_tokens import GOOD, ApiServer, tokens_of

WEB = SpiffeId(DOMAIN, "shop", "web")


class Mesh:
    """An issuer with everything it needs, over one store."""

    def __init__(self, store, **words):
        self.clock, self.ticks, self.audit = Clock(), Clock(0.0), AuditMemory()
        self.root = Authority.new_root(DOMAIN, self.clock())
        self.trust = Trust(store, self.audit, DOMAIN, [self.root.new_intermediate(self.clock())])
        self.tokens = JoinTokens(store, self.audit)
        verifiers = {
            JoinToken: self.tokens,
            PeerCertificate: PeerCertificates(self.trust),
            **words.pop("verifiers", {}),
        }
        self.issuer = Issuer(self.trust, verifiers, self.audit, clock=self.clock, ticks=self.ticks, **words)

    async def open(self):
        await self.trust.open(self.clock())
        return self

    async def token(self, identity=WEB):
        return await self.tokens.make(identity, self.clock(), by="alice")

    def last(self):
        return self.audit.records[-1]


def der(chain):
    return tuple(one.public_bytes(serialization.Encoding.DER) for one in chain)


async def test_a_join_token_becomes_a_certificate_that_becomes_the_next_one(place, tmp_path):
    async with place.store() as store:
        mesh = await Mesh(store).open()
        keys = [new_key(), new_key()]
        first = await mesh.issuer.certify(request(keys[0]), await mesh.token(), peer="192.0.2.1", wanted=str(WEB))
        assert verify(tmp_path, first.leaf.chain, first.bundle_pem.encode()) == "OK"
        # Renewed at 70 % of its time, with a new key, by nothing but itself.
        mesh.clock.now_s = first.leaf.renew_at_s
        assert mesh.clock.now_s < first.leaf.not_after_s
        second = await mesh.issuer.certify(request(keys[1]), PeerCertificate(der(first.leaf.chain)), peer="192.0.2.1")
        assert second.leaf.identity == WEB and second.leaf.not_after_s > first.leaf.not_after_s
        assert second.leaf.chain[0].public_key() == keys[1].public_key()
        both = [
            Party(tmp_path / str(n), PrivateKey(key), issued.leaf.chain, issued.bundle_pem)
            for n, (key, issued) in enumerate(zip(keys, (first, second), strict=True))
        ]
        assert handshake(both[0], both[0]) == (str(WEB), str(WEB))
        # The second is not valid yet on the clock of this machine: by OpenSSL's it is, at the time it was issued.
        assert verify(tmp_path, second.leaf.chain, second.bundle_pem.encode(), at_s=mesh.clock()) == "OK"
        record = mesh.last()
        assert (record.event, record.outcome, record.actor) == ("certificate_issue", "done", "192.0.2.1")
        assert record.fields["serial"] == f"{second.leaf.serial:x}"
        assert record.fields["by"] == f"certificate {first.leaf.serial:x}"


async def test_a_certificate_that_has_run_out_renews_nothing(tmp_path, place):
    async with place.store() as store:
        mesh = await Mesh(store).open()
        issued = await mesh.issuer.certify(request(), await mesh.token(), peer="a")
        mesh.clock.now_s = issued.leaf.not_after_s + 1
        with pytest.raises(Denied):
            await mesh.issuer.certify(request(), PeerCertificate(der(issued.leaf.chain)), peer="a")
        assert "does not hold" in mesh.last().fields["why"]
        with pytest.raises(Denied):
            await mesh.issuer.certify(request(), PeerCertificate((b"x",)), peer="a")


async def test_a_kubernetes_token_becomes_a_certificate(place, tmp_path):
    api, own = ApiServer(), tmp_path / "token"
    own.write_text("own-token")
    try:
        async with place.store() as store:
            mesh = await Mesh(store, verifiers={ServiceAccountToken: tokens_of(api, own)}).open()
            issued = await mesh.issuer.certify(request(), ServiceAccountToken(GOOD), peer="pod")
            assert str(issued.leaf.identity) == f"spiffe://{DOMAIN}/ns/shop/sa/web"
            assert "shop/web" in mesh.last().fields["by"]
    finally:
        api.stop()


@pytest.mark.parametrize("case", ["wanted", "wish", "kind", "namespace", "request"])
async def test_a_refused_request_does_not_cost_the_token(place, case):
    async with place.store() as store:
        mesh = await Mesh(
            store, policy=IssuingPolicy(namespaces=frozenset({"other"})) if case == "namespace" else IssuingPolicy()
        ).open()
        token, words, asked = await mesh.token(), {}, request()
        if case == "wanted":
            words["wanted"] = f"spiffe://{DOMAIN}/ns/shop/sa/admin"
        elif case == "wish":
            asked = request(uris=[f"spiffe://{DOMAIN}/ns/shop/sa/admin"])
        elif case == "request":
            asked = b"nonsense"
        proof = ServiceAccountToken("x") if case == "kind" else token
        with pytest.raises(Denied) as caught:
            await mesh.issuer.certify(asked, proof, peer="a", **words)
        record = mesh.last()
        assert (record.outcome, record.fields["reason"]) == ("denied", caught.value.reason)
        assert (await mesh.tokens.prove(token, mesh.clock())).identity == WEB


async def test_a_token_that_comes_again_is_refused_and_somebody_can_know(place):
    async with place.store() as store:
        mesh = await Mesh(store).open()
        token = await mesh.token()
        await mesh.issuer.certify(request(), token, peer="first")
        with pytest.raises(Denied):
            await mesh.issuer.certify(request(), token, peer="second")
        assert mesh.last().actor == "second" and "copy" in mesh.last().fields["why"]


async def test_of_many_that_bring_one_token_at_once_one_gets_a_certificate(place):
    async with place.store() as store:
        mesh = await Mesh(store).open()
        token = await mesh.token()
        ends = await asyncio.gather(
            *(mesh.issuer.certify(request(), token, peer=str(n)) for n in range(6)), return_exceptions=True
        )
        assert sum(not isinstance(end, Exception) for end in ends) == 1
        assert all(isinstance(end, Denied) for end in ends if isinstance(end, Exception))


async def test_who_tries_too_often_has_to_wait_and_nobody_else_does(place):
    async with place.store() as store:
        mesh = await Mesh(store, attempts=Attempts(per_s=1.0, burst=5)).open()
        for _ in range(5):
            with pytest.raises(Denied):
                await mesh.issuer.certify(request(), JoinToken("mesh1.guess"), peer="guesser")
        token = await mesh.token()
        with pytest.raises(Throttled) as caught:
            await mesh.issuer.certify(request(), token, peer="guesser")
        assert 0.0 < caught.value.retry_after_s <= 1.0
        await mesh.issuer.certify(request(), token, peer="somebody else")
        mesh.ticks.now_s += 1.0
        await mesh.issuer.certify(request(), await mesh.token(), peer="guesser")


def test_attempts_are_bounded_in_number_and_all_together():
    attempts = Attempts(per_s=1.0, burst=2, all_factor=5.0, most_peers=50)
    assert sum(attempts.wait_s(f"peer {n}", 0.0) == 0.0 for n in range(100)) == 10
    assert len(attempts._buckets) <= 50
    assert attempts.wait_s("new", 0.0) > 0.0
    assert attempts.wait_s("new", 1.0) == 0.0
    assert attempts.wait_s("new", 0.5) == 0.0, "a clock that goes back gives and takes nothing"


async def test_nothing_is_handed_out_that_is_not_in_the_audit(place):
    async with place.store() as store:
        mesh = await Mesh(store).open()
        token = await mesh.token()

        class Full(AuditMemory):
            def record(self, *words, **fields):
                raise OSError(28, "No space left on device")

        mesh.issuer._audit = Full()
        with pytest.raises(OSError):
            await mesh.issuer.certify(request(), token, peer="a")


async def test_no_secret_reaches_the_audit_file(place, tmp_path):
    async with place.store() as store:
        mesh = await Mesh(store).open()
        mesh.issuer._audit = AuditFile(tmp_path / "audit.jsonl")
        token = await mesh.token()
        await mesh.issuer.certify(request(), token, peer="a")
        for text in (token.text, token.text + "x"):
            with pytest.raises(Denied):
                await mesh.issuer.certify(request(), JoinToken(text), peer='a\n{"event":"forged"}', wanted="x\r\ny")
        lines = (tmp_path / "audit.jsonl").read_text().splitlines()
        assert len(lines) == 3
        assert token.text.split(".")[2] not in "".join(lines)
        assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
