"""Listening sockets: one per worker and listener, sharing an address by SO_REUSEPORT. Opens them; the engine closes."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

BACKLOG = 4096  # cut down by net.core.somaxconn where that is lower


# <linux/in.h>, <linux/in6.h>; the socket module has neither.
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75


def open_listener(
    address: str, workers: int, *, deferred_accept: bool = False, transparent: bool = False
) -> tuple[list[int], tuple[str, int]]:
    """Bind and listen `workers` times. Returns the file descriptors and the bound (host, port).

    Raises OSError naming the address. address: "host:port" with a numeric host, IPv6 in brackets; ":port" means every IPv4 address. Port 0 picks one.
    transparent: TPROXY may bring connections to any address here; needs CAP_NET_ADMIN.
    """
    host, _, port_text = address.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"
    port = int(port_text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    try:
        for _ in range(workers):
            one = _bind(family, host, port, deferred_accept, transparent)
            sockets.append(one)
            port = one.getsockname()[1]
    except OSError as error:
        for one in sockets:
            one.close()
        if transparent and isinstance(error, PermissionError) and port >= 1024:
            raise PermissionError(
                error.errno,
                f"cannot listen on {address} with original_destination: tproxy: that needs CAP_NET_ADMIN; grant it "
                "(AmbientCapabilities=CAP_NET_ADMIN in a unit), or use original_destination: redirect, which needs none",
            ) from error
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror or error}") from error
    return [one.detach() for one in sockets], (host, port)


def _bind(
    family: socket.AddressFamily, host: str, port: int, deferred_accept: bool, transparent: bool
) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent and family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        elif transparent:
            one.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        if deferred_accept:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        if ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            _set_congestion(one)
        one.bind((host, port))
        one.listen(BACKLOG)
    except BaseException:
        one.close()
        raise
    return one


def _set_congestion(one: socket.socket) -> Any:
    # A pacing default (bbr) halves bulk throughput on loopback; inherited by accepted sockets.
    try:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    except OSError:
        pass  # the kernel has no cubic: its default is right then
