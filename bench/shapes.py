"""The kinds of traffic that are compared, each with the arguments of the load instrument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """`key` selects it on the command line; `conns` keep-alive connections unless it says close."""

    key: str
    title: str
    conns: int
    arguments: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.title}, {self.conns} connections"

    def load_arguments(self) -> list[str]:
        return [f"--conns={self.conns}", *self.arguments]


SHAPES: tuple[Shape, ...] = (
    Shape("small", "small request", 64),
    Shape("browser", "browser-like, 12 headers", 64, ("--request=browser",)),
    Shape("small256", "small request", 256),
    Shape("browser256", "browser-like, 12 headers", 256, ("--request=browser",)),
    Shape("small1000", "small request", 1000),
    Shape("chunked", "chunked response", 64, ("--chunked",)),
    Shape("post", "POST 1 KiB", 64, ("--request=post",)),
    Shape("64k", "64 KiB response", 32, ("--response-bytes=65536",)),
    Shape("1m", "1 MiB response", 16, ("--response-bytes=1048576",)),
    Shape("close", "Connection: close", 32, ("--close",)),
)
BY_KEY = {shape.key: shape for shape in SHAPES}
