"""The directory where an agent keeps its key, its certificate and what it last knew: private, whole files, bounded.

A file is replaced by renaming, so that whoever reads it, after a crash too, reads the old one or the new one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from meshcore.errors import ConfigError

MAX_FILE_BYTES = 64 << 20


class StateError(ConfigError):
    """The directory, or a file in it, that others could read or write, or that cannot be used."""


class StateDirectory:
    """Files of mode 0600 in a directory of mode 0700, both ours. Raises StateError where that is not so."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            raise StateError(f"state directory {self.path}: {error.strerror}; choose another with --state-dir") from None
        if found.st_uid != os.geteuid():
            raise StateError(f"state directory {self.path} belongs to user {found.st_uid}; this proxy runs as {os.geteuid()}")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise StateError(f"state directory {self.path}: mode {mode:04o} lets others in; chmod 700 {self.path}")
        self._clear_unfinished()

    def _clear_unfinished(self) -> None:
        """What a crash left between writing and renaming."""
        for left in self.path.glob(".*.fresh"):
            with contextlib.suppress(OSError):
                left.unlink()

    def place_of(self, name: str) -> Path:
        return self.path / name

    def write(self, name: str, data: bytes | bytearray) -> None:
        """Replace a file as a whole; on disk when this returns. OSError when it cannot be: the old one stays."""
        path = self.path / name
        fresh = self.path / f".{name}.{secrets.token_hex(4)}.fresh"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise

    def read(self, name: str, most: int = MAX_FILE_BYTES) -> bytes | None:
        """A file's content; None when there is none. StateError when others could have written or read it."""
        path = self.path / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from None
        with open(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise StateError(f"{path} is no file")
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise StateError(f"{path}: mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}; expected 0600 and ours")
            if found.st_size > most:
                raise StateError(f"{path}: {found.st_size} bytes; expected at most {most}")
            return file.read(most)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path / name)
