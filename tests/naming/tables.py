"""Random tables, trees and paths for hypothesis, as the oracle has them, and the same as values of meshcore.naming."""

from __future__ import annotations

from hypothesis import strategies as st
from meshcore import naming
from meshcore.naming import (
    Alt,
    Bound,
    Dentry,
    Dtab,
    Empty,
    Fail,
    Failed,
    Leaf,
    Namers,
    Neg,
    Path,
    Pending,
    Prefix,
    Union,
    Weighted,
)

LABELS = ("a", "b", "c", "d", "e")
BOUND = [("$", "inet", "1"), ("$", "inet", "h", "80"), ("#", "bound", "s"), ("#", "bound")]
OTHER_ENDS = [
    ("$", "nil"),
    ("$", "fail"),
    ("$", "no.such"),
    ("$",),
    ("#", "neg"),
    ("#", "pending"),
    ("#", "failed"),
    ("#", "again"),
    ("#", "tree"),
]

labels = st.sampled_from(LABELS)
ends = st.one_of(st.sampled_from(BOUND), st.sampled_from(BOUND), st.sampled_from(BOUND), st.sampled_from(OTHER_ENDS))
weights = st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0, 9.0])
signs = st.sampled_from(["neg", "neg", "fail", "empty"])


def names_after(level: int) -> st.SearchStrategy:
    """Targets of an entry: bound, or names that begin with a later label, so that they do not lead back."""
    later = LABELS[level + 1 :]
    if not later:
        return ends
    names = st.tuples(st.sampled_from(later), st.lists(labels, max_size=2)).map(lambda name: (name[0], *name[1]))
    return st.one_of(names, names, ends)


def trees_to(targets: st.SearchStrategy) -> st.SearchStrategy:
    """Trees of up to three levels, to these leaves."""
    leaf = targets.map(lambda path: ("leaf", path))
    simple = st.one_of(leaf, leaf, leaf, leaf, leaf, signs)

    def above(inner):
        alternation = st.lists(inner, max_size=3).map(lambda some: ("alt", tuple(some)))
        split = st.lists(st.tuples(weights, inner), max_size=3).map(lambda some: ("union", tuple(some)))
        both = st.tuples(st.tuples(weights, inner), st.tuples(weights, inner)).map(lambda pair: ("union", pair))
        return st.one_of(alternation, split, both)

    return st.one_of(simple, simple, simple, above(simple), above(simple), above(st.one_of(simple, above(simple))))


rest_of_a_prefix = st.lists(st.sampled_from([*LABELS, None]), max_size=2).map(tuple)
elsewhere = st.sampled_from([(), ("$",), ("$", "inet"), ("#",), ("#", "neg"), ("#", "bound"), (None,), (None, "a")])
anywhere = st.one_of(st.lists(labels, min_size=1, max_size=3).map(tuple), ends)
orderly = st.integers(0, len(LABELS) - 1).flatmap(
    lambda level: st.tuples(rest_of_a_prefix.map(lambda rest: (LABELS[level], *rest)), trees_to(names_after(level)))
)
chaotic = st.tuples(
    st.one_of(st.tuples(labels, rest_of_a_prefix).map(lambda pair: (pair[0], *pair[1])), elsewhere), trees_to(anywhere)
)
# A sign in front of what namers answer: one `~` hides nothing, two do.
hiding = st.tuples(st.sampled_from([("$", "inet"), ("#", "bound"), ("#",)]), signs)
# Most tables lead somewhere; in one of four anything goes, and most of those loop.
leading = st.lists(st.one_of(orderly, orderly, orderly, orderly, hiding), min_size=2, max_size=10)
tables = st.one_of(leading, leading, leading, st.lists(st.one_of(orderly, chaotic), max_size=6))

rests = st.lists(labels, max_size=3).map(tuple)
starts = st.one_of(st.sampled_from([("a",), ("a",), ("b",), ("c",), ()]), ends)
paths = st.tuples(starts, rests).map(lambda pair: pair[0] + pair[1])

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
    return Dtab(
        tuple(
            Dentry(Prefix(tuple(one if one is None else one.encode() for one in prefix)), tree_of(tree))
            for prefix, tree in table
        )
    )


# … and once for us.
NAMERS = Namers(
    [
        ("/#/bound", naming.binds("/#/bound", 1)),
        ("/#/neg", Neg()),
        ("/#/neg", lambda rest: Leaf(Bound(Path.of("#", "neg"), rest)) if rest.starts_with(Path.of("a")) else Neg()),
        ("/#/pending", Pending()),
        ("/#/failed", Failed("no")),
        ("/#/again", lambda rest: Leaf(Path.of("a") + rest)),
        ("/#/tree", tree_of(TREE_OF_A_NAMER)),
    ]
)
