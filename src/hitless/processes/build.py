"""The build supervisor: runs one buildspec of a run and ends with the daemon. Started by `hitless.pipeline.builds`.

Its plan comes as one line of JSON on standard input, because arguments are visible to other users and it holds secrets.
When the input ends, the daemon has gone, and the build is ended. Output goes to the plan's log file, the result as one
line of JSON to standard output.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from hitless.pipeline.buildspec.processes import become_subreaper, input_ended
from hitless.pipeline.buildspec.run import BuildPlan, run
from hitless.pipeline.buildspec.spec import Buildspec


def main() -> None:
    """Run the plan; exit 0 however the build ended."""
    become_subreaper()
    plan = BuildPlan.from_line(sys.stdin.buffer.readline())
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
