"""Linkerd 1.x configurations: read, told about, and served. `import meshcore` does not import this package."""

from __future__ import annotations

from .reader import Read, read_file, read_text
from .settings import LinkerdFile, Router

__all__ = ["LinkerdFile", "Read", "Router", "read_file", "read_text"]
