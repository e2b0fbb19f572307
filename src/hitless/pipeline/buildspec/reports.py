"""What a build's reports say: JUnit counts and the names of failed tests, Cobertura's line coverage.

The files come from code under test: bounded in size and number, no document type (and so no entity) is taken, and a
file that cannot be read is a sentence in the result, never the end of the run.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hitless.pipeline.buildspec.spec import COVERAGE_FORMATS, Buildspec, Report

MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_FILES = 1000
MAX_FAILURES = 50


@dataclass(frozen=True, slots=True)
class Reported:
    """One report group. `coverage_percent` is None for tests, the counts are 0 for coverage."""

    name: str
    tests: int = 0
    failed: int = 0
    skipped: int = 0
    failures: tuple[str, ...] = ()
    coverage_percent: float | None = None
    unreadable: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        if self.coverage_percent is not None:
            return {"report": self.name, "coverage_percent": self.coverage_percent}
        counts = {"tests": self.tests, "failed": self.failed, "skipped": self.skipped}
        lists = {"failures": list(self.failures), "unreadable": list(self.unreadable)}
        return {"report": self.name, **counts, **{key: value for key, value in lists.items() if value}}


def read_reports(spec: Buildspec, source: Path) -> tuple[Reported, ...]:
    """All report groups of a build that ran in `source`."""
    return tuple(_read(report, source) for report in spec.reports)


def find_files(base: Path, patterns: tuple[str, ...], within: Path) -> Iterator[Path]:
    """Regular files below `within` that the patterns find, sorted; links that lead out of it are not followed."""
    root = within.resolve()
    found = {
        Path(name)
        for pattern in patterns
        for name in glob.glob(str(base / pattern), recursive=True, include_hidden=True)
    }
    return (path for path in sorted(found) if path.is_file() and path.resolve().is_relative_to(root))


def _read(report: Report, source: Path) -> Reported:
    tests = failed = skipped = lines = covered = 0
    failures: list[str] = []
    unreadable: list[str] = []
    for index, path in enumerate(find_files(source / report.base, report.files, source)):
        if index >= MAX_FILES:
            unreadable.append(f"more than {MAX_FILES} files")
            break
        try:
            root = _parse(path)
        except (ValueError, OSError, ElementTree.ParseError) as error:
            unreadable.append(f"{path.relative_to(source)}: {error}")
            continue
        if report.format in COVERAGE_FORMATS:
            lines += _number(root, "lines-valid")
            covered += _number(root, "lines-covered")
            continue
        for case in root.iter("testcase"):
            tests += 1
            skipped += case.find("skipped") is not None
            if case.find("failure") is not None or case.find("error") is not None:
                failed += 1
                failures.append(".".join(filter(None, (case.get("classname"), case.get("name")))))
    if report.format in COVERAGE_FORMATS:
        percent = round(100 * covered / lines, 2) if lines else 0.0
        return Reported(report.name, coverage_percent=percent, unreadable=tuple(unreadable))
    return Reported(report.name, tests, failed, skipped, tuple(failures[:MAX_FAILURES]), None, tuple(unreadable))


def _parse(path: Path) -> ElementTree.Element:
    if path.stat().st_size > MAX_REPORT_BYTES:
        raise ValueError(f"larger than {MAX_REPORT_BYTES >> 20} MiB")
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("has a document type, which is not read")
    return ElementTree.fromstring(text)


def _number(root: ElementTree.Element, attribute: str) -> int:
    value = root.get(attribute, "0")
    return int(value) if value.isdigit() else 0
