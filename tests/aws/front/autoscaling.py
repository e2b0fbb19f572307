"""Application Auto Scaling's HTTP API (JSON 1.1) for Lambda's provisioned concurrency; ministack has none.

* A target is `function:NAME:VERSION-OR-ALIAS`; registering it anew changes its bounds, and one that is below the least
  is raised to it (application/userguide, "Lambda and Application Auto Scaling"; RegisterScalableTarget).
* A policy needs its target (PutScalingPolicy, ObjectNotFoundException), and goes with it (DeregisterScalableTarget).
* TargetValue is a share between 0.1 and 0.9 (Lambda Developer Guide, "Managing provisioned concurrency with Application
  Auto Scaling"). Nothing is scaled here by use.
"""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.responses import Response

from tests.aws.front.backend import Backend
from tests.aws.front.calls import Operation, Request, decoded_body

DIMENSION: Final = "lambda:function:ProvisionedConcurrency"
Key = tuple[str, str]


class ApiError(Exception):
    """An error of the API, by its name in the API."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Autoscaling:
    """`targets`: (region, resource) → bounds; `policies` the same → configuration."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.targets: dict[Key, tuple[int, int]] = {}
        self.policies: dict[Key, dict[str, Any]] = {}

    def forget(self) -> None:
        self.targets.clear()
        self.policies.clear()

    async def answer(self, request: Request, operation: Operation) -> Response:
        region = request.scope[1] if request.scope else "us-east-1"
        given = decoded_body(request)
        try:
            if (given.get("ServiceNamespace"), given.get("ScalableDimension", DIMENSION)) != ("lambda", DIMENSION):
                raise ApiError("ValidationException", "only Lambda's provisioned concurrency is scaled here")
            match operation.name:
                case "RegisterScalableTarget":
                    document = await self._register(region, given)
                case "DeregisterScalableTarget":
                    document = self._deregister(region, given)
                case "PutScalingPolicy":
                    document = self._put_policy(region, given)
                case "DescribeScalableTargets":
                    document = self._describe(region)
                case _:
                    raise ApiError("InvalidOperationException", f"{operation.name} is not answered here")
        except ApiError as error:
            return _json({"__type": error.code, "message": str(error)}, 400)
        return _json(document)

    async def _register(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        _, function, qualifier = given["ResourceId"].split(":")
        least, most = int(given["MinCapacity"]), int(given["MaxCapacity"])
        if least > most:
            raise ApiError("ValidationException", "Maximum capacity cannot be less than minimum capacity")
        client = self._backend.client("lambda", region)
        which = {"FunctionName": function, "Qualifier": qualifier}
        try:
            found = await self._backend.aws(lambda: client.get_provisioned_concurrency_config(**which))
            number = int(found["RequestedProvisionedConcurrentExecutions"])
        except client.exceptions.ProvisionedConcurrencyConfigNotFoundException:
            number = 0
        if number < least:
            wanted = {**which, "ProvisionedConcurrentExecutions": least}
            await self._backend.aws(lambda: client.put_provisioned_concurrency_config(**wanted))
        self.targets[region, given["ResourceId"]] = (least, most)
        return {"ScalableTargetARN": f"arn:aws:application-autoscaling:{region}:000000000000:scalable-target/1"}

    def _deregister(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        key = self._target(region, given)
        del self.targets[key]
        self.policies.pop(key, None)
        return {}

    def _put_policy(self, region: str, given: dict[str, Any]) -> dict[str, Any]:
        configuration = given["TargetTrackingScalingPolicyConfiguration"]
        if not 0.1 <= float(configuration["TargetValue"]) <= 0.9:
            raise ApiError("ValidationException", "TargetValue must be between 0.1 and 0.9")
        self.policies[self._target(region, given)] = configuration
        return {"PolicyARN": "arn:aws:autoscaling:::policy", "Alarms": []}

    def _describe(self, region: str) -> dict[str, Any]:
        found = [
            {"ServiceNamespace": "lambda", "ResourceId": name, "ScalableDimension": DIMENSION, "MinCapacity": least,
             "MaxCapacity": most, "RoleARN": "", "CreationTime": 0}
            for (where, name), (least, most) in self.targets.items()
            if where == region
        ]  # fmt: skip
        return {"ScalableTargets": found}

    def _target(self, region: str, given: dict[str, Any]) -> Key:
        key = (region, given["ResourceId"])
        if key not in self.targets:
            raise ApiError("ObjectNotFoundException", f"No scalable target registered for {given['ResourceId']}")
        return key


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status, media_type="application/x-amz-json-1.1")
