"""The GitHub connection, which a person authorises in the console, and pipelines, which exist but never run here.

A new connection is PENDING (docs.aws.amazon.com/codeconnections/latest/APIReference/API_Connection.html). Here somebody
authorises it: it turns AVAILABLE after `pending_answers` answers, at once when a test says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from tests.aws.front.backend import Backend
from tests.aws.front.calls import Operation, Request

_CONNECTIONS: Final = ("AWS::CodeConnections::Connection", "AWS::CodeStarConnections::Connection")


class Connections:
    """Reads connections and pipelines from the stand-ins of CloudFormation's resources."""

    def __init__(self, backend: Backend, *, pending_answers: int = 2) -> None:
        self._backend = backend
        self.pending_answers = pending_answers
        self._asked: dict[str, int] = {}

    def forget(self) -> None:
        self._asked.clear()

    async def answer(self, request: Request, operation: Operation) -> Response:
        region = request.scope[1] if request.scope else "us-east-1"
        match operation.name:
            case "GetConnection":
                return await self._get(region, operation.parameters["ConnectionArn"])
            case "ListConnections":
                found = await self._all(region)
                return _json({"Connections": [self._shown(arn, held) for arn, held in found.items()]})
            case "GetPipeline" | "GetPipelineState" | "ListPipelines" | "ListPipelineExecutions":
                return await self._pipelines(region, operation)
        return _json({"__type": "InvalidActionException", "message": operation.name}, 400)

    async def _all(self, region: str) -> dict[str, Mapping[str, Any]]:
        found = await self._backend.stand_ins(region, *_CONNECTIONS)
        return {
            f"arn:aws:codeconnections:{region}:000000000000:connection/{name.replace('/', '-')}": held
            for name, held in found
        }

    async def _get(self, region: str, arn: str) -> Response:
        held = (await self._all(region)).get(arn)
        if held is None:
            return _json({"__type": "ResourceNotFoundException", "Message": f"No connection {arn}"}, 400)
        self._asked[arn] = self._asked.get(arn, 0) + 1
        return _json({"Connection": self._shown(arn, held)})

    def _shown(self, arn: str, held: Mapping[str, Any]) -> dict[str, Any]:
        available = self._asked.get(arn, 0) > self.pending_answers
        return {
            "ConnectionArn": arn,
            "ConnectionName": held.get("ConnectionName", ""),
            "ConnectionStatus": "AVAILABLE" if available else "PENDING",
            "ProviderType": held.get("ProviderType", "GitHub"),
            "OwnerAccountId": "000000000000",
        }

    async def _pipelines(self, region: str, operation: Operation) -> Response:
        held = {
            str(one.get("Name", name)): one
            for name, one in await self._backend.stand_ins(region, "AWS::CodePipeline::Pipeline")
        }
        if operation.name == "ListPipelines":
            return _json({"pipelines": [{"name": name, "version": 1} for name in held]})
        name = operation.parameters.get("name") or operation.parameters.get("pipelineName", "")
        if name not in held:
            return _json({"__type": "PipelineNotFoundException", "message": f"No pipeline {name}"}, 400)
        if operation.name == "ListPipelineExecutions":
            return _json({"pipelineExecutionSummaries": []})
        if operation.name == "GetPipelineState":
            return _json({"pipelineName": name, "stageStates": []})
        return _json({"pipeline": {"name": name, "roleArn": held[name].get("RoleArn", ""), "stages": []}})


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(document), status, media_type="application/x-amz-json-1.1")
