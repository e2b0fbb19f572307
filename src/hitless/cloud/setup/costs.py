"""Estimates the monthly costs of a stage on AWS, from a file of prices with their date and source. Pure.

Hourly prices are added up for a month. Prices per use are shown per unit, because the traffic is unknown. NAT gateways
come first, because they cost most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from hitless.service.model import Nat, Service

_GATEWAYS = {Nat.NONE: 0, Nat.SINGLE: 1, Nat.PER_AZ: 3}


@dataclass(frozen=True, slots=True)
class CostLine:
    """One position. `usd_a_month` is None if it is paid by use: then `unit` says for what and how much.

    `unconfirmed`: the source of a price that no dated page of AWS confirms; empty for the others.
    """

    what: str
    usd_a_month: float | None
    unit: str
    unconfirmed: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """Positions, their fixed sum, the choices of network, and where the prices are from."""

    fixed_usd_a_month: float
    lines: tuple[CostLine, ...]
    networks: tuple[CostLine, ...]
    source: str


def load_prices() -> Mapping[str, Any]:
    """The price file that comes with the package."""
    found: Mapping[str, Any] = json.loads(resources.files("hitless.cloud.setup").joinpath("prices.json").read_text())
    return found


def costs(service: Service, prices: Mapping[str, Any], *, pipeline: bool) -> Costs:
    """The stage's costs by those prices."""
    items = {name: float(item["usd"]) for name, item in prices["items"].items()}
    hours = float(prices["hours_a_month"])
    gateways = _GATEWAYS[service.settings.nat] if service.settings.network.own else 0
    chosen = f"nat: {service.settings.nat}" if service.settings.network.own else "no network of its own"
    a_gateway = (items["nat_gateway_hour"] + items["public_ipv4_hour"]) * hours
    fixed = [
        CostLine(
            f"{gateways} NAT gateway{'s' if gateways != 1 else ''} ({chosen})",
            round(gateways * a_gateway, 2),
            f"${items['nat_gateway_hour'] + items['public_ipv4_hour']:g} an hour each, with its public address",
        ),
        _alarms(service, items["alarm_metric_month"], _unconfirmed(prices, "alarm_metric_month")),
    ]
    fixed += _kept_ready(service, items, hours, _unconfirmed(prices, "provisioned_gb_second"))

    def used(what: str, unit: str, *names: str) -> CostLine:
        return CostLine(what, None, unit, _unconfirmed(prices, *names))

    calls = f"${items['lambda_million']:g} a million requests, "
    calls += f"${items['lambda_gb_second'] * 1_000_000:.2f} a million GB-seconds"
    by_use = [
        used("traffic through NAT", f"${items['nat_gateway_gb']:g} a GB (S3 and DynamoDB go past it, free)"),
        used("API Gateway", f"${items['rest_api_million']:g} a million requests"),
        used("Lambda", calls, "lambda_million", "lambda_gb_second"),
        used("logs", f"${items['logs_gb']:g} a GB written (functions, access, network flows, builds)", "logs_gb"),
        used(
            "metrics", f"${items['custom_metric_month']:g} a metric and month, 5 of each method", "custom_metric_month"
        ),
        used("X-Ray", f"${items['xray_million']:g} a million traces, of 5 % of the requests", "xray_million"),
        used("artifacts", f"${items['storage_gb_month']:g} a GB and month", "storage_gb_month"),
    ]
    if pipeline:
        steps = f"${items['pipeline_minute']:g} a minute of its steps, ${items['build_minute']:g} a minute of building"
        by_use.append(used("pipeline", steps, "pipeline_minute", "build_minute"))
    unsure = sum(1 for item in prices["items"].values() if item.get("unconfirmed"))
    source = f"{prices['source']} ({prices['region']}, noted {prices['noted']}; {unsure} prices unconfirmed)"
    total = round(sum(line.usd_a_month or 0.0 for line in fixed), 2)
    networks = tuple(_network(choice, gateways - choice["gateways"], a_gateway) for choice in prices["networks"])
    return Costs(total, (*fixed, *by_use), networks, source)


def _network(choice: Mapping[str, Any], fewer: int, a_gateway: float) -> CostLine:
    unit = choice["reaches"] + (f"; saves ${fewer * a_gateway:.2f}" if fewer > 0 else "")
    return CostLine(choice["network"], round(choice["gateways"] * a_gateway, 2), unit)


def _alarms(service: Service, price: float, unsure: str) -> CostLine:
    """Of the live stage: 5xx, requests, latency, concurrency, each function's throttles. Of each version: its own."""
    limits = service.settings.alarms
    of_a_version = 4 + 2 * (limits.p99_ms is not None) + 4 * (limits.p99_relative_percent is not None)
    number = 4 + len(service.functions) * (1 + 2 * of_a_version)
    unit = f"${price:g} a metric, of the live stage and of the versions of two releases"
    return CostLine(f"{number} metrics of alarms", round(number * price, 2), unit, unsure)


def _kept_ready(service: Service, items: Mapping[str, float], hours: float, unsure: str) -> list[CostLine]:
    """Provisioned concurrency at its minimum. Scaling may cost more, and a shift has two versions."""
    kept = [one for one in service.functions if one.provisioned_concurrency]
    if not kept:
        return []
    price = items["provisioned_gb_second"]
    gb = sum(one.provisioned_concurrency * one.memory_mb / 1024 for one in kept)
    most = sum((one.max_provisioned or one.provisioned_concurrency) * one.memory_mb / 1024 for one in kept)
    number = sum(one.provisioned_concurrency for one in kept)
    up_to = f"; up to {most / gb:.3g} times that under load" if most > gb else ""
    return [
        CostLine(
            f"{number} environment{'s' if number != 1 else ''} kept ready (provisionedConcurrency)",
            round(gb * price * 3600 * hours, 2),
            f"${price * 3600:.3g} a GB and hour, twice during a shift{up_to}",
            unsure,
        )
    ]


def _unconfirmed(prices: Mapping[str, Any], *names: str) -> str:
    return "; ".join(dict.fromkeys(why for name in names if (why := prices["items"][name].get("unconfirmed"))))
