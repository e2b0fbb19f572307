"""The build supervisor: runs one buildspec of a run and ends with the daemon. Started by `hitless.pipeline.builds`.

Its plan comes as one line of JSON on standard input, because arguments are visible to other users and it holds secrets.
When the input ends, the daemon has gone, and the build is ended. Output goes to the plan's log file, the result as one
line of JSON to standard output.
"""

from __future__ import annotations

import json
import sys

from hitless.documents import convert
from hitless.pipeline.buildspec.processes import become_subreaper, input_ended
from hitless.pipeline.buildspec.run import BuildPlan, as_line, run


def main() -> None:
    """Run the plan; exit 0 however the build ended."""
    become_subreaper()
    plan = convert(json.loads(sys.stdin.buffer.readline()), BuildPlan, "the build's plan")
    with open(plan.log, "ab", buffering=0) as log:
        result = run(plan, output=log.write, stop=input_ended, subreaper=True)
    sys.stdout.buffer.write(as_line(result))


if __name__ == "__main__":
    main()
