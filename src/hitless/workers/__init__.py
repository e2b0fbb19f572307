"""The daemon's side of the worker processes: starts, finds, reads and stops them; they depend on it for nothing."""
