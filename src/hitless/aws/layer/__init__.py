"""The Lambda layer: the one file that runs before each handler."""
