"""What a build's reports say: JUnit counts and the names of failed tests, Cobertura's line coverage.

The files come from code under test: bounded in size and number, no document type (and so no entity) is taken, nothing
of them is kept in memory but the counts, and a file that cannot be read is a sentence in the result, never the end of
the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from hitless.pipeline.buildspec.files import find_files, open_inside
from hitless.pipeline.buildspec.spec import COVERAGE_FORMATS, Buildspec, Report

MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_REPORTS_BYTES = 64 * 1024 * 1024
"""Of one group together."""
MAX_FILES = 1000
MAX_FAILURES = 50
LONGEST_NAME = 2000  # it may hold a secret, which is masked only while it is whole
_LARGEST_NUMBER_DIGITS = 12


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


@dataclass(slots=True)
class _Counts:
    """What the files of a group come to."""

    tests: int = 0
    failed: int = 0
    skipped: int = 0
    lines: int = 0
    covered: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: _Counts) -> None:
        self.tests += other.tests
        self.failed += other.failed
        self.skipped += other.skipped
        self.lines += other.lines
        self.covered += other.covered
        self.failures += other.failures[: MAX_FAILURES - len(self.failures)]


class _Document:
    """One file as the parser goes through it."""

    def __init__(self) -> None:
        self.counts = _Counts()
        self._depth = 0
        self._case: tuple[int, str] | None = None
        self._marks: set[str] = set()
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def read(self, text: bytes) -> _Counts:
        """Raises ValueError or ExpatError where it is not taken."""
        self._parser.Parse(text, True)
        return self.counts

    def _doctype(self, *_: object) -> None:
        raise ValueError("has a document type, which is not read")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self.counts.lines = _number(attributes.get("lines-valid"))
            self.counts.covered = _number(attributes.get("lines-covered"))
        if tag == "testcase" and self._case is None:
            named = (attributes.get(key, "")[:LONGEST_NAME] for key in ("classname", "name"))
            self._case = self._depth, ".".join(filter(None, named))
        elif self._case and self._depth == self._case[0] + 1 and tag in ("failure", "error", "skipped"):
            self._marks.add(tag)

    def _end(self, _: str) -> None:
        if self._case and self._depth == self._case[0]:
            self.counts.tests += 1
            self.counts.skipped += "skipped" in self._marks
            if self._marks & {"failure", "error"}:
                self.counts.failed += 1
                if len(self.counts.failures) < MAX_FAILURES:
                    self.counts.failures.append(self._case[1])
            self._case, self._marks = None, set()
        self._depth -= 1


def _read(report: Report, source: Path) -> Reported:
    counts, left = _Counts(), MAX_REPORTS_BYTES
    unreadable: list[str] = []
    for index, path in enumerate(find_files(source / report.base, report.files, source)):
        if index >= MAX_FILES or left <= 0:
            what = f"{MAX_FILES} files" if left > 0 else f"{MAX_REPORTS_BYTES >> 20} MiB"
            unreadable.append(f"more than {what}")
            break
        try:
            text = _text(path, source)
            left -= len(text)
            counts.add(_Document().read(text))
        except (ValueError, OSError, expat.ExpatError) as error:
            unreadable.append(f"{path.relative_to(source)}: {error}"[:LONGEST_NAME])
    if report.format in COVERAGE_FORMATS:
        percent = round(100 * counts.covered / counts.lines, 2) if counts.lines else 0.0
        return Reported(report.name, coverage_percent=percent, unreadable=tuple(unreadable))
    return Reported(
        report.name, counts.tests, counts.failed, counts.skipped, tuple(counts.failures), None, tuple(unreadable)
    )


def _text(path: Path, source: Path) -> bytes:
    root = source.resolve()
    with open(open_inside(root, path.resolve()), "rb") as file:
        text = file.read(MAX_REPORT_BYTES + 1)
    if len(text) > MAX_REPORT_BYTES:
        raise ValueError(f"larger than {MAX_REPORT_BYTES >> 20} MiB")
    return text


def _number(value: str | None) -> int:
    return int(value) if value and value.isdecimal() and len(value) <= _LARGEST_NUMBER_DIGITS else 0
