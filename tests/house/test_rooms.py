"""The rooms of the engine: who may know whom, and what a verb looks like.

LEVELS is the one place that says where a room stands. A room cimports from its own level or those above it in this
list, never in a circle. A new room gets a line here and a place in ARCHITECTURE.md.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "meshcore" / "engine"

LEVELS = {
    "system calls and codes": ["reasons", "sys", "uring", "openssl"],
    "mechanisms": ["rng", "histogram", "histogram_pool", "ewma", "timer", "slab", "buffer", "ring", "stack"],
    "configuration": ["snapshot"],
    "bytes, sans-io": ["llhttp", "octets", "fields", "authority", "head", "target", "hop", "http1_request",
                       "http1_response", "http1", "framing", "trace", "date", "rewrite", "ip_text", "proxy_protocol",
                       "detect", "name", "status", "http2_frame", "huffman", "hpack_table", "hpack_read", "hpack_write", "http2_head",
                       "http2_fields", "grpc", "context", "identity", "client_hello", "mesh_hop", "websocket",
                       "base64", "grpc_web"],
    "policy, sans-io": ["backoff", "success_rate", "breaker", "budget", "endpoint", "balance", "target_tree", "routes", "binding", "silence", "ticket", "tls_context",
                        "certificate", "tap_session"],
    "edge": ["state", "batch", "socket", "tls", "http2_control", "stream", "conn", "pipe", "pool", "intercept"],
    "exchange": ["flow", "input", "tap", "exchange", "downstream", "respond", "hook", "dispatch", "request", "response",
                 "preface", "secure", "tcp", "lookup", "upstream", "reframe", "http2_in", "http2_read", "http2_out", "session", "destination",
                 "queue"],
    "loop": ["mailbox", "listener", "resume", "begin", "event", "deadline", "loop"],
}
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS.values()) for room in rooms}

ROOMS = sorted(path.stem for path in ENGINE.glob("*.pxd"))
EACH_ROOM = pytest.mark.parametrize("room", ROOMS)
CIMPORT = re.compile(r"^\s*(?:from\s+(\S+)\s+)?cimport\s+(.+)$")


def text_of(room: str) -> str:
    return (ENGINE / f"{room}.pxd").read_text()


def statements(room: str) -> list[str]:
    """The top-level statements of a room: the first line of each block, joined with the lines its brackets span."""
    found, pending, in_string = [], "", False
    for line in text_of(room).splitlines():
        quotes = line.count('"""')
        if in_string or quotes % 2:
            in_string ^= quotes % 2
            continue
        code = line.split("#")[0].rstrip()
        if pending:
            pending += " " + code.strip()
        elif code and not code[0].isspace():
            pending = code
        if pending and pending.count("(") <= pending.count(")") and not pending.endswith("\\"):
            found.append(pending)
            pending = ""
    return found


def cimports(room: str) -> list[tuple[str, list[str]]]:
    """(module, names) of each cimport; module is "" for a plain `cimport x`."""
    found = []
    for statement in statements(room):
        match = CIMPORT.match(statement)
        if match:
            names = [name.split(" as ")[0].strip() for name in match[2].strip("() ").split(",") if name.strip("() ")]
            found.append((match[1] or "", names))
    return found


def neighbours(room: str) -> set[str]:
    prefix = "meshcore.engine."
    return {module.removeprefix(prefix) for module, _ in cimports(room) if module.startswith(prefix)}


@EACH_ROOM
def test_a_room_stands_on_one_level(room):
    assert sum(room in rooms for rooms in LEVELS.values()) == 1, (
        f"meshcore/engine/{room}.pxd is not in LEVELS, or twice: add it to the level of the rooms it resembles, in "
        "tests/house/test_rooms.py, and to ARCHITECTURE.md")


def test_the_table_names_no_room_that_is_gone():
    assert set(LEVEL_OF) <= set(ROOMS), f"take them out of LEVELS: {sorted(set(LEVEL_OF) - set(ROOMS))}"


@EACH_ROOM
def test_a_room_cimports_only_from_its_level_or_below(room):
    above = {other for other in neighbours(room) if LEVEL_OF.get(other, -1) > LEVEL_OF.get(room, 99)}
    assert not above, f"{room} is below {sorted(above)}: move what both need to a lower room, or the decision up"


def test_rooms_do_not_cimport_in_a_circle():
    """Cython compiles circles without a word."""
    finished: set[str] = set()

    def visit(room, path):
        assert room not in path, "a circle: " + " -> ".join([*path[path.index(room):], room])
        if room not in finished:
            for other in sorted(neighbours(room)):
                visit(other, [*path, room])
            finished.add(room)

    for room in ROOMS:
        visit(room, [])


@EACH_ROOM
def test_a_room_cimports_by_name_from_the_room_that_defines_it(room):
    """A name leaks through every room that cimports it; taking it from there hides who owns it."""
    for module, names in cimports(room):
        assert module, f"{room}: write `from {names[0]} cimport …`"
        assert "*" not in names and not module.startswith("."), f"{room}: {module} is cimported with a star or a dot"
        if module.startswith("meshcore."):
            assert module.startswith("meshcore.engine."), f"{room}: rooms know only rooms, not {module}"
            owner = module.rpartition(".")[2]
            assert owner in ROOMS, f"{room} cimports from {module}, which does not exist"
            own_text = "\n".join(line for line in text_of(owner).splitlines() if not CIMPORT.match(line))
            leaked = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", own_text)]
            assert not leaked, f"{room}: {leaked} are not defined in {owner}"


@EACH_ROOM
def test_every_verb_is_inline_noexcept_nogil(room):
    """Without `noexcept` each call takes the GIL to look for an exception; a global or a class would need a module."""
    for statement in statements(room):
        if re.match(r"^(cdef (packed )?(struct|union|enum)\b|cdef extern from|from |cimport )", statement):
            continue
        if statement.startswith("ctypedef"):
            assert "(" not in statement or statement.endswith("noexcept nogil"), f"{room}: {statement}"
            continue
        assert re.match(r"^cdef inline .*\) noexcept nogil:$", statement), (
            f"{room}: only structs, enums and `cdef inline … noexcept nogil:` verbs live in rooms: {statement}")


@EACH_ROOM
def test_a_room_holds_no_directives(room):
    assert not re.search(r"^#\s*cython\s*:", text_of(room), re.MULTILINE), "directives belong in setup.py: see there"


@EACH_ROOM
def test_line_one_says_what_the_room_owns(room):
    first = text_of(room).split("\n", 1)[0]
    assert re.match(r"^# \S.{20,}", first), f"{room}: line 1 is {first!r}"


@EACH_ROOM
def test_every_room_is_on_the_map(room):
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    assert re.search(rf"\b{room}\b", architecture), f"ARCHITECTURE.md does not name the room {room}"


def test_cython_has_no_performance_hint(tmp_path):
    """Hints are where Cython takes the GIL behind our back; -Werror does not turn them into errors."""
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "meshcore", tmp_path / "meshcore",
                    ignore=shutil.ignore_patterns("*.c", "*.so", "*.html", "__pycache__"))
    cythonize_only = "import runpy, setuptools; setuptools.setup = lambda **_: None; runpy.run_path('setup.py')"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environment.pop("MESHCORE_DEBUG", None)
    done = subprocess.run([sys.executable, "-c", cythonize_only], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=110)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "Cythonizing" in output
    assert "performance hint" not in output, output
