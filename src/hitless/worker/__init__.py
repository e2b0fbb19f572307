"""What runs inside worker processes: root zygote, zygotes, workers.

It imports only the standard library, httptools and setproctitle, and no other package of hitless: every byte here is in
each worker's memory and must not disturb the handler. `workers` is the daemon's side of it, and shares the definitions
in `spec`, `paths`, `layout` and `process`.
"""
