"""Following the access log: existing lines, then new ones, over a rotation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hitless.gateway.accesslog import followed, newest

pytestmark = pytest.mark.component


def line(path: str) -> str:
    document = {
        "at_ms": 1764034123456, "release": "dev.12", "method": "GET", "status": 200, "duration_ms": 3, "bytes": 120,
        "path": path, "query": "-", "server": "w1", "request": "-", "end": "--",
    }  # fmt: skip
    return json.dumps(document) + "\n"


def write(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_following_a_log_shows_existing_lines_and_then_new_ones(tmp_path: Path) -> None:
    log = tmp_path / "access.log"

    def rotate() -> None:
        log.rename(tmp_path / "access.log.1")
        write(log, line("/fifth"))

    begun, rest = line("/cut")[:20], line("/cut")[20:]
    happens: list[Callable[[], None]] = [
        lambda: write(log, line("/third") + begun),
        lambda: write(log, rest),
        rotate,
    ]
    write(log, line("/first") + line("/second"))
    following = followed(log, 1, pause=lambda: happens.pop(0)())
    assert [next(following).path for _ in range(4)] == ["/second", "/third", "/cut", "/fifth"]


def test_following_a_missing_log_waits_for_it(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    following = followed(log, 10, pause=lambda: write(log, line("/first")))
    assert next(following).path == "/first"


def test_following_a_log_loses_no_line_at_a_rotation(tmp_path: Path) -> None:
    """Between a rotation and the next line there is no file of that name."""
    log = tmp_path / "access.log"
    write(log, line("/first"))

    def rotate() -> None:
        log.rename(tmp_path / "access.log.1")

    happens: list[Callable[[], None]] = [
        rotate,
        lambda: None,
        lambda: write(log, line("/second") + line("/third")),
    ]
    following = followed(log, 1, pause=lambda: happens.pop(0)())
    assert [next(following).path for _ in range(3)] == ["/first", "/second", "/third"]
    log.unlink()
    assert [one.path for one in newest(log, 10)] == ["/first"]
