"""The configuration of a proxy: types, reading, checking, comparing, compiling. Public names only.

    config = load("mesh.yaml")                      # or loads(text), Config.from_dict({...}), Config(listeners=[...])
    for warning in check(config): print(warning)
    plan = compile_plan(config)                     # what the engine takes
"""

from ..errors import ConfigError, Problem
from .diff import Diff, diff
from .effective import Leaf, effective, render
from .loader import check, from_dict, load, loads, origin_of, read
from .plan import compile_plan
from .targets import for_targets
from .types import (
    Admin,
    Breaker,
    Cluster,
    Config,
    Endpoint,
    Forwarding,
    HeaderEdits,
    Limits,
    Listener,
    Match,
    Pool,
    Respond,
    Retries,
    RetryBudget,
    Rewrite,
    Route,
    Split,
    Timeouts,
)
from .values import Duration

__all__ = [
    "Admin",
    "Breaker",
    "Cluster",
    "Config",
    "ConfigError",
    "Diff",
    "Duration",
    "Endpoint",
    "Forwarding",
    "HeaderEdits",
    "Leaf",
    "Limits",
    "Listener",
    "Match",
    "Pool",
    "Problem",
    "Respond",
    "Retries",
    "RetryBudget",
    "Rewrite",
    "Route",
    "Split",
    "Timeouts",
    "check",
    "compile_plan",
    "diff",
    "effective",
    "for_targets",
    "from_dict",
    "load",
    "loads",
    "origin_of",
    "read",
    "render",
]
