"""The nearest valid word to a mistyped one. Knows nothing of configurations but the words other proxies use."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# What people who come from another proxy type first -> what it is called here. Used only where the word is valid.
ELSEWHERE = {
    "upstream": ("to", "clusters"),
    "upstreams": ("clusters", "to"),
    "backend": ("to", "clusters"),
    "backends": ("endpoints", "clusters"),
    "service": ("to",),
    "services": ("clusters",),
    "servers": ("endpoints",),
    "server": ("address", "endpoints"),
    "hosts": ("endpoints",),
    "targets": ("endpoints", "split"),
    "target": ("to", "address"),
    "destination": ("to",),
    "cluster": ("to",),
    "bind": ("address",),
    "listen": ("address",),
    "port": ("address",),
    "url": ("address",),
    "load_balancer": ("balancer",),
    "load_balancing": ("balancer",),
    "lb": ("balancer",),
    "lb_policy": ("balancer",),
    "policy": ("balancer",),
    "headers": ("request_headers",),
    "response_timeout": ("timeout",),
    "request_timeout": ("total_timeout",),
    "deadline": ("total_timeout",),
    "retry": ("retries",),
    "circuit_breaker": ("breaker",),
    "outlier_detection": ("breaker",),
    "direct_response": ("respond",),
    "websocket": ("upgrade",),
    "threads": ("workers",),
    "concurrency": ("workers",),
    "processes": ("workers",),
    "domain": ("host",),
    "hostname": ("host",),
    "method": ("methods",),
    "attempts": ("max_attempts",),
    "num_retries": ("max_attempts",),
}

# Keys that every file of another program begins with -> how such a file is given.
OTHER_FILES = {"routers": "a file of Linkerd 1.x is given with --linkerd"}

_LONGEST = 64  # a longer word is no typo of ours, and distance costs len x len


def distance(a: str, b: str) -> int:
    """Edits between two words: insert, delete, replace, or swap two neighbours (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        above, before, row = before, row, [i]
        for j, other in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _plain(word: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.strip()).replace("-", "_").replace(" ", "_").lower()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The valid word meant by `word`, or None when none is near enough to be a fair guess."""
    known = tuple(known)
    if not known or len(word) > _LONGEST:
        return None
    plain = _plain(word)
    by_plain = {_plain(candidate): candidate for candidate in known}
    if plain in by_plain:
        return by_plain[plain]
    for meant in ELSEWHERE.get(plain, ()):
        if meant in known:
            return meant
    best: tuple[int, float, str] | None = None
    for candidate_plain, candidate in by_plain.items():
        if abs(len(candidate_plain) - len(plain)) > 2 or len(candidate_plain) > _LONGEST:
            continue
        edits = distance(plain, candidate_plain)
        # Two edits turn any two-letter word into any other: then nothing of the word is left to recognise.
        if edits <= 2 and edits < max(len(plain), len(candidate_plain)):
            likeness = difflib.SequenceMatcher(None, plain, candidate_plain).ratio()
            if best is None or (edits, -likeness) < best[:2]:
                best = (edits, -likeness, candidate)
    if best is not None:
        return best[2]
    close = difflib.get_close_matches(plain, by_plain, n=1, cutoff=0.7)
    return by_plain[close[0]] if close else None


def hint(word: str, known: Iterable[str], noun: str) -> str:
    """`did you mean 'x'?`, or the list of what is valid: `keys are: a, b, c`."""
    known = sorted(known)
    near = nearest(word, known)
    if near is not None:
        return f"did you mean '{near}'?"
    if not known:
        return f"there are no {noun}"
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"{noun} are: {shown}"
