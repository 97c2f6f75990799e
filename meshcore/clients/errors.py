"""What a client raises when the other side gives no answer. Knows no protocol."""

from __future__ import annotations

from meshcore.errors import MeshError


class StoreUnavailable(MeshError):
    """The other side gave no answer. `is_unsent` tells that a write surely was not done; otherwise it may have been."""

    def __init__(self, message: str, *, is_unsent: bool = False) -> None:
        self.is_unsent = is_unsent
        super().__init__(message, retryable=is_unsent)
