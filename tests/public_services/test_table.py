"""The list of public services is well-formed, and its document is up to date."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.public_services.table import DOCUMENT, Result, read_table, write_table, written

pytestmark = pytest.mark.unit


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == written(read_table()), "run scripts/public-services --write-docs"


def test_the_document_has_a_row_for_each_service_of_the_list() -> None:
    rows = [
        line.split(" | ")[:3] for line in DOCUMENT.read_text("utf-8").splitlines() if re.match(r"\| \S+/\S+ \|", line)
    ]
    assert rows == [[f"| {one.repository}", one.commit[:8], one.path] for one in read_table()]


def test_at_least_forty_services_of_different_owners_are_listed_at_a_full_commit() -> None:
    listed = read_table()
    assert len({one.name for one in listed}) == len(listed) >= 40
    assert len({one.repository.partition("/")[0] for one in listed}) >= 36
    assert not [one.name for one in listed if not re.fullmatch("[0-9a-f]{40}", one.commit)]


def test_a_service_that_is_not_reached_has_a_reason_and_every_service_has_been_run() -> None:
    listed = read_table()
    assert not [one.name for one in listed if one.result is Result.NOT_RUN]
    assert not [one.name for one in listed if one.result is Result.NOT_REACHED and len(one.reason.split()) < 3]


def test_recording_a_result_changes_nothing_else(tmp_path: Path) -> None:
    listed = read_table()
    first = replace(listed[0], result=Result.ONLY_5XX, statuses="502 502")
    write_table((first, *listed[1:]), file := tmp_path / "services.csv")
    assert read_table(file) == (first, *listed[1:])
