"""Ships definitions of a service on emulated AWS by the release layer's own code, in this process.

`osls package` is spared: a definition compiles itself (tests/unit/definitions.py; tests/aws/test_definitions.py holds
that against osls). So is the start of Node for each update: the state that osls would be given goes to CloudFormation
as osls sends it. All else is what `hitless aws deploy` does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from hitless.artifact.archive import ZipMember, digest_of, write
from hitless.artifact.model import Artifact
from hitless.aws.api_stages import ApiStages
from hitless.aws.buckets import Bucket
from hitless.aws.codedeploy import CodeDeploy, Shift
from hitless.aws.events import send_event
from hitless.aws.lambdas import Autoscaling, Lambdas
from hitless.aws.osls import Osls, Packaged
from hitless.aws.stacks import Stacks
from hitless.aws.traffic import Traffic
from hitless.clock import SystemClock
from hitless.cloud.records.records import Records, Rollouts
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.packaging import ServicePackage
from hitless.cloud.stage.core_outputs import CoreOutputs
from hitless.cloud.stage.shield import Shield
from hitless.cloud.stage.stage import Cloud, ServiceStack
from hitless.cloud.transform.model import ALIAS, short_hash
from hitless.drill.target import fault_of
from hitless.release.result import Result
from hitless.release.who import NOBODY
from hitless.service import event_sources, model
from hitless.service.strategy import parse
from tests.aws.emulated import EmulatedAws
from tests.unit.definitions import REGION, SERVICE, STAGE, Definition, Route, lambda_name

STACK = f"{SERVICE}-{STAGE}"
BUCKET = f"{STACK}-artifacts"
POLL_S = 0.1
IN_HAND_S = 0.5
"""How long the shield stands on after a shift: here no request takes longer."""

APP = """
import json
import time


def handler(event, context):
    if "LifecycleEventHookExecutionId" in event:
        import boto3

        boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
            deploymentId=event["DeploymentId"],
            lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
            status="Succeeded",
        )
        return None
    if event.get("type") == "REQUEST":
        effect = "Allow" if (event.get("headers") or {}).get("Authorization") == "let me" else "Deny"
        statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": event["methodArn"]}
        return {"principalId": "a", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}}
    if not {f"{method} {event['resource']}" for method in (event["httpMethod"], "ANY")} & set(ROUTES):
        return {"statusCode": 404, "body": "a route that this version does not have"}
    if "LETTER" == "x":
        raise RuntimeError("broken on purpose")
    if "LETTER" == "s":
        time.sleep(0.4)
    said = {"function": context.function_name, "version": context.function_version, "letter": "LETTER"}
    return {"statusCode": 200, "body": json.dumps(said)}
"""


@dataclass(frozen=True)
class DirectOsls(Osls):
    """Deploys a generated state as `osls deploy --package --force` with `deploymentMethod: direct` does."""

    cloudformation: Any = None
    s3: Any = None

    def deploy(self, folder: Path, state: Mapping[str, Any]) -> str | None:
        """None if it succeeded, else the stack's last reason."""
        provider = state["service"]["provider"]
        key = f"{state['package']['artifactDirectoryName']}/compiled-cloudformation-template.json"
        body = json.dumps(provider["compiledCloudFormationTemplate"]).encode()
        self.s3.put_object(Bucket=provider["deploymentBucket"], Key=key, Body=body)
        given = {
            "StackName": STACK,
            "TemplateURL": f"https://s3.amazonaws.com/{provider['deploymentBucket']}/{key}",
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
            "Tags": [{"Key": name, "Value": value} for name, value in provider["stackTags"].items()],
        }
        try:
            self._change(given)
        except ClientError as error:
            said = str(error)
            return None if "No updates are to be performed" in said else said
        return self._followed()

    def _change(self, given: Mapping[str, Any]) -> None:
        try:
            self.cloudformation.describe_stacks(StackName=STACK)
        except ClientError:
            self.cloudformation.create_stack(**given)
        else:
            self.cloudformation.update_stack(**given)

    def _followed(self) -> str | None:
        while True:
            (stack,) = self.cloudformation.describe_stacks(StackName=STACK)["Stacks"]
            status = str(stack["StackStatus"])
            if not status.endswith("_IN_PROGRESS"):
                return None if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE") else str(stack.get("StackStatusReason"))
            time.sleep(POLL_S)


def _route(route: Route) -> event_sources.Route:
    return event_sources.Route(route.method, f"/{route.path.lstrip('/')}")


@dataclass
class Demo:
    """The stage of one service. `on_say` gets each message of a release as it is printed."""

    aws: EmulatedAws
    place: Path
    on_say: Callable[[str], None] = lambda said: None
    said: list[str] = field(default_factory=list)
    alarms: model.AlarmSettings = model.AlarmSettings()  # noqa: RUF009 - frozen
    _zips: dict[str, Path] = field(default_factory=dict)
    _clients: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls, aws: EmulatedAws, place: Path) -> Demo:
        where = {"LocationConstraint": REGION}
        aws.client("s3", REGION).create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
        for domain in ("a.example.com", "b.example.com"):  # core's
            aws.client("apigateway", REGION).create_domain_name(domainName=domain)
        return cls(aws, place)

    def ship(self, definition: Definition) -> Result:
        """One process's `hitless aws deploy`. Raises the error that it would print."""
        self.said = []
        shipped = parse(definition.strategy)
        deploy = Deploy(self.cloud(), lambda digest: self._zips[digest])
        return deploy.run(self.package(definition), strategy=shipped, commit=None, message=None)

    def package(self, definition: Definition) -> ServicePackage:
        """The result of a build and `osls package`."""
        functions = tuple(
            model.Function(key, "app.handler", routes=tuple(map(_route, one.routes)))
            for key, one in definition.functions.items()
        )
        hooks = model.Hooks(pre_traffic=definition.pre_traffic)
        settings = model.StageSettings(STAGE, STAGE, hooks=hooks, alarms=self.alarms)
        file = self.place / "serverless.yml"
        service = model.Service(SERVICE, self.place, file, STAGE, REGION, (settings,), functions)
        names = {lambda_name(key, one): key for key, one in definition.functions.items()}
        packaged = Packaged(SERVICE, STAGE, REGION, STACK, definition.compiled(), names)
        core = CoreOutputs((), "", BUCKET, domain=definition.domain, permissions_boundary_arn=definition.boundary)
        artifacts = {one.name: self._artifact(definition.functions[one.name].letter, one) for one in functions}
        return ServicePackage(service, packaged, artifacts, core)

    def _artifact(self, letter: str, function: model.Function) -> Artifact:
        """Code with the routes of its function only: other routes give other bytes."""
        routes = sorted(map(str, function.routes))
        path = self.place / f"{short_hash([letter, routes])}.zip"
        if not path.exists():
            write(path, [ZipMember("app.py", APP.replace("LETTER", letter).replace("ROUTES", str(routes)).encode())])
        digest = digest_of(path)
        self._zips[digest] = path
        size = path.stat().st_size
        return Artifact(digest, size, size, False, "python3.11", "x86_64")

    def cloud(self) -> Cloud:
        """All adapters, as the command line builds them."""
        clock, client = SystemClock(), self._client
        cloudformation, lambdas = client("cloudformation"), Lambdas(client("lambda"))
        bucket, traffic = Bucket(client("s3"), BUCKET), Traffic(client("cloudwatch"))
        osls = DirectOsls((), {}, cloudformation=cloudformation, s3=client("s3"))
        stack = ServiceStack(
            STACK, service=SERVICE, stage=STAGE, region=REGION, core=CoreOutputs((), "", BUCKET),
            stacks=Stacks(cloudformation, say=self.say, poll_s=POLL_S), cloudformation=cloudformation, lambdas=lambdas,
            osls=lambda: osls, say=self.say, now=clock.now,
        )  # fmt: skip
        return Cloud(
            stack=stack, bucket=bucket, records=Records(bucket, STAGE), lambdas=lambdas,
            shift=Shift(
                CodeDeploy(client("codedeploy"), STACK), lambdas, alias=ALIAS, poll_s=POLL_S,
                clock_factor=self.aws.front.codedeploy.clock_factor,
            ),
            shield=Shield(ApiStages(client("apigateway")), lambdas, self.say, lambda _: time.sleep(IN_HAND_S)),
            autoscaling=Autoscaling(client("application-autoscaling")),
            api=ApiStages(client("apigateway")),
            traffic=traffic, rollouts=Rollouts(bucket, STAGE, traffic, clock),
            tell_ended=partial(send_event, client("events"), self.say), who=NOBODY, clock=clock, say=self.say,
            ask=fault_of,
        )  # fmt: skip

    def _client(self, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self.aws.session_client(name, REGION)
        return self._clients[name]

    def say(self, said: str) -> None:
        self.said.append(said)
        self.on_say(said)

    @property
    def url(self) -> str | None:
        """The URL of the API; None if there is none."""
        found = self.aws.client("apigateway", REGION).get_rest_apis()["items"]
        return self.aws.api_url(found[0]["id"], STAGE) if found else None
