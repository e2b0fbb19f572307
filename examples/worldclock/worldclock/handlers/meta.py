"""`GET /health`, `GET /version` and `GET /openapi.json`: what operators, drills and client generators ask."""

from __future__ import annotations

import os
from pathlib import Path

from aws_lambda_powertools.event_handler import Response, content_types

from worldclock import zones
from worldclock.api import entry, resolver

app = resolver()

OPENAPI = Path(__file__).parent.parent.joinpath("openapi.json").read_text(encoding="utf-8")


@app.get("/health")
def health() -> dict[str, object]:
    return {"status": "ok"}


@app.get("/version")
def version() -> dict[str, object]:
    lambda_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
    return {
        "service": os.environ.get("POWERTOOLS_SERVICE_NAME", "worldclock"),
        "stage": os.environ.get("STAGE"),
        # null where the function runs unpublished ($LATEST)
        "release": int(lambda_version) if lambda_version.isdecimal() else None,
        "commit": os.environ.get("HITLESS_COMMIT"),
        "tzdata": zones.VERSION,
    }


@app.get("/openapi.json")
def openapi() -> Response[str]:
    return Response(200, content_types.APPLICATION_JSON, OPENAPI)


handler = entry(app)
