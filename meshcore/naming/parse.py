"""Reading text: paths, prefixes, name trees, dentries, dtabs. One character ahead; what it means is said elsewhere.

Source: finagle NameTreeParsers.scala, read with its tests. The grammar stands in docs/naming.md.
"""

from __future__ import annotations

import math
import re
from typing import NoReturn, TypeVar

from .dtab import Dentry, Dtab
from .errors import DtabSyntaxError
from .path import Path
from .prefix import ANY, Prefix
from .tree import MAX_NESTING, Alt, Empty, Fail, Leaf, NameTree, Neg, Union, Weighted

# Character.isWhitespace of Java: no no-break spaces, but the four information separators.
WHITE_SPACE = re.compile("[\t-\r\x1c-\x20\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000]+")
COMMENT = re.compile("#[^\n]*\n?")
LABEL = re.compile(r"(?:[0-9A-Za-z_:.#$%-]|\\x[0-9A-Fa-f]{2})+")
ESCAPED = re.compile(r"\\x([0-9A-Fa-f]{2})")
LABEL_START = re.compile(r"[0-9A-Za-z_:.#$%\\-]")
DIGITS_AND_DOTS = re.compile(r"[0-9.]+")
END = ""
T = TypeVar("T")

# Each pair of parentheses can add an alternation and a union.
MAX_OPEN_PARENS = MAX_NESTING // 2 - 1


def read_path(text: str) -> Path:
    """`/svc/users`. Raises DtabSyntaxError."""
    reader = _Reader(text)
    return reader.whole(reader.path())


def read_prefix(text: str) -> Prefix:
    """`/http/*/GET`. Raises DtabSyntaxError."""
    reader = _Reader(text)
    return reader.whole(reader.prefix())


def read_tree(text: str) -> NameTree[Path]:
    """`0.9*/a & 0.1*/b | ~`. Raises DtabSyntaxError."""
    reader = _Reader(text)
    return reader.whole(reader.tree())


def read_dentry(text: str) -> Dentry:
    """`/svc => /srv`. Raises DtabSyntaxError."""
    reader = _Reader(text)
    return reader.whole(reader.dentry())


def read_dtab(text: str) -> Dtab:
    """Dentries with `;` between them; an empty text is the empty table. Raises DtabSyntaxError."""
    reader = _Reader(text)
    return reader.whole(reader.dtab())


class _Reader:
    """One text, and how far it is read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.open_parens = 0

    # -- characters

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else END

    def wrong(self, expected: str, at: int | None = None) -> NoReturn:
        raise DtabSyntaxError(expected, self.text, self.at if at is None else at)

    def may_eat(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self.at += 1
        return True

    def eat(self, character: str) -> None:
        if not self.may_eat(character):
            self.wrong(f"'{character}'")

    def skip(self) -> None:
        """White space and comments."""
        while found := WHITE_SPACE.match(self.text, self.at) or COMMENT.match(self.text, self.at):
            self.at = found.end()

    def whole(self, value: T) -> T:
        self.skip()
        if self.peek() != END:
            self.wrong("end of input")
        return value

    # -- the grammar

    def label(self) -> bytes:
        """One element, escapes resolved."""
        found = LABEL.match(self.text, self.at)
        end = found.end() if found else self.at
        if self.text[end : end + 1] == "\\":  # an escape that LABEL did not take: tell where it breaks off
            if self.text[end + 1 : end + 2] != "x":
                self.wrong("'x'", min(end + 1, len(self.text)))
            first_is_hex = re.match("[0-9A-Fa-f]", self.text[end + 2 : end + 3])
            self.wrong("hex char", min(end + (3 if first_is_hex else 2), len(self.text)))
        if found is None:
            self.wrong("label char")
        self.at = end
        # What is no escape is ASCII here, so latin-1 gives each character its octet.
        return ESCAPED.sub(lambda escape: chr(int(escape[1], 16)), found[0]).encode("latin-1")

    def path(self) -> Path:
        self.skip()
        self.eat("/")
        if not LABEL_START.match(self.peek()):
            return Path()
        elements = [self.label()]
        while self.may_eat("/"):
            elements.append(self.label())
        return Path(tuple(elements))

    def prefix(self) -> Prefix:
        self.skip()
        self.eat("/")
        if self.peek() != "*" and not LABEL_START.match(self.peek()):
            return Prefix()
        elements = [self.prefix_element()]
        while self.may_eat("/"):
            elements.append(self.prefix_element())
        return Prefix(tuple(elements))

    def prefix_element(self) -> bytes | None:
        return ANY if self.may_eat("*") else self.label()

    def tree(self) -> NameTree[Path]:
        trees = [self.alternative()]
        while self.may_eat("|"):
            trees.append(self.alternative())
        return trees[0] if len(trees) == 1 else Alt(tuple(trees))

    def alternative(self) -> NameTree[Path]:
        branches = [self.weighted()]
        self.skip()
        while self.may_eat("&"):
            branches.append(self.weighted())
            self.skip()
        # A weight among no others says nothing: `3*/foo` is `/foo`.
        return branches[0].tree if len(branches) == 1 else Union(tuple(branches))

    def weighted(self) -> Weighted[Path]:
        self.skip()
        weight = 1.0
        if found := DIGITS_AND_DOTS.match(self.text, self.at):
            weight = self.number(found[0])
            self.skip()
            self.eat("*")
            self.skip()
        return Weighted(weight, self.simple())

    def number(self, digits: str) -> float:
        if digits.count(".") > 1:
            self.wrong("number char", self.at + digits.index(".", digits.index(".") + 1))
        if digits == ".":
            self.wrong("weight")
        if not math.isfinite(weight := float(digits)):
            self.wrong("weight below 1.8e308")
        self.at += len(digits)
        return weight

    def simple(self) -> NameTree[Path]:
        self.skip()
        if self.peek() == "/":
            return Leaf(self.path())
        if self.may_eat("!"):
            return Fail()
        if self.may_eat("~"):
            return Neg()
        if self.may_eat("$"):
            return Empty()
        if self.peek() != "(":
            self.wrong("simple")
        if self.open_parens == MAX_OPEN_PARENS:
            self.wrong(f"at most {MAX_OPEN_PARENS} open parentheses")
        self.at += 1
        self.open_parens += 1
        tree = self.tree()
        self.skip()
        self.eat(")")
        self.open_parens -= 1
        return tree

    def dentry(self) -> Dentry:
        prefix = self.prefix()
        self.skip()
        self.eat("=")
        self.eat(">")
        return Dentry(prefix, self.tree())

    def dtab(self) -> Dtab:
        entries = []
        while True:
            self.skip()
            if self.peek() != END:
                entries.append(self.dentry())
                self.skip()
            if not self.may_eat(";"):
                return Dtab(tuple(entries))
