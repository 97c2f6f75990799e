"""An agent as Prometheus text: whose sidecar this is, its certificate, its control plane. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..metrics import escape_label

if TYPE_CHECKING:
    from .agent import AgentState


def render(state: AgentState, labels: Mapping[str, str]) -> str:
    """Lines to put below those of the proxy. labels: of the workload, to join with what the proxy counts."""
    return "\n".join(_lines(state, labels)) + "\n"


def _lines(state: AgentState, labels: Mapping[str, str]) -> Iterator[str]:
    named = {key.replace("-", "_").replace(".", "_").replace("/", "_"): value for key, value in labels.items()}
    told = ",".join(f'{key}="{escape_label(value)}"' for key, value in {**named, "identity": state.identity}.items())
    yield from _family("mesh_workload_info", "gauge", "The workload beside this proxy.", f"{{{told}}} 1")
    until_s = state.certificate_until_s
    yield from _family("mesh_certificate_expiry_seconds", "gauge", "When its certificate ends, in Unix time.", f" {until_s:.0f}")
    yield from _family("mesh_certificate_renewals_total", "counter", "Certificates got since the start.", f" {state.renewals}")
    yield from _family("mesh_trusted_roots", "gauge", "Roots of the mesh that are trusted now.", f" {state.trusted_roots}")
    connected = int(state.link.is_connected)
    yield from _family("mesh_control_plane_connected", "gauge", "1 while its control plane is connected.", f" {connected}")
    yield from _family("mesh_control_plane_connects_total", "counter", "Connections that came about.", f" {state.link.connects}")
    yield from _family("mesh_control_plane_failures_total", "counter", "Tries to connect that failed.", f" {state.link.failures}")
    yield from _family("mesh_watched_names", "gauge", "Names that are watched.", f" {state.watched}")


def _family(name: str, kind: str, text: str, sample: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield f"{name}{sample}"
