"""Faults of a whole table, found when it is written: names that lead back to themselves, and names that multiply.

A loop is found exactly, over all alternatives. A rewrite replaces the beginning of a path and carries the rest along,
so a table is a pushdown system: it has an endless run just when, from the path that some entry puts in front, with
nothing below it, that same entry is applied to it again. Then the path in front is back, whatever it stands on. What
namers rewrite is not seen. Names that multiply are counted, with a rest of the path of RESTING elements.

Linkerd and namerd take such tables and fail each bind after a hundred steps.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .answers import NEVER_MORE_THAN
from .compiled import MOST_LOOKUPS, compile_dtab
from .dtab import Dentry, Dtab
from .path import Path
from .show import show_dentry
from .simplify import simplify
from .tree import Alt, Empty, Fail, NameTree, leaves

RESTING = 16
MOST_STEPS = 200_000
"""Of one check, about half a second; a table that needs more is no table that a person can follow."""

MOST_STEPS_OF_A_SEARCH = 5_000
"""Of the search for one way back, so that an entry beside a growing loop does not use up what the loop itself needs."""


class Step(msgspec.Struct, frozen=True):
    """One application of an entry: from a path (of which only the beginning is known) to another."""

    path: Path
    dentry: Dentry
    to: Path


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a table."""

    kind: Literal["loop", "exponential", "unchecked"]
    cycle: tuple[Step, ...]
    """Of a loop the steps that close it; of an exponential table the first of the longest way down."""
    message: str
    is_certain: bool = False
    """A loop that every bind runs into: each step is the first choice. Others wait for what stands before to be `~`."""


def check(dtab: Dtab) -> tuple[Fault, ...]:
    """The faults of a table, one for each loop; () for a sound one."""
    return _Checking(dtab).faults()


class _OutOfSteps(Exception):
    pass


class _Checking:
    def __init__(self, dtab: Dtab) -> None:
        self.entries = dtab.entries
        self.compiled = compile_dtab(dtab)
        self.targets = [tuple(leaves(one.dst)) for one in dtab.entries]
        self.stops = [_never_passes_on(one.dst) for one in dtab.entries]
        self.known_steps: dict[Path, list[Step]] = {}
        self.steps = 0
        self.gave_up = False

    def faults(self) -> tuple[Fault, ...]:
        try:
            loops = self.loops()
            if loops or not self.gave_up:
                return tuple(loops) or tuple(self.multiplying())
        except _OutOfSteps:
            pass
        return (Fault("unchecked", (), f"not checked: following the table takes more than {MOST_STEPS} steps"),)

    def next_steps(self, path: Path) -> list[Step]:
        """Every step from a path; none from entries behind one that stops."""
        found = self.known_steps.get(path)
        if found is None:
            found = self.known_steps[path] = []
            for entry in self.compiled.matching(path.elems):
                rest = path.drop(entry.consumed)
                dentry = self.entries[entry.index]
                found += [Step(path, dentry, target + rest) for target in self.targets[entry.index]]
                if self.stops[entry.index]:
                    break
        self.steps += 1 + len(found)
        if self.steps > MOST_STEPS:
            raise _OutOfSteps
        return found

    # -- loops

    def loops(self) -> list[Fault]:
        found: list[Fault] = []
        seen: set[frozenset[int]] = set()
        for index in range(len(self.entries) - 1, -1, -1):
            dentry = self.entries[index]
            for target in dict.fromkeys(self.targets[index]):
                cycle = self.way_back(dentry, target)
                members = frozenset(id(step.dentry) for step in cycle)
                if cycle and members not in seen:
                    seen.add(members)
                    found.append(self.loop_of(cycle))
        return found

    def way_back(self, dentry: Dentry, target: Path) -> tuple[Step, ...]:
        """The shortest way from what an entry puts in front to the same entry giving the same again; () for none."""
        came: dict[Path, Step | None] = {target: None}
        wave = [target]
        last_step = self.steps + MOST_STEPS_OF_A_SEARCH
        # A bind goes no further than that, so a longer way round is as good as none.
        for _ in range(NEVER_MORE_THAN):
            reached: list[Path] = []
            for path in wave:
                for step in self.next_steps(path):
                    if step.dentry is dentry and step.to == target + path.drop(len(dentry.prefix)):
                        return (*_chain(came, path), step)
                    if step.to not in came:
                        came[step.to] = step
                        reached.append(step.to)
                if self.steps > last_step:
                    self.gave_up = True
                    return ()
            wave = reached
        return ()

    def loop_of(self, cycle: tuple[Step, ...]) -> Fault:
        is_certain = all(self.is_first_choice(step) for step in cycle)
        grows = len(cycle[-1].to) > len(cycle[0].path)
        names = " -> ".join(map(_and_more, [*(step.path for step in cycle), cycle[-1].to]))
        rules = "; ".join(dict.fromkeys(show_dentry(step.dentry) for step in cycle))
        when = "" if is_certain else ", when what is tried before it is ~"
        return Fault("loop", cycle, f"loop{' that grows' if grows else ''}{when}: {names} (by {rules})", is_certain)

    def is_first_choice(self, step: Step) -> bool:
        first = self.entries[self.compiled.matching(step.path.elems)[0].index]
        if first is not step.dentry:
            return False
        tree = simplify(first.dst)
        while isinstance(tree, Alt):
            tree = tree.trees[0]
        rest = step.path.drop(len(first.prefix))
        return any(leaf + rest == step.to for leaf in leaves(tree))

    # -- tables that multiply

    def multiplying(self) -> list[Fault]:
        lookups: dict[Path, int] = {}
        unknown = Path(tuple(b"\xff%d" % n for n in range(RESTING)))
        for dentry in self.entries:
            # An element that no label of the table equals stands for what a wildcard matches.
            start = Path(tuple(b"\xff*" if elem is None else elem for elem in dentry.prefix.elems)) + unknown
            self.count(start, lookups)
            if lookups[start] > MOST_LOOKUPS:
                way = self.heaviest(start, lookups)
                names = " -> ".join(_and_more(step.path.take(len(step.dentry.prefix))) for step in way)
                message = f"exponential: a bind can take more than {MOST_LOOKUPS} lookups: {names} -> …"
                return [Fault("exponential", tuple(way), message)]
        return []

    def count(self, start: Path, lookups: dict[Path, int]) -> None:
        """Lookups below each path, counted once for every way there; there are no loops left, so this ends."""
        stack = [start]
        while stack:
            path = stack[-1]
            if path in lookups:
                stack.pop()
                continue
            nexts = [step.to for step in self.next_steps(path)]
            missing = [one for one in nexts if one not in lookups]
            if missing:
                stack += missing
            else:
                lookups[path] = 1 + sum(lookups[one] for one in nexts)
                stack.pop()

    def heaviest(self, path: Path, lookups: dict[Path, int]) -> list[Step]:
        way: list[Step] = []
        while len(way) < 8 and (steps := self.next_steps(path)):
            way.append(max(steps, key=lambda step: lookups[step.to]))
            path = way[-1].to
        return way


def _chain(came: dict[Path, Step | None], path: Path) -> list[Step]:
    steps: list[Step] = []
    while (step := came[path]) is not None:
        steps.append(step)
        path = step.path
    return steps[::-1]


def _and_more(path: Path) -> str:
    return f"{path}/…" if path else "/…"


def _never_passes_on(tree: NameTree[Path]) -> bool:
    """Whether a tree can never be `~`, as a `!` or `$` ends it."""
    if isinstance(tree, Alt):
        return any(map(_never_passes_on, tree.trees))
    return isinstance(tree, (Fail, Empty))
