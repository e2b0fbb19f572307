"""The engine: decides what should run on this machine, and drives the gateway and the workers."""
