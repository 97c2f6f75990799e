"""Join tokens: once, in time, for one identity, kept as hashes. Over both stores."""

import asyncio
import re

import pytest

from controlplane.audit import AuditMemory
from controlplane.errors import Denied, Invalid
from controlplane.identity import JoinToken, JoinTokens
from controlplane.spiffe import SpiffeId
from tests.controlplane.asking import DOMAIN

WEB = SpiffeId(DOMAIN, "shop", "web")


async def denied(tokens, text, now_s) -> str:
    with pytest.raises(Denied) as caught:
        await (await tokens.prove(JoinToken(text), now_s)).spend()
    assert caught.value.reason == "bad_proof" and str(caught.value) == "denied: bad_proof"
    return caught.value.why


async def test_a_token_works_once(place):
    async with place.store() as store:
        tokens = JoinTokens(store, AuditMemory())
        token = await tokens.make(WEB, 1000.0, by="alice")
        proved = await tokens.prove(token, 1001.0)
        assert proved.identity == WEB
        await proved.spend()
        assert "used already" in await denied(tokens, token.text, 1002.0)


async def test_of_two_that_use_one_token_at_once_one_gets_in(place):
    async with place.store() as store:
        tokens = JoinTokens(store, AuditMemory())
        token = await tokens.make(WEB, 1000.0, by="alice")
        proofs = await asyncio.gather(*(tokens.prove(token, 1001.0) for _ in range(8)))
        spent = await asyncio.gather(*(proof.spend() for proof in proofs), return_exceptions=True)
        assert [type(one) for one in spent].count(type(None)) == 1
        assert all(one is None or isinstance(one, Denied) for one in spent)


async def test_a_token_that_was_not_spent_can_be_shown_again(place):
    async with place.store() as store:
        tokens = JoinTokens(store, AuditMemory())
        token = await tokens.make(WEB, 1000.0, by="alice")
        await tokens.prove(token, 1001.0)
        await (await tokens.prove(token, 1002.0)).spend()


async def test_a_token_ends_with_its_time(place):
    async with place.store() as store:
        tokens = JoinTokens(store, AuditMemory())
        token = await tokens.make(WEB, 1000.0, by="alice", ttl_s=60)
        assert "expired" in await denied(tokens, token.text, 1060.0)
        await tokens.prove(token, 1059.9)
        for ttl_s in (0, -1, 100_000):
            with pytest.raises(Invalid):
                await tokens.make(WEB, 1000.0, by="alice", ttl_s=ttl_s)


async def test_a_revoked_token_is_unknown(place):
    async with place.store() as store:
        tokens = JoinTokens(store, AuditMemory())
        token = await tokens.make(WEB, 1000.0, by="alice")
        await tokens.revoke(token.text.split(".")[1], by="alice")
        assert "unknown" in await denied(tokens, token.text, 1001.0)


async def test_a_wrong_secret_is_refused_and_does_not_spend_the_token(place):
    async with place.store() as store:
        tokens = JoinTokens(store, AuditMemory())
        token = await tokens.make(WEB, 1000.0, by="alice")
        head, number, secret = token.text.split(".")
        flipped = ("B" if secret[0] == "A" else "A") + secret[1:]
        for text in (
            f"{head}.{number}.{flipped}",
            f"{head}.{'0' * 16}.{secret}",
            "",
            "mesh1..",
            token.text + "x",
            token.text + "\n",
            token.text.upper(),
            f"mesh2.{number}.{secret}",
            "x" * 100_000,
        ):
            await denied(tokens, text, 1001.0)
        await (await tokens.prove(token, 1001.0)).spend()


async def test_no_secret_is_at_rest_in_the_audit_or_in_a_text(place):
    async with place.store() as store:
        audit = AuditMemory()
        token = await JoinTokens(store, audit).make(WEB, 1000.0, by="alice")
        _, number, secret = token.text.split(".")
        kept = b"".join(entry.value for entry in (await store.list()).entries)
        assert re.search(rb'"secret_sha256":"[0-9a-f]{64}"', kept)
        for text in (kept.decode(), repr(token), str(token), repr(audit.records)):
            assert secret not in text
        assert audit.records[0].actor == "alice" and audit.records[0].fields["id"] == number
