"""Random tables, trees and paths for hypothesis, as the oracle has them, and the same as values of meshcore.naming."""

from __future__ import annotations

from hypothesis import strategies as st

from meshcore import naming
from meshcore.naming import Alt, Bound, Dentry, Dtab, Empty, Fail, Failed, Leaf, Namers, Neg, Path, Pending, Prefix, Union, Weighted

LABELS = ("a", "b", "c")
ENDS = [
    ("$", "inet", "1"), ("$", "inet", "h", "80"), ("$", "nil"), ("$", "fail"), ("$", "no.such"), ("$",),
    ("#", "bound", "s"), ("#", "bound"), ("#", "neg"), ("#", "pending"), ("#", "failed"), ("#", "again"), ("#", "tree"),
]

labels = st.sampled_from(LABELS)
names = st.lists(labels, max_size=4).map(tuple)
targets = st.one_of(st.lists(labels, min_size=1, max_size=3).map(tuple), st.sampled_from(ENDS), st.sampled_from(ENDS))
paths = st.one_of(names, names, st.tuples(st.sampled_from(ENDS), names).map(lambda pair: pair[0] + pair[1]))
weights = st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0, 9.0])
signs = st.sampled_from(["neg", "neg", "fail", "empty"])


def _branching(inner):
    return st.one_of(
        st.lists(inner, min_size=0, max_size=3).map(lambda trees: ("alt", tuple(trees))),
        st.lists(st.tuples(weights, inner), min_size=0, max_size=3).map(lambda branches: ("union", tuple(branches))),
    )


simple = st.one_of(*[targets.map(lambda path: ("leaf", path))] * 4, signs)
trees = st.one_of(simple, simple, st.recursive(simple, _branching, max_leaves=5))
prefixes = st.one_of(
    st.lists(st.sampled_from([*LABELS, *LABELS, None]), min_size=1, max_size=3).map(tuple),
    st.sampled_from([(), ("$",), ("$", "inet"), ("#",), ("#", "neg"), ("#", "bound")]),
)
tables = st.lists(st.tuples(prefixes, trees), max_size=8)

# What the namers of a random bind say, once for the oracle …
TREE_OF_A_NAMER = ("union", ((0.5, ("bound", ("#", "tree"), ())), (0.5, ("alt", ("neg", ("leaf", ("b",)))))))
ORACLE_NAMERS = [
    (("#", "bound"), lambda rest: ("bound", ("#", "bound", rest[0]), rest[1:]) if rest else "neg"),
    (("#", "neg"), lambda rest: "neg"),
    (("#", "neg"), lambda rest: ("bound", ("#", "neg"), rest) if rest[:1] == ("a",) else "neg"),
    (("#", "pending"), lambda rest: "pending"),
    (("#", "failed"), lambda rest: "failed"),
    (("#", "again"), lambda rest: ("leaf", ("a", *rest))),
    (("#", "tree"), lambda rest: TREE_OF_A_NAMER),
]


def tree_of(tree):
    """A tree of the oracle as a value."""
    if isinstance(tree, str):
        return {"neg": Neg(), "fail": Fail(), "empty": Empty(), "pending": Pending(), "failed": Failed("")}[tree]
    if tree[0] == "leaf":
        return Leaf(Path.of(*tree[1]))
    if tree[0] == "bound":
        return Leaf(Bound(Path.of(*tree[1]), Path.of(*tree[2])))
    if tree[0] == "alt":
        return Alt(tuple(map(tree_of, tree[1])))
    return Union(tuple(Weighted(weight, tree_of(one)) for weight, one in tree[1]))


def dtab_of(table) -> Dtab:
    return Dtab(tuple(
        Dentry(Prefix(tuple(one if one is None else one.encode() for one in prefix)), tree_of(tree))
        for prefix, tree in table))


# … and once for us.
NAMERS = Namers([
    ("/#/bound", naming.binds("/#/bound", 1)),
    ("/#/neg", Neg()),
    ("/#/neg", lambda rest: Leaf(Bound(Path.of("#", "neg"), rest)) if rest.starts_with(Path.of("a")) else Neg()),
    ("/#/pending", Pending()),
    ("/#/failed", Failed("no")),
    ("/#/again", lambda rest: Leaf(Path.of("a") + rest)),
    ("/#/tree", tree_of(TREE_OF_A_NAMER)),
])
