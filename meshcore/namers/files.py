"""`io.l5d.fs`: a folder whose files are names and hold their addresses. Watched by inotify; nothing is polled.

Source: linkerd FsNamer docs, WatchingNamer.scala, and issues #744, #2421. A file that cannot be read, or has a line that is
no address, keeps its last good answer. Write a new file and rename it over the old one: a half-written file is never seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as File

from ..naming import Answer, Bound, Failed, Leaf, Neg, Path
from .hosts_lines import read_lines
from .live import Live, Read
from .namer import LiveNamer
from .source import Source, SourceError
from .states import Replicas, State

MOST_FILES = 10_000
MOST_FILE_BYTES = 8_388_608
DEEPEST = 8
"""Folders in folders, and so the elements of a name that are tried."""

Said = Replicas | SourceError
Files = Mapping[Path, Said]


class Folder(Live[Files | SourceError | None]):
    """What all files below a folder say, while anybody follows it. None until it was read for the first time."""

    def __init__(self, root: File) -> None:
        super().__init__(None)
        self.root = root
        self._task: asyncio.Task[None] | None = None
        self._read: dict[str, tuple[tuple[int, int, int], Said]] = {}

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._follow(), name=f"folder {self.root}")

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _follow(self) -> None:
        from ..clients.inotify import Inotify

        while True:
            try:
                with contextlib.closing(Inotify()) as inotify:
                    inotify.add(self.root)
                    self._set(await asyncio.to_thread(self._scan, inotify))
                    async for _ in inotify:
                        inotify.add(self.root)  # raises when the folder itself was removed or replaced by nothing
                        self._set(await asyncio.to_thread(self._scan, inotify))
            except OSError as error:
                self._set(SourceError(f"{self.root}: {error.strerror or error}"))
            await asyncio.sleep(1.0)  # there is no folder to watch: look again for one

    def _scan(self, inotify: object) -> Files:
        found: dict[Path, Said] = {}
        seen: dict[str, tuple[tuple[int, int, int], Said]] = {}
        for name, file in self._files(self.root, Path(), inotify):
            if len(found) == MOST_FILES:
                raise OSError(0, f"more than {MOST_FILES} files")
            found[name], seen[file] = self._say(file)
        self._read = seen
        return found

    def _files(self, folder: File, above: Path, inotify: object) -> Iterator[tuple[Path, str]]:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.name.startswith("."):
                continue  # editors' and Kubernetes' own
            name = above + Path.of(os.fsencode(entry.name))
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir():
                    if len(name) < DEEPEST:
                        inotify.add(entry.path)  # type: ignore[attr-defined]
                        yield from self._files(File(entry.path), name, inotify)
                elif entry.is_file():
                    yield name, entry.path

    def _say(self, file: str) -> tuple[Said, tuple[tuple[int, int, int], Said]]:
        """What a file says; what was read already and has not changed is not read again."""
        said: Said
        stamp = (0, 0, 0)
        try:
            status = os.stat(file)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            before = self._read.get(file)
            if before is not None and before[0] == stamp:
                return before[1], before
            if status.st_size > MOST_FILE_BYTES:
                raise SourceError(f"{file}: {status.st_size} bytes; expected at most {MOST_FILE_BYTES}")
            with open(file, encoding="utf-8") as stream:
                said = read_lines(stream.read(MOST_FILE_BYTES), file)
        except SourceError as error:
            said = error
        except (OSError, UnicodeDecodeError) as error:
            said = SourceError(f"{file}: {error}")
        return said, (stamp, said)


class FolderSource(Source):
    """The states of the names in one folder."""

    def __init__(self, root: File) -> None:
        super().__init__(f"io.l5d.fs {root}")
        self.folder = Folder(root)

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        async with self.folder.watch() as trees:
            async for tree in trees:
                if tree is None:
                    continue
                said = tree if isinstance(tree, SourceError) else tree.get(key)
                if said is None:
                    tell(Neg())
                    continue
                tell(Failed(str(said)) if isinstance(said, SourceError) else said)


class FilesNamer(LiveNamer):
    """`/web/users/7` is bound to the file `web`, or to `users` in the folder `web`; what follows is the residual."""

    kind = "io.l5d.fs"

    def __init__(self, prefix: Path, root: str | File) -> None:
        self.prefix = prefix
        self._source = FolderSource(File(root))

    @property
    def source(self) -> Source:
        return self._source

    def answer(self, rest: Path, read: Read) -> Answer:
        for count in range(1, min(len(rest), DEEPEST) + 1):
            key = rest.take(count)
            state: State = read(self._source.cell(key))
            if isinstance(state, Replicas) and state.addresses:
                return Leaf(Bound(self.prefix + key, rest.drop(count)))
            if not isinstance(state, (Neg, Replicas)):
                return state
        return Neg()

    def replicas(self, rest: Path) -> Live[State]:
        return self._source.cell(rest)
