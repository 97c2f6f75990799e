"""Sources as a file names them. Reads the file, makes the sources; follows none.

    - {kind: file, path: /etc/meshcore/services}
    - {kind: dns, namespace: shop, service: db, host: db.example.org, port: 5432}
    - {kind: dns, namespace: shop, service: cart, srv: _http._tcp.cart.example.org}
    - {kind: kubernetes}                                       # the cluster this runs in
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from meshcore.errors import Problem

from ..errors import Invalid
from ..model.codec import problem_of
from ..model.files import parsed
from .source import Source

MAX_SOURCES = 256
_LABEL = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
_PORT = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class FileConf(msgspec.Struct, frozen=True, kw_only=True, tag="file", tag_field="kind", forbid_unknown_fields=True):
    """Values of the model in a file, or in all `*.yaml` of a folder."""

    path: str

    def source(self, trust_domain: str) -> Source:
        from .files import FileSource

        return FileSource(Path(self.path))


class DnsConf(msgspec.Struct, frozen=True, kw_only=True, tag="dns", tag_field="kind", forbid_unknown_fields=True):
    """The addresses of a name, as endpoints of one service."""

    namespace: _LABEL
    service: _LABEL
    host: str = ""
    """Addresses, on `port`."""
    srv: str = ""
    """Or SRV records, which name hosts and ports."""
    port: _PORT = 0
    protocol: str = "detect"
    servers: tuple[str, ...] = ()
    """`ip:port` of resolvers; those of the system when empty."""

    def source(self, trust_domain: str) -> Source:
        from .dns import DnsSource

        return DnsSource(self)


class KubernetesConf(
    msgspec.Struct, frozen=True, kw_only=True, tag="kubernetes", tag_field="kind", forbid_unknown_fields=True
):
    """Services, endpoint slices and pods of a cluster."""

    url: str = ""
    """Empty: the cluster of the pod that this runs in."""
    token_file: str = ""
    ca_file: str = ""
    namespace: str = ""
    """One namespace; empty: all."""
    name: str = "kubernetes"

    def source(self, trust_domain: str) -> Source:
        from .kubernetes import KubernetesSource

        return KubernetesSource(self, trust_domain)


Conf = FileConf | DnsConf | KubernetesConf


def read(text: str, file: str) -> tuple[Conf, ...]:
    """What a file names; ConfigError or Invalid tells all that is wrong with it."""
    plain = parsed(text, file) or []
    try:
        found = msgspec.convert(plain, tuple[Conf, ...])
    except msgspec.ValidationError as error:
        raise Invalid(file, [problem_of(str(error))]) from None
    problems = []
    for index, one in enumerate(found):
        if isinstance(one, DnsConf) and (bool(one.host) == bool(one.srv) or (one.host and not one.port)):
            expected = "host and port, or srv"
            problems.append(Problem(message="which records?", path=(index,), expected=expected))
    if len(found) > MAX_SOURCES:
        problems.append(Problem(message=f"got {len(found)} sources", expected=f"at most {MAX_SOURCES}"))
    if problems:
        raise Invalid(file, problems)
    return found


def made(confs: Sequence[Conf], trust_domain: str) -> list[Source]:
    """The sources, each with a name of its own."""
    sources = [conf.source(trust_domain) for conf in confs]
    names = [source.name for source in sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid("sources", [Problem(message=f"{twice[0]!r} stands there twice", expected="each once")])
    return sources


def file_name(name: str) -> str:
    """A source's name as a file's."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:150]
