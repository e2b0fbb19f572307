"""`scripts/conformance`: runs the table against the engine or a URL, and writes its document."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance.document import DOCUMENT, written
from tests.conformance.run import Result, Verdict, run_on_engine, run_on_target
from tests.conformance.table import SERVICES, load_cases

_DEPLOY = """\
The URL has to serve the conformance service {service}. To deploy it on AWS:
  cp -r tests/conformance/services/{service} /tmp/conformance
  cp tests/conformance/handlers.py /tmp/conformance && cd /tmp/conformance
  osls deploy --stage dev        # prints the URL, with its stage: https://ID.execute-api.REGION.amazonaws.com/dev
Cases that need the log, an invocation or another service are left out."""


def main(words: Sequence[str]) -> int:
    """The exit code: 0 if nothing failed beyond the listed deviations."""
    options = _parser().parse_args(words)
    cases = load_cases()
    if options.write_docs:
        DOCUMENT.write_text(written(cases), "utf-8")
        print(f"{DOCUMENT}: {len(cases)} cases")
        return 0
    if options.target:
        print(_DEPLOY.format(service=options.service), file=sys.stderr)
        verdicts = run_on_target(cases, options.service, options.target)
    else:
        with tempfile.TemporaryDirectory(prefix="hitless-conformance-") as folder:
            verdicts = run_on_engine(cases, Path(folder))
    print(json.dumps(_document(verdicts), indent=2) if options.json else _text(verdicts, options.verbose))
    return 1 if any(verdict.result is Result.FAILED for verdict in verdicts) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/conformance", description="Holds hitless against how AWS behaves.")
    parser.add_argument("--target", metavar="URL", help="a deployed conformance service instead of the engine")
    services = sorted(path.name for path in SERVICES.iterdir())
    parser.add_argument("--service", choices=services, default="rest", help="which one --target is (default: rest)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--verbose", action="store_true", help="show what differs in each deviation")
    parser.add_argument("--write-docs", action="store_true", help="write docs/conformance.md and run nothing")
    return parser


def _document(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    of = {result: [verdict for verdict in verdicts if verdict.result is result] for result in Result}
    return {
        "cases": len(verdicts),
        "passed": len(of[Result.PASSED]),
        "deviations": [
            {"id": v.case.id, "title": v.case.title, "kind": v.deviation.kind.value, "reason": v.deviation.reason}
            for v in of[Result.DEVIATES]
            if v.deviation
        ],
        "failed": [
            {"id": v.case.id, "title": v.case.title, "source": v.case.source, "differences": list(v.differences)}
            for v in of[Result.FAILED]
        ],
        "left_out": [v.case.id for v in of[Result.LEFT_OUT]],
    }


def _text(verdicts: Sequence[Verdict], verbose: bool) -> str:
    lines = []
    for verdict in verdicts:
        if verdict.result is Result.FAILED or (verbose and verdict.differences):
            lines.append(f"{verdict.result}: {verdict.case.id}: {verdict.case.title}")
            lines += [f"    {difference}" for difference in verdict.differences]
            lines.append(f"    source: {verdict.case.source}")
    kinds = Counter(verdict.deviation.kind.value for verdict in verdicts if verdict.deviation)
    counts = Counter(verdict.result for verdict in verdicts)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    lines.append(
        f"{len(verdicts)} cases: {counts[Result.PASSED]} passed, {counts[Result.DEVIATES]} deviations ({told}), "
        f"{counts[Result.FAILED]} failed, {counts[Result.LEFT_OUT]} left out"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
