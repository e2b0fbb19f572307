"""The pipeline's demo: a team's day with git on three stages, under load on all of them; then the sum.

Everything is done by git and the `hitless` command, as a developer would type it, on a copy of examples/worldclock in a
temporary folder; only the report stays. A failing test, a rehearsal and a canary's alarm each stop one release.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hitless.api.client import EngineClient
from hitless.drill.requests import DrillRequest
from hitless.engine.folders import Folders
from hitless.pages.page import environment_of
from hitless.pipeline.rehearsal.load import Driven

ROOT = Path(__file__).resolve().parents[1]
HITLESS = Path(sys.executable).with_name("hitless")
STAGES = """      dev: {branch: dev, listen: '127.0.0.1:0', strategy: AllAtOnce, smoke: '${self:custom.smoke}'}
      staging: {branch: staging, listen: '127.0.0.1:0', strategy: Canary40Percent4Seconds, rehearsal: true,
                smoke: '${self:custom.smoke}'}
      prod: {branch: prod, listen: '127.0.0.1:0', strategy: Canary40Percent4Seconds, rehearsal: true,
             approval: manual, smoke: '${self:custom.smoke}'}
    idempotent: [POST /meetings, POST /convert]
"""
MEETING = b'{"date": "2026-11-24", "duration_minutes": 30, "participants": [{"zone": "Asia/Tokyo"}, {"zone": "UTC"}]}'
REQUESTS = (
    *(DrillRequest("GET", path) for path in ("/zones", "/zones/Europe/Berlin", "/version", "/health")),
    DrillRequest("GET", "/convert?instant=2026-11-24T12:00:00Z&to=Asia/Tokyo"),
    DrillRequest("POST", "/meetings", (("Content-Type", "application/json"),), MEETING),
)
BROKEN = (
    "def list_zones() -> dict[str, object]:\n",
    'def list_zones() -> dict[str, object]:\n    if os.environ.get("STAGE") != "dev" and next(_ASKED) % 2 == 1:\n'
    '        raise RuntimeError("a cache that only dev has")\n',
)


ENOUGH = 1000
"""Requests to each stage, from which on 0 failed says something."""


@dataclass
class Day:
    """The developer's clone, the engine beside it, and what happened."""

    service: Path
    clone: Path
    said: list[tuple[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def hitless(self, *words: str, exit_code: int = 0) -> Any:
        """Run a verb with --json; its document."""
        print(f"$ hitless {' '.join(words)}", flush=True)
        place = ["--service-dir", str(self.clone), "--data-dir", str(self.service / ".hitless")]
        done = subprocess.run([str(HITLESS), *words, "--json", *place], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != exit_code:
            if not done.stdout.startswith("[") and "error" in json.loads(done.stdout or '{"error": 0}'):
                raise SystemExit(f"hitless {' '.join(words)} ended with {done.returncode}")
            self.wrong.append(f"hitless {' '.join(words)} ended with {done.returncode}, not {exit_code}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def git(self, *words: str, show: bool = True) -> str:
        """Run git in the clone; what a push printed is shown."""
        if show:
            print(f"$ git {' '.join(words)}", flush=True)
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *who, *words], cwd=self.clone, env=environ, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"git {words[0]}: {done.stderr}")
        if words[0] == "push":
            lines = [line.removeprefix("remote: ").rstrip() for line in done.stderr.splitlines()]
            print(
                "\n".join(f"    {line}" for line in lines if line.startswith(("run ", "== ", "release "))), flush=True
            )
        return done.stdout.strip()

    def edit(self, file: str, change: Callable[[str], str]) -> None:
        path = self.clone / file
        old = path.read_text("utf-8")
        new = change(old)
        if new == old:
            raise SystemExit(f"{file} is not as this demo expects it")
        path.write_text(new, "utf-8")

    def expect(self, what: str, truth: bool, detail: str = "") -> None:
        """One line of the story, and whether it came as it should."""
        print(f"  {'ok ' if truth else 'NOT'} {what}{f': {detail}' if detail else ''}\n", flush=True)
        self.said.append((what, detail))
        if not truth:
            self.wrong.append(what)

    def ask(self, path: str, **query: Any) -> Any:
        """What the engine says of itself, without a command's start-up."""
        folders = Folders.of(self.service / ".hitless", os.environ)
        return EngineClient(folders.api_socket).call("GET", path, **query)

    def last_run(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/pipeline/runs", limit=1)[0]
        return found


class LoadOnAll:
    """The same load on each stage from its first release on, in a thread of its own."""

    def __init__(self, urls: dict[str, str], rate_per_s: float) -> None:
        self.driven = {stage: Driven(url, REQUESTS, rate_per_s) for stage, url in urls.items()}
        self._end = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        self._thread.start()
        if not self._begun.wait(30):
            raise SystemExit("the load did not begin")

    def finish(self) -> None:
        self._end.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(one.start() for one in self.driven.values()))
        self._begun.set()
        await asyncio.to_thread(self._end.wait)
        await asyncio.gather(*(one.finish() for one in self.driven.values()))


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the engine, as Ctrl-C does
    parser = argparse.ArgumentParser(description="A team's day with git on three stages, under load on all of them.")
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second on each stage")
    parser.add_argument("--report", type=Path, default=ROOT / "demo-pipeline-report.html")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hitless-demo-") as temporary:
        day = Day(Path(temporary) / "worldclock", Path(temporary) / "worldclock")
        set_up(day)
        try:
            urls = first_releases(day)
            day.clone = clone(day, Path(temporary) / "clone")
            load = LoadOnAll(urls, options.rate)
            load.start()
            try:
                feature(day)
                broken(day)
                to_prod(day)
            finally:
                load.finish()
            live = {stage: count_live(day, stage) for stage in urls}
        finally:
            day.hitless("down", "--force")  # the load has ended: nothing is in hand
    return account(day, load, live, options.report.resolve(), time.monotonic() - started)


def set_up(day: Day) -> None:
    """A repository of the example with three stages of short strategies."""
    ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache", ".venv")
    shutil.copytree(ROOT / "examples" / "worldclock", day.service, ignore=ignored)

    def stages(text: str) -> str:
        before, _, rest = text.partition("    stages:\n")
        return f"{before}    stages:\n{STAGES}  smoke:" + rest.partition("\n  smoke:")[2]

    day.edit("serverless.yml", stages)
    (day.service / ".gitignore").write_text(".hitless/\n__pycache__/\n.pytest_cache/\n")
    day.git("init", "--quiet", "--initial-branch=dev", show=False)
    day.git("add", ".", show=False)
    day.git("commit", "--quiet", "-m", "worldclock", show=False)


def first_releases(day: Day) -> dict[str, str]:
    """Something is live in every stage; each stage's address."""
    status = day.hitless("up", "--detach")
    day.git("remote", "add", "engine", day.hitless("pipeline", "url")["url"], show=False)
    day.git("push", "--quiet", "engine", "dev")
    day.hitless("promote", "dev", "staging")
    waiting = day.hitless("promote", "staging", "prod")
    day.hitless("approve", str(waiting["run"]), "--why", "the first release")
    stages = day.hitless("status")["stages"]
    day.expect("dev, staging and prod each have a release", all(stage["live"] for stage in stages))
    return {stage["stage"]: stage["url"] for stage in status["stages"]}


def clone(day: Day, folder: Path) -> Path:
    """A developer's clone of the engine's repository."""
    url = day.git("remote", "get-url", "engine", show=False)
    print("$ git clone --origin engine URL worldclock", flush=True)
    subprocess.run(["git", "clone", "--quiet", "--origin", "engine", url, str(folder)], check=True)
    return folder


def feature(day: Day) -> None:
    """A feature branch whose test fails, is fixed, merged to dev, promoted to staging."""
    day.git("switch", "--quiet", "--create", "count-zones")
    zones = "worldclock/handlers/zones.py"
    day.edit(
        zones, lambda text: text.replace('"limit": limit,\n', '"limit": limit,\n        "count": end - offset,\n', 1)
    )
    day.git("commit", "--quiet", "--all", "-m", "Say how many zones a page holds")
    day.git("push", "engine", "count-zones")
    run = day.last_run()
    day.expect("a failing test is refused", run["state"] == "failed" and run["stage"] is None, run["reason"])

    day.edit("worldclock/openapi.json", document_count)
    day.git("commit", "--quiet", "--all", "-m", "Document the field")
    day.git("push", "engine", "count-zones")
    run = day.last_run()
    day.expect("fixed, the branch passes", run["state"] == "succeeded")

    day.git("switch", "--quiet", "dev")
    day.git("merge", "--quiet", "--no-ff", "-m", "Merge count-zones", "count-zones")
    day.git("push", "engine", "dev")
    run = day.last_run()
    day.expect("merged to dev, it is live", run["state"] == "succeeded", f"release {run['release']}")

    shipped = day.hitless("promote", "dev", "staging")
    day.expect("promoted to staging by a canary", shipped["outcome"] == "live", f"{shipped['strategy']}, rehearsed")


def document_count(text: str) -> str:
    """The new field in the page's schema."""
    document = json.loads(text)
    page = next(one for one in document["components"]["schemas"].values() if "total" in one.get("properties", {}))
    page["properties"]["count"] = {"type": "integer"}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def broken(day: Day) -> None:
    """A change that works in dev alone: the rehearsal stops it; without the rehearsal the canary's alarm does."""
    zones = "worldclock/handlers/zones.py"
    day.edit(
        zones, lambda text: text.replace("\napp = resolver()", "\n_ASKED = itertools.count()\napp = resolver()", 1)
    )
    day.edit(zones, lambda text: text.replace("\nfrom datetime", "\nimport itertools\nimport os\nfrom datetime", 1))
    day.edit(zones, lambda text: text.replace(*BROKEN, 1))
    day.git("commit", "--quiet", "--all", "-m", "Cache the list of zones")
    day.git("push", "engine", "dev")
    day.expect("a change that works in dev is live there", day.last_run()["state"] == "succeeded")

    day.hitless("promote", "dev", "staging", exit_code=3)
    run = day.last_run()
    rehearsed = next((step["state"] for step in run["steps"] if step["name"] == "rehearse"), None)
    day.expect("the rehearsal stops it before staging", rehearsed == "failed", run["reason"])

    shipped = day.hitless("promote", "dev", "staging", "--skip-rehearsal", exit_code=3)
    day.expect("without it the canary's alarm does", shipped["outcome"] == "rolled_back", shipped["reason"])

    day.git("revert", "--no-edit", "HEAD")
    day.git("push", "engine", "dev")
    shipped = day.hitless("promote", "dev", "staging")
    day.expect("fixed, it is live in staging", shipped["outcome"] in ("live", "unchanged"))


def to_prod(day: Day) -> None:
    """prod waits for a person."""
    waiting = day.hitless("promote", "staging", "prod")
    day.expect("prod waits for approval", waiting["outcome"] == "waiting_for_approval", f"run {waiting['run']}")
    run = day.hitless("approve", str(waiting["run"]), "--why", "seen in staging")
    day.expect("approved, it is live in prod", run["state"] == "succeeded", f"release {run['release']}")
    digests = [stage["live"]["artifacts"] for stage in day.hitless("status")["stages"]]
    day.expect("all three stages serve the same bytes", digests[0] == digests[1] == digests[2])


def count_live(day: Day, stage: str) -> int:
    return sum(release["outcome"] == "live" for release in day.ask(f"/stages/{stage}/releases"))


REPORT = """{% extends "base.html" %}{% block main %}
<h1{% if not ok %} class="not-ok"{% endif %}>{{ headline }}</h1>
<p class="lead">Three stages under load for {{ "%.0f"|format(took_s) }} s</p>
{% for one in wrong %}<p class="bad">{{ one }}</p>{% endfor %}
<section class="card"><h2>Requests</h2><div class="scroll"><table>
<tr><th>Stage
{% for one in ("Requests", "Failed", "p50 ms", "p99 ms", "Live releases") %}<th class="n">{{ one }}{% endfor %}</tr>
{% for stage, one, live in rows %}
{% set failed = one.failed.total() %}
<tr><td>{{ stage }}<td class="n">{{ one.requests|thousands }}
<td class="n {{ 'bad' if failed else 'good' }}">{{ failed }}
<td class="n">{{ one.percentile_ms(50) }}<td class="n">{{ one.percentile_ms(99) }}<td class="n">{{ live }}</tr>
{% endfor %}
</table></div></section>
<section class="card"><h2>What happened</h2>
<ol>{% for what, detail in story %}<li>{{ what }} <span class="note">{{ detail }}</span></li>{% endfor %}</ol></section>
{% endblock %}"""


def account(day: Day, load: LoadOnAll, live: dict[str, int], report: Path, took_s: float) -> int:
    """The sum, as a page and in the last line; 0 only if no request failed and all came as it should."""
    requests = sum(one.requests for one in load.driven.values())
    for stage, one in load.driven.items():
        if one.requests < ENOUGH:
            day.wrong.append(f"{stage} had {one.requests} requests, fewer than {ENOUGH}: that would prove nothing")
    failed = sum(one.failed.total() for one in load.driven.values())
    page = (
        environment_of("hitless.pages")
        .from_string(REPORT)
        .render(
            headline=f"{failed:,} of {requests:,} requests failed from git push to prod",
            ok=failed == 0 and not day.wrong,
            took_s=took_s,
            rows=[(stage, one, live[stage]) for stage, one in load.driven.items()],
            story=day.said,
            wrong=day.wrong,
        )
    )
    report.write_text(page, "utf-8")
    for wrong in day.wrong:
        print(f"  NOT as it should: {wrong}")
    print(f"{requests} requests, {failed} failed, {sum(live.values())} releases; report {report}")
    return 0 if failed == 0 and not day.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
