"""The emulator as the front's own parts use it: plain HTTP for frequent calls, boto3 in threads for the rest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.aws.front.standins import PREFIX

TEMPLATE_BUCKET = "front-templates"


class Backend:
    """One emulator. `regions` are those called so far: a REST API is searched for in each."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.regions: set[str] = {"us-east-1"}
        self._clients: dict[tuple[str, str], Any] = {}
        self._http: httpx.AsyncClient | None = None

    @property
    def http(self) -> httpx.AsyncClient:
        assert self._http is not None, "the front does not run"
        return self._http

    async def __aenter__(self) -> Backend:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        self._http = httpx.AsyncClient(timeout=180, limits=limits, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    def client(self, service: str, region: str) -> Any:
        """A boto3 client that bypasses the front, so that its calls are not recorded."""
        key = (service, region)
        if key not in self._clients:
            self._clients[key] = boto3.session.Session().client(
                service,
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"max_attempts": 3}, max_pool_connections=20),
            )
        return self._clients[key]

    async def aws(self, call: Callable[[], Any]) -> Any:
        """Runs a blocking call of a client in a thread."""
        return await asyncio.to_thread(call)

    async def rest(
        self, method: str, path: str, *, service: str, region: str, content: bytes = b"", log_tail: bool = False
    ) -> httpx.Response:
        """A call of the REST protocols without boto3's overhead. The emulator reads the scope, not the signature."""
        scope = f"Credential=test/20260101/{region}/{service}/aws4_request"
        headers = {"authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"}
        if log_tail:
            headers["x-amz-log-type"] = "Tail"
        return await self.http.request(method, self.url + path, content=content, headers=headers)

    async def stack_parameters(self, name: str, region: str) -> dict[str, str]:
        """The present parameters of a stack; none if the stack does not exist."""
        client = self.client("cloudformation", region)
        try:
            found = await self.aws(lambda: client.describe_stacks(StackName=name))
        except ClientError:
            return {}
        return {
            one["ParameterKey"]: one["ParameterValue"]
            for stack in found["Stacks"]
            for one in stack.get("Parameters", [])
        }

    async def keep_template(self, text: str, region: str) -> str:
        """Stores a template in the front's own bucket and returns its URL."""
        client = self.client("s3", region)
        key = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

        def put() -> None:
            if region == "us-east-1":
                client.create_bucket(Bucket=TEMPLATE_BUCKET)
            else:
                where = {"LocationConstraint": region}
                client.create_bucket(Bucket=f"{TEMPLATE_BUCKET}-{region}", CreateBucketConfiguration=where)

        bucket = TEMPLATE_BUCKET if region == "us-east-1" else f"{TEMPLATE_BUCKET}-{region}"
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            await self.aws(put)
        await self.aws(lambda: client.put_object(Bucket=bucket, Key=key, Body=text.encode()))
        return f"{self.url}/{bucket}/{key}"

    async def stand_ins(self, region: str, *types: str) -> list[tuple[str, dict[str, Any]]]:
        """(`STACK/LOGICAL-ID`, resolved properties) of the stand-ins of these types, see standins.py."""

        def read() -> list[dict[str, Any]]:
            pages = self.client("ssm", region).get_paginator("get_parameters_by_path")
            return [
                parameter for page in pages.paginate(Path=PREFIX, Recursive=True) for parameter in page["Parameters"]
            ]

        found = []
        for parameter in await self.aws(read):
            held = json.loads(parameter["Value"])
            if held["Type"] in types:
                found.append((parameter["Name"].removeprefix(PREFIX), held["Properties"]))
        return found
