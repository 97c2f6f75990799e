"""A service mesh you can import: a proxy at C speed that you programme in Python.

    import meshcore

    with meshcore.Proxy("mesh.yaml") as proxy:
        ...
"""

try:
    from meshcore import _fastpath as _fastpath
except ImportError as error:  # pragma: no cover - only in a checkout that was not built
    raise ImportError(
        "meshcore's compiled module is missing or does not fit this Python; build it with `make setup`,"
        " or `python setup.py build_ext --inplace` in a checkout"
    ) from error

from meshcore.bindings import Binding, BoundCluster, BoundEndpoint, BoundName, First, Lookup, Negative, Share
from meshcore.config import Config, Diff, load, loads
from meshcore.errors import (
    ConfigError,
    DeadlineExceeded,
    DownstreamError,
    EngineError,
    MeshError,
    ProtocolError,
    UpstreamError,
)
from meshcore.filters import Headers, Request, Response, ResponseHead
from meshcore.proxy import Proxy
from meshcore.stats import Stats
from meshcore.taps import TapEvent, TapFilter, TapSession, tap_filter

__all__ = [
    "Binding",
    "BoundCluster",
    "BoundEndpoint",
    "BoundName",
    "Config",
    "ConfigError",
    "DeadlineExceeded",
    "Diff",
    "DownstreamError",
    "EngineError",
    "First",
    "Headers",
    "Lookup",
    "MeshError",
    "Negative",
    "ProtocolError",
    "Proxy",
    "Request",
    "Response",
    "ResponseHead",
    "Share",
    "Stats",
    "TapEvent",
    "TapFilter",
    "TapSession",
    "UpstreamError",
    "load",
    "loads",
    "tap_filter",
]
