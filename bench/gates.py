"""What meshcore has promised beside its peers, and whether a report keeps it. Measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# CPU per request against a peer: medians of the ratios of one round each.
RATIO_LIMITS: tuple[tuple[str, str, float], ...] = (
    ("small", "forwarder", 1.12),
    ("browser", "forwarder", 1.25),
    ("small", "nginx", 0.77),
    ("browser", "nginx", 0.75),
    ("small", "haproxy", 0.67),
    ("browser", "haproxy", 0.67),
    ("small", "envoy", 0.25),
    ("browser", "envoy", 0.25),
    ("h2", "haproxy", 0.6),
    ("h2", "envoy", 0.15),
    ("h2-single", "haproxy", 0.95),
    ("h2-h1", "haproxy", 0.7),
    ("h2-h1", "nginx", 0.45),
    ("h2-h1-single", "haproxy", 0.9),
    ("tls", "nginx", 0.8),
    ("tls", "haproxy", 0.8),
    # More handshakes a second out of a core: less of it for each.
    ("tls-full", "nginx", 1.0),
    ("tls-full", "haproxy", 1.0),
    ("tls-resumed", "nginx", 1.0),
    ("tls-resumed", "haproxy", 1.0),
    ("mtls-full", "nginx", 1.0),
    ("mtls-full", "haproxy", 1.0),
)
PROXIES = ("nginx", "haproxy", "envoy")
PAIR_LIMITS = {"routes": 1.03, "tap": 1.03}
IDLE_BYTES_LIMIT = 256.0
IDLE_TLS_RIVALS = ("nginx", "haproxy")


@dataclass(frozen=True)
class Gate:
    """One promise: `row` names the table row it stands in, `against` what it is measured by."""

    row: str
    against: str
    limit: float
    value: float

    @property
    def holds(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "PASS" if self.holds else "FAIL"
        unit = " B" if self.row == "memory" else ""
        digits = 0 if unit else 2 if self.row not in PAIR_LIMITS else 3
        return f"{verdict} {self.value:.{digits}f} ≤ {self.limit:g}{unit} {self.against}".strip() \
            if self.holds else f"{verdict} {self.value:.{digits}f} > {self.limit:g}{unit} {self.against}".strip()

    def as_dict(self) -> dict[str, Any]:
        return {
            "row": self.row,
            "against": self.against,
            "limit": self.limit,
            "value": self.value,
            "holds": self.holds,
        }


def evaluate(report: dict[str, Any]) -> list[Gate]:
    """Every gate the report has figures for."""
    gates: list[Gate] = []
    shapes = report["shapes"]
    for shape, peer, limit in RATIO_LIMITS:
        ratio = shapes.get(shape, {}).get("ratios", {}).get(peer)
        if ratio:
            gates.append(Gate(shape, peer, limit, ratio["median"]))
    bulk = shapes.get("1m", {}).get("ratios", {})
    against = {peer: bulk[peer]["median"] for peer in PROXIES if peer in bulk}
    if against:
        best = max(against, key=lambda peer: against[peer])
        gates.append(Gate("1m", f"{best} (best)", 1.0, against[best]))
    for pair, limit in PAIR_LIMITS.items():
        found = report["pairs"].get(pair, {})
        if "ratio" in found:
            gates.append(Gate(pair, "", limit, found["ratio"]["median"]))
    bytes_each = report["memory"].get("meshcore", {}).get("bytes")
    if bytes_each is not None:
        gates.append(Gate("memory", "", IDLE_BYTES_LIMIT, bytes_each))
    idle = report.get("tls_memory", {})
    ours = idle.get("meshcore", {}).get("bytes")
    for peer in IDLE_TLS_RIVALS:
        theirs = idle.get(peer, {}).get("bytes")
        if ours is not None and theirs:
            gates.append(Gate("tls_memory", peer, 1.0, ours / theirs))
    return gates
