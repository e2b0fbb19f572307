"""The command line: one verb, one file; `wire.py` alone builds the real objects."""
