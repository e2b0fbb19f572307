"""Releases that do not succeed: a failed smoke request, broken code, a lost network, SIGKILL, two at once, an abort."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from hitless.aws.events import DETAIL_TYPE, SOURCE, ReleaseEnded
from tests.aws.emulated import EmulatedAws
from tests.aws.front.faults import Fault
from tests.aws.release_support import REGION, Client, Worldclock
from tests.commands import run_hitless
from tests.support import eventually

pytestmark = pytest.mark.aws

ROOT = Path(__file__).parents[2]
FUNCTIONS = ("zones", "convert", "meetings", "meta")
BROKEN = """
_answer = handler


def handler(event, context):
    if event["path"] == "/openapi.json":
        raise RuntimeError("broken on purpose")
    return _answer(event, context)
"""
SAYS_500 = BROKEN.replace('raise RuntimeError("broken on purpose")', 'return {"statusCode": 500, "body": "{}"}')


def baking(service: Worldclock) -> bool:
    """Whether two versions share the alias of `meta`."""
    alias = service.aws.client("lambda", REGION).get_alias(FunctionName="worldclock-prod-meta", Name="live")
    return bool(alias.get("RoutingConfig", {}).get("AdditionalVersionWeights"))


@contextlib.contextmanager
def deploying(service: Worldclock, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A deploy that stays in the middle of its shift inside the block; its process ends with the block."""
    codedeploy = service.aws.front.codedeploy
    before = set(codedeploy.deployments)

    def shifts() -> bool:
        """All of worldclock's functions, so that no shift of this deploy is mistaken for the next one's."""
        made = [one for name, one in list(codedeploy.deployments.items()) if name not in before]
        return sum(bool(one.percent) for one in made if one.creator == "user") == len(FUNCTIONS)

    with codedeploy.held_bakes(), service.start("deploy", **environ) as deploy:
        try:
            eventually(lambda: shifts() or deploy.poll() is not None, deadline_s=180, every_s=0.1, what="it shifts")
            assert deploy.poll() is None, deploy.communicate()
            yield deploy
        finally:
            deploy.kill()


def test_a_stage_survives_failed_interrupted_and_concurrent_releases(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path)
    strategy = "strategy: Canary10Percent5Minutes"
    service.edit("serverless.yml", strategy, f"{strategy}\n        alarms: {{minimum_requests: 3}}")  # emulated: slow
    _a_first_release_that_fails_its_smoke_requests_never_gets_a_stage(service)
    _broken_code_is_rolled_back_by_its_alarm_and_no_reader_sees_it(service)
    _without_a_shield_readers_get_the_canarys_share_of_500s(service)
    _deploys_that_lose_the_network_or_are_killed_are_continued(service)
    _the_newer_of_two_deploys_continues_and_can_be_aborted(service)


def _a_first_release_that_fails_its_smoke_requests_never_gets_a_stage(service: Worldclock) -> None:
    service.edit("worldclock/handlers/meta.py", '{"status": "ok"}', '{"status": 1 / 0}')
    early = ("cloudformation:CreateStack", "lambda:GetFunctionConfiguration", "lambda:Invoke")
    service.aws.front.faults += [Fault("unspread", operation, 1) for operation in early]
    ended = service.run("deploy")
    assert [one.struck for one in service.aws.front.faults] == [1, 1, 1], "what core and the stack have just made"
    service.aws.front.faults.clear()
    assert ended.code == 3, ended.err
    assert ended.json["outcome"] == "rolled_back"
    assert "GET /health" in ended.json["reason"]
    gateway = service.aws.client("apigateway", REGION)
    (api,) = gateway.get_rest_apis()["items"]
    assert gateway.get_stages(restApiId=api["id"])["item"] == []

    service.edit("worldclock/handlers/meta.py", '{"status": 1 / 0}', '{"status": "ok"}')
    fixed = service.run("deploy")
    assert (fixed.code, fixed.json["release"]) == (0, 2), fixed.err
    assert service.get("/health") == (200, {"status": "ok"})
    sent = [call.status for call in service.aws.front.calls if call.action == "events:PutEvents"]
    assert sent == [200, 200], "one event for each release that ended"
    page = (ROOT / "docs" / "aws-releases.md").read_text("utf-8")
    (pattern,) = re.findall(r"--event-pattern \\\n *'(.*)'", page)
    (detail,) = (json.loads(line) for line in page.splitlines() if line.startswith('{"service"'))
    event = {
        "source": SOURCE,
        "detail-type": DETAIL_TYPE,
        "detail": detail,
        "id": "1",
        "account": "1",
        "region": REGION,
    }
    event |= {"time": "2026-11-24T12:00:00Z", "resources": []}
    matched = service.aws.client("events", REGION).test_event_pattern(EventPattern=pattern, Event=json.dumps(event))
    assert matched["Result"], "the page's rule does not match the page's event"
    assert detail.keys() == set(ReleaseEnded.__struct_fields__)


def _broken_code_is_rolled_back_by_its_alarm_and_no_reader_sees_it(service: Worldclock) -> None:
    service.aws.front.faults.append(early := Fault("unspread", "lambda:AddPermission", 2))
    service.aws.front.codedeploy.refuse_role(2)
    client, ended = _ship_broken(service, BROKEN)
    service.aws.front.faults.clear()
    assert early.struck == 2
    assert client.failed == 0, client.statuses
    assert client.shielded > 0
    assert ended["candidate"]["shielded"] > 0
    assert ended["candidate"]["failed"] == 0
    (stage,) = service.stages()
    assert not stage.get("variables")
    function = "worldclock-prod-meta"
    with pytest.raises(ClientError, match="No policy"):
        service.aws.client("lambda", REGION).get_policy(FunctionName=function, Qualifier="2")
    qualified = f"arn:aws:lambda:{REGION}:000000000000:function:{function}:2"
    calls = [call for call in service.aws.front.calls if call.resources == (qualified,) and call.status < 300]
    handed_over = [at for at, call in enumerate(calls) if call.action == "lambda:InvokeFunction"]
    let = max(at for at, call in enumerate(calls) if call.action == "lambda:AddPermission")
    let_no_more = max(at for at, call in enumerate(calls) if call.action == "lambda:RemovePermission")
    assert sum(let < at < let_no_more for at in handed_over) >= client.shielded


def _without_a_shield_readers_get_the_canarys_share_of_500s(service: Worldclock) -> None:
    with_shield = (service.folder / "serverless.yml").read_text()
    alarms = "alarms: {minimum_requests: 3}"
    service.edit("serverless.yml", alarms, f"{alarms}\n        shield: false")
    client, ended = _ship_broken(service, SAYS_500)
    (service.folder / "serverless.yml").write_text(with_shield)
    assert 0 < client.failed < client.asked / 2, client.statuses
    assert client.shielded == ended["candidate"]["shielded"] == 0
    assert ended["candidate"]["failed"] > 0, "an answer of 5xx is none of Lambda's errors, and counts all the same"


def _ship_broken(service: Worldclock, code: str) -> tuple[Client, Any]:
    """Ships a broken canary with half the requests under load; returns the result of its deploy."""
    meta = service.folder / "worldclock" / "handlers" / "meta.py"
    whole = meta.read_text()
    meta.write_text(whole + code)
    with Client(service.url + "/openapi.json", every_s=0.02) as client:
        ended = service.run("deploy", "--strategy", "Canary50Percent20Minutes")
    meta.write_text(whole)
    print(f"broken canary: {client.failed} of {client.asked} GETs failed, {client.shielded} shielded; {ended.out}")
    assert (ended.code, ended.json["outcome"]) == (3, "rolled_back"), ended.err
    assert "alarm" in ended.json["reason"].lower()
    weights = service.run("status").json["weights"]
    assert weights == {name: {"2": 100} for name in FUNCTIONS}
    assert service.get("/version")[1]["release"] == 2
    _its_receipt_agrees_with_the_client(service, client, ended.json["release"])
    return client, ended.json


def _its_receipt_agrees_with_the_client(service: Worldclock, client: Client, number: int) -> None:
    page = service.folder / "receipt.html"
    shown = service.run("releases", str(number), "--html", str(page))
    assert shown.code == 0, shown.err
    (rollout,) = shown.json["rollouts"]
    receipt = rollout["receipt"]
    assert (receipt["candidate"]["failed"], receipt["candidate"]["shielded"]) == (client.failed, client.shielded)
    assert list(receipt["candidate"]["functions"]) == list(receipt["live"]["functions"])
    assert receipt["clients"]["by_class"].get("5xx", 0) == client.failed == shown.json["cost"]["failed"]
    assert [each["asked_percent"] for each in receipt["weights"]] == [0, 50]
    assert "alarm" in receipt["alarms"]["verdicts"]
    assert (rollout["verb"], rollout["outcome"], rollout["previous_release"]) == ("deploy", "rolled_back", 2)
    assert f"release {number}: {client.failed} of" in page.read_text()


def _deploys_that_lose_the_network_or_are_killed_are_continued(service: Worldclock) -> None:
    service.mark("cut off")
    faults = service.aws.front.faults
    with deploying(service, AWS_MAX_ATTEMPTS="1") as deploy:
        faults.append(Fault("cut", "*"))
        out, err = deploy.communicate()
        assert (deploy.returncode, json.loads(out)["error"]["code"]) == (1, "machine"), err
        assert "repeat the command: it continues" in err
        faults.clear()
    with deploying(service) as deploy:
        deploy.kill()
        deploy.communicate()
        number = service.run("releases").json[0]["release"]
    with Client(service.url + "/version") as client:
        again = service.run("deploy")
    assert (again.code, again.json["outcome"], again.json["release"]) == (0, "live", number), again.err
    assert number == 5, "one release, however often it was begun"
    assert client.failed == 0, client.statuses
    assert not baking(service)


def _the_newer_of_two_deploys_continues_and_can_be_aborted(service: Worldclock) -> None:
    before = service.run("status").json
    service.mark("older")
    with deploying(service) as older:
        service.mark("newer")
        with deploying(service) as newer:
            out, err = older.communicate()
            assert (older.returncode, json.loads(out)["outcome"]) == (4, "superseded"), err
            stopped = service.run("abort")
            assert stopped.code == 0, stopped.err
            assert stopped.json["stopped"]
            out, err = newer.communicate()
            assert (newer.returncode, json.loads(out)["outcome"]) == (4, "aborted"), err
    after = service.run("status").json
    assert (after["release"], after["weights"]) == (before["release"], before["weights"])
    assert after["candidate"] is None
    none = service.run("abort")
    assert (none.code, none.json["error"]["code"]) == (1, "conflict")


def test_a_missing_core_stack_and_missing_credentials_are_reported(aws: EmulatedAws, tmp_path: Path) -> None:
    service = Worldclock.new(aws, tmp_path, core=False)
    ended = service.run("status")
    assert (ended.code, ended.json["error"]["code"]) == (2, "usage")
    assert "hitless aws bootstrap" in ended.json["error"]["hint"]
    bare = {key: value for key, value in service.environ.items() if "ACCESS_KEY" not in key}
    done = run_hitless(*service.words("status"), folder=service.folder, environ=bare)
    assert (done.code, done.json["error"]["code"]) == (1, "machine")
    assert "no AWS credentials" in done.err
