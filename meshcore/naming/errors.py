"""What naming raises: a text that is not in the language, a value that cannot be. Knows no grammar.

Binding raises nothing: a name that cannot be bound is an answer (`answers.Failed`), as it may concern one branch only.
"""

from __future__ import annotations

# Finagle repeats the whole text; a table of a hundred lines would hide the one character that is wrong.
SHOWN_CHARACTERS = 240


class NamingError(ValueError):
    """Base of everything this package raises on purpose."""


class DtabSyntaxError(NamingError):
    """A text that is not a path, name tree, dentry or dtab.

    The message has the form of Finagle's, which Linkerd and namerd hand on in their 400s:
    `'/' expected but 'i' found at '[i]nvalid-param'`. `offset` counts from 0, `line` and `column` from 1.
    """

    def __init__(self, expected: str, text: str, offset: int) -> None:
        self.expected = expected
        self.text = text
        self.offset = offset
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - (text.rfind("\n", 0, offset) + 1) + 1
        found = f"'{text[offset]}'" if offset < len(text) else "end of input"
        super().__init__(f"{expected} expected but {found} found at '{_marked(text, offset)}'")


def _marked(text: str, offset: int) -> str:
    """The text with the character in brackets; of a long one the part around it."""
    before, at, after = text[:offset], text[offset : offset + 1], text[offset + 1 :]
    if len(text) > SHOWN_CHARACTERS:
        side = SHOWN_CHARACTERS // 2
        before = f"…{before[-side:]}" if len(before) > side else before
        after = f"{after[:side]}…" if len(after) > side else after
    return f"{before}[{at}]{after}"
