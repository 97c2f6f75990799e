"""The model: what the mesh consists of, and the rules each value holds to."""

from .change import Change, Changes, Entry, Event, Position, Snapshot
from .codec import KINDS, decode, encode, read
from .members import Drain, Endpoint, Named, Service, ServicePort, Workload
from .policies import Breaker, Match, Retries, RoutePolicy, Rule, Split, TrafficPolicy

__all__ = [
    "KINDS",
    "Breaker",
    "Change",
    "Changes",
    "Drain",
    "Endpoint",
    "Entry",
    "Event",
    "Match",
    "Named",
    "Position",
    "Retries",
    "RoutePolicy",
    "Rule",
    "Service",
    "ServicePort",
    "Snapshot",
    "Split",
    "TrafficPolicy",
    "Workload",
    "decode",
    "encode",
    "read",
]
