"""What runs inside worker processes: root zygote, zygotes, workers.

Nothing but the standard library, httptools and setproctitle, and nothing else of hitless: every byte here is in each
worker's memory, and must be out of the handler's way. `workers` is the daemon's side of it and shares the definitions
in `spec`, `paths`, `layout` and `process`.
"""
