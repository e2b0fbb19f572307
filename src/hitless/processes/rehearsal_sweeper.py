"""Stops and deletes the sandboxes that killed rehearsals left behind, then exits.

A sandbox is the temporary engine in which a rehearsal runs a candidate. The engine daemon starts this process if it
finds such sandboxes.
"""

from __future__ import annotations

from hitless.cli.sandbox import sweep_leftovers

if __name__ == "__main__":
    sweep_leftovers()
