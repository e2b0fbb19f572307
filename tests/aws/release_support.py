"""A copy of worldclock, a small core stack, the `hitless aws` command, and a client that counts failures."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from hitless.aws.osls import find_osls
from tests.aws.emulated import EmulatedAws
from tests.commands import Ran, run_hitless

REGION = "eu-central-1"
EXAMPLE = Path(__file__).parents[2] / "examples" / "worldclock"
HITLESS = Path(sys.executable).with_name("hitless")
KEPT_OSLS = Path(__file__).with_name("kept_osls.py")

CORE: dict[str, Any] = {
    "Resources": {
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "worldclock-prod-artifacts"}},
        "Vpc": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}},
        "Subnet": {"Type": "AWS::EC2::Subnet", "Properties": {"VpcId": {"Ref": "Vpc"}, "CidrBlock": "10.0.1.0/24"}},
        "Group": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {"VpcId": {"Ref": "Vpc"}, "GroupDescription": "functions"},
        },
    },
    "Outputs": {
        "ArtifactBucketName": {"Value": {"Ref": "Bucket"}},
        "VpcId": {"Value": {"Ref": "Vpc"}},
        "PrivateSubnetIds": {"Value": {"Ref": "Subnet"}},
        "LambdaSecurityGroupId": {"Value": {"Ref": "Group"}},
    },
}
"""What a release needs of core, and no more: core itself has tests of its own."""


def make_core(aws: EmulatedAws, stage: str) -> None:
    """Creates the stage's core stack."""
    name, client = f"worldclock-core-{stage}", aws.client("cloudformation", REGION)
    client.create_stack(StackName=name, TemplateBody=json.dumps(CORE).replace("worldclock-prod", f"worldclock-{stage}"))
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


@dataclass
class Worldclock:
    """The service in its own folder, for stage prod on the emulated AWS."""

    aws: EmulatedAws
    folder: Path
    packages: Path
    """Where what osls has packaged is kept: the same serverless.yml is packaged but once."""

    @classmethod
    def new(cls, aws: EmulatedAws, place: Path, *, core: bool = True, packages: Path | None = None) -> Worldclock:
        folder = place / "worldclock"
        ignored = shutil.ignore_patterns("__pycache__", ".hitless", ".pytest_cache", ".hypothesis")
        shutil.copytree(EXAMPLE, folder, ignore=ignored)
        if core:
            make_core(aws, "prod")
        return cls(aws, folder, packages or place.parent / "packages")

    def words(self, *words: str) -> tuple[str, ...]:
        data = self.folder.parent.parent / "shared-data"  # the requirements are installed once
        return ("aws", *words, "--stage", "prod", "--service-dir", str(self.folder), "--data-dir", str(data), "--json")

    @functools.cached_property
    def environ(self) -> dict[str, str]:
        own = {**self.aws.environ, "SLS_AWS_MONITORING_FREQUENCY": "300"}
        self.packages.mkdir(exist_ok=True)
        real = find_osls(self.folder, own).command[0]
        return own | {"HITLESS_OSLS": str(KEPT_OSLS), "KEPT_OSLS": real, "KEPT_PACKAGES": str(self.packages)}

    def run(self, *words: str, **environ: str) -> Ran:
        return run_hitless(*self.words(*words), folder=self.folder, environ=self.environ | environ)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(HITLESS), *self.words(*words)],
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} has changed"
        path.write_text(text.replace(old, new))

    def mark(self, text: str) -> None:
        """Changes the bytes of the release and not its behaviour."""
        with (self.folder / "worldclock" / "api.py").open("a") as file:
            file.write(f"\n# {text}\n")

    def stages(self) -> list[dict[str, Any]]:
        """The API's stages."""
        (api,) = self.aws.client("apigateway", REGION).get_rest_apis()["items"]
        return list(self.aws.client("apigateway", REGION).get_stages(restApiId=api["id"])["item"])

    @property
    def url(self) -> str:
        (api,) = self.aws.client("apigateway", REGION).get_rest_apis()["items"]
        return self.aws.api_url(api["id"], "prod")

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")


@dataclass
class Client:
    """Requests one URL repeatedly in a thread; counts responses by status, failures and shielded responses."""

    url: str
    every_s: float = 0.1
    statuses: dict[int | str, int] = field(default_factory=dict)
    shielded: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Client:
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def _ask(self) -> None:
        while not self._stop.is_set():
            status: int | str
            try:
                with urllib.request.urlopen(self.url, timeout=60) as answer:
                    answer.read()
                    status = answer.status
                    self.shielded += answer.headers["x-hitless-shielded"] == "1"
            except urllib.error.HTTPError as error:
                error.close()
                status = error.code
            except OSError as error:
                status = type(error).__name__
            self.statuses[status] = self.statuses.get(status, 0) + 1
            time.sleep(self.every_s)

    @property
    def asked(self) -> int:
        return sum(self.statuses.values())

    @property
    def failed(self) -> int:
        return self.asked - self.statuses.get(200, 0)
