"""Names to endpoints and policies: the model in memory, one resolved view per name, shared by all who watch it."""

from .index import Index
from .layers import Layers
from .names import Address, Foreign, Malformed, Name, Target, parse
from .subject import State, Subject, Watcher
from .view import View

__all__ = [
    "Address",
    "Foreign",
    "Index",
    "Layers",
    "Malformed",
    "Name",
    "State",
    "Subject",
    "Target",
    "View",
    "Watcher",
    "parse",
]
