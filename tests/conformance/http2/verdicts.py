"""What an outcome is called, and whether a case allows it. Owns the vocabulary of the catalogue; talks to nobody."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Callable

from tests.conformance.http2 import field_cases, flood_cases
from tests.scenario import h2_frames as h2
from tests.scenario.h2_frames import Frame
from tests.scenario.h2_wire import H2Message
from tests.scenario.wire import Message

FORWARDED = {"forward", "normalize", "retry"}
# Outcomes that keep the connection, or the proxy, going while costs stay bounded.
BOUNDED = {"bounded", "handled", "ignored, CPU bounded", "others progress"}

# Memory that a case may cost the proxy. What the floods send, or ask for, is a multiple of it.
MEMORY_BOUND_BYTES = 48 << 20
MEMORY_BOUNDS = {"H2-HPACK-BOMB": 16 << 20, "H2-CONT-FLOOD": 16 << 20, "H2-FRAME-16M": 12 << 20, "H2-UP-CONT-FLOOD": 16 << 20,
                 "H2-UP-WINDOW-0": 16 << 20, "H2-UNKNOWN-FLOOD": 16 << 20}


@dataclass
class Observation:
    """All that one run of one case made visible."""

    case: dict
    ours: bool
    facts: dict = field(default_factory=dict)
    goaway: Frame | None = None
    end: str | None = None
    streams: dict[int, H2Message] = field(default_factory=dict)
    ignored_streams: set[int] = field(default_factory=set)
    sentinel: int = 0
    frames: list[Frame] = field(default_factory=list)
    http1_answer: bytes = b""
    client_trouble: str | None = None
    upstream: list[Message | H2Message] = field(default_factory=list)
    upstream_incomplete: list[Message | None] = field(default_factory=list)
    upstream_errors: list[int] = field(default_factory=list)  # codes of GOAWAY that the proxy sent to its upstream
    violations: list[str] = field(default_factory=list)
    attempts: int = 0
    most_in_flight: int = 0
    left_in_flight: int = 0
    stream_limit: int | None = None
    offers_websocket: bool = False
    good_status: int | None = None
    endpoint_blame: int = 0
    memory_bytes: int = 0
    died: bool = False

    @property
    def upstream_side(self) -> bool:
        return self.case["id"].startswith("H2-UP-")

    @property
    def own_streams(self) -> dict[int, H2Message]:
        return {s: m for s, m in self.streams.items() if s != self.sentinel and s not in self.ignored_streams}

    @property
    def sentinel_answered(self) -> bool:
        message = self.streams.get(self.sentinel)
        return message is not None and message.complete and message.status == 200

    @property
    def label(self) -> str:
        """The outcome in the catalogue's words."""
        if self.upstream_side and self.case["expect"].startswith("GOAWAY") and self.upstream_errors:
            return f"GOAWAY({h2.error_name(self.upstream_errors[0])})"
        if self.goaway is not None and self.goaway.error != h2.NO_ERROR:
            return f"GOAWAY({h2.error_name(self.goaway.error)})"
        if self.http1_answer:
            return "forward" if b"X-Seen: " in self.http1_answer else self.http1_answer[9:12].decode("latin-1")
        if "outcome" in self.facts:
            return str(self.facts["outcome"])
        # RFC 9113 8.1: NO_ERROR behind a whole answer only ends the upload; another code says that the request was wrong.
        resets = [m for m in self.own_streams.values() if m.reset is not None and not (m.complete and (m.reset == h2.NO_ERROR or self.upstream_side))]
        if resets:
            cut = self.upstream_side and resets[0].fields
            return "abort" if cut else f"RST_STREAM({h2.error_name(resets[0].reset)})"
        answers = [m for m in self.own_streams.values() if m.fields]
        if self.facts.get("goaway first") and self.goaway is not None:
            return "GOAWAY(NO_ERROR)"
        if answers and not answers[-1].complete and self.end:
            return "abort"
        if answers:
            if not answers[-1].all("x-seen"):
                return str(answers[-1].status)
            return "retry" if self.attempts > 1 else "forward"
        if self.sentinel_answered:
            return "ignored"
        if self.goaway is not None:
            return "GOAWAY(NO_ERROR)"
        return "close" if self.end else "wait"

    @property
    def allowed(self) -> set[str]:
        allowed = {self.case["expect"], *self.case.get("also_ok", ())}
        if self.case["id"] in flood_cases.MADE_YOU_RESET:
            # RFC 9113 5.4.1: who ends the connection at the first of these makes no resets that could be counted.
            allowed |= {f"GOAWAY({name})" for name in ("PROTOCOL_ERROR", "STREAM_CLOSED", "FLOW_CONTROL_ERROR", "FRAME_SIZE_ERROR")}
        if self.case["id"] == "H2-CONNECT-EXTENDED-OFF" and self.offers_websocket:
            allowed |= {"forward"}
        return allowed

    @property
    def is_allowed(self) -> bool:
        label, allowed = self.label, self.allowed
        if label in allowed:
            return True
        if label == "retry":
            return "forward" in allowed
        if label.startswith("RST_STREAM") and "abort" in allowed:
            return True  # it may overtake the head; that the message is incomplete is seen either way
        if label in ("forward", "ignored", "bounded"):
            # A control request stands behind what is to be ignored: that it is answered is the proof.
            fine = BOUNDED | {"ignored"} | (FORWARDED - {"retry"} if label == "forward" else set())
            return bool(fine & allowed)
        if label == "GOAWAY(NO_ERROR)" and "bounded" in allowed:
            return True
        if label.startswith("GOAWAY") and "GOAWAY" in allowed:
            return True
        if {"closed at max idle", "timeout"} & allowed:
            return label in ("close", "GOAWAY(NO_ERROR)", "timeout") or label.startswith("RST_STREAM") or label == "GOAWAY(ENHANCE_YOUR_CALM)"
        if "queue then 503" in allowed:
            return label == "503"
        return "timeout 504" in allowed and label == "504"

    @property
    def is_lenient(self) -> bool:
        """Something reached the other side that must not."""
        return (self.label in FORWARDED and not self.is_allowed) or bool(self.violations)

    def signature(self) -> tuple:
        """What must be the same in every segmentation. A good request may, before the bad frame behind it comes, be sent on,
        and answered, or not: where the connection ends that is a matter of time."""
        seen = [(m.method, m.path, bytes(m.body)) for m in self.upstream] if self.label in FORWARDED and not self.upstream_side else []
        ends = self.label.startswith(("GOAWAY", "close"))
        return self.label, () if ends else tuple(m.status for m in self.own_streams.values() if m.complete), tuple(seen)


Claim = Callable[[Observation], "str | None"]
CLAIMS: dict[str, list[Claim]] = {}


def claim(*ids: str):
    def register(function: Claim) -> Claim:
        for case_id in ids:
            CLAIMS.setdefault(case_id, []).append(function)
        return function

    return register


def troubles(seen: Observation) -> list[str]:
    """Everything wrong with an observation; empty for a pass."""
    case_id, found = seen.case["id"], []
    if not seen.is_allowed:
        found.append(f"outcome {seen.label}, allowed {sorted(seen.allowed)}")
    if seen.died:
        found.append("the proxy died")
    if seen.client_trouble:
        found.append(f"to the client: {seen.client_trouble}")
    found += [f"to the upstream: {violation}" for violation in seen.violations]
    if seen.good_status != 200:
        found.append(f"a good request afterwards was answered {seen.good_status}")
    if seen.goaway is not None and seen.goaway.error and not seen.end:
        found.append("after a connection error the connection stayed open")
    limit = seen.stream_limit
    if limit is not None and seen.most_in_flight > limit:
        found.append(f"{seen.most_in_flight} requests in flight upstream, the limit is {limit}")
    if seen.left_in_flight:
        found.append(f"{seen.left_in_flight} requests left in flight upstream after their client was gone")
    bound = MEMORY_BOUNDS.get(case_id, MEMORY_BOUND_BYTES)
    # A sanitized build keeps what is freed for a while, on purpose: its memory says nothing.
    if seen.memory_bytes > bound and os.environ.get("MESHCORE_ASAN") != "1":
        found.append(f"{seen.memory_bytes >> 20} MiB of memory, the bound is {bound >> 20}")
    if not seen.upstream_side:
        if seen.endpoint_blame:
            found.append(f"{seen.endpoint_blame} failures were blamed on the endpoint")
        if any((m.path or "").startswith("/smuggled") for m in seen.upstream):
            found.append("/smuggled reached the upstream")
    return found + [f"{c.__name__}: {wrong}" for c in CLAIMS.get(case_id, ()) if (wrong := c(seen))]


# --- claims on what was forwarded --------------------------------------------------------------------------------------


def first(seen: Observation):
    return seen.upstream[0] if seen.upstream else None


@claim(*field_cases.BODIES)
def body_is_the_one_the_client_sent(seen):
    due = field_cases.BODIES[seen.case["id"]]
    if first(seen) is not None and bytes(first(seen).body) != due:
        return f"upstream read {bytes(first(seen).body[:60])!r}"


@claim("H2-PAD-OK", "H2-PAD-EMPTY")
def padding_is_no_content(seen):
    if first(seen) is not None and bytes(first(seen).body) != b"hello":
        return f"upstream read {bytes(first(seen).body[:60])!r}"


@claim("H2-PAD-COUNTS")
def content_between_padding_arrives(seen):
    if first(seen) is not None and bytes(first(seen).body) != seen.facts.get("body"):
        return f"upstream read {len(first(seen).body)} octets"


@claim("H2-CL-SHORT", "H2-CL-ES", "H2-CL-TRAILERS-SHORT", "H2-TRAILERS-PSEUDO", "H2-TRAILERS-CRLF")
def upstream_sees_no_complete_request(seen):
    if any(m.path == "/case" for m in seen.upstream):
        return f"upstream saw it complete, with {bytes(first(seen).body[:60])!r}"


@claim("H2-COOKIE-CRUMBS")
def crumbs_are_one_cookie(seen):
    if first(seen) is not None and first(seen).all("cookie") != ["; ".join(f"c{n}={n}" for n in range(50))]:
        return f"cookie: {first(seen).all('cookie')}"


@claim("H2-TE-TRAILERS")
def te_trailers_is_kept(seen):
    if seen.ours and first(seen) is not None and first(seen).all("te") != ["trailers"]:
        return f"te: {first(seen).all('te')}"


@claim("H2-TRAILERS")
def trailers_stay_trailers(seen):
    if first(seen) is None:
        return None
    if "x-checksum" in first(seen).names:
        return "merged into the head"
    if seen.ours and first(seen).trailer("x-checksum") != "1":
        return f"trailers: {first(seen).trailers}"


@claim("H2-TRAILERS-FRAMING")
def framing_in_trailers_is_not_believed(seen):
    if first(seen) is not None and (first(seen).trailers or first(seen).all("host") != ["a.test"] or first(seen).all("authorization")):
        return f"{first(seen).fields} {first(seen).trailers}"


@claim("H2-HOST-SAME", "H2-HOST-ONLY", "H2-F-HOST-DIFFERS")
def there_is_one_host(seen):
    if first(seen) is not None and first(seen).all("host") != ["a.test"]:
        return f"host: {first(seen).all('host')}"


@claim("H2-SPOOF-FORWARDED")
def mesh_fields_of_strangers_are_dropped(seen):
    if not seen.ours or first(seen) is None:
        return None
    leaked = [n for n in first(seen).names if n.startswith("l5d-") or n == "x-forwarded-client-cert"]
    chain = ", ".join(first(seen).all("x-forwarded-for")).split(", ")
    if leaked or chain[-1] != "127.0.0.1":
        return f"{leaked} x-forwarded-for: {chain}"


@claim("H2-HEAD")
def head_has_no_data(seen):
    if any(frame.type == h2.DATA and frame.stream == 1 and frame.flags & h2.END_STREAM == 0 for frame in seen.frames):
        return "DATA in the answer to HEAD"


@claim("H2-PING-ECHO")
def ping_comes_back(seen):
    if not any(f.type == h2.PING and f.flags & h2.ACK and f.payload == b"\0\xff\r\n\x80\x01ab" for f in seen.frames):
        return "no answer with the same octets"


@claim("H2-PING-ACK-UNASKED")
def answer_is_not_answered(seen):
    if any(f.type == h2.PING and f.payload != b"sentinel" for f in seen.frames):
        return "an acknowledgement was answered"


@claim("H2-SETTINGS-EMPTY", "H2-SETTINGS-UNKNOWN", "H2-SETTINGS-TWICE-SAME")
def every_settings_is_acknowledged(seen):
    if sum(f.type == h2.SETTINGS and f.flags & h2.ACK for f in seen.frames) != 2:
        return "not two acknowledgements for two SETTINGS"


@claim("H2-HPACK-DYNAMIC", "H2-HPACK-SYNC", "H2-HPACK-SYNC-431", "H2-HPACK-SYNC-RST")
def reference_means_what_was_added(seen):
    name, value = seen.facts["field"]
    if seen.label == "forward" and not any(m.all(name) == [value] for m in seen.upstream):
        return f"{name} did not arrive"


@claim("H2-HPACK-SYNC")
def refused_request_is_not_forwarded(seen):
    if seen.label == "forward" and sum(m.path == "/case" for m in seen.upstream) != 1:
        return "the malformed request reached the upstream"


@claim("H2-SID-REUSE", "H2-DATA-CLOSED", "H2-WU-CLOSED", "H2-RST-CLOSED", "H2-PRIO-CLOSED")
def exchange_before_was_good(seen):
    if seen.facts.get("first") != 200:
        return f"it was answered {seen.facts.get('first')}"


@claim("H2-UP-CRLF")
def split_field_is_not_delivered(seen):
    if any(m.all("set-cookie") for m in seen.streams.values()):
        return "set-cookie delivered"


@claim("H2-UP-OK")
def trailers_of_the_answer_arrive(seen):
    if not any(m.trailer("x-checksum") == "1" for m in seen.own_streams.values()):
        return "no trailers"


@claim("H2-UP-1XX")
def interim_answer_arrives(seen):
    if seen.ours and not any(m.interim and m.interim[0].status == 103 for m in seen.own_streams.values()):
        return "no 103"


@claim("H2-UP-RST-EARLY")
def request_that_may_have_been_processed_is_not_sent_again(seen):
    if seen.attempts > 1:
        return f"sent {seen.attempts} times"


@claim("H2-UP-CL-LONG")
def surplus_is_not_delivered(seen):
    if any(b"surplus" in m.body for m in seen.streams.values()):
        return "surplus delivered"
