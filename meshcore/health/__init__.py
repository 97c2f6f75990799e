"""Active health checks: which endpoints are asked, how, and what follows. Tells the engine one bit each; carries no traffic."""

from .checks import HealthChecks
from .targets import require_grpc, targets_of

__all__ = ["HealthChecks", "require_grpc", "targets_of"]
