"""The list of public services with the result of the last run of each, and the document that is written from it.

services.csv is the only source: one line a service. `scripts/public-services --record` writes `result` and `statuses`;
`reason` is written by hand. No code of these services is kept here.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Final

TABLE: Final = Path(__file__).parent / "services.csv"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "public-services.md"
_HEAD: Final = """\
# Public services

<!-- Written by `scripts/public-services --write-docs` from tests/public_services/services.csv. Do not edit. -->

This page lists {total} public Python services with a `serverless.yml`. Each was started unmodified with `hitless up` at
the commit in the table. {reached} of them are *reached*: a request to at least one route gets to a handler. {below} of
these respond to at least one request with a status below 500.

If a service is reached and responds with a 5xx, that comes from its handler. Most of these handlers call DynamoDB, S3,
a database or another host, but the runs have no network and no AWS account. In the column `statuses` a `-` is a
response of the gateway itself. The column `why` says why a service is not reached.

To repeat the runs, clone the repositories and run `scripts/public-services FOLDER`, where FOLDER contains a clone
`OWNER/NAME` of each. The script runs other people's code: use a machine on which nothing can be damaged.

| repository | commit | path | result | statuses | why |
|---|---|---|---|---|---|
"""


class Result(StrEnum):
    """What a run of a service has shown."""

    BELOW_500 = "reached, below 500"
    ONLY_5XX = "reached, 5xx"
    NOT_REACHED = "not reached"
    NOT_RUN = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One service: where its serverless.yml is, and what its last run has shown. `path` is the file's folder."""

    repository: str
    commit: str
    path: str
    result: Result
    statuses: str
    reason: str

    @property
    def name(self) -> str:
        """`owner/name`, with the folder if it is not the repository's own."""
        return self.repository if self.path == "." else f"{self.repository}/{self.path}"


def read_table(file: Path = TABLE) -> tuple[Listed, ...]:
    with file.open(encoding="utf-8", newline="") as lines:
        return tuple(Listed(result=Result(row.pop("result")), **row) for row in csv.DictReader(lines))


def write_table(listed: Sequence[Listed], file: Path = TABLE) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, [field.name for field in fields(Listed)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in listed)


def written(listed: Sequence[Listed]) -> str:
    """The whole document."""
    results = Counter(one.result for one in listed)
    below = results[Result.BELOW_500]
    head = _HEAD.format(total=len(listed), reached=below + results[Result.ONLY_5XX], below=below)
    return head + "".join(
        f"| {one.repository} | {one.commit[:8]} | {one.path} | {one.result} | {one.statuses} | {one.reason} |\n"
        for one in listed
    )
