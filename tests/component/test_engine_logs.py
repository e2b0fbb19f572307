"""Following handlers' logs: over releases, by complete lines, over rotation and retention."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hitless.homes.engine_logs import followed

pytestmark = pytest.mark.component


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.write(text)


def following(folder: Path, pattern: str, *happens: Callable[[], None], lines: int) -> list[str]:
    left = list(happens)
    coming = followed(folder, pattern, pause=lambda: left.pop(0)())
    return [next(coming) for _ in range(lines)]


def test_following_logs_includes_a_new_release(tmp_path: Path) -> None:
    old, new = tmp_path / "r1" / "api" / "1.log", tmp_path / "r2" / "api" / "7.log"
    write(old, "before\n")
    told = following(
        tmp_path, "r*/*/*.log",
        lambda: write(old, "old\n"), lambda: write(new, "new\n"), lambda: write(old, "old again\n"), lines=3,
    )  # fmt: skip
    assert told == ["old", "new", "old again"]


def test_logs_of_a_single_release_can_be_followed(tmp_path: Path) -> None:
    old, new = tmp_path / "r1" / "api" / "1.log", tmp_path / "r2" / "api" / "7.log"
    told = following(tmp_path, "r1/*/*.log", lambda: write(new, "new\n"), lambda: write(old, "old\n"), lines=1)
    assert told == ["old"]


def test_a_log_line_is_shown_when_it_is_complete(tmp_path: Path) -> None:
    log = tmp_path / "r1" / "api" / "1.log"
    told = following(
        tmp_path, "r1/*/*.log",
        lambda: write(log, "be"), lambda: write(log, "gun"), lambda: write(log, "\nnext\n"), lines=2,
    )  # fmt: skip
    assert told == ["begun", "next"]


def test_following_logs_continues_after_a_rotation_or_deletion(tmp_path: Path) -> None:
    log, gone = tmp_path / "r2" / "api" / "1.log", tmp_path / "r1" / "api" / "1.log"
    write(log, "a long line before\n")
    write(gone, "before\n")

    def rotate() -> None:
        log.rename(log.with_suffix(".log.1"))
        write(log, "after\n")

    told = following(tmp_path, "r*/*/*.log", lambda: shutil.rmtree(tmp_path / "r1"), rotate, lines=1)
    assert told == ["after"]
