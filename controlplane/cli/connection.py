"""How meshctl reaches a control plane: the socket of its machine, or mTLS with an operator's certificate. Asks nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import grpc

from meshcore.api import admin_pb2_grpc

SERVER_NAME = "control-plane"  # the common name of its certificate; see Authority.issue
TIMEOUT_S = 15.0
CREDENTIALS = ("key.pem", "chain.pem", "roots.pem")


def where(ctx: click.Context) -> tuple[str, Path]:
    """The address and the folder of credentials that the command line names."""
    address, credentials = ctx.find_root().obj
    return address, Path(credentials)


@contextlib.contextmanager
def channel(ctx: click.Context) -> Iterator[grpc.Channel]:
    """A channel; what goes wrong on it is told in words."""
    address, folder = where(ctx)
    if address.startswith("unix:"):
        opened = grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")])
    else:
        opened = grpc.secure_channel(
            address, credentials(folder), options=[("grpc.ssl_target_name_override", SERVER_NAME)]
        )
    try:
        with opened:
            yield opened
    except grpc.RpcError as error:
        raise click.ClickException(told(error, address)) from None


@contextlib.contextmanager
def admin(ctx: click.Context) -> Iterator[Any]:
    """The Admin service."""
    with channel(ctx) as opened:
        yield admin_pb2_grpc.AdminStub(opened)


def credentials(folder: Path) -> grpc.ChannelCredentials:
    """From the files that `meshctl login` wrote."""
    try:
        key, chain, roots = ((folder / name).read_bytes() for name in CREDENTIALS)
    except OSError as error:
        raise click.ClickException(
            f"{error.filename}: {error.strerror}; get a certificate with `meshctl login`, or use --control-plane unix:/path"
        ) from None
    return grpc.ssl_channel_credentials(roots, key, chain)


def told(error: grpc.RpcError, address: str) -> str:
    """One line, with the way out where there is one."""
    code, detail = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in detail:
        what = "is it running, and may you open the socket?" if address.startswith("unix:") else "is it running there?"
        return f"no control plane at {address}: {what} (--control-plane, MESHCTL_CONTROL_PLANE)"
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{detail}: your certificate is missing or has run out; `meshctl login` gets another"
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return f"{detail}: ask for a role; see --roles of `meshctl control-plane run`"
    return f"{detail or 'the control plane refused'} ({code.name.lower().replace('_', ' ')})"
