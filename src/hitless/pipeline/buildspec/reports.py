"""A build's reports: JUnit's counts and names of failed tests, Cobertura's line coverage.

The files come from code under test. They are bounded in size and number, a document type (and so an entity) is refused,
and only the counts stay in memory. A file that cannot be read is a sentence in the result and does not end the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

import msgspec
from msgspec import UNSET, UnsetType

from hitless.pipeline.buildspec.files import find_files, open_inside
from hitless.pipeline.buildspec.spec import COVERAGE_FORMAT, Buildspec, Report

MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_REPORTS_BYTES = 64 * 1024 * 1024
"""All files of one group together."""
MAX_FILES = 1000
MAX_FAILURES = 50
LONGEST_NAME = 2000  # it may contain a secret, which is masked only as a whole
_LARGEST_NUMBER_DIGITS = 12


class ReportDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """One report group as JSON: counts of tests, or lines covered."""

    report: str
    coverage_percent: float | UnsetType = UNSET
    tests: int | UnsetType = UNSET
    failed: int | UnsetType = UNSET
    skipped: int | UnsetType = UNSET
    failures: tuple[str, ...] = ()
    """Names of failed tests."""
    unreadable: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        if self.coverage_percent is not UNSET:
            return f"{self.report}: {self.coverage_percent} % covered"
        return f"{self.report}: {self.tests} tests, {self.failed} failed"


def read_reports(spec: Buildspec, source: Path) -> tuple[ReportDocument, ...]:
    """The report groups of a build that ran in `source`."""
    return tuple(_read(name, report, source) for name, report in spec.reports.items())


class _Document:
    """One file while it is parsed: `counts` of tests, failed, skipped, lines and covered, names of failed tests."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._depth = 0
        self._case: tuple[int, str] | None = None
        self._marks: set[str] = set()
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def read(self, text: bytes) -> None:
        """Raises ValueError or ExpatError if the file is refused."""
        self._parser.Parse(text, True)

    def _doctype(self, *_: object) -> None:
        raise ValueError("has a document type, which is not read")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self.counts["lines"] = _number(attributes.get("lines-valid"))
            self.counts["covered"] = _number(attributes.get("lines-covered"))
        if tag == "testcase" and self._case is None:
            named = (attributes.get(key, "")[:LONGEST_NAME] for key in ("classname", "name"))
            self._case = self._depth, ".".join(filter(None, named))
        elif self._case and self._depth == self._case[0] + 1 and tag in ("failure", "error", "skipped"):
            self._marks.add(tag)

    def _end(self, _: str) -> None:
        if self._case and self._depth == self._case[0]:
            self.counts["tests"] += 1
            self.counts["skipped"] += "skipped" in self._marks
            if self._marks & {"failure", "error"}:
                self.counts["failed"] += 1
                if len(self.failures) < MAX_FAILURES:
                    self.failures.append(self._case[1])
            self._case, self._marks = None, set()
        self._depth -= 1


def _read(name: str, report: Report, source: Path) -> ReportDocument:
    counts, left = Counter[str](), MAX_REPORTS_BYTES
    failures: list[str] = []
    unreadable: list[str] = []
    for index, path in enumerate(find_files(source / report.base, report.files, source)):
        if index >= MAX_FILES or left <= 0:
            what = f"{MAX_FILES} files" if left > 0 else f"{MAX_REPORTS_BYTES >> 20} MiB"
            unreadable.append(f"more than {what}")
            break
        try:
            text = _text(path, source)
            left -= len(text)
            (file := _Document()).read(text)
            counts.update(file.counts)
            failures += file.failures[: MAX_FAILURES - len(failures)]
        except (ValueError, OSError, expat.ExpatError) as error:
            unreadable.append(f"{path.relative_to(source)}: {error}"[:LONGEST_NAME])
    if report.format == COVERAGE_FORMAT:
        percent = round(100 * counts["covered"] / counts["lines"], 2) if counts["lines"] else 0.0
        return ReportDocument(name, coverage_percent=percent)
    return ReportDocument(
        name,
        tests=counts["tests"],
        failed=counts["failed"],
        skipped=counts["skipped"],
        failures=tuple(failures),
        unreadable=tuple(unreadable),
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
