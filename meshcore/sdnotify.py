"""Tells systemd how the process fares (sd_notify, Type=notify-reload). Does nothing without $NOTIFY_SOCKET."""

import os
import socket
import time


def ready(status: str = "") -> bool:
    return notify(READY=1, STATUS=status)


def reloading() -> bool:
    # systemd orders this against its own SIGHUP by the clock, so the time goes with the word.
    return notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)


def stopping(status: str = "") -> bool:
    return notify(STOPPING=1, STATUS=status)


def notify(**fields: object) -> bool:
    """Send one datagram of NAME=value lines, empty values left out. False when nobody listens; never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A newline would start another field.
    lines = (f"{name}={str(value).replace(chr(10), ' ')}" for name, value in fields.items() if value != "")
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            sender.sendto("\n".join(lines).encode(), target)
    except OSError:
        return False
    return True
