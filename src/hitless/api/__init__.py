"""The daemon's HTTP API on the engine's own socket, and the command line's client for it."""
