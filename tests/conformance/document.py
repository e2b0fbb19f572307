"""Writes docs/conformance.md from the table: every case with its source, and each deviation with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.conformance.table import NOT_IMPLEMENTED, Case, Kind

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "conformance.md"
_HEAD: Final = """\
# Conformance: hitless compared with AWS

<!-- Written by `scripts/conformance --write-docs` from tests/conformance/cases. Do not edit. -->

This page lists the test cases that compare the engine with API Gateway, function URLs and Lambda's Python runtime. Each
of the {total} cases has a request or an invocation, the expected event, response or log, and a source with a quote. The
expected values come from AWS's documentation, the code of AWS's Python runtime, or a public capture of the real
service. None is recorded from hitless.

{passes} cases pass. {deviations} are known deviations:

- {not_implemented} need a feature that hitless does not have
- {defects} are defects of hitless
- {design} are differences by design

A deviation that starts to pass fails the test, so this list stays correct.

`scripts/conformance` runs the cases against the engine; `scripts/test process` includes them. `scripts/conformance
--target URL` runs the cases of one service against a deployed copy, for example on AWS.

An emulator cannot stand in for AWS: on ministack 1.5.33, 111 of the 223 cases of the service `rest`, deployed by osls,
differ from AWS. Repeated headers, encoded path parameters, payload limits and integration timeouts are among them, and
the engine passes these cases.

Pages of AWS's documentation were read as AWS published them on GitHub until 2023
(awsdocs/amazon-api-gateway-developer-guide at 6060e21, awsdocs/aws-lambda-developer-guide at 03f7fcb) or in a stored
copy. A page may have changed since.
"""


def written(cases: Sequence[Case]) -> str:
    """The whole document."""
    listed = [case for case in cases if case.deviation]
    kinds = [case.deviation.kind for case in listed if case.deviation]
    parts = [
        _HEAD.format(
            total=len(cases),
            passes=len(cases) - len(listed),
            deviations=len(listed),
            not_implemented=kinds.count(Kind.NOT_IMPLEMENTED),
            defects=kinds.count(Kind.DEFECT),
            design=kinds.count(Kind.DESIGN),
        ),
        *_summary(cases),
        *_deviations("Defects", "hitless should behave like AWS and does not yet.", _of(listed, Kind.DEFECT)),
        *_deviations("By design", "hitless is different on purpose.", _of(listed, Kind.DESIGN)),
        *_missing_features(listed),
    ]
    for topic, its in groupby(cases, key=lambda case: case.topic):
        parts += _topic(topic, list(its))
    return "\n".join(parts)


def _summary(cases: Sequence[Case]) -> list[str]:
    lines = ["## Topics", "", "| topic | cases | pass | deviations |", "|---|---|---|---|"]
    for topic, group in groupby(cases, key=lambda case: case.topic):
        its = list(group)
        deviations = sum(case.deviation is not None for case in its)
        lines.append(f"| [{topic}](#{_anchor(topic)}) | {len(its)} | {len(its) - deviations} | {deviations} |")
    return [*lines, ""]


def _of(cases: Sequence[Case], kind: Kind) -> list[Case]:
    return [case for case in cases if case.deviation and case.deviation.kind is kind]


def _deviations(title: str, lead: str, cases: Sequence[Case]) -> list[str]:
    lines = [f"## {title}", "", lead, "", "| case | what AWS does | hitless |", "|---|---|---|"]
    for case in cases:
        assert case.deviation
        lines.append(f"| `{case.id}` | {_cell(case.title)} | {_cell(case.deviation.reason)} |")
    return [*lines, ""]


def _missing_features(cases: Sequence[Case]) -> list[str]:
    lines = ["## Features that hitless does not have", "", "| reason | cases |", "|---|---|"]
    for feature in NOT_IMPLEMENTED:
        count = sum(case.service in feature.services for case in cases)
        lines.append(f"| {feature.reason} | {count} |")
    return [*lines, ""]


def _topic(topic: str, cases: Sequence[Case]) -> list[str]:
    lines = [f"## {topic}", "", "| case | AWS | result | source |", "|---|---|---|---|"]
    for case in cases:
        result = case.deviation.kind.value if case.deviation else "pass"
        source = f"[{_cell(_page(case.source))}]({case.source}): “{_cell(case.quote)}”"
        lines.append(f"| `{case.id}` | {_cell(case.title)} | {result} | {source} |")
    return [*lines, ""]


def _page(url: str) -> str:
    return url.split("#")[0].rstrip("/").rpartition("/")[2].removesuffix(".html")


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("{", "&#123;")
    return " ".join(escaped.split())
