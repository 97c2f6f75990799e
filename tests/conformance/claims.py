"""What a case of http1_more.json says about the messages themselves, compared with what was seen. Feeds nothing.

`upstream` and `delivered` hold for the first request or response, when one came through: `body`, `size`, `target`,
`method`, `status`, `trailers`, and `fields` (name: all its values). The other keys are one rule each, below.
"""

from __future__ import annotations

import re

NEW_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-9a-f]")


def broken_claims(seen, request) -> list[str]:
    """Every claim of the case that does not hold; `request` is the upstream's view of its first request, or None."""
    case, found = seen.case, []
    if request is not None:
        found += differences("upstream", request, case.get("upstream", {}))
        found += _of_fields(case, request)
    if seen.responses and seen.label == "forward":
        found += differences("delivered", seen.responses[0], case.get("delivered", {}))
    if "tunnel" in case and seen.statuses and seen.tunnel != case["tunnel"].encode():
        found.append(f"the tunnel carried {seen.tunnel!r}")
    if case.get("fresh") and seen.next_connection == seen.case_connection:
        found.append("the connection with surplus octets was used again")
    return found


def differences(where: str, message, due: dict) -> list[str]:
    """In what a message is other than it is due to be."""
    is_whole = message.complete
    got = {
        "body": lambda: message.text if is_whole else due["body"],
        "size": lambda: message.body_bytes if is_whole else due["size"],
        "target": lambda: message.path,
        "method": lambda: message.method.decode(),
        "status": lambda: message.status,
        "trailers": lambda: [list(pair) for pair in message.trailers],
        "fields": lambda: {name: message.all(name) for name in due["fields"]},
    }
    return [f"{where} {key}: {got[key]()!r}, due {value!r}" for key, value in due.items() if got[key]() != value]


def _of_fields(case: dict, request) -> list[str]:
    found = []
    traces = request.all("traceparent")
    if "trace" in case and [value[3:35] for value in traces] != [case["trace"]]:
        found.append(f"traceparent {traces}, due one of the trace {case['trace']}")
    if "not_trace" in case and (case["not_trace"] in traces or not all(map(NEW_TRACE.fullmatch, traces)) or len(traces) > 1):
        found.append(f"traceparent {traces} after an invalid one")
    if "last_hop" in case and not ", ".join(request.all("x-forwarded-for")).endswith("127.0.0.1"):
        found.append(f"x-forwarded-for {request.all('x-forwarded-for')} does not end with the peer")
    offered = [member.strip().lower().split("/")[0].split("-")[0] for value in request.all("upgrade") for member in value.split(",")]
    if set(offered) & set(case.get("no_upgrade", ())):
        found.append(f"offered to upgrade to {offered}")
    return found
