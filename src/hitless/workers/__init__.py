"""The daemon's side of the worker processes: starts, finds, reads and stops them. They run without it."""
