"""The sweeper: ends and removes the sandboxes of killed rehearsals, then exits. A daemon that finds some starts it."""

from __future__ import annotations

from hitless.cli.sandbox import sweep_left

if __name__ == "__main__":
    sweep_left()
