"""`_fastpath.pyi` against the compiled module: same names, same parameters.

Not mypy's stubtest: it cannot read the parameters of `__cinit__` and stumbles over what Cython adds to each class.
"""

import ast
import inspect
from pathlib import Path

from meshcore import _fastpath

STUB = Path(__file__).resolve().parents[2] / "meshcore" / "_fastpath.pyi"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def is_public(name: str) -> bool:
    return not name.startswith("_")


def described(body) -> dict[str, ast.AST]:
    """Name -> node of the functions, classes and annotated names of a stub's body."""
    found = {}
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = node
    return found


def stub() -> dict[str, ast.AST]:
    return described(ast.parse(STUB.read_text()).body)


def parameters(node: ast.FunctionDef) -> list[tuple[str, bool]]:
    """(name, has a default) of each parameter, without self and cls."""
    given = node.args
    positional = given.posonlyargs + given.args
    defaults = [False] * (len(positional) - len(given.defaults)) + [True] * len(given.defaults)
    listed = [(arg.arg, default) for arg, default in zip(positional, defaults, strict=True)]
    listed += [(arg.arg, default is not None) for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [pair for pair in listed if pair[0] not in ("self", "cls")]


def compiled_parameters(function) -> list[tuple[str, bool]] | None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None                     # a C slot (`__init__` of a cdef class) tells nothing
    return [(name, one.default is not one.empty) for name, one in signature.parameters.items()
            if name not in ("self", "cls")]


def public_names(thing) -> set[str]:
    return {name for name in vars(thing) if is_public(name) and not inspect.ismodule(vars(thing)[name])}


def test_the_stub_names_what_the_module_has_and_nothing_else():
    # Names that `cpdef enum` or an import leave behind are somebody else's: only what was defined here counts.
    defined = {name for name in public_names(_fastpath)
               if getattr(getattr(_fastpath, name), "__module__", _fastpath.__name__) == _fastpath.__name__}
    described_names = {name for name in stub() if is_public(name)}
    assert described_names == defined, (
        f"missing in the stub: {sorted(defined - described_names)}; only there: {sorted(described_names - defined)}")


def test_each_class_has_the_members_the_stub_names():
    for name, node in stub().items():
        if isinstance(node, ast.ClassDef) and hasattr(_fastpath, name):
            listed = described(node.body)
            compiled = getattr(_fastpath, name)
            wanted = {member for member in listed if is_public(member)}
            assert wanted == public_names(compiled), f"{name}: {sorted(wanted ^ public_names(compiled))}"
            assert all(hasattr(compiled, member) for member in listed), name


def test_each_function_takes_the_parameters_the_stub_names():
    pairs = []
    for name, node in stub().items():
        if isinstance(node, FUNCTIONS):
            pairs.append((name, node, getattr(_fastpath, name, None)))
        elif isinstance(node, ast.ClassDef):
            pairs += [(f"{name}.{member}", inner, getattr(getattr(_fastpath, name, None), member, None))
                      for member, inner in described(node.body).items()
                      if isinstance(inner, FUNCTIONS) and is_public(member)]       # slots name their own
    for label, node, compiled in pairs:
        if inspect.isgetsetdescriptor(compiled):
            assert [one.id for one in node.decorator_list if isinstance(one, ast.Name)] == ["property"], label
            continue
        expected, stated = compiled_parameters(compiled), parameters(node)
        if any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list):
            stated = expected and [(name, expected[at][1]) for at, (name, _) in enumerate(stated)]
        assert expected is None or stated == expected, f"{label}: compiled with {expected}"
