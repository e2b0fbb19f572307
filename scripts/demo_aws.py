"""The demo of the second home: worldclock on an emulated AWS, from nothing to nothing, under load.

Bootstrap; a `git push` that runs the generated pipeline; a second release by canary; back by rollback; a broken canary
that the shield hides from clients. A drill sends requests to the API through all of it. Then, as a control and counted
apart, the same broken canary without a shield; destroy. No account and no network but the package registries:
tests/aws/front adds what the emulator does not offer, and its CodeDeploy has shorter minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.demo_shield import BREAKS, STRATEGY, BrokenCanary, Comparison, settings  # noqa: E402
from tests.aws.emulated import EmulatedAws, emulated_aws  # noqa: E402
from tests.aws.pipeline.deployed import definition_of, role_session  # noqa: E402
from tests.aws.pipeline.driver import Driver  # noqa: E402

HITLESS = Path(sys.executable).with_name("hitless")
STAGE, REGION = "dev", "eu-central-1"
REPOSITORY = "somebody/worldclock"
CANARY = "Canary10Percent5Minutes"
CLOCK_FACTOR = 30.0
LONGEST_S = 1800


@dataclass
class Demo:
    """One run in a temporary folder: `work` is a clone of `origin`, a bare repository."""

    aws: EmulatedAws
    folder: Path
    releases: int = 0

    def __post_init__(self) -> None:
        self.work, self.origin = self.folder / "worldclock", self.folder / "origin.git"
        # what clients ask: the smoke requests, and the GETs of them
        self.load_file, self.reads_file = self.folder / "load.jsonl", self.folder / "reads.jsonl"

    def git(self, *words: str, show: bool = False) -> None:
        if show:
            print(f"$ git {' '.join(words)}", flush=True)
        identity = ["-c", "user.name=A developer", "-c", "user.email=developer@example.com"]
        subprocess.run(["git", *identity, *words], cwd=self.work, check=True, stdout=subprocess.DEVNULL)

    def hitless(self, *words: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Run a verb as a user would type it, which must end with one of `ok`; its document."""
        print(f"$ hitless aws {' '.join(words)}", flush=True)
        command = [str(HITLESS), "aws", *words, "--stage", STAGE, "--json"]
        done = subprocess.run(
            command, cwd=self.work, env=self.aws.environ, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode not in ok:
            raise SystemExit(f"hitless aws {words[0]} ended with {done.returncode}: {done.stdout}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def prepare(self) -> None:
        """The example in a repository of its own, committed and not yet pushed."""
        ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
        shutil.copytree(ROOT / "examples" / "worldclock", self.work, ignore=ignored)
        (self.work / ".gitignore").write_text(".hitless/\n__pycache__/\n")
        subprocess.run(["git", "init", "--quiet", "--bare", str(self.origin)], check=True)
        self.git("init", "--quiet", "--initial-branch", STAGE)
        self.git("remote", "add", "origin", str(self.origin))
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "The service")
        smoke = yaml.safe_load((self.work / "serverless.yml").read_text())["custom"]["smoke"]
        self.load_file.write_text("".join(f"{json.dumps(one)}\n" for one in smoke))
        reads = [one for one in smoke if one.get("method", "GET") == "GET"]
        self.reads_file.write_text("".join(f"{json.dumps(one)}\n" for one in reads))

    def bootstrap(self) -> Driver:
        """The stacks; and the pipeline's driver, from the template that the dry run writes."""
        told = ("--repository", REPOSITORY, "--package", str(ROOT))
        self.hitless("bootstrap", *told, "--yes")
        stack = f"worldclock-pipeline-{STAGE}"
        dry = self.hitless("bootstrap", *told, "--dry-run")
        (template,) = (Path(one["template"]) for one in dry["stacks"] if one["name"] == stack)
        definition = definition_of(template, stack, REGION, self.aws.client)
        sessions = role_session(self.aws.session_client("sts", REGION))
        return Driver(definition, self.origin, self.folder / "builds", self.aws.environ, sessions)

    def push(self, driver: Driver) -> None:
        self.git("push", "--quiet", "origin", STAGE, show=True)
        (run,) = driver.after_push()
        for step in run.steps:
            print(f"  pipeline {step.stage}: {step.action} {step.duration_s:.1f} s", flush=True)
        if not run.succeeded:
            raise SystemExit(f"the pipeline failed:\n{run.log()}")
        self.releases += 1

    def ship(self, *words: str, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
        result = self.hitless(*words, ok=ok)
        weights = " → ".join(f"{step['weight_percent']} %" for step in result["steps"])
        print(
            f"  release {result['release']} {result['outcome']} in {result['duration_s']:.1f} s: {weights}", flush=True
        )
        self.releases += result["outcome"] == "live"
        return result

    def ship_broken(self, *, shield: bool) -> dict[str, Any]:
        """A canary whose every GET fails; the deploy's document. Its alarm takes it back, unless no GET reached it."""
        api, file = self.work / "worldclock" / "api.py", self.work / "serverless.yml"
        whole, told = api.read_text(), file.read_text()
        message = f"Broken, the shield {'on' if shield else 'off'}"
        api.write_text(whole + BREAKS % message)
        file.write_text(settings(told, "smoke: ${self:custom.smoke}", shield=shield))
        self.git("commit", "--quiet", "--all", "--message", message, show=True)
        result = self.ship("deploy", "--strategy", STRATEGY, ok=(0, 3))
        api.write_text(whole)
        file.write_text(told)
        return result

    def rollout(self, release: int) -> dict[str, Any]:
        (one,) = self.hitless("releases", str(release))["rollouts"]
        found: dict[str, Any] = one
        return found

    @contextmanager
    def load(self, rate: int, report: Path, requests: Path) -> Iterator[dict[str, Any]]:
        """A drill for as long as the context; its document is there at the end."""
        url = self.aws.service_url(f"worldclock-{STAGE}", STAGE, REGION)
        where = ["--target", url, "--stage", STAGE, "--requests", str(requests), "--report", str(report)]
        command = [str(HITLESS), "drill", *where, "--rate", str(rate), "--duration", str(LONGEST_S), "--json"]
        drill = subprocess.Popen(
            command, cwd=self.work, env=self.aws.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        document: dict[str, Any] = {}
        try:
            yield document
        finally:
            if drill.poll() is None:
                drill.send_signal(signal.SIGINT)
            output, _ = drill.communicate(timeout=60)
        document.update(json.loads(output))


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops the emulators, as Ctrl-C does
    parser = argparse.ArgumentParser(description="Releases on an emulated AWS under load; counts every request.")
    parser.add_argument("--rate", type=int, default=15, help="requests per second")
    parser.add_argument("--report", type=Path, default=ROOT / "demo-aws-report.html")
    options = parser.parse_args()
    report = options.report.resolve()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hitless-demo-") as temporary:
        (folder := Path(temporary) / "emulators").mkdir()
        with emulated_aws(folder, clock_factor=CLOCK_FACTOR, waits_factor=1) as aws:
            print(f"emulated AWS at {aws.url}; CodeDeploy's clock runs {CLOCK_FACTOR:g} times faster", flush=True)
            demo = Demo(aws, Path(temporary))
            demo.prepare()
            demo.push(demo.bootstrap())
            print("the service is up; now load, through all that follows", flush=True)
            with demo.load(options.rate, report, demo.load_file) as drill:
                with (demo.work / "worldclock" / "api.py").open("a") as file:
                    file.write("\n# the second release\n")
                demo.git("commit", "--quiet", "--all", "--message", "The second release", show=True)
                demo.ship("deploy", "--strategy", CANARY)
                demo.ship("rollback")
                shielded = demo.ship_broken(shield=True)
            print("control: the same with the shield off, under a load of its own, in no total", flush=True)
            with demo.load(options.rate, Path(temporary) / "control.html", demo.reads_file) as control:
                bare = demo.ship_broken(shield=False)
            comparison = Comparison(
                BrokenCanary.of(drill, shielded, demo.rollout(shielded["release"])),
                BrokenCanary.of(control, bare, demo.rollout(bare["release"])),
            )
            gone = demo.hitless("destroy", "--confirm", STAGE, "--with-data")
            print(f"  deleted: {', '.join(gone['deleted'])}", flush=True)
            left = [one["StackName"] for one in aws.client("cloudformation", REGION).describe_stacks()["Stacks"]]
    report.write_text(comparison.on(report.read_text()))
    print(f"\n{comparison.in_words()}\n{comparison.verdict}")
    print(f"\n  {time.monotonic() - started:.0f} s in all; stacks left: {', '.join(left) or 'none'}\n")
    print(f"{drill['requests']} requests, {drill['failed']} failed, {demo.releases} releases; report {report}")
    whole = drill["failed"] == 0 and drill["requests"] > 0 and demo.releases == 3 and not left
    return 0 if whole and comparison.held else 1


if __name__ == "__main__":
    sys.exit(main())
