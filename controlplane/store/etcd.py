"""The store of several control planes: etcd v3. Replicas share epoch and revisions. Reads no JSON.

Every transaction writes the head too, so the mark at any revision can be read back: a cluster that was restored from
a backup has other marks, or none, at the revisions it lost. (Deletions by a lease's end leave the head as it is: two
histories that differ in nothing but which lease ended first cannot be told apart by it.)

One stream per replica feeds all its readers. A reader that resumes from before this stream began gets a stream of its
own until it has caught up. etcd's history is bounded by its own compaction (`--auto-compaction-retention`), or by
`compact`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from meshcore.clients.etcd import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    OUT_OF_RANGE,
    EtcdClient,
    EtcdError,
    decoded,
    encoded,
)

from ..errors import LeaseExpired, StoreUnavailable
from ..model.change import NO_MARK, Change, Changes, Entry, Position, Snapshot
from .etcd_layout import Layout, conflict_of, range_of, value_of
from .interface import (
    Delete,
    Lease,
    Operation,
    Put,
    Store,
    check_operations,
    check_query,
    check_ttl,
)
from .watching import MAX_PENDING, Hub, Watch

_log = logging.getLogger(__name__)

PAGE = 1_000  # entries per answer: a page of the largest ones stays below the client's bound
CATCHING_UP = 16  # streams at once: a thousand proxies that come back together wait in line, not on etcd
CATCH_UP_S = 10.0  # longer than that, and a snapshot is faster
# Waits before the stream is opened again; the last one stays. Replicas are few, and all proxies wait for what they miss.
RETRY_S = (0.05, 0.1, 0.2, 0.5)


class EtcdStore(Store):
    """A store in an etcd cluster, below `prefix`."""

    def __init__(
        self,
        members: Sequence[str],
        *,
        prefix: str = "meshcore",
        tls: ssl.SSLContext | None = None,
        user: str = "",
        password: str = "",
        timeout_s: float = 5.0,
    ) -> None:
        self._client = EtcdClient(members, tls=tls, user=user, password=password, timeout_s=timeout_s)
        self._layout = Layout(prefix)
        self._hub = Hub(self.list)
        self._epoch = ""
        self._told = Position("", 0)  # up to where the stream has told; an event of ours lies at exactly this revision
        self._stream: asyncio.Task[None] | None = None
        self._catching_up = asyncio.Semaphore(CATCHING_UP)

    # -- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        await self._client.open()
        try:
            await self._begin()
        except BaseException:
            await self._client.close()
            raise
        self._stream = asyncio.create_task(self._follow())

    async def close(self) -> None:
        self._hub.close()
        if self._stream is not None:
            self._stream.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._stream
            self._stream = None
        await self._client.close()

    async def _begin(self) -> None:
        """Reads the epoch, or makes it, and puts an event of our own where the stream is to begin."""
        fresh = {"request_put": {"key": encoded(self._layout.epoch_key), "value": encoded(secrets.token_hex(8))}}
        read = {"request_range": {"key": encoded(self._layout.epoch_key)}}
        missing = {"key": encoded(self._layout.epoch_key), "target": "CREATE", "result": "EQUAL", "create_revision": 0}
        await self._client.call("/v3/kv/txn", {"compare": [missing], "success": [fresh]})
        mark = secrets.token_hex(8)
        answer = await self._client.call("/v3/kv/txn", {"success": [self._layout.put_head(mark), read]})
        self._epoch = value_of(answer["responses"][1]["response_range"]).decode()
        self._told = Position(self._epoch, int(answer["header"]["revision"]), mark)

    # -- reading ----------------------------------------------------------------------------------------------------

    async def get(self, kind: str, key: str) -> Entry[bytes] | None:
        check_query([kind], key)
        answer = await self._client.call("/v3/kv/range", {"key": encoded(self._layout.key(kind, key))}, is_read=True)
        return next(self._layout.read(answer), None)

    async def list(self, kinds: Collection[str] | None = None, prefix: str = "") -> Snapshot[bytes]:
        check_query(kinds, prefix)
        starts = (
            [self._layout.entries] if kinds is None else [self._layout.key(kind, prefix) for kind in sorted(set(kinds))]
        )
        ranges = [{"request_range": {**range_of(start), "limit": PAGE}} for start in starts]
        meta = [{"request_range": {"key": encoded(key)}} for key in (self._layout.epoch_key, self._layout.head_key)]
        answer = await self._client.call("/v3/kv/txn", {"success": meta + ranges}, is_read=True)
        epoch, head, *pages = (response["response_range"] for response in answer["responses"])
        revision = int(answer["header"]["revision"])
        entries: list[Entry[bytes]] = []
        for start, page in zip(starts, pages, strict=True):
            entries += self._layout.read(page)
            while page.get("more"):
                last = decoded(page["kvs"][-1]["key"]) + b"\0"
                question = {**range_of(start), "key": encoded(last), "limit": PAGE, "revision": revision}
                page = await self._client.call("/v3/kv/range", question, is_read=True)
                entries += self._layout.read(page)
        if kinds is None and prefix:
            entries = [entry for entry in entries if entry.key.startswith(prefix)]
        position = Position(value_of(epoch).decode(), revision, value_of(head).decode() or NO_MARK)
        return Snapshot(position, tuple(entries))

    # -- writing ----------------------------------------------------------------------------------------------------

    async def apply(self, *operations: Operation) -> Position:
        check_operations(operations)
        mark = secrets.token_hex(8)
        compares, actions, looks = [], [], []
        conditions = [operation for operation in operations if operation.expected is not None]
        for operation in conditions:
            key = encoded(self._layout.key(operation.kind, operation.key))
            compares.append({"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": operation.expected})
            looks.append({"request_range": {"key": key, "keys_only": True}})
        for operation in operations:
            key = encoded(self._layout.key(operation.kind, operation.key))
            if isinstance(operation, Put):
                actions.append(
                    {"request_put": {"key": key, "value": encoded(operation.value), "lease": operation.lease}}
                )
            elif isinstance(operation, Delete):
                actions.append({"request_delete_range": {"key": key}})
        if actions:
            actions.append(self._layout.put_head(mark))
        else:
            actions.append({"request_range": {"key": encoded(self._layout.head_key)}})
        try:
            answer = await self._client.call("/v3/kv/txn", {"compare": compares, "success": actions, "failure": looks})
        except EtcdError as error:
            if error.code == NOT_FOUND:
                raise LeaseExpired(
                    next((one.lease for one in operations if isinstance(one, Put) and one.lease), 0)
                ) from None
            raise
        if not answer.get("succeeded"):
            raise conflict_of(conditions, answer)
        if "request_range" in actions[-1]:
            mark = value_of(answer["responses"][-1]["response_range"]).decode()
        return Position(self._epoch, int(answer["header"]["revision"]), mark)

    async def compact(self, keep: int) -> None:
        answer = await self._client.call("/v3/kv/range", {"key": encoded(self._layout.head_key)}, is_read=True)
        revision = int(answer["header"]["revision"]) - max(0, keep)
        if revision > 0:
            with contextlib.suppress(EtcdError):  # somebody compacted further already
                await self._client.call("/v3/kv/compaction", {"revision": revision, "physical": True})

    async def begin_epoch(self) -> None:
        await self._renew_epoch(None)

    async def _renew_epoch(self, old: str | None) -> None:
        """A new epoch; with `old` only if another replica has not made one already."""
        compares = []
        if old is not None:
            compares = [
                {"key": encoded(self._layout.epoch_key), "target": "VALUE", "result": "EQUAL", "value": encoded(old)}
            ]
        fresh = {"request_put": {"key": encoded(self._layout.epoch_key), "value": encoded(secrets.token_hex(8))}}
        await self._client.call("/v3/kv/txn", {"compare": compares, "success": [fresh]})
        answer = await self._client.call("/v3/kv/range", {"key": encoded(self._layout.epoch_key)}, is_read=True)
        self._enter(value_of(answer).decode())

    def _enter(self, epoch: str) -> None:
        if epoch and epoch != self._epoch:
            self._epoch = epoch
            self._told = Position(epoch, self._told.revision, self._told.mark)
            self._hub.lose()

    # -- leases -----------------------------------------------------------------------------------------------------

    async def grant(self, ttl_s: int) -> Lease:
        check_ttl(ttl_s)
        answer = await self._client.call("/v3/lease/grant", {"TTL": ttl_s})
        return Lease(int(answer["ID"]), int(answer["TTL"]))

    async def keep_alive(self, lease: int) -> Lease:
        # Asking twice only makes it live longer, so any member may be asked again.
        answer = await self._client.call("/v3/lease/keepalive", {"ID": lease}, is_read=True)
        ttl_s = int(answer.get("result", {}).get("TTL", 0))
        if ttl_s <= 0:
            raise LeaseExpired(lease)
        return Lease(lease, ttl_s)

    async def revoke(self, lease: int) -> None:
        try:
            await self._client.call("/v3/lease/revoke", {"ID": lease}, is_read=True)
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise

    # -- watching ---------------------------------------------------------------------------------------------------

    async def watch(
        self, since: Position | None = None, kinds: Collection[str] | None = None, max_pending: int = MAX_PENDING
    ) -> Watch:
        check_query(kinds)
        watch = self._hub.add(kinds, max_pending)
        past = None if since is None else await self._past(since, max_pending)
        if since is None or past is None:
            watch.collapse()
        else:
            watch.resume(since, past)
        return watch

    async def _past(self, since: Position, most: int) -> Changes[bytes] | None:
        """What followed a position, at least up to what the stream has told; None when history does not hold it."""
        if since.epoch != self._epoch or not await self._holds(since):
            return None
        told = self._told
        if since.revision >= told.revision:
            return Changes(since, ())
        changes: list[Change[bytes]] = []
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with self._catching_up, asyncio.timeout(CATCH_UP_S), self._events(since) as batches:
                async for batch in batches:
                    changes += batch.changes
                    if len(changes) > most:
                        return None
                    if batch.position.revision >= told.revision:
                        return Changes(batch.position, tuple(changes))
        return None

    async def _holds(self, position: Position) -> bool:
        """Whether this position is part of history: the head at its revision must bear its mark."""
        question = {"key": encoded(self._layout.head_key), "revision": position.revision}
        if position.revision < 1:
            return False
        try:
            answer = await self._client.call("/v3/kv/range", question, is_read=True)
        except EtcdError as error:
            if error.code in (OUT_OF_RANGE, INVALID_ARGUMENT):  # compacted, or in a future that this cluster never had
                return False
            raise
        return value_of(answer).decode() == position.mark

    @contextlib.asynccontextmanager
    async def _events(self, since: Position, *, is_live: bool = False) -> AsyncIterator[AsyncIterator[Changes[bytes]]]:
        """A stream of batches, one per revision, after a position. Only the live one may learn of a new epoch."""
        question = {**range_of(self._layout.root), "start_revision": since.revision + 1}
        async with self._client.stream("/v3/watch", {"create_request": question}) as results:
            yield self._batches(results, since, is_live)

    async def _batches(
        self, results: AsyncIterator[dict[str, Any]], since: Position, is_live: bool
    ) -> AsyncIterator[Changes[bytes]]:
        mark = since.mark
        async for result in results:
            told = self._layout.read_events(result)
            for revision, changes, new_mark in told.batches:
                mark = new_mark or mark
                yield Changes(Position(self._epoch, revision, mark), changes)
            if told.epoch and is_live:
                self._enter(told.epoch)

    async def _follow(self) -> None:
        """Feeds the hub for as long as the store is open, through every outage."""
        failures = 0
        while True:
            try:
                if not await self._holds(self._told):
                    await self._recover()
                async with self._events(self._told, is_live=True) as batches:
                    async for batch in batches:
                        failures = 0
                        self._told = batch.position
                        self._hub.publish(batch)
            except (StoreUnavailable, EtcdError):
                failures += 1
            except Exception:
                # Silence would be worse than anything: readers begin anew, and so does the stream.
                _log.exception("the stream from etcd broke in an unforeseen way")
                failures += 1
                self._hub.lose()
            wait_s = RETRY_S[min(failures, len(RETRY_S)) - 1] if failures else RETRY_S[0]
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))

    async def _recover(self) -> None:
        """What we told last is not in history: it was compacted away, or the cluster was restored and lost it."""
        lost, epoch = self._told, self._epoch
        await self._begin()
        if self._told.revision <= lost.revision or not await self._is_compacted(lost.revision):
            await self._renew_epoch(epoch)
        self._hub.lose()

    async def _is_compacted(self, revision: int) -> bool:
        try:
            await self._client.call(
                "/v3/kv/range", {"key": encoded(self._layout.head_key), "revision": revision}, is_read=True
            )
        except EtcdError as error:
            return error.code == OUT_OF_RANGE and "compacted" in str(error)
        return False
