"""The engine: decides what should run on this machine, and drives the parts that run it."""
