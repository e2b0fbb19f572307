"""The process that runs one build for the engine: `python -m hitless.pipeline.buildspec.supervisor`.

Its plan comes as one line of JSON on standard input, so that no secret stands in an argument; the input's end means
that the engine's daemon has gone, and ends the build. Output goes to the plan's log file, the result as one line of
JSON to standard output.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from hitless.pipeline.buildspec.processes import become_subreaper, input_ended
from hitless.pipeline.buildspec.run import Limits, User, run
from hitless.pipeline.buildspec.spec import Buildspec


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: the buildspec's text, in `source`, with `scratch` beside it."""

    buildspec: str
    source: Path
    scratch: Path
    log: Path
    environ: dict[str, str]
    secrets: dict[str, str]
    masked: list[str]
    limits: Limits
    user: User | None

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), default=str).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Plan:
        document = json.loads(line)
        document |= {name: Path(document[name]) for name in ("source", "scratch", "log")}
        document |= {"limits": Limits(**document["limits"]), "user": document["user"] and User(**document["user"])}
        return cls(**document)


def main() -> None:
    """Run the plan; exit 0 whatever came of the build."""
    become_subreaper()
    plan = Plan.from_line(sys.stdin.buffer.readline())
    with plan.log.open("ab", buffering=0) as log:
        build = run(
            Buildspec.read(plan.buildspec),
            plan.source,
            plan.scratch,
            plan.environ,
            limits=plan.limits,
            output=log.write,
            secrets=plan.secrets,
            masked=plan.masked,
            user=plan.user,
            stop=input_ended,
            subreaper=True,
        )
    document = {**asdict(build), "reports": [report.to_json() for report in build.reports]}
    sys.stdout.write(json.dumps(document, default=str) + "\n")


if __name__ == "__main__":
    main()
