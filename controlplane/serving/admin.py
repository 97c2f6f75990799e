"""Admin: what operators ask and change. Owns the calls; the model, tokens and explanations are their own files'.

Every call is checked against what the caller may do in the namespaces it touches, and what is not allowed is on the
audit. Reading leaves out what may not be seen; writing is refused as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from meshcore.api import admin_pb2, admin_pb2_grpc
from meshcore.errors import Problem

from ..catalogue import Catalogue
from ..errors import Invalid
from ..identity import JoinTokens
from ..model import KINDS, Endpoint, Named, Workload, encode, read
from ..resolve import View, parse
from ..spiffe import SpiffeId
from . import explain
from .answers import refuse
from .peers import Peer, Peers
from .permissions import Permissions
from .roots import Roots

DEFAULT_TOKEN_S = 3_600
MAX_VALUES = 100  # of one call; a transaction of a store holds no more


class Admin(admin_pb2_grpc.AdminServicer):  # type: ignore[misc]
    """The service, for one of the two ways operators come: through the door, or through the socket here."""

    def __init__(
        self,
        catalogue: Catalogue,
        view: View,
        tokens: JoinTokens,
        peers: Peers,
        permissions: Permissions,
        trust_domain: str,
        cluster_domain: str,
        status: Callable[[], dict[str, Any]],
        roots: Roots,
    ) -> None:
        self._catalogue = catalogue
        self._view = view
        self._tokens = tokens
        self._peers = peers
        self._permissions = permissions
        self._trust_domain = trust_domain
        self._cluster_domain = cluster_domain
        self._status = status
        self._roots = roots

    async def Status(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            self._permissions.check(peer, "view", "")
            return admin_pb2.Status(json=msgspec.json.encode(self._status()))

        return await self._answered(context, answer)

    async def Get(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            kinds = _kinds(request.kinds)
            if request.namespace:
                self._permissions.check(peer, "view", request.namespace)
            listing = await self._catalogue.list(*kinds, prefix=f"{request.namespace}/" if request.namespace else "")
            entries = [
                admin_pb2.Entry(
                    kind=entry.kind, key=entry.key, revision=entry.revision, lease=entry.lease, json=encode(entry.value)
                )
                for entry in listing.entries
                if self._permissions.allows(peer, "view", entry.value.namespace)
                and request.name in ("", entry.value.name)
            ]
            entries += [
                admin_pb2.Entry(kind=value.kind, key=value.key, json=encode(value), source=source)
                for source, value in self._view.layers.sourced()
                if (not request.kinds or value.kind in request.kinds)
                and request.namespace in ("", value.namespace)
                and request.name in ("", value.name)
                and self._permissions.allows(peer, "view", value.namespace)
            ]
            return admin_pb2.Listing(position=str(listing.position), entries=entries, unreadable=listing.unreadable)

        return await self._answered(context, answer)

    async def Apply(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            values: list[Named] = [_value(entry) for entry in _bounded(request.entries)]
            self._check_edit(peer, values)
            done: list[str] = []
            for value in values:
                there = await self._catalogue.store.get(value.kind, value.key)
                lease = there.lease if there is not None and request.keeps_lease else 0
                if isinstance(value, (Endpoint, Workload)):
                    # A lease is kept alive by its owner: one taken from a listing could let the entry vanish.
                    value = values[len(done)] = msgspec.structs.replace(value, lease=lease)
                word = "created" if there is None else "unchanged" if there.value == encode(value) else "changed"
                done.append(f"{value.kind} {value.key} {word}")
            changed = [value for value, word in zip(values, done, strict=True) if not word.endswith(" unchanged")]
            if request.is_dry_run or not changed:
                return admin_pb2.Applied(position=str(self._view.position), done=done)
            return admin_pb2.Applied(position=str(await self._catalogue.put(*changed, by=peer.name)), done=done)

        return await self._answered(context, answer)

    async def Delete(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            done, position = [], self._view.position
            places = [(_kinds([entry.kind])[0], entry.key) for entry in _bounded(request.entries)]
            for _, key in places:
                self._permissions.check(peer, "edit", key.partition("/")[0])
            for kind, key in places:
                there = await self._catalogue.store.get(kind.kind, key)
                if there is not None:
                    position = await self._catalogue.delete(kind, key, by=peer.name)
                done.append(f"{kind.kind} {key} {'deleted' if there is not None else 'not there'}")
            return admin_pb2.Applied(position=str(position), done=done)

        return await self._answered(context, answer)

    async def Explain(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            target = parse(request.path, request.namespace, self._cluster_domain)
            found = explain.explain(target, self._view, self._trust_domain)
            self._permissions.check(peer, "view", found.get("namespace", ""))
            return admin_pb2.Explanation(json=msgspec.json.encode(found))

        return await self._answered(context, answer)

    async def MakeJoinToken(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            self._permissions.check(peer, "tokens", request.namespace)
            try:
                identity = SpiffeId.of(self._trust_domain, request.namespace, request.account)
            except ValueError as error:
                raise Invalid("join token", [Problem(message=str(error))]) from None
            ttl_s = request.ttl_s or DEFAULT_TOKEN_S
            made = await self._tokens.make(identity, time.time(), by=peer.name, ttl_s=ttl_s)
            return admin_pb2.TokenMade(token=made.text, identity=str(identity), ttl_s=ttl_s)

        return await self._answered(context, answer)

    async def ListJoinTokens(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            entries = []
            for number, record in await self._tokens.known():
                namespace = SpiffeId.parse(record.identity).namespace
                if not self._permissions.allows(peer, "tokens", namespace) or request.namespace not in ("", namespace):
                    continue
                shown = {
                    "identity": record.identity,
                    "made_by": record.made_by,
                    "expires_at_s": record.expires_at_s,
                    "used_at_s": record.used_at_s,
                }
                entries.append(admin_pb2.Entry(kind="join_token", key=number, json=msgspec.json.encode(shown)))
            return admin_pb2.Listing(entries=entries)

        return await self._answered(context, answer)

    async def RevokeJoinToken(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            known = dict(await self._tokens.known())
            record = known.get(request.id)
            namespace = SpiffeId.parse(record.identity).namespace if record is not None else ""
            self._permissions.check(peer, "tokens", namespace)
            if record is not None:
                await self._tokens.revoke(request.id, by=peer.name)
            return admin_pb2.Applied(done=[f"join_token {request.id} {'deleted' if record else 'not there'}"])

        return await self._answered(context, answer)

    async def ShowRoots(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            self._permissions.check(peer, "view", "")
            return admin_pb2.RootsFound(json=msgspec.json.encode(self._roots.found()))

        return await self._answered(context, answer)

    async def RotateRoots(self, request: Any, context: Any) -> Any:
        async def answer(peer: Peer) -> Any:
            self._permissions.check(peer, "trust", "")
            how = {"authority": request.authority, "makes_root": request.makes_root, "is_hurried": request.is_hurried}
            await self._roots.step(request.step, by=peer.name, **how)
            return admin_pb2.RootsFound(json=msgspec.json.encode(self._roots.found()))

        return await self._answered(context, answer)

    async def _answered(self, context: Any, answer: Callable[[Peer], Awaitable[Any]]) -> Any:
        try:
            return await answer(self._peers.member(context))
        except Exception as error:
            await refuse(context, error)

    def _check_edit(self, peer: Peer, values: Sequence[Named]) -> None:
        for namespace in sorted({value.namespace for value in values}):
            self._permissions.check(peer, "edit", namespace)


def _bounded(entries: Sequence[Any]) -> Sequence[Any]:
    if not 1 <= len(entries) <= MAX_VALUES:
        raise Invalid("call", [Problem(message=f"got {len(entries)} values", expected=f"1 to {MAX_VALUES}")])
    return entries


def _kinds(words: Sequence[str]) -> list[type[Named]]:
    unknown = [word for word in words if word not in KINDS]
    if unknown:
        expected = "one of " + ", ".join(KINDS)
        raise Invalid("call", [Problem(message=f"kind {unknown[0][:40]!r} is unknown", expected=expected)])
    return [KINDS[word] for word in words]


def _value(entry: Any) -> Named:
    try:
        plain = msgspec.json.decode(entry.json)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(entry.kind[:40], [Problem(message=f"not JSON: {str(error)[:100]}")]) from None
    return read(entry.kind, plain)
