"""Variables that only AWS knows: osls resolves them with the credentials of the stage's deploy role."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from hitless.artifact.model import Artifact
from hitless.aws.session import DEPLOY_ROLE_VARIABLE, connect
from hitless.cloud.stage.core_outputs import read_core_outputs
from hitless.homes.aws_deploy import packaged
from hitless.homes.home import Workplace

pytestmark = pytest.mark.aws

BUILDS, RELEASES = "123456789012", "210987654321"
SERVICE = """\
service: clock
provider:
  name: aws
  region: us-east-1
  runtime: python3.11
  stage: ${opt:stage, 'dev'}
  profile: somebodys-laptop
  environment:
    ACCOUNT: ${aws:accountId}
    KEY: key-${ssm:/clock/${sls:stage}/key}
    TABLE: ${cf:tables-dev.Table}
    MODE: ${ssm:/clock/dev/none, 'plain'}
functions: {api: {handler: app.handler, events: [{http: GET /time}]}}
"""


@pytest.fixture
def environ(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    given = {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        DEPLOY_ROLE_VARIABLE: f"arn:aws:iam::{RELEASES}:role/deploy",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return given


def fill(moto_url: str) -> None:
    """Parameters and a stack in both accounts, with the account's number in each value."""
    sts = boto3.client("sts", region_name="us-east-1", endpoint_url=moto_url)
    for account in (BUILDS, RELEASES):
        role = f"arn:aws:iam::{account}:role/somebody"
        lent = sts.assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
        session = boto3.Session(lent["AccessKeyId"], lent["SecretAccessKey"], lent["SessionToken"], "us-east-1")
        ssm = session.client("ssm", endpoint_url=moto_url)
        ssm.put_parameter(Name="/clock/dev/key", Value=f"of-{account}", Type="SecureString")
        topic: dict[str, Any] = {"Type": "AWS::SNS::Topic"}
        outputs = {"Table": {"Value": f"table-{account}"}}
        body = str({"Resources": {"T": topic}, "Outputs": outputs}).replace("'", '"')
        session.client("cloudformation", endpoint_url=moto_url).create_stack(StackName="tables-dev", TemplateBody=body)


def test_osls_resolves_them_in_the_account_of_the_deploy_role(
    tmp_path: Path, moto_url: str, environ: dict[str, str]
) -> None:
    """serverless.com/framework/docs/guides/variables/aws: `${ssm:}` and `${cf:}` take the provider's credentials, and
    `${aws:accountId}` is the account of these credentials. A build has others than the deploy role.
    """
    fill(moto_url)
    (tmp_path / "app.py").write_text("def handler(event, context): return {'statusCode': 200}\n")
    (tmp_path / "serverless.yml").write_text(SERVICE)
    place = Workplace(stage="dev", service_dir=tmp_path, data_dir=tmp_path / ".hitless", say=lambda _: None)
    service = place.load_for_aws()
    aws = connect("us-east-1", environ)
    assert aws.identity().account == RELEASES
    artifact = Artifact("sha256:" + "0" * 64, 1, 1, False, "python3.11", "x86_64")
    made = packaged(place, service, read_core_outputs(tmp_path, None), aws.subprocess_environ(), {"api": artifact})
    expected = {
        "ACCOUNT": RELEASES,
        "KEY": f"key-of-{RELEASES}",
        "MODE": "plain",
        "TABLE": f"table-{RELEASES}",
    }
    function = made.packaged.template["Resources"]["ApiLambdaFunction"]["Properties"]
    assert function["Environment"]["Variables"] == expected
    (recorded,) = made.document(commit=None, message=None).functions
    assert dict(recorded.environment) == expected, "an engine can start the same release"
