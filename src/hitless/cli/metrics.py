"""`hitless metrics`: the engine's figures for Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from hitless.cli.common import Context, command
from hitless.homes.engine import client_of


@command("metrics", example="hitless metrics > /var/lib/node_exporter/hitless.prom")
def metrics(ctx: Context) -> None:
    """Print the engine's metrics in Prometheus's format. HITLESS_METRICS sets a port that serves them."""
    text = client_of(ctx).text("/metrics")
    samples = [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for family in (text_string_to_metric_families(text) if ctx.json else ())
        for sample in family.samples
    ]
    ctx.show(samples, lambda: text)
