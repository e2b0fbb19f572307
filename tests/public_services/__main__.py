"""`scripts/public-services`: runs the listed services from their clones, one after the other, and prints a row each."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.public_services.run import run
from tests.public_services.table import DOCUMENT, Result, read_table, write_table, written


def main(words: Sequence[str]) -> int:
    """The exit code: 1 if a service is not reached that the list says is reached."""
    options = _parser().parse_args(words)
    listed = list(read_table())
    worse = False
    if options.clones:
        results: Counter[Result] = Counter()
        for position, service in enumerate(listed):
            if options.only and not any(word in service.name for word in options.only):
                continue
            with tempfile.TemporaryDirectory(prefix="hitless-public-") as scratch:
                outcome = run(service, options.clones.absolute(), Path(scratch))
            print(
                f"{service.name}: {outcome.result or 'not run'} {outcome.statuses} {outcome.error}".rstrip(), flush=True
            )
            results[outcome.result] += 1
            worse |= outcome.result is Result.NOT_REACHED and service.result in (Result.BELOW_500, Result.ONLY_5XX)
            if options.record and outcome.result is not Result.NOT_RUN:
                listed[position] = replace(service, result=outcome.result, statuses=outcome.statuses)
                write_table(listed)
        reached = results[Result.BELOW_500] + results[Result.ONLY_5XX]
        print(
            f"{reached} of {results.total() - results[Result.NOT_RUN]} reached, {results[Result.BELOW_500]} below 500"
        )
    if options.write_docs:
        DOCUMENT.write_text(written(listed), "utf-8")
        print(f"{DOCUMENT}: {len(listed)} services")
    return 1 if worse else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/public-services", description="Runs public services unmodified.")
    parser.add_argument("clones", nargs="?", type=Path, metavar="FOLDER", help="has a git clone OWNER/NAME of each")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only services with this text in their name")
    parser.add_argument("--record", action="store_true", help="write the results into services.csv")
    parser.add_argument("--write-docs", action="store_true", help="write docs/public-services.md from the list")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
