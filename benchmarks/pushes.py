"""From `git push` to live in dev: the example's service with its own tests, one line changed, and what each part takes.

The clock starts before git does and stops at the step that gives the new release all traffic. What the service's tests
take is theirs: they are timed in the build, by marks around their command, and taken off.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.deploys import instant
from benchmarks.figures import Bound, Goal, Section, timed
from benchmarks.machine import BenchmarkError
from benchmarks.site import Site, change_code, running
from hitless.pipeline.workshop import Workshop

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "worldclock"
MOST_BEYOND_S = 5.0
_TESTS = "python -m pytest"
_STAGES = "    stages:\n      dev: {listen: '127.0.0.1:0', smoke: '${self:custom.smoke}'}\n  smoke:"
_TITLES = {
    "beyond_tests": "git push to live, less the tests",
    "to_live": "git push to live",
    "tests": "the service's tests",
    "push_to_end": "git push to its return",
    "taken": "  git's transfer, its hooks, the run recorded",
    "around": "  checkout, virtual environment, installer, reports (the test step without the tests)",
    "build": "  build of the artifact (checkout, dependencies cached)",
    "shifted": "  workers started and proved, all traffic moved",
}


def run(rounds: int, say: Callable[[str], None]) -> Section:
    """As many pushes as `rounds`, after one that makes the virtual environment. Raises BenchmarkError."""
    with _team() as site:
        _timed(site)
        timings = []
        for number in range(rounds):
            timing = _timed(site)
            timings.append(timing)
            to_live, beyond = timing["to_live"], timing["beyond_tests"]
            say(f"push {number + 1}/{rounds}: {to_live:.2f} s to live, {beyond:.2f} s beyond the tests")
    figures = timed(_TITLES, timings, 2, {"beyond_tests": Goal(Bound.AT_MOST, MOST_BEYOND_S)})
    return Section("push", f"worldclock, one line changed, {rounds} pushes to dev", figures)


@contextmanager
def _team() -> Iterator[Site]:
    """The example in a repository of its own, an engine, and the engine's repository as the remote `engine`."""
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as temporary:
        folder = Path(temporary) / "worldclock"
        ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache", ".venv")
        shutil.copytree(EXAMPLE, folder, ignore=ignored)
        _edit(folder / "serverless.yml", r"(?s)    stages:\n.*?\n  smoke:", _STAGES)
        marked = f'echo "tests began $(date +%s.%N)"; {_TESTS} && echo "tests ended $(date +%s.%N)"'
        _edit(folder / "buildspec-test.yml", re.escape(f"- {_TESTS}\n"), f"- '{marked}'\n")
        (folder / ".gitignore").write_text(".hitless/\n__pycache__/\n.pytest_cache/\n")
        _git(folder, "init", "--quiet", "--initial-branch=dev")
        _git(folder, "add", ".")
        _git(folder, "commit", "--quiet", "-m", "worldclock")
        with running(folder) as site:
            _git(folder, "remote", "add", "engine", site.hitless("pipeline", "url").document["url"])
            try:
                yield site
            finally:
                shutil.rmtree(Workshop.of((folder / ".hitless").resolve(), os.environ).work, ignore_errors=True)


def _timed(site: Site) -> dict[str, float]:
    change_code(site.folder / "worldclock" / "handlers" / "zones.py")
    _git(site.folder, "commit", "--quiet", "--all", "-m", "a line")
    began_at = time.time()
    _git(site.folder, "push", "--quiet", "engine", "dev")
    ended_at = time.time()
    number = site.hitless("pipeline", "runs", "--limit", "1").document[0]["run"]
    return timing_of(site.hitless("pipeline", "show", str(number), "--log").document, began_at, ended_at)


def timing_of(run: dict[str, Any], began_at: float, ended_at: float) -> dict[str, float]:
    """Seconds from the push to all traffic, what of it the tests took, and the parts of the rest.

    Raises BenchmarkError where the run did not go live through its steps.
    """
    marks = [float(at) for at in re.findall(r"^tests (?:began|ended) ([\d.]+)$", run["log"], re.MULTILINE)]
    steps = {step["name"]: step for step in run["steps"]}
    at = {step["state"]: instant(step) for step in (steps.get("deploy", {}).get("detail") or {}).get("steps", ())}
    if run["state"] != "succeeded" or len(marks) != 2 or "shifting" not in at:
        raise BenchmarkError(f"run {run['run']} is {run['state']}: {run['reason']}\n{run['log'][-2000:]}")
    tests = marks[1] - marks[0]
    to_live = at["shifting"] - began_at
    return {
        "beyond_tests": to_live - tests,
        "to_live": to_live,
        "tests": tests,
        "push_to_end": ended_at - began_at,
        "taken": instant({"at": steps["source"]["started_at"]}) - began_at,
        "around": steps["test"]["duration_s"] - tests,
        "build": steps["build"]["duration_s"],
        "shifted": at["shifting"] - instant({"at": steps["deploy"]["started_at"]}),
    }


def _edit(file: Path, old: str, new: str) -> None:
    text, count = re.subn(old, lambda _: new, file.read_text(), count=1)
    if not count:
        raise BenchmarkError(f"{file} is not as this benchmark expects it")
    file.write_text(text)


def _git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *who, *words], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"git {words[0]} ended with {done.returncode}: {done.stderr[-500:]}")
