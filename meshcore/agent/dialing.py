"""Opening one channel to one address of the control plane: TLS against our roots, ready or told why not. Retries nothing."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import msgspec

from meshcore.errors import MeshError

CONNECT_S = 3.0  # a lost SYN is sent again after one; beyond that another address is the better try
# The one name in the control plane's certificate. Workloads' certificates carry none, so none of them can pass for it.
SERVER_NAME = "control-plane"
MAX_MESSAGE_BYTES = 16 << 20  # a name with 10,000 endpoints has a tenth of it

_OPTIONS = (
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),  # the environment's proxy is meant for the workload
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is noticed within half a minute, streams being silent for as long as nothing changes.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Reconnecting is the link's business, which has several addresses to choose from.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Unreachable(MeshError):
    """No channel came about; `str` says why."""

    default_source = "upstream"


class Shown(msgspec.Struct, frozen=True):
    """What a handshake is made with: whom we trust, and who we are (empty while nobody has told yet). PEM."""

    roots_pem: bytes
    key_pem: bytes = b""
    chain_pem: bytes = b""

    def __repr__(self) -> str:
        return "Shown(…)"

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.roots_pem, self.key_pem or None, self.chain_pem or None)


async def dial(address: str, shown: Shown) -> grpc.aio.Channel:
    """A channel whose handshake is done. Unreachable otherwise. The caller closes it."""
    channel = grpc.aio.secure_channel(target_of(address), shown.credentials(), options=_OPTIONS)
    try:
        async with asyncio.timeout(CONNECT_S):
            state = channel.get_state(try_to_connect=True)
            while state != grpc.ChannelConnectivity.READY:
                if state == grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise Unreachable(f"{address}: {await _why(channel)}")
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        await channel.close()
        raise Unreachable(f"{address}: no handshake within {CONNECT_S:g} s") from None
    except BaseException:
        await channel.close()
        raise
    return channel


async def _why(channel: grpc.aio.Channel) -> str:
    """A channel does not tell why it failed; a call on it does."""
    try:
        await channel.unary_unary("/meshcore/Why")(b"", timeout=1.0)
    except grpc.aio.AioRpcError as error:
        text: str = error.details() or error.code().name
        return text.rpartition("last error: ")[2][:300]
    return "unknown"


def target_of(address: str) -> str:
    """gRPC's way to write an address that may be a literal."""
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        return f"ipv6:{address}"
    return f"ipv4:{address}" if host.replace(".", "").isdigit() else f"dns:///{host}:{port}"
