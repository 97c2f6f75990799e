"""The tree: sizes, names, and which way imports point."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.importer import Importer

ROOT = Path(__file__).resolve().parents[2]
CODE = {".py", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h"}
LONGEST_FILE_LINES = 600
NAMELESS = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}


def is_generated(path: Path) -> bool:
    return path.suffix == ".c" and path.with_suffix(".pyx").exists() or "_pb2" in path.name


FILES = sorted(
    path for top in ("meshcore", "controlplane", "tests", "bench", "examples", "tools")
    for path in (ROOT / top).rglob("*")
    if path.suffix in CODE and path.is_file() and not is_generated(path) and "build" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(path) for path in FILES if path.suffix == ".py" and path.is_relative_to(ROOT / "meshcore")]
CONTROL_PLANE = [path for path in FILES if path.suffix == ".py" and path.is_relative_to(ROOT / "controlplane")]
EACH_FILE = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def words(name: str) -> set[str]:
    """The words of a snake_case or CamelCase name."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


@EACH_FILE
def test_no_file_is_longer_than_six_hundred_lines(path):
    lines = path.read_text().count("\n")
    assert lines <= LONGEST_FILE_LINES, f"{path.relative_to(ROOT)}: {lines} lines; it holds more than one concept"


@EACH_FILE
def test_everything_has_a_name_that_means_something(path):
    names = list(path.relative_to(ROOT).with_suffix("").parts)
    names += re.findall(r"^(?:cdef )?(?:class|struct) (\w+)", path.read_text(), re.MULTILINE)
    for name in names:
        assert not words(name) & NAMELESS, f"{path.relative_to(ROOT)}: {name!r}: what is its concept?"


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".py" and "meshcore" in path.parts],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_meshcore_never_imports_the_control_plane(path):
    for line, name in imports_of(path):
        assert name.split(".")[0] != "controlplane", f"line {line}"


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, module) of each absolute import."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.lineno, node.module or ""))
    return found


@pytest.mark.parametrize("path", CONTROL_PLANE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_control_plane_uses_only_the_public_api_of_meshcore(path):
    for line, name in imports_of(path):
        parts = name.split(".")
        hidden = [part for part in parts if part.startswith("_")] or parts[1:2] in (["engine"], ["door"], ["cli"])
        assert parts[0] != "meshcore" or not hidden, f"line {line}: {name}"
        assert parts[0] != "tests", f"line {line}: {name}"


# What each room of the control plane may import of the others; identity and catalogue meet only in what is above them.
BELOW = {
    "errors": set(), "spiffe": set(), "audit": set(), "model": {"errors", "spiffe"}, "store": {"errors", "model"},
    "identity": {"errors", "spiffe", "audit", "model", "store"}, "catalogue": {"errors", "audit", "model", "store"},
    "settings": {"errors", "spiffe", "model", "identity"}, "home": {"errors", "identity", "settings", "store"},
    "door": {"identity", "settings"}, "resolve": {"errors", "spiffe", "model", "catalogue"},
    "serving": {"errors", "spiffe", "audit", "model", "store", "identity", "catalogue", "settings", "resolve"},
    "http": set(), "discovery": {"errors", "spiffe", "model", "resolve"},
    "namerd": {"errors", "audit", "model", "store"},
}
# These two name the plane whose parts they put together or read, for its types alone.
BELOW["parts"] = {"serving", "server"}
BELOW["metrics"] = {"server"}
BELOW["manifests"] = {"spiffe"}
BELOW["observation"] = {"errors", "spiffe", "audit", "model", "resolve", "serving", "settings"}
BELOW["server"] = {*BELOW}
BELOW["cli"] = {*BELOW}


@pytest.mark.parametrize("path", CONTROL_PLANE, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_within_the_control_plane_point_downwards(path):
    parts = path.relative_to(ROOT / "controlplane").with_suffix("").parts
    if parts == ("__init__",):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            # `from ..errors import x` in model/names.py is level 2; level 1 there is the room itself.
            outside = node.level == len(parts)
            room = (node.module or "").split(".")[0] if outside else parts[0]
            if room and room != parts[0]:
                assert parts[0] in BELOW, f"{parts[0]} is not in BELOW, in {__file__}"
                assert room in BELOW[parts[0]], f"line {node.lineno}: {parts[0]} is not above {room}"


@pytest.fixture(scope="module")
def importer():
    one = Importer()
    yield one
    one.close()


@pytest.mark.parametrize("module", [name for name in MODULES if not name.endswith("__main__")])
def test_each_module_imports_alone(importer, module):
    loaded = importer.loaded_after(module)
    assert not {name for name in loaded if name.split(".")[0] in ("controlplane", "tests", "pytest")}


@pytest.mark.parametrize("path", CONTROL_PLANE, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_of_the_control_plane_imports_alone(importer, path):
    loaded = importer.loaded_after(module_name(path))
    assert not {name for name in loaded if name.split(".")[0] in ("tests", "pytest")}


@pytest.mark.parametrize("unwanted", ["aiohttp", "cryptography"])
def test_a_store_in_a_file_needs_nothing_that_etcd_or_identity_need(importer, unwanted):
    assert unwanted not in importer.loaded_after("controlplane.store, controlplane.catalogue")


@pytest.mark.parametrize("unwanted", ["grpc", "google.protobuf", "click", "rich", "uvloop", "aiohttp", "cryptography", "sqlite3"])
def test_importing_meshcore_leaves_out_what_a_proxy_may_not_need(importer, unwanted):
    assert unwanted not in importer.loaded_after("meshcore")
