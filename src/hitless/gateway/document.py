"""The gateway's state as JSON: what a restarted daemon reads from the boot folder. The round trip is exact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hitless.errors import EngineError
from hitless.gateway.state import Access, GatewayState, PoolState, RouteState, ServerMode, ServerState, StageState
from hitless.service.model import Sticky, StickyBy

FORMAT = 2


def state_to_json(state: GatewayState) -> str:
    """One document with the format's number."""
    return json.dumps({"format": FORMAT, **asdict(state)}, separators=(",", ":"))


def state_from_json(text: str) -> GatewayState:
    """EngineError where the text is none of ours, or of another format."""
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}")
        return GatewayState(
            stages=tuple(
                StageState(**{**stage, "sticky": _sticky(stage["sticky"]), "access": _access(stage)})
                for stage in document["stages"]
            ),
            pools=tuple(
                PoolState(
                    pool["name"],
                    tuple(ServerState(**{**server, "mode": ServerMode(server["mode"])}) for server in pool["servers"]),
                    pool["timeout_ms"],
                    pool.get("throttle", 0),
                )
                for pool in document["pools"]
            ),
            routes=tuple(RouteState(**route) for route in document["routes"]),
            shared=document.get("shared", False),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the gateway's state on disk cannot be read: {error}", hint="hitless down --force"
        ) from error


def _access(stage: Mapping[str, Any]) -> Access | None:
    return Access(**stage["access"]) if stage.get("access") else None


def _sticky(document: Mapping[str, str] | None) -> Sticky | None:
    return Sticky(StickyBy(document["by"]), document["name"]) if document else None
