"""Greetings and payments by Powertools for AWS Lambda."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

app = APIGatewayRestResolver()
config = IdempotencyConfig(expires_after_seconds=3600)
payments = DynamoDBPersistenceLayer(table_name=os.environ["PAYMENTS_TABLE"])


@app.get("/greetings/<name>")
def greeting(name: str) -> dict[str, object]:
    times = app.current_event.get_query_string_value("times", "1")
    return {"greeting": f"Hello, {unquote(name)}", "times": int(times)}


@app.post("/payments")
def pay() -> tuple[dict[str, object], int]:
    return paid(payment=app.current_event.json_body), 201


@idempotent_function(data_keyword_argument="payment", persistence_store=payments, config=config)
def paid(payment: dict[str, Any]) -> dict[str, object]:
    return {"receipt": str(uuid4()), "amount": payment["amount"]}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.register_lambda_context(context)
    return app.resolve(event, context)
