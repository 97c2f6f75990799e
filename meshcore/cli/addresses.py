"""Where a proxy's admin socket lies when nobody says so, and which proxies run here. Opens no HTTP: see client."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

PREFIX = "meshproxy-"


def socket_directory() -> Path:
    """The directory of default admin sockets: the user's run-time directory, else a private one under /tmp."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK):
        return Path(runtime)
    return Path("/tmp") / f"meshproxy-{os.getuid()}"


def prepare_socket_directory() -> Path:
    """The same, made with mode 0700 when missing. Raises OSError when somebody else owns the name."""
    directory = socket_directory()
    directory.mkdir(mode=0o700, exist_ok=True)
    state = directory.lstat()
    # /tmp is everybody's: a link or a directory laid out by another user must not get our socket.
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
        raise OSError(f"{directory} belongs to somebody else; choose a socket with --admin unix:/path")
    if state.st_mode & 0o077 and directory.name.startswith(PREFIX):
        directory.chmod(0o700)
    return directory


def default_admin_address(port: int | str) -> str:
    """A free socket name for a proxy that listens on `port`; a second one on it gets its process id added."""
    directory = prepare_socket_directory()
    path = directory / f"{PREFIX}{port}.sock"
    return f"unix:{path if not is_alive(path) else directory / f'{PREFIX}{port}-{os.getpid()}.sock'}"


def running_proxies() -> list[str]:
    """Admin addresses under the default names that answer a connection, sorted."""
    directory = socket_directory()
    return [f"unix:{path}" for path in sorted(directory.glob(f"{PREFIX}*.sock")) if is_alive(path)]


def is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
