"""Names to endpoints and policies: the model in memory, one resolved view per name, shared by all who watch it."""

from .index import Index
from .names import Address, Foreign, Malformed, Name, Target, parse
from .subject import State, Subject, Watcher
from .view import View

__all__ = [
    "Address",
    "Foreign",
    "Index",
    "Malformed",
    "Name",
    "State",
    "Subject",
    "Target",
    "View",
    "Watcher",
    "parse",
]
