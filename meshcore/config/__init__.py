"""The configuration of a proxy: types, reading, checking, comparing, compiling. Public names only.

`load`, `loads` or `Config(...)` make a Config, `check` tells what is doubtful in it, `diff` compares two, `effective`
shows every value with its origin, `compile_plan` makes what the engine takes.
"""

from ..errors import ConfigError, Problem
from .bounds import Limits, Timeouts
from .clusters import Breaker, Cluster, Endpoint, Pool, RetryBudget, SuccessRate
from .diff import Diff, diff
from .effective import Leaf, effective, render
from .health_checks import HealthCheck
from .listeners import Listener
from .loader import check, from_dict, load, loads, origin_of, read
from .lookup import RouteLookup
from .plan import compile_plan
from .routes import HeaderEdits, Match, Respond, Retries, Rewrite, Route, Split
from .targets import for_targets
from .tls import Certificate, ClusterTls, ListenerTls
from .types import Admin, Config, Forwarding
from .units import Duration

__all__ = [
    "Admin",
    "Breaker",
    "Certificate",
    "Cluster",
    "ClusterTls",
    "Config",
    "ConfigError",
    "Diff",
    "Duration",
    "Endpoint",
    "Forwarding",
    "HeaderEdits",
    "HealthCheck",
    "Leaf",
    "Limits",
    "Listener",
    "ListenerTls",
    "Match",
    "Pool",
    "Problem",
    "Respond",
    "Retries",
    "RetryBudget",
    "Rewrite",
    "Route",
    "RouteLookup",
    "Split",
    "SuccessRate",
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
