"""Tests new versions before a client reaches them, and the live release after it: the bytes that were built, handlers
that can be imported, the stage's smoke requests. Afterwards the new versions are warm.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from botocore.exceptions import ClientError

from hitless.aws.lambdas import Invocation, Lambdas
from hitless.aws.layer.hitless_wrapper import QUIET
from hitless.aws.session import is_denied
from hitless.cloud.records.records import Record
from hitless.cloud.release.packaging import ServicePackage
from hitless.cloud.stage.stage import Cloud, function_names, live_number
from hitless.cloud.transform.desired import functions_of
from hitless.cloud.transform.functions import is_wrapped
from hitless.cloud.transform.model import ALIAS, FunctionIds, Resource, Template
from hitless.errors import CandidateFailedError, CloudError
from hitless.release.result import Verified
from hitless.release.smoke import SmokeResponse, send_smoke_requests
from hitless.service.event_sources import Route
from hitless.service.model import Function, Service, SmokeRequest
from hitless.service.routes import compile_route, parameters

WARM_AT_MOST = 50


def prove(
    cloud: Cloud, package: ServicePackage, wanted: Template, record: Record, targets: Mapping[FunctionIds, str]
) -> None:
    """Raise CloudError if a version is not what was built, CandidateFailedError if its responses are wrong."""
    versions: dict[str, tuple[str, str]] = {}
    for name, version in record.versions.items():
        lambda_name = record.functions[name]
        built = package.artifacts[name].digest.removeprefix("sha256:")
        cloud.lambdas.wake(lambda_name, version)
        if cloud.lambdas.code_sha256(lambda_name, version) != built:
            raise CloudError(f"{lambda_name}: version {version} does not hold the bytes that were built")
        versions[name] = (lambda_name, version)
    _warm(cloud, wanted, targets)
    requests = package.service.settings.smoke
    smoke_versions(requests, package.service.functions, versions, cloud.lambdas, stage=package.service.stage)


def environments(cloud: Cloud, function: Resource, at_once: int) -> int:
    """The number of environments to warm, if the live version had that many busy at once."""
    if at_once <= 1:
        return 1
    return max(1, min(at_once, WARM_AT_MOST, _room(cloud, function, at_once)))


def _room(cloud: Cloud, function: Resource, at_once: int) -> int:
    """The reserved concurrency beyond the function's peak, else 5 % of the account's unreserved concurrency."""
    reserved = function["Properties"].get("ReservedConcurrentExecutions")
    if isinstance(reserved, int):
        return reserved - at_once
    try:
        return cloud.lambdas.concurrency()[1] // 20
    except ClientError as error:
        if not is_denied(error):  # an older core stack
            raise
        return 1


def _warm(cloud: Cloud, wanted: Template, targets: Mapping[FunctionIds, str]) -> None:
    """Import the handlers in as many environments as the live version had busy at once in the last hour."""
    names = functions_of(wanted)
    for ids, version in targets.items():
        if not is_wrapped(wanted["Resources"][ids.function]):
            continue
        at_once = cloud.traffic.peak_concurrency(names[ids], ALIAS, until=cloud.clock.now())
        number = environments(cloud, wanted["Resources"][ids.function], at_once)
        given = cloud.lambdas.warm(names[ids], version, number)
        if given.error:
            said = given.payload if isinstance(given.payload, dict) else {}
            why = f"{said.get('errorType', given.error)}: {said.get('errorMessage', 'no message')}"
            raise CandidateFailedError(
                f"{names[ids]}: version {version} does not start: {why}", hint="see `hitless aws logs`"
            )


def faults_of(cloud: Cloud, service: Service, release: int, artifacts: Mapping[str, str]) -> Verified:
    """The faults of a release that has just gone live. `artifacts`: function → digest that it must serve."""
    observed = cloud.stack.observe()
    if live_number(observed) != release:
        return Verified(superseded=True)
    names = function_names(cloud, observed, service=service.name, stage=service.stage)
    faults = []
    for ids, state in observed.aliases.items():
        lambda_name = observed.functions[ids]
        name = names[lambda_name]
        if name not in artifacts:
            continue  # kept for one more release, for callers that still use it
        if state.others:
            faults.append(f"{name}: not all traffic is at version {state.version}")
        if cloud.lambdas.code_sha256(lambda_name, state.version) != artifacts[name].removeprefix("sha256:"):
            faults.append(f"{name}: version {state.version} does not hold the bytes that were shipped")
    theirs = {ours: lambda_name for lambda_name, ours in names.items()}
    served = {name: (theirs[name], ALIAS) for name in artifacts if name in theirs}
    if missing := sorted(set(artifacts) - set(served)):
        faults.append(f"{', '.join(missing)}: not on AWS")
        return Verified(tuple(faults))
    for request in service.settings.smoke:
        try:
            smoke_versions([request], service.functions, served, cloud.lambdas, stage=service.stage)
        except CandidateFailedError as error:
            faults.append(error.message)
    return Verified(tuple(faults))


def smoke_versions(
    requests: Sequence[SmokeRequest], functions: Sequence[Function], versions: Mapping[str, tuple[str, str]],
    lambdas: Lambdas, *, stage: str,
) -> None:  # fmt: skip
    """Send them to `versions` (function → Lambda's name, version). CandidateFailedError at the first bad response."""

    def send(request: SmokeRequest, function: Function, route: Route) -> SmokeResponse:
        return _response(lambdas.invoke(*versions[function.name], make_event(request, route, stage)))

    send_smoke_requests(requests, functions, send, logs="hitless aws logs")


def make_event(request: SmokeRequest, route: Route, stage: str) -> dict[str, Any]:
    """The event of API Gateway's REST proxy integration (payload format 1.0) for the request."""
    parts = urlsplit(request.path)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    multi: dict[str, list[str]] = {}
    for name, value in pairs:
        multi.setdefault(name, []).append(value)
    headers = {"User-Agent": "hitless-smoke", "Host": "localhost", **dict(request.headers)}
    match = re.fullmatch(compile_route(route.path), parts.path)
    values = [unquote(value) for value in match.groups()] if match else []
    request_id = str(uuid.uuid4())
    return {
        "resource": route.path,
        "path": unquote(parts.path),
        "httpMethod": request.method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(pairs) or None,
        "multiValueQueryStringParameters": multi or None,
        "pathParameters": dict(zip(parameters(route.path), values, strict=False)) or None,
        "stageVariables": {QUIET: "1"},
        "requestContext": {
            "resourcePath": route.path,
            "httpMethod": request.method,
            "path": f"/{stage}{unquote(parts.path)}",
            "protocol": "HTTP/1.1",
            "stage": stage,
            "requestId": request_id,
            "requestTimeEpoch": 0,
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "hitless-smoke"},
            "apiId": "hitless-smoke",
        },
        "body": request.body,
        "isBase64Encoded": False,
    }


def _response(invocation: Invocation) -> SmokeResponse:
    answer = invocation.payload
    if invocation.error or not isinstance(answer, dict) or not isinstance(answer.get("statusCode"), int | str):
        return SmokeResponse("no response", str(answer))
    body = str(answer.get("body") or "")
    if answer.get("isBase64Encoded"):
        body = base64.b64decode(body).decode("utf-8", "replace")
    status = answer["statusCode"]
    return SmokeResponse(int(status) if str(status).isdecimal() else str(status), body)
