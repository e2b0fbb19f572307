"""What a pool is. The definition belongs to `worker`, which reads it; this is the daemon's name for it."""

from hitless.worker.spec import PoolSpec, RouteSpec

__all__ = ["PoolSpec", "RouteSpec"]
