"""Bringing connections to the proxy that were going elsewhere: the rules of a sidecar, for iptables and for nft.

Writes rules and applies them; what the proxy does with such connections is the engine's business.
"""

from .applying import InterceptError, apply, missing, undo
from .rules import Family, Rules, Step, Tool, plan_of, undo_of

__all__ = ["Family", "InterceptError", "Rules", "Step", "Tool", "apply", "missing", "plan_of", "undo", "undo_of"]
