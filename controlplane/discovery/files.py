"""Values of the model in files that people edit: a file, or a folder of `*.yaml`. All of it counts, or none.

A mistake changes nothing: what was read last stays, and the mistake is told with line and column. Changes are noticed
by inotify on the folder, so editors that write a new file and rename it, and the symbolic links of a ConfigMap, work.
"""

from __future__ import annotations

from pathlib import Path

from meshcore.clients.inotify import Inotify
from meshcore.errors import ConfigError

from ..model import Endpoint, Named, Workload
from ..model.files import read_values
from .source import Listener

MAX_FILES = 1_000
MAX_FILE_BYTES = 8 * 1024 * 1024


class FileSource:
    """One file or folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return f"file {self._path}"

    async def follow(self, listener: Listener) -> None:
        async with Inotify() as inotify:
            # The watch stands before the first reading: what changes in between is read again.
            inotify.add(self._path if self._path.is_dir() else self._path.parent)
            seen: object = None
            self._read(listener)
            async for _ in inotify:
                now = self._stamps()
                if now != seen:
                    seen = now
                    self._read(listener)

    def _read(self, listener: Listener) -> None:
        try:
            groups = self._groups()
        except ConfigError as error:
            listener.wrong(str(error))
        else:
            listener.whole(groups)

    def _paths(self) -> list[Path]:
        if not self._path.is_dir():
            return [self._path]
        found = sorted(one for one in self._path.iterdir() if one.suffix in (".yaml", ".yml", ".json") and one.is_file())
        if len(found) > MAX_FILES:
            raise ConfigError(f"{self._path}: {len(found)} files; the most is {MAX_FILES}")
        return found

    def _stamps(self) -> object:
        try:
            return [(path, path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_ino) for path in self._paths()]
        except (OSError, ConfigError):
            return None

    def _groups(self) -> dict[str, tuple[Named, ...]]:
        groups: dict[str, tuple[Named, ...]] = {}
        seen: dict[tuple[str, str], Path] = {}
        for path in self._paths():
            try:
                data = path.read_bytes()
                text = data.decode() if len(data) <= MAX_FILE_BYTES else ""
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{path}: {error}") from None
            if len(data) > MAX_FILE_BYTES:
                raise ConfigError(f"{path}: {len(data)} bytes; the most is {MAX_FILE_BYTES}")
            groups[str(path)] = read_values(text, str(path))
            for value in groups[str(path)]:
                place = (value.kind, value.key)
                if place in seen:
                    raise ConfigError(f"{path}: {value.kind} '{value.key}' stands in {seen[place]} already")
                if isinstance(value, (Endpoint, Workload)) and value.lease:
                    raise ConfigError(f"{path}: {value.kind} '{value.key}' has a lease; files have none")
                seen[place] = path
        return groups
