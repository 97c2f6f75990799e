"""Random tables: the compiled form, the oracle and the explanation agree.

MESHCORE_NAMING_CASES=100000 binds as many paths by both, in half an hour; without it a sample. The other tests see a fifth of them.
Drawing a table takes many times as long as what is tried with it, so several paths are tried with each.
"""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meshcore import naming
from meshcore.naming import Failed, Pending, compiled

from tests.naming.oracle import Oracle, table_lookup
from tests.naming.tables import NAMERS, ORACLE_NAMERS, dtab_of, paths, tables, tree_of

CASES = int(os.environ.get("MESHCORE_NAMING_CASES", "1000"))
PATHS_OF_A_TABLE = 5
SETTINGS = settings(
    max_examples=CASES // 5 // PATHS_OF_A_TABLE, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
some_paths_of_a_table = st.lists(paths, min_size=PATHS_OF_A_TABLE, max_size=PATHS_OF_A_TABLE)

pytestmark = pytest.mark.timeout(120 + CASES // 20)

# Fewer than in the product: random tables multiply names often, and the oracle takes its time.
MOST_LOOKUPS = 400


@pytest.fixture(autouse=True)
def room_for_the_oracle(monkeypatch):
    """The oracle recurses through a hundred names, each through trees; the product must do without."""
    monkeypatch.setattr(compiled, "MOST_LOOKUPS", MOST_LOOKUPS)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    yield
    sys.setrecursionlimit(before)


def plain(result):
    """Failures are compared as failures: their words are not the oracle's business."""
    return Failed("") if isinstance(result, Failed) else result


@settings(SETTINGS, max_examples=CASES // PATHS_OF_A_TABLE)
@given(tables, some_paths_of_a_table)
def test_compiled_table_binds_as_the_oracle_does(table, some_paths):
    compiled_table = naming.compile_dtab(dtab_of(table))
    for path in some_paths:
        expected = Oracle(table, ORACLE_NAMERS, MOST_LOOKUPS).bind(path)
        assert plain(compiled_table.bind(naming.Path.of(*path), NAMERS)) == tree_of(expected)


@SETTINGS
@given(tables, some_paths_of_a_table)
def test_lookups_agree_with_the_oracle(table, some_paths):
    dtab = dtab_of(table)
    compiled_table = naming.compile_dtab(dtab)
    for path in some_paths:
        name, expected = naming.Path.of(*path), tree_of(table_lookup(table, path))
        assert naming.lookup(dtab, name) == expected
        assert compiled_table.lookup(name) == expected


@SETTINGS
@given(tables, some_paths_of_a_table)
def test_explanation_comes_down_to_what_is_bound(table, some_paths):
    dtab = dtab_of(table)
    compiled_table = naming.compile_dtab(dtab)
    for name in (naming.Path.of(*path) for path in some_paths):
        explained = naming.explain(dtab, name, NAMERS)
        if is_cut(explained):
            continue
        bound = compiled_table.bind(name, NAMERS)
        if isinstance(bound, Failed) and "lookups" in bound.message:
            continue
        found = naming.outcome(explained)
        # An explanation shows what is pending as something that is not known.
        assert plain(found) == (Failed("") if isinstance(bound, Pending | Failed) else bound)


def is_cut(node) -> bool:
    """Whether a loop was cut, where binding goes round until it fails."""
    return node.message.startswith(("loop", "not shown", "maximum")) or any(map(is_cut, node.children))


@SETTINGS
@given(tables, some_paths_of_a_table)
def test_simplifying_a_table_keeps_what_binds_unless_a_lone_neg_was_doubled(table, some_paths):
    dtab = dtab_of(table)
    if any(isinstance(naming.simplify(one.dst), naming.Neg) for one in dtab):
        return  # dropping it changes who is asked: see docs/naming.md
    simplified = naming.simplify_dtab(dtab)
    for name in (naming.Path.of(*path) for path in some_paths):
        before, after = naming.bind(dtab, name, NAMERS), naming.bind(simplified, name, NAMERS)
        if isinstance(before, Failed) or isinstance(after, Failed):
            continue  # a branch that was dropped may have been the one that took too many lookups
        assert after == before


@settings(SETTINGS, max_examples=CASES // 5)
@given(tables, some_paths_of_a_table)
def test_sound_table_never_runs_out_of_steps(table, some_paths):
    """What `check` lets pass does not loop: each bind ends before its bounds, whatever its rest of the path."""
    dtab = dtab_of([(prefix, tree) for prefix, tree in table if prefix[:1] not in (("#",), ("$",))])
    if naming.check(dtab):
        return
    for path in some_paths:
        bound = naming.bind(dtab, naming.Path.of(*path), naming.Namers([("/#/tree", naming.Neg())]))
        assert not (isinstance(bound, Failed) and bound.message.startswith(("maximum", "more than")))
