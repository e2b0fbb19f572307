"""The acceptance on a real account, step by step, on a copy of worldclock under a name of its own.

It always ends with destroy, whatever happened before, and says so if that failed: what is left costs money.
`--domain` adds a domain of a hosted zone of the account. `--repository` and `--package` add the pipeline, which needs a
person who authorises GitHub. `--list` prints what each step shows that no emulator can; docs/aws.md has the same table.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]
HITLESS = Path(sys.executable).with_name("hitless")
SERVICE = "worldclock-acceptance"
STAGE = "dev"
HOURS = 2
CANARY = "Canary10Percent5Minutes"
OPTIONS = ("domain", "repository", "package")
EXAMPLES = {"--domain": "api.example.com", "--repository": "OWNER/NAME --package URL"}
BROKEN = """

_whole = handler


def handler(event, context):
    if event["path"].endswith("/UTC"):  # no smoke request asks for it: only the alarm can find out
        raise RuntimeError("broken on purpose")
    return _whole(event, context)
"""
REQUESTS = (
    {"method": "GET", "path": "/version", "weight": 2},
    {"method": "GET", "path": "/zones/UTC", "weight": 2},
    {"method": "GET", "path": "/convert?instant=2026-11-24T12:00:00Z&to=Asia/Tokyo"},
)


@dataclass(frozen=True)
class Step:
    """A command and how it should end. `edit` is appended to a file of the service before; `load` runs meanwhile.

    `shows` is what no emulator can show. `option` is the option without which the step is left out. Steps of another
    program than hitless are those of AWS's own command line, or curl. {region}, {account} and options are filled in.
    """

    title: str
    words: tuple[str, ...]
    exits: int = 0
    edit: tuple[str, str] | None = None
    load: bool = False
    shows: str = ""
    option: str = ""
    program: str = "hitless aws"


ZONES = "worldclock/handlers/zones.py"
SECRET = f"/{SERVICE}/{STAGE}/greeting"
VARIABLES = f"  environment:\n    GREETING: ${{ssm:{SECRET}}}\n    ACCOUNT: ${{aws:accountId}}\n"
HERE = ("--region", "{region}")
FLOWS = f"/hitless/{SERVICE}/{STAGE}/vpc"
STEPS = (
    Step("quotas and permissions", ("plan",), shows="quotas of the account; permissions as IAM simulates them"),
    Step(
        "network, bucket, roles",
        ("bootstrap", "--no-pipeline", "--yes", "--reads", f"arn:aws:ssm:{{region}}:{{account}}:parameter{SECRET}"),
        shows="zones with Lambda and NAT gateways; service-linked roles; how long stacks take; IAM's view of each call",
    ),
    Step(
        "a parameter that osls reads",
        (
            "put-parameter",
            "--overwrite",
            "--name",
            SECRET,
            "--type",
            "SecureString",
            "--value",
            "hi",
            "--region",
            "{region}",
        ),
        program="aws ssm",
        shows="`${ssm:}` and `${aws:accountId}` as osls resolves them",
    ),
    Step(
        "the first release",
        ("deploy", "--yes"),
        shows="CloudFormation's role has what CloudFormation asks for; how soon AWS knows new roles and versions; "
        "EventBridge takes the release's event",
    ),
    Step("nothing changed, nothing done", ("deploy", "--yes")),
    Step(
        "a second release by canary",
        ("deploy", "--strategy", CANARY),
        edit=(ZONES, "\n# the second\n"),
        load=True,
        shows="an alias that splits by weights; CodeDeploy's shift; no request fails",
    ),
    Step(
        "a broken release goes back by its alarm",
        ("deploy", "--strategy", CANARY),
        3,
        (ZONES, BROKEN),
        load=True,
        shows="when CloudWatch's alarms fire; the shield",
    ),
    Step("back to the first release at once", ("rollback", "1"), load=True, shows="no request fails in a rollback"),
    Step(
        "flow logs of the NAT gateway's network",
        ("describe-log-streams", "--log-group-name", FLOWS, "--max-items", "1", *HERE),
        program="aws logs",
        shows="NAT gateway, flow logs and endpoints carry traffic",
    ),
    Step(
        "the domain by IPv6",
        ("--fail", "--ipv6", "https://{domain}/version"),
        option="--domain",
        program="curl",
        shows="delegation, validation of the certificate, DNS, dual stack",
    ),
    Step(
        "the pipeline",
        ("bootstrap", "--wait", "1800", "--repository", "{repository}", "--package", "{package}"),
        option="--repository",
        shows="GitHub's authorisation and the console's URL; pushes, pull requests and commit statuses; CodePipeline "
        "and CodeBuild; the message about a failed run",
    ),
    Step("what is live", ("status",)),
)
LAST = (
    Step("the parameter goes", ("delete-parameter", "--name", SECRET, *HERE), program="aws ssm"),
    Step(
        "everything goes",
        ("destroy", "--confirm", STAGE, "--with-data", "--with-domain"),
        shows="what is left in the account afterwards",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="show the cost and every step; touch nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask before money is spent")
    parser.add_argument("--rate", type=int, default=20, help="requests per second while releases ship")
    parser.add_argument("--list", action="store_true", help="print what each step shows that no emulator can")
    parser.add_argument("--domain", default="", help="a domain in a hosted zone of the account")
    parser.add_argument("--repository", default="", help="OWNER/NAME on GitHub, for the pipeline")
    parser.add_argument("--package", default="", help="the hitless package that the pipeline installs")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"| {step.shows} | `{usage(step)}`: {step.title} |" for step in (*STEPS, *LAST) if step.shows))
        return 0
    with tempfile.TemporaryDirectory(prefix="hitless-acceptance-") as temporary:
        service = copy_of_worldclock(Path(temporary), options.domain)
        region, cost = cost_in_words(service)
        told = {"region": region, "account": "ACCOUNT", **{name: getattr(options, name) for name in OPTIONS}}
        steps = [step for step in STEPS if not step.option or told[step.option.removeprefix("--")]]
        print(cost)
        for number, step in enumerate((*steps, *LAST), 1):
            load = f"  (under {options.rate} requests/s)" if step.load else ""
            print(f"  {number}. {step.title}{load}\n     $ {shlex.join(command(step, told))}   → exit {step.exits}")
        if options.dry_run:
            return 0
        if not options.yes and input("type the name of the service to begin: ").strip() != SERVICE:
            print("not begun")
            return 1
        told["account"] = boto3.client("sts", region_name=region).get_caller_identity()["Account"]
        return walk(service, options.rate, steps, told)


def usage(step: Step) -> str:
    """The command line that takes the step."""
    return " ".join(["scripts/aws-acceptance", *([f"{step.option} {EXAMPLES[step.option]}"] if step.option else [])])


def copy_of_worldclock(place: Path, domain: str) -> Path:
    """The example under another name, so that nobody's worldclock is touched, with a domain and variables of AWS's."""
    folder = place / "worldclock"
    ignored = shutil.ignore_patterns(".hitless", "__pycache__", ".pytest_cache")
    shutil.copytree(ROOT / "examples" / "worldclock", folder, ignore=ignored)
    file = folder / "serverless.yml"
    text = file.read_text("utf-8")
    assert "service: worldclock\n" in text, "the example's serverless.yml has changed"
    text = text.replace("service: worldclock\n", f"service: {SERVICE}\n").replace("  environment:\n", VARIABLES)
    text = text.replace("branch: dev\n", f"branch: dev\n        domain: {domain}\n") if domain else text
    file.write_text(text, "utf-8")
    (folder.parent / "requests.jsonl").write_text("\n".join(map(json.dumps, REQUESTS)) + "\n", "utf-8")
    return folder


def command(step: Step, told: Mapping[str, str]) -> list[str]:
    words = [word.format(**told) for word in step.words]
    return [*step.program.split(), *words, *(["--stage", STAGE] if step.program == "hitless aws" else [])]


def run(service: Path, words: list[str]) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([str(HITLESS), *words, "--json"], cwd=service, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, json.loads(done.stdout or "{}")


def cost_in_words(service: Path) -> tuple[str, str]:
    """The region, and what two hours cost by the price file of `hitless aws plan`; asks no AWS."""
    code, plan = run(service, ["aws", "plan", "--offline", "--no-pipeline", "--stage", STAGE])
    if code:
        raise SystemExit("hitless aws plan failed")
    costs = plan["costs"]
    fixed = costs["fixed_usd_a_month"] / 730 * HOURS
    return plan["region"], (
        f"This makes {SERVICE} in {plan['region']}, releases it and deletes it again: about an hour, at most {HOURS}.\n"
        f"Cost: about ${fixed:.2f} for {HOURS} hours of NAT and addresses, and less than $0.50 for requests, logs and "
        f"builds.\nLeft standing it would cost ${costs['fixed_usd_a_month']:.2f} a month. {costs['source']}.\n"
    )


def walk(service: Path, rate: int, steps: Sequence[Step], told: Mapping[str, str]) -> int:
    """Every step, then destroy; 0 if each ended as it should and no request of a healthy release failed."""
    wrong: list[str] = []
    try:
        for step in steps:
            ended = take(service, step, rate, told)
            if ended:
                wrong.append(f"{step.title}: {ended}")
                break
    finally:
        for step in LAST:
            ended = take(service, step, rate, told)
            if ended:
                wrong.append(f"{step.title}: {ended}. WHAT IS LEFT COSTS MONEY: {shlex.join(command(step, told))}")
    print("\n" + ("\n".join(wrong) or "accepted"))
    return 1 if wrong else 0


def take(service: Path, step: Step, rate: int, told: Mapping[str, str]) -> str | None:
    """Take one step; what is wrong with how it ended, or None."""
    words = command(step, told)
    print(f"\n{step.title}\n$ {shlex.join(words)}", flush=True)
    if step.edit:
        with (service / step.edit[0]).open("a", encoding="utf-8") as file:
            file.write(step.edit[1])
    if step.program != "hitless aws":
        code = subprocess.run(words, cwd=service, check=False).returncode
        return f"exit {code} instead of {step.exits}" if code != step.exits else None
    load = start_load(service, rate) if step.load else None
    try:
        code, document = run(service, words[1:])
    finally:
        if load is not None:
            load.terminate()
    drill = json.loads(load.communicate(timeout=120)[0]) if load is not None else {}
    print(json.dumps(document)[:2000])
    if code != step.exits:
        return f"exit {code} instead of {step.exits}"
    if drill:
        print(f"{drill['requests']} requests, {drill['failed']} failed")
    if drill and step.exits == 0 and drill["failed"]:
        return f"{drill['failed']} of {drill['requests']} requests failed; see {drill['report']}"
    return None


def start_load(service: Path, rate: int) -> subprocess.Popen[str]:
    """A drill on the stage's URL until it is terminated."""
    _, status = run(service, ["aws", "status", "--stage", STAGE])
    words = ["drill", "--target", status["url"], "--requests", str(service.parent / "requests.jsonl")]
    words += ["--rate", str(rate), "--duration", "7200", "--stage", STAGE, "--json"]
    return subprocess.Popen(
        [str(HITLESS), *words], cwd=service, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
