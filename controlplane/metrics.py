"""What a control plane counts, as Prometheus text, and how it is doing, as plain values. Reads; counts nothing itself."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .server import ControlPlane

PREFIX = "meshcore_control_plane_"

Row = tuple[str, str, str, float]  # name, type, help, value


def rows(plane: ControlPlane) -> Iterator[Row]:
    """Each figure once."""
    discovery, view = plane.discovery, plane.view
    yield "streams", "gauge", "Streams of members and operators.", plane.streams.count
    yield "streams_refused_total", "counter", "Streams refused because there were too many.", plane.streams.refused
    yield "calls_refused_total", "counter", "Calls that said what could not be read or meant.", plane.reading.refused
    yield "discovery_streams", "gauge", "Proxies that watch names.", len(discovery.streams)
    yield "discovery_names", "gauge", "Names watched, each once a proxy.", sum(one.names for one in discovery.streams)
    yield "discovery_messages_total", "counter", "Messages written to discovery streams.", discovery.messages
    yield "discovery_bytes_total", "counter", "Bytes of them, before framing.", discovery.octets
    yield "subjects", "gauge", "Different names that somebody watches.", len(view.subjects)
    yield "subjects_holding", "gauge", "Names whose last endpoints are kept.", plane.holding
    yield "refreshes_total", "counter", "Times a name was looked at again.", view.refreshed
    yield "changes_total", "counter", "Times a name had something new to tell.", view.told
    yield "model_values", "gauge", "Values in the model.", len(view.index)
    yield "revision", "gauge", "Revision up to which the store was read.", view.position.revision if view.position else 0
    yield "store_stale_seconds", "gauge", "For how long the store has not answered.", view.stale_s
    observing = plane.observing
    yield "proxies_attached", "gauge", "Proxies that can be tapped.", len(observing.attached)
    yield "tap_sessions", "gauge", "Taps that run now.", observing.taps.count
    yield "statistics_frames_total", "counter", "Frames of statistics counted.", observing.reports.frames
    yield "statistics_frames_again_total", "counter", "Frames that had been counted before.", observing.reports.again
    yield "statistics_frames_refused_total", "counter", "Frames that could not be read.", observing.reports.refused
    yield "statistics_received_bytes_total", "counter", "Bytes of frames.", observing.reports.bytes
    yield "statistics_series", "gauge", "Series that are kept.", len(observing.store)
    yield "statistics_bytes", "gauge", "About how much memory they take.", observing.store.bytes
    yield "statistics_rows_refused_total", "counter", "Rows of series above the bound.", observing.store.refused_rows
    yield "statistics_slots_evicted_total", "counter", "Slots that went early, as memory was short.", observing.store.evicted_slots
    yield "trust_roots", "gauge", "Roots that are trusted.", len(plane.trust.state.roots)
    yield "trust_unconfirmed", "gauge", "Members here that have not confirmed the present roots.", plane.bundles.unconfirmed
    yield "certificate_expiry_seconds", "gauge", "Time until our own certificate ends.", plane.leaf_left_s
    yield "authority_expiry_seconds", "gauge", "Time until the authority ends.", plane.authority_left_s
    yield "start_time_seconds", "gauge", "When this process began to serve.", plane.started_at_s
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield "cpu_seconds_total", "counter", "CPU time of this process.", usage.ru_utime + usage.ru_stime


def text(plane: ControlPlane) -> str:
    """The page."""
    lines = []
    for name, kind, about, value in (*rows(plane), *plane.more_metrics()):
        lines += [f"# HELP {PREFIX}{name} {about}", f"# TYPE {PREFIX}{name} {kind}", f"{PREFIX}{name} {value:.17g}"]
    return "\n".join(lines) + "\n"


def status(plane: ControlPlane, version: str) -> dict[str, Any]:
    """How it is doing, for `meshctl check` and `meshctl version`."""
    return {
        "version": version,
        "trust_domain": plane.settings.trust_domain,
        "address": plane.address,
        "store": "etcd" if plane.settings.etcd else "sqlite",
        "now_s": time.time(),
        "position": str(plane.view.position),
        "is_draining": plane.draining.is_set(),
        "trust": {
            "phase": plane.trust.state.phase,
            "signing": plane.trust.state.signing,
            "roots": [root.fingerprint for root in plane.trust.state.roots],
        },
        "sources": plane.source_states(),
        "figures": {name: value for name, _, _, value in (*rows(plane), *plane.more_metrics())},
    }
