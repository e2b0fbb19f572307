"""What runs on AWS, read from the stack, from Lambda's aliases and from the stage's bucket."""

from __future__ import annotations

from typing import Any

from hitless.cloud.service_stack import Observed
from hitless.cloud.settling import Cloud, live_number
from hitless.cloud.transform.model import URL_OUTPUT


def status(cloud: Cloud, *, service: str, stage: str) -> dict[str, Any]:
    """The contract's document: where the stage is, its release, and the share of each version now."""
    stack, observed = cloud.stack.find(), cloud.stack.observe()
    number = live_number(observed)
    names = function_names(cloud, observed, service=service, stage=stage)
    unfinished = cloud.records.unfinished()
    return {
        "stage": stage,
        "url": stack.outputs.get(URL_OUTPUT) if stack else None,
        "release": number,
        "versions": {names[observed.functions[ids]]: state.version for ids, state in observed.aliases.items()},
        "weights": {names[observed.functions[ids]]: state.weights_percent() for ids, state in observed.aliases.items()},
        "stack": {"name": cloud.stack.name, "status": stack.status if stack else None},
        "candidate": {"release": unfinished.release, "since": unfinished.created_at} if unfinished else None,
    }


def releases(cloud: Cloud) -> list[dict[str, Any]]:
    """All releases of the stage, the newest first; `live` marks the one that serves."""
    number = live_number(cloud.stack.observe())
    found = (cloud.records.get(each) for each in cloud.records.numbers())
    return [{**record.to_json(), "live": record.release == number} for record in found if record is not None]


def function_names(cloud: Cloud, observed: Observed, *, service: str, stage: str) -> dict[str, str]:
    """Lambda's name → the name in serverless.yml, of all functions of the stack."""
    names = {name: name.removeprefix(f"{service}-{stage}-") for name in observed.functions.values()}
    number = live_number(observed)
    record = cloud.records.get(number) if number is not None else None
    return {**names, **({theirs: ours for ours, theirs in record.functions.items()} if record else {})}
