"""The engine's memory: one SQLite file, one writer."""
