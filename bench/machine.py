"""The machine a figure belongs to. A figure without it means nothing."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"


def describe() -> dict[str, object]:
    """Processor, cores, kernel and the two kernel settings that move the figures most."""
    match = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+)", _read("/proc/meminfo"), re.M)
    flags = re.search(r"^flags\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.M)
    return {
        "cpu": match[1] if match else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 1048576, 1) if memory else None,
        "virtual": bool(flags and "hypervisor" in flags[1].split()),
        "kernel": platform.release().split("-")[0],
        "system": _distribution(),
        "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "python": platform.python_version(),
    }


def _distribution() -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release"), re.M)
    return match[1] if match else platform.system()


def name() -> str:
    """Says what the machine is without saying whose: `2-core-amd-epyc`."""
    facts = describe()
    cpu = re.sub(r"\(.*?\)|@.*|processor|cpu|\d+-core", " ", str(facts["cpu"]).lower())
    words = re.findall(r"[a-z0-9]+", cpu)
    return "-".join([f"{facts['cores']}-core", *words[:3]])


def one_line() -> str:
    facts = describe()
    guest = " (virtual)" if facts["virtual"] else ""
    return (
        f"{facts['cores']} cores of {facts['cpu']}{guest}, Linux {facts['kernel']}, "
        f"{facts['system']}, {facts['congestion_control']}, Python {facts['python']}"
    )
