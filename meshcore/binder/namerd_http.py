"""A namerd by its HTTP interface (`io.l5d.namerd.http`): one streamed answer per name and per id."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from ..naming import EMPTY_DTAB, BindResult, Dtab, Failed, Path, show_dtab
from ..namers.states import State
from .remote import RemoteInterpreter
from .tree_json import NamerdError, read_addresses, read_bound_tree
from .watched import Tell

# A tree of ten thousand leaves; a line that is longer is not from a namerd.
MOST_LINE_BYTES = 4 * 1024 * 1024
CONNECT_S = 5.0
# A namerd of ours sends an empty line every so often when it is asked to. One that has sent any is dead when none comes
# for three times as long, whatever the network says.
HEARTBEAT_S = 10
SILENCE_S = 3.0 * HEARTBEAT_S


class HttpInterpreter(RemoteInterpreter):
    """`namespace` of the namerd at host:port."""

    def __init__(self, host: str, port: int, namespace: str, base: Dtab = EMPTY_DTAB) -> None:
        super().__init__(f"namerd http://{host}:{port}", base)
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}/api/1"
        self._namespace = namespace
        self._session: Any = None

    async def watch_tree(self, path: Path, dtab: Dtab, tell: Tell[BindResult]) -> None:
        parameters = {"path": str(path), "alternatives": "true"}  # one that is not ours sends the branch that won
        if dtab:
            parameters["dtab"] = show_dtab(dtab)
        async for value in self._lines("bind", parameters):
            tell(read_bound_tree(value) if isinstance(value, dict) else Failed(str(value)))

    async def watch_addresses(self, id: Path, tell: Tell[State]) -> None:
        async for value in self._lines("addr", {"path": str(id)}):
            tell(read_addresses(value))

    async def _lines(self, what: str, parameters: dict[str, str]) -> AsyncIterator[Any]:
        """Each line that is JSON; empty ones are heartbeats."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, enable_cleanup_closed=True),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_connect=CONNECT_S),
                read_bufsize=MOST_LINE_BYTES,
            )
        url = f"{self._url}/{what}/{self._namespace}"
        async with self._session.get(url, params={**parameters, "watch": "true", "heartbeat": str(HEARTBEAT_S)}) as answer:
            if answer.status != 200:
                raise NamerdError(f"{url}: {answer.status} {(await answer.text())[:200].strip()}")
            patience_s: float | None = None
            while True:
                async with asyncio.timeout(patience_s):
                    line = await answer.content.readline()
                if not line:
                    return
                text = line.strip()
                if not text:
                    patience_s = SILENCE_S
                    continue
                try:
                    value = json.loads(text)
                except ValueError:
                    # A namerd that gives up says why, and ends the stream.
                    raise NamerdError(f"{url}: {text[:200].decode(errors='replace')}") from None
                yield value

    async def disconnect(self) -> None:
        if self._session is not None:
            await self._session.close()
