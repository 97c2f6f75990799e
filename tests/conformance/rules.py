"""The machine's version of the prose in `forbid`, `forwarded` and `why`: one small claim per case. Feeds nothing.

A claim takes an `Observation` (see runner.py) and returns what is wrong, or None. Claims on what was forwarded hold only
when something was forwarded.
"""

from __future__ import annotations

from typing import Callable

Claim = Callable[["Observation"], "str | None"]  # noqa: F821

CLAIMS: dict[str, list[Claim]] = {}


def claim(*ids: str):
    def register(function: Claim) -> Claim:
        for case_id in ids:
            CLAIMS.setdefault(case_id, []).append(function)
        return function

    return register


def first(seen) -> "Message | None":  # noqa: F821
    """The upstream's view of the case's first request, half-received ones included."""
    return (seen.upstream + [m for m in seen.upstream_incomplete if m is not None] or [None])[0]


def _values(message, name: str) -> list[str]:
    return message.all(name) if message is not None else []


# --- requests ----------------------------------------------------------------------------------------------------------

BODIES = {
    b"hello": """OK-POST-CHUNKED OK-CHUNK-LEADZERO OK-CHUNK-EXT OK-TRAILER OK-TE-CASE CL-DUP-SAME CL-LIST-EMPTY CL-OBSFOLD
        CL-GET-BODY CL-HEAD-BODY CL-10-KEEPALIVE TE-CL-REV TE-TRAIL-SP TE-TAB CK-SIZE-TRAILSP CK-LF-SIZE CK-LF-TRAILER
        CK-EXT-BARE CK-EXT-TOKEN CK-TR-TE CK-TR-HOST CK-TR-AUTH CK-TR-CT CK-TR-CONN CK-TR-EXPECT CK-TR-LF EX-100-SMUG
        EX-OBFUSCATED UP-H2C-BODY CN-PIPE-POST-GET RL-TRACE-BODY""".split(),
    b"hello world": ["OK-CHUNK-MULTI", "F-UNDERSCORE-CL"],
    b"": "CL-NONE-POST CL-0-TRAIL CK-TR-REQLINE OK-GET CN-HALF-CLOSE".split(),
    b"hel": ["CL-SHORT"],
    b"0123456789": ["CL-OCTAL-LIKE"],
    b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n": ["TE-TE0"],
    b"z" * 100_000: ["CK-TINY-100K"],
    b"z" * 500: ["CK-EXT-AMPLIFY"],
}

for _body, _ids in BODIES.items():

    @claim(*_ids)
    def body_is_the_one_the_client_framed(seen, body=_body):
        message = seen.upstream[0] if seen.upstream else None
        if message is not None and message.body != body:
            return f"upstream read body {bytes(message.body[:60])!r}"


@claim("CL-GET-BODY", "CL-HEAD-BODY")
def body_keeps_its_framing(seen):
    message = first(seen)
    if message is not None and message.framing == "none":
        return "body forwarded without framing, or stripped"


@claim("OK-TRAILER")
def trailer_is_not_merged_into_the_head(seen):
    if "x-checksum" in (first(seen).names if first(seen) else []):
        return "trailer merged into the head"


@claim("OK-TE-CASE")
def coding_is_written_in_lower_case(seen):
    if seen.upstream and _values(seen.upstream[0], "transfer-encoding") not in ([], ["chunked"]):
        return f"transfer-encoding: {_values(seen.upstream[0], 'transfer-encoding')}"


@claim("RL-VER-1.2")
def version_forwarded_is_our_own(seen):
    if seen.upstream and seen.upstream[0].version != b"1.1":
        return f"forwarded as HTTP/{seen.upstream[0].version.decode()}"


@claim("RL-TARGET-BACKSLASH")
def backslash_is_never_a_slash(seen):
    if first(seen) and first(seen).path.lower().replace("%5c", "\\") != "/a\\..\\b":
        return f"forwarded as {first(seen).path}"


@claim("RL-DOTDOT")
def dot_segments_are_resolved_when_forwarded(seen):
    if first(seen) and first(seen).path != "/admin":
        return f"forwarded as {first(seen).path}"


@claim("RL-DOTDOT-ROOT")
def path_never_climbs_above_the_root(seen):
    if first(seen) and first(seen).path != "/etc/passwd":
        return f"forwarded as {first(seen).path}"


@claim("RL-DOUBLE-SLASH")
def double_slash_is_no_authority(seen):
    if first(seen) and (first(seen).path not in ("//admin", "/admin") or _values(first(seen), "host") != ["a.test"]):
        return f"forwarded as {first(seen).path} to {_values(first(seen), 'host')}"


@claim("RL-FRAGMENT")
def fragment_is_not_forwarded(seen):
    if first(seen) and "#" in first(seen).path:
        return "fragment forwarded"


@claim("RL-ABS-OK")
def absolute_form_becomes_origin_form(seen):
    if first(seen) and (first(seen).path != "/probe" or _values(first(seen), "host") != ["a.test"]):
        return f"forwarded as {first(seen).path} to {_values(first(seen), 'host')}"


@claim("LE-CR-SMUG-HDR")
def hidden_field_is_not_seen(seen):
    if _values(first(seen), "transfer-encoding"):
        return "the hidden Transfer-Encoding reached the upstream"


@claim("F-VAL-85A0")
def octets_85_and_a0_are_not_whitespace(seen):
    if first(seen) and _values(first(seen), "user") != ["\x85admin\xa0"]:
        return f"user: {_values(first(seen), 'user')}"


@claim("F-CONN-HOST")
def connection_cannot_remove_host(seen):
    if first(seen) and _values(first(seen), "host") != ["a.test"]:
        return "Host removed"


@claim("F-SPOOF-XFF")
def last_forwarded_address_is_the_peer(seen):
    chain = ", ".join(_values(first(seen), "x-forwarded-for")).split(", ") if first(seen) else None
    # The spoofed value equals the real peer here, so the count tells an appended address from an untouched one.
    if chain is not None and not (chain[-1] == "127.0.0.1" and (len(chain) == 2 or seen.replaces_forwarded_for)):
        return f"x-forwarded-for: {chain}"


@claim("F-SPOOF-MESH")
def mesh_fields_of_strangers_are_dropped(seen):
    leaked = [n for n in (first(seen).names if first(seen) else []) if n.startswith("l5d-") or n == "x-forwarded-client-cert"]
    if leaked:
        return f"forwarded {leaked}"


@claim("F-TRACEPARENT-FF")
def invalid_traceparent_starts_a_new_trace(seen):
    if any(value.startswith("ff-") for value in _values(first(seen), "traceparent")):
        return "version ff forwarded"


@claim("H-XFH")
def override_fields_do_not_choose_the_target(seen):
    if first(seen) and (first(seen).path != "/probe" or _values(first(seen), "host") != ["a.test"]):
        return f"forwarded as {first(seen).path} to {_values(first(seen), 'host')}"


@claim("CL-OCTAL-LIKE")
def length_is_decimal(seen):
    lengths = _values(first(seen), "content-length")
    if lengths and lengths != ["10"]:
        return f"content-length: {lengths}"


@claim("CL-OVERFLOW-WRAP", "CL-OVERFLOW-32", "CK-OVERFLOW-32", "CL-OVERFLOW-63")
def length_never_wraps(seen):
    if any(message.method == b"POST" for message in seen.upstream):
        return "the upstream saw a complete request"


@claim("CK-TR-TE", "CK-TR-HOST", "CK-TR-AUTH", "CK-TR-CT", "CK-TR-CONN", "CK-TR-EXPECT")
def forbidden_trailer_is_never_a_field(seen):
    message = first(seen)
    if message is None:
        return None
    if _values(message, "host") != ["a.test"] or any(_values(message, n) for n in ("authorization", "content-type", "expect")):
        return f"trailer merged: {message.fields}"
    if seen.ours and message.trailers:
        return f"forbidden trailer forwarded: {message.trailers}"


@claim("UP-NO-CONN", "UP-HTTP10", "UP-TLS10", "UP-H2C", "UP-H2C-CONN-ONLY", "UP-H2C-BODY", "UP-MULTI")
def upgrade_is_not_offered(seen):
    offered = [value for message in seen.upstream for value in message.all("upgrade")]
    if seen.case["id"] == "UP-MULTI":
        offered = [value for value in offered if "h2c" in value.lower()]
    settings = [value for message in seen.upstream for value in message.all("http2-settings")]
    if offered or settings:
        return f"forwarded upgrade: {offered} http2-settings: {settings}"
    if 101 in seen.statuses:
        return "answered 101"


@claim("UP-VER99", "UP-WS-SMUG")
def failed_upgrade_stays_http(seen):
    if 426 in seen.statuses and seen.end is None and not seen.sentinel:
        return "the connection no longer speaks HTTP"


@claim("UP-WS-SMUG")
def request_after_a_failed_upgrade_is_a_request_of_its_own(seen):
    smuggled = [m for m in seen.upstream if m.target == b"/smuggled"]
    if smuggled and len(seen.statuses) != 2:
        return "/smuggled reached the upstream without an answer of its own"


@claim("CL-0-TRAIL")
def stray_octet_belongs_to_the_second_request(seen):
    if [m for m in seen.upstream if m.method == b"XGET"] and len(seen.statuses) < 2:
        return "XGET reached the upstream without an answer of its own"


@claim("CK-PLUSZERO")
def invalid_last_chunk_ends_the_connection(seen):
    if any(m.method == b"XGET" for m in seen.upstream):
        return "XGET reached the upstream"


@claim("EX-OBFUSCATED")
def odd_expectation_is_not_forwarded_as_one(seen):
    if [v for v in _values(first(seen), "expect") if v.lower() == "100-continue"]:
        return "turned into 100-continue"


@claim("F-VAL-ESC")
def escape_is_never_shown_raw(seen):
    if any("\x1b" in line for line in seen.tap_lines):
        return "raw ESC in a tap line"


# Held by what every case is checked for (strict upstream wire, one Host, one framing): named so that no prose is lost.
HELD_BY_INVARIANTS = {"OK-CHUNK-EXT", "LE-LF-ALL", "CN-CLOSE-THEN", "UP-NO-CONN"}


def smuggled_request_is_not_seen(seen) -> str | None:
    """For every case whose `forbid` names /smuggled, except where it may be a request of its own."""
    if seen.case["id"] == "UP-WS-SMUG" or "/smuggled" not in seen.case.get("forbid", ""):
        return None
    if any(m.target.startswith(b"/smuggled") for m in seen.upstream + [m for m in seen.upstream_incomplete if m]):
        return "/smuggled reached the upstream"
    return None


# --- responses ---------------------------------------------------------------------------------------------------------


def _delivered(seen, status: int, body: bytes) -> str | None:
    if not seen.responses:
        return None
    got = seen.responses[0]
    if got.status != status or bytes(got.body) != body:
        return f"delivered {got.status} {bytes(got.body[:60])!r}"
    return None


@claim("R-OK", "R-CL-EXTRA", "R-CL-EXTRA-RESP", "R-100-FINAL", "R-103-FINAL")
def body_is_delivered_as_framed(seen):
    return _delivered(seen, 200, b"hello")


@claim("R-CLTE", "R-CL-DUP-SAME", "R-TE-10", "R-TRAILER-FORBID")
def body_is_delivered_in_canonical_form(seen):
    return None if seen.label == "502" else _delivered(seen, 200, b"hello")


@claim("R-CL-EXTRA", "R-CL-EXTRA-RESP", "R-204-CL", "R-204-TE", "R-304-BODY")
def upstream_connection_with_surplus_is_not_reused(seen):
    if seen.next_connection == seen.case_connection:
        return "the connection with surplus bytes was used again"


@claim("R-BARECR")
def split_field_is_not_delivered(seen):
    if any(m.all("set-cookie") for m in seen.responses):
        return "Set-Cookie delivered"


@claim("R-100-FINAL")
def there_is_exactly_one_final_response(seen):
    if len(seen.responses) != 1:
        return f"{len(seen.responses)} final responses"


@claim("R-204-CL", "R-204-TE", "R-304-BODY")
def bodiless_response_has_no_body(seen):
    return None if seen.label == "502" else _delivered(seen, int(seen.case["id"][2:5]), b"")


@claim("R-CONNECT-CL")
def accepted_connect_is_a_tunnel(seen):
    if seen.statuses == [200] and seen.tunnel != b"hello":
        return f"tunnel carried {seen.tunnel!r}"


@claim("R-TRAILER-FORBID")
def forbidden_response_trailer_is_never_a_field(seen):
    message = seen.responses[0] if seen.responses else None
    if message is None:
        return None
    if message.all("set-cookie") or message.all("content-length") == ["9"]:
        return "trailer merged into the head"
    if seen.ours and message.trailers:
        return f"forbidden trailer forwarded: {message.trailers}"


@claim("R-EARLY-200")
def early_response_is_delivered(seen):
    return _delivered(seen, 200, b"ok")


@claim("R-HOP")
def hop_by_hop_fields_are_removed(seen):
    names = seen.responses[0].names if seen.responses else []
    left = [n for n in names if n in ("x-foo", "keep-alive")]
    if left and seen.ours or "x-foo" in left:
        return f"delivered {left}"


# The next request gets its own fresh answer: checked after every response case.
HELD_BY_NEXT_REQUEST = {"R-UNSOLICITED", "R-CL-EXTRA", "R-CL-EXTRA-RESP", "R-204-CL", "R-304-BODY"}


def has_machine_version(case: dict) -> bool:
    """Whether the prose of a case is checked somewhere."""
    return (
        case["id"] in CLAIMS
        or case["id"] in HELD_BY_INVARIANTS
        or case["id"] in HELD_BY_NEXT_REQUEST
        or "/smuggled" in case.get("forbid", "")
    )
