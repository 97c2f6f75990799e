"""What may be chosen about a sidecar, by flags or by annotations of the pod: names, defaults, what is allowed. Puts in nothing."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from meshcore.config import Duration
from meshcore.errors import ConfigError, Problem

PREFIX = "meshcore.io/"
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|Ki|Mi|Gi)?")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@-]{0,254}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """One sidecar. Each field is a flag of `meshctl inject`, and the annotation `meshcore.io/<flag>` of a pod."""

    image: str = ""
    """What meshproxy runs from."""
    image_pull_policy: str = "IfNotPresent"
    control_plane: str = "meshcore-control-plane.meshcore.svc.cluster.local:8086"
    trust_config_map: str = "meshcore-trust"
    """In the pod's namespace, with the roots of the mesh under `root.pem`."""
    proxy_uid: int = 2102
    inbound_port: int = 4143
    outbound_port: int = 4140
    skip_inbound_ports: str = ""
    skip_outbound_ports: str = ""
    skip_subnets: str = ""
    opaque_ports: str = ""
    require_mtls: bool = False
    workers: int = 1
    drain: str = "30s"
    cpu_request: str = "50m"
    cpu_limit: str = ""
    """None: a limit of CPU stalls requests of an application that has none."""
    memory_request: str = "64Mi"
    memory_limit: str = "256Mi"


FIELDS: dict[str, msgspec.structs.FieldInfo] = {field.name: field for field in msgspec.structs.fields(Options)}


def flag_of(name: str) -> str:
    """`proxy_uid` as `proxy-uid`."""
    return name.replace("_", "-")


def checked(options: Options) -> Options:
    """The options; ConfigError with all that is wrong."""
    if problems := [f"--{flag_of(name)}: {why}" for name in FIELDS if (why := _wrong(name, getattr(options, name)))]:
        raise ConfigError([Problem(message=one) for one in problems])
    if options.inbound_port == options.outbound_port:
        raise ConfigError(f"port {options.inbound_port} cannot be both the inbound and the outbound port")
    return options


def overridden(options: Options, annotations: Mapping[str, str], source: str) -> Options:
    """With what the pod's own annotations say. Unknown ones of ours are mistakes: a misspelt limit must not be none."""
    changes: dict[str, Any] = {}
    for key, text in annotations.items():
        if not key.startswith(PREFIX) or key in (INJECT, INJECTED):
            continue
        name = key.removeprefix(PREFIX).replace("-", "_")
        field = FIELDS.get(name)
        if field is None or flag_of(name) != key.removeprefix(PREFIX):
            known = ", ".join(sorted(PREFIX + flag_of(one) for one in FIELDS))
            raise ConfigError(Problem(message=f"annotation {key[:80]}: unknown", hint=f"known are {INJECT}, {known}", source=source))
        value: Any = text
        if field.type is int:
            value = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
        elif field.type is bool:
            value = {"true": True, "false": False}.get(text)
        if value is None or (why := _wrong(name, value)):
            why = f"got {text[:40]!r}; expected {'a number' if field.type is int else 'true or false'}" if value is None else why
            raise ConfigError(Problem(message=f"annotation {key}: {why}", source=source))
        changes[name] = value
    return checked(msgspec.structs.replace(options, **changes))


INJECT = PREFIX + "inject"
"""`disabled` leaves a pod alone."""
INJECTED = PREFIX + "injected"
"""On a pod that has a sidecar: what had to be made for it, so that it can be taken out again exactly."""


def _wrong(name: str, value: Any) -> str:
    """Why a value cannot be; empty when it can."""
    expected = ""
    if name in ("inbound_port", "outbound_port"):
        expected = "" if 1 <= value <= 65_535 else "1 to 65535"
    elif name == "proxy_uid":
        expected = "" if 1 <= value <= 2**31 - 1 else "a user from 1 on: as root the proxy could not be told from others"
    elif name == "workers":
        expected = "" if 1 <= value <= 256 else "1 to 256"
    elif name == "opaque_ports":
        expected = "" if not value or (_are_ports(value) and "-" not in value) else "ports, like 3306,5432"
    elif name.endswith("_ports"):
        expected = "" if not value or _are_ports(value) else "ports, like 22,9000-9010"
    elif name == "skip_subnets":
        expected = "" if all(_is_network(part.strip()) for part in value.split(",") if value) else "networks, like 10.9.0.0/16"
    elif name.endswith(("_request", "_limit")):
        expected = "" if not value or _QUANTITY.fullmatch(value) else "a quantity, like 100m or 128Mi"
    elif name == "drain":
        try:
            Duration(value)
        except ValueError:
            expected = "a duration, like 30s"
    elif name == "image":
        expected = "" if _IMAGE.fullmatch(value) else "the name of an image"
    elif name == "image_pull_policy":
        expected = "" if value in ("Always", "IfNotPresent", "Never") else "Always, IfNotPresent or Never"
    elif name == "trust_config_map":
        expected = "" if _NAME.fullmatch(value) else "the name of a ConfigMap"
    elif name == "control_plane":
        expected = "" if all(_ADDRESS.fullmatch(part) for part in value.split(",")) else "HOST:PORT"
    return f"got {str(value)[:80]!r}; expected {expected}" if expected else ""


def _are_ports(text: str) -> bool:
    if not _PORTS.fullmatch(text):
        return False
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not 1 <= int(first) <= int(last or first) <= 65_535:
            return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
