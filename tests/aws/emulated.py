"""Emulated AWS: one ministack behind one front, as the tests and the demo start it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from tests.aws.front.emulators import Emulator, clean_environ, start_ministack
from tests.aws.front.front import Front, api_url
from tests.commands import run_hitless
from tests.support import free_port


@dataclass(frozen=True)
class EmulatedAws:
    """AWS as a test sees it. `environ` is for subprocesses; `client` for looks that are recorded as the test's own."""

    front: Front
    emulator: Emulator
    environ: dict[str, str]
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        return self.front.url

    def client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client that bypasses the front: its calls are not recorded, and templates pass unchanged."""
        return self.front.backend.client(service, region or self.region)

    def session_client(self, service: str, region: str | None = None) -> Any:
        """A boto3 client through the front, like the product's own calls."""
        return boto3.session.Session().client(
            service,
            region_name=region or self.region,
            endpoint_url=self.front.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def service_url(self, stack: str, stage: str, region: str) -> str:
        """The URL at which the front serves the REST API of a service stack."""
        resources = self.client("cloudformation", region).describe_stack_resources(StackName=stack)["StackResources"]
        (api,) = (one for one in resources if one["ResourceType"] == "AWS::ApiGateway::RestApi")
        return self.api_url(api["PhysicalResourceId"], stage)

    def hitless(self, *words: str, folder: Path, ok: tuple[int, ...] = (0,)) -> dict[str, Any]:
        """Runs `hitless … --json` in a service's folder against this AWS and returns its document."""
        ran = run_hitless(*words, "--json", folder=folder, environ=self.environ)
        assert ran.code in ok, f"{' '.join(words)} ended with {ran.code}\n{ran.err}\n{ran.out}"
        document: dict[str, Any] = ran.json
        return document

    def api_url(self, api_id: str, stage: str) -> str:
        return api_url(self.front.url, api_id, stage)


def aws_environ(url: str, waits_factor: float) -> dict[str, str]:
    """An environment in which botocore and osls find only the front, and nothing else of AWS."""
    return clean_environ() | {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "HITLESS_AWS_POLL_SECONDS": "0.2",
        "HITLESS_AWS_CLOCK_FACTOR": f"{waits_factor:g}",
        "SLS_AWS_MONITORING_FREQUENCY": "300",
        "SLS_TELEMETRY_DISABLED": "1",
        "SLS_NOTIFICATIONS_MODE": "off",
    }


@contextlib.contextmanager
def emulated_aws(folder: Path, *, clock_factor: float = 60.0, waits_factor: float = 5.0) -> Iterator[EmulatedAws]:
    """Both on free ports, for as long as the context; nothing of them stays behind but logs in `folder`.

    CodeDeploy's minutes pass faster by `clock_factor`, by `waits_factor` what hitless itself watches and waits out: a
    request that is in hand meanwhile is answered no faster than elsewhere.
    """
    front_port, port = free_port(), free_port()
    emulator = start_ministack(port, folder, front_url=f"http://127.0.0.1:{front_port}")
    try:
        with Front(front_port, emulator.url, clock_factor=clock_factor) as front:
            yield EmulatedAws(front, emulator, aws_environ(front.url, waits_factor))
    finally:
        emulator.stop()
