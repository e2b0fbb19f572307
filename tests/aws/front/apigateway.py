"""API requests through the front: API Gateway's data plane with the split by alias weight, which ministack does not
have.

As on AWS, and unlike the emulator:
* what a stage serves is the API as its deployment froze it, not the resources as they are edited: a stage is read anew
  only when it names another deployment;
* an integration on an alias goes to one of two versions by `RoutingConfig.AdditionalVersionWeights`;
* without a resource policy on that very alias for apigateway.amazonaws.com the answer is 500;
* `AWS/Lambda` has Invocations and Errors by (FunctionName, Resource) and (FunctionName, Resource, ExecutedVersion);
  Errors counts what the runtime failed, not a 5xx that the handler returned
  (docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html);
* a line in the embedded metric format that a function logs becomes a metric;
* a stage's variables, as they are now, are in the event;
* a method may want an API key, or ask an authorizer: admission.py.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from tests.aws.front.admission import Admission, Authorizer, lambda_of, refused
from tests.aws.front.backend import Backend
from tests.aws.front.calls import Operation
from tests.aws.front.calls import Request as AwsRequest
from tests.aws.front.metrics import data_of, dimensions_of, embedded_metrics
from tests.aws.front.proxy_integration import event_of, message, proxy_response

_FRESH_S: Final = 0.1
_PUBLISH_S: Final = 0.5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a deployed API: path segments, HTTP method or ANY, the integration's function, alias or version."""

    resource: str
    segments: tuple[str, ...]
    verb: str
    function: str
    qualifier: str
    key_required: bool = False
    authorizer: Authorizer | None = None


@dataclass(frozen=True, slots=True)
class DeployedStage:
    """A stage as its deployment froze it."""

    region: str
    deployment: str
    methods: tuple[Method, ...]
    api_name: str = ""
    variables: tuple[tuple[str, str], ...] = ()

    def match(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """The most specific method: a literal segment before {param} before {proxy+}, and the method's own verb before
        ANY.
        """
        wanted = [part for part in path.split("/") if part]
        found = [
            (rank, method, parameters)
            for method in self.methods
            if method.verb in (verb, "ANY") and (fits := _fits(method.segments, wanted)) is not None
            for rank, parameters in [((fits[0], method.verb == "ANY"), fits[1])]
        ]
        if not found:
            return None
        _, method, parameters = min(found, key=lambda item: item[0])
        return method, parameters


def _fits(segments: tuple[str, ...], wanted: list[str]) -> tuple[tuple[int, ...], dict[str, str]] | None:
    rank: list[int] = []
    parameters: dict[str, str] = {}
    for index, segment in enumerate(segments):
        if segment.endswith("+}"):
            if index >= len(wanted):
                return None
            return (*rank, 2), parameters | {segment[1:-2]: "/".join(wanted[index:])}
        if index >= len(wanted):
            return None
        if segment.startswith("{"):
            parameters[segment[1:-1]] = wanted[index]
            rank.append(1)
        elif segment == unquote(wanted[index]):
            rank.append(0)
        else:
            return None
    return (tuple(rank), parameters) if len(segments) == len(wanted) else None


@dataclass
class _Cached:
    value: Any = None
    read_at: float = -1e9
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class ApiRequests:
    """Serves `/restapis/{api}/{stage}/_user_request_/…`; `executed` counts by (function, qualifier, version)."""

    def __init__(self, backend: Backend, *, chance: random.Random | None = None) -> None:
        self._backend = backend
        self._chance = chance or random.Random(7)
        self._cache: dict[tuple[str, ...], _Cached] = {}
        self._unpublished: Counter[tuple[str, str, str, str, str]] = Counter()
        self._embedded: Counter[tuple[str, str, str, tuple[tuple[str, str], ...]]] = Counter()
        self._durations: defaultdict[tuple[str, str, str, str], list[float]] = defaultdict(list)
        self._environments: defaultdict[tuple[str, str], asyncio.Semaphore] = defaultdict(_environments)
        self._admission = Admission(backend, self._ask)
        self.executed: Counter[tuple[str, str, str]] = Counter()

    def forget(self) -> None:
        self._admission.forget()
        self._cache.clear()
        self._environments.clear()
        self._unpublished.clear()
        self._embedded.clear()
        self._durations.clear()
        self.executed.clear()

    async def answer(self, request: Request) -> Response:
        """One API request, as API Gateway answers and counts it."""
        parameters = request.path_params
        stage = await self._stage(parameters["api"], parameters["stage"])
        if stage is None:
            return message(403, "Forbidden")
        answer = await self._answer(request, stage)
        dimensions = (("ApiName", stage.api_name), ("Stage", parameters["stage"]))
        kinds = ["Count", *(kind for kind in ("4XXError", "5XXError") if answer.status_code // 100 == int(kind[0]))]
        for kind in kinds:
            self._embedded[stage.region, "AWS/ApiGateway", kind, dimensions] += 1
        return answer

    async def look(self) -> None:
        """Reads every known stage again, now: its deployment then shows the API as it is at this moment."""
        for key, cached in list(self._cache.items()):
            if key[0] == "stage":
                cached.read_at = -1e9
                await self._stage(key[1], key[2])

    async def _answer(self, request: Request, stage: DeployedStage) -> Response:
        parameters = request.path_params
        raw = request.scope["raw_path"].decode().partition("?")[0]
        path = "/" + raw.partition("/_user_request_")[2].lstrip("/")
        found = stage.match(request.method, path)
        if found is None:
            return message(403, "Missing Authentication Token", "MissingAuthenticationTokenException")
        method, path_parameters = found
        kept_out = await self._admission.refusal(
            request, stage.region, key_required=method.key_required, authorizer=method.authorizer
        )
        if kept_out is not None:
            return refused(kept_out)
        version = await self._called(stage.region, method.function, method.qualifier)
        if version is None:
            return message(500, "Internal server error")
        try:
            event = await event_of(
                request, parameters["api"], parameters["stage"], path, method.resource, path_parameters
            )
            event["stageVariables"] = dict(stage.variables) or None
        except ClientDisconnect:
            return message(400, "Bad Request")
        async with self._environments[method.function, version]:
            return await self._invoke(stage.region, method, version, event)

    async def _invoke(self, region: str, method: Method, version: str, event: Mapping[str, Any]) -> Response:
        path = f"/2015-03-31/functions/{quote(method.function)}/invocations?Qualifier={quote(version)}"
        began = time.monotonic()
        answer = await self._backend.rest(
            "POST", path, service="lambda", region=region, content=json.dumps(event).encode(), log_tail=True
        )
        for metric in embedded_metrics(base64.b64decode(answer.headers.get("x-amz-log-result", "")).decode()):
            self._embedded[region, *metric] += 1
        self._durations[region, method.function, method.qualifier, version].append(1000 * (time.monotonic() - began))
        failed = answer.status_code != 200 or "x-amz-function-error" in answer.headers
        self.executed[method.function, method.qualifier, version] += 1
        self._unpublished[region, method.function, method.qualifier, version, "Invocations"] += 1
        self._unpublished[region, method.function, method.qualifier, version, "Errors"] += failed
        return (
            message(502, "Internal server error", "InternalServerErrorException")
            if failed
            else proxy_response(answer.content)
        )

    async def _fresh(self, key: tuple[str, ...], read: Callable[[Any], Awaitable[T]]) -> T:
        """`read(previous value)`, at most every 0.1 s and by one request at a time: AWS too takes a moment."""
        cached = self._cache.setdefault(key, _Cached())
        async with cached.lock:
            if time.monotonic() - cached.read_at > _FRESH_S:
                cached.value = await read(cached.value)
                cached.read_at = time.monotonic()
            value: T = cached.value
            return value

    async def _stage(self, api: str, stage: str) -> DeployedStage | None:
        async def read(previous: DeployedStage | None) -> DeployedStage | None:
            regions = [previous.region] if previous else sorted(self._backend.regions)
            for region in regions:
                found = await self._get(f"/restapis/{api}/stages/{stage}", "apigateway", region)
                if found is None:
                    continue
                variables = tuple((found.get("variables") or {}).items())
                if previous and previous.deployment == found["deploymentId"]:
                    return replace(previous, variables=variables)
                named = await self._get(f"/restapis/{api}", "apigateway", region) or {}
                methods = await self._methods(api, region)
                return DeployedStage(region, found["deploymentId"], methods, str(named.get("name")), variables)
            return None

        return await self._fresh(("stage", api, stage), read)

    async def _ask(self, region: str, function: str, qualifier: str, event: Mapping[str, Any]) -> Any:
        """An authorizer's response; None if it may not be invoked, or fails."""
        version = await self._called(region, function, qualifier)
        if version is None:
            return None
        path = f"/2015-03-31/functions/{quote(function)}/invocations?Qualifier={quote(version)}"
        async with self._environments[function, version]:
            answer = await self._backend.rest(
                "POST", path, service="lambda", region=region, content=json.dumps(event).encode()
            )
        failed = answer.status_code != 200 or "x-amz-function-error" in answer.headers
        return None if failed else answer.json()

    async def _called(self, region: str, function: str, qualifier: str) -> str | None:
        """The version that answers; None if API Gateway may not invoke it, or it does not exist."""
        if not await self._permitted(region, function, qualifier):
            return None
        return await self._version(region, function, qualifier)

    async def _methods(self, api: str, region: str) -> tuple[Method, ...]:
        found = await self._get(f"/restapis/{api}/resources?embed=methods&limit=500", "apigateway", region)
        said = await self._get(f"/restapis/{api}/authorizers?limit=500", "apigateway", region) or {}
        authorizers = {one["id"]: Authorizer.of(one) for one in said.get("item") or () if one["type"] == "REQUEST"}
        methods = []
        for item in (found or {}).get("item", []):
            for verb, method in (item.get("resourceMethods") or {}).items():
                uri = (method.get("methodIntegration") or {}).get("uri", "")
                if ":function:" not in uri:
                    continue
                segments = tuple(part for part in item["path"].split("/") if part)
                key_required = bool(method.get("apiKeyRequired"))
                authorizer = authorizers.get(method.get("authorizerId", ""))
                methods.append(Method(item["path"], segments, verb, *lambda_of(uri), key_required, authorizer))
        return tuple(methods)

    async def may_be_handed_over(self, request: AwsRequest, operation: Operation) -> bool:
        """Whether a function may invoke a version, by that version's policy; of others IAM is only simulated."""
        if "hitless-shield" not in request.headers.get("user-agent", ""):
            return True
        region = request.scope[1] if request.scope else "us-east-1"
        function, qualifier = operation.parameters["FunctionName"], operation.parameters.get("Qualifier", "")
        found = await self._get(
            f"/2015-03-31/functions/{function}/policy?Qualifier={quote(qualifier)}", "lambda", region
        )
        role = await self._get(f"/2015-03-31/functions/{function}/configuration", "lambda", region)
        statements = json.loads(found["Policy"])["Statement"] if found else []
        return role is not None and any(one.get("Principal") == {"AWS": role["Role"]} for one in statements)

    async def _permitted(self, region: str, function: str, qualifier: str) -> bool:
        query = "" if qualifier == "$LATEST" else f"?Qualifier={quote(qualifier)}"

        async def read(_: object) -> bool:
            found = await self._get(f"/2015-03-31/functions/{function}/policy{query}", "lambda", region)
            statements = json.loads(found["Policy"])["Statement"] if found else []
            return any("apigateway.amazonaws.com" in json.dumps(one.get("Principal")) for one in statements)

        return await self._fresh(("policy", region, function, qualifier), read)

    async def _version(self, region: str, function: str, qualifier: str) -> str | None:
        if qualifier == "$LATEST" or qualifier.isdigit():
            return qualifier

        async def read(_: object) -> dict[str, Any] | None:
            return await self._get(f"/2015-03-31/functions/{function}/aliases/{qualifier}", "lambda", region)

        alias = await self._fresh(("alias", region, function, qualifier), read)
        if alias is None:
            return None
        weights = (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        drawn = self._chance.random()
        for version, weight in weights.items():
            if drawn < weight:
                return str(version)
            drawn -= weight
        return str(alias["FunctionVersion"])

    async def _get(self, path: str, service: str, region: str) -> dict[str, Any] | None:
        answer = await self._backend.rest("GET", path, service=service, region=region)
        return dict(answer.json()) if answer.status_code == 200 else None

    async def publish_metrics(self) -> None:
        """Twice a second; Lambda itself publishes each minute. Runs until cancelled."""
        while True:
            await asyncio.sleep(_PUBLISH_S)
            counts, self._unpublished = self._unpublished, Counter()
            embedded, self._embedded = self._embedded, Counter()
            durations, self._durations = self._durations, defaultdict(list)
            for region in {key[0] for key in counts}:
                data = [datum for key, count in counts.items() if key[0] == region for datum in data_of(key, count)]
                await self._publish(region, "AWS/Lambda", data)
            for (region, function, qualifier, version), values_ms in durations.items():
                _, dimensions = dimensions_of(function, qualifier, version)
                one = {"MetricName": "Duration", "Dimensions": dimensions, "Values": values_ms[:150]}
                await self._publish(region, "AWS/Lambda", [one])
            for (region, space, name, pairs), count in embedded.items():
                named = [{"Name": key, "Value": value} for key, value in pairs]
                await self._publish(region, space, [{"MetricName": name, "Dimensions": named, "Value": count}])

    async def _publish(self, region: str, space: str, data: list[dict[str, Any]]) -> None:
        client = self._backend.client("cloudwatch", region)
        for start in range(0, len(data), 500):
            batch = data[start : start + 500]
            await self._backend.aws(functools.partial(client.put_metric_data, Namespace=space, MetricData=batch))


def _environments() -> asyncio.Semaphore:
    """The most execution environments of a version. Each is a process of the emulator; more requests wait."""
    return asyncio.Semaphore(3)
