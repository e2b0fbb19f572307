"""The build supervisor: runs one buildspec of a pipeline run. `hitless.pipeline.builds` starts it.

It reads its plan as one line of JSON from standard input, because the plan holds secrets and other users can see
arguments. The daemon keeps that input open: when it ends, the daemon is gone, and the supervisor stops the build. The
build's output goes to the plan's log file, the result to standard output as one line of JSON.
"""

from __future__ import annotations

import json
import sys

from hitless.documents import convert
from hitless.pipeline.buildspec.processes import input_ended
from hitless.pipeline.buildspec.run import BuildPlan, as_line, run
from hitless.worker.process import adopt_orphans


def main() -> None:
    """Run the plan; exit 0 however the build ended."""
    adopt_orphans()
    plan = convert(json.loads(sys.stdin.buffer.readline()), BuildPlan, "the build's plan")
    with open(plan.log, "ab", buffering=0) as log:
        result = run(plan, output=log.write, stop=input_ended, subreaper=True)
    sys.stdout.buffer.write(as_line(result))


if __name__ == "__main__":
    main()
