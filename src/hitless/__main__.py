"""`python -m hitless` is the `hitless` command."""

from hitless.cli.program import run

run()
