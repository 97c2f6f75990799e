"""Names as in Finagle and Linkerd 1.x: paths, name trees, dtabs, and binding them. Pure values and functions, no I/O.

`read_dtab` and `read_path` make values of text; `compile_dtab(dtab).bind(path, namers)` follows a name to what it is
bound to; `explain` shows every alternative, and `check` finds loops before a table is used. docs/naming.md has the
language and examples.
"""

from __future__ import annotations

from .answers import Answer, BindResult, Bound, BoundTree, Failed, Pending
from .compiled import CompiledDtab, bind, compile_dtab
from .cycles import Fault, Step, check
from .delegator_json import delegator_json
from .dtab import EMPTY_DTAB, FAIL_DTAB, Dentry, Dtab
from .errors import DtabSyntaxError, NamingError
from .evaluate import evaluate
from .explain import Delegation, explain, outcome
from .interchange import dtab_from_json, dtab_to_json
from .lookup import lookup
from .namers import NO_NAMERS, Namer, Namers, always, binds, rewrites
from .parse import read_dentry, read_dtab, read_path, read_prefix, read_tree
from .path import Path
from .pattern import Pattern
from .prefix import ANY, Prefix
from .show import show_dentry, show_dtab, show_pretty, show_tree
from .simplify import simplify, simplify_dtab
from .split import choose, shares
from .tree import Alt, Empty, Fail, Leaf, NameTree, Neg, Union, Weighted, alt, leaves, map_leaves, union

__all__ = [
    "ANY",
    "EMPTY_DTAB",
    "FAIL_DTAB",
    "NO_NAMERS",
    "Alt",
    "Answer",
    "BindResult",
    "Bound",
    "BoundTree",
    "CompiledDtab",
    "Delegation",
    "Dentry",
    "Dtab",
    "DtabSyntaxError",
    "Empty",
    "Fail",
    "Failed",
    "Fault",
    "Leaf",
    "NameTree",
    "Namer",
    "Namers",
    "NamingError",
    "Neg",
    "Path",
    "Pattern",
    "Pending",
    "Prefix",
    "Step",
    "Union",
    "Weighted",
    "alt",
    "always",
    "bind",
    "binds",
    "check",
    "choose",
    "compile_dtab",
    "delegator_json",
    "dtab_from_json",
    "dtab_to_json",
    "evaluate",
    "explain",
    "leaves",
    "lookup",
    "map_leaves",
    "outcome",
    "read_dentry",
    "read_dtab",
    "read_path",
    "read_prefix",
    "read_tree",
    "rewrites",
    "shares",
    "show_dentry",
    "show_dtab",
    "show_pretty",
    "show_tree",
    "simplify",
    "simplify_dtab",
    "union",
]
