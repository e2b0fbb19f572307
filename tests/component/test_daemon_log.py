"""engine.log has lines of JSON, and is renewed when it is large, without losing lines."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hitless.cli.daemon_log import log_to, put_aside_if_large, renew_if_large

pytestmark = pytest.mark.component


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two descriptors that write to the log, like a daemon's standard output and error."""
    first = os.open(tmp_path / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    second = os.dup(first)
    yield first, second
    os.close(first)
    os.close(second)


def test_a_large_daemon_log_is_renamed_and_a_new_one_is_started(tmp_path: Path, descriptors: tuple[int, int]) -> None:
    log = tmp_path / "engine.log"
    for round_ in (b"first", b"second"):
        os.write(descriptors[1], round_ * 10)
        assert not renew_if_large(log, descriptors=descriptors, largest_bytes=1000)
        assert renew_if_large(log, descriptors=descriptors, largest_bytes=10)
        for descriptor in descriptors:
            os.write(descriptor, b".")
        assert (log.read_bytes(), log.stat().st_mode & 0o777) == (b"..", 0o600)
    assert (tmp_path / "engine.log.1").read_bytes() == b".." + b"second" * 10
    assert sorted(one.name for one in tmp_path.iterdir()) == ["engine.log", "engine.log.1"]


def test_a_log_that_another_process_writes_is_not_rotated(tmp_path: Path, descriptors: tuple[int, int]) -> None:
    other = tmp_path / "other.log"
    other.write_bytes(b"x" * 100)
    assert not renew_if_large(other, descriptors=descriptors, largest_bytes=10)
    assert not renew_if_large(tmp_path / "none", descriptors=descriptors, largest_bytes=10)
    assert other.stat().st_size == 100


def test_a_starting_daemon_renames_a_large_log(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    assert not put_aside_if_large(log)
    log.write_bytes(b"x" * 100)
    assert put_aside_if_large(log, largest_bytes=99)
    assert not log.exists()


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The logger of hitless's modules, as it was again after the test."""
    logger = logging.getLogger("hitless")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    return logger


def test_a_line_of_the_log_is_an_object_with_its_fields_event_and_instant(own: logging.Logger) -> None:
    log_to(stream := io.StringIO())
    own.getChild("engine").info("engine event", {"sentence": "100 % of traffic", "stage": None})
    own.error("no field", {"path": Path("/x")})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert list(first) == ["sentence", "stage", "event", "timestamp"]
    assert (first["sentence"], first["stage"], first["event"]) == ("100 % of traffic", None, "engine event")
    assert datetime.fromisoformat(first["timestamp"]).utcoffset() == timedelta(0)
    assert second["path"] == "PosixPath('/x')"


def test_a_line_that_a_full_disk_refuses_raises_nothing(own: logging.Logger) -> None:
    with open("/dev/full", "w", buffering=1, encoding="utf-8") as full:
        with pytest.raises(OSError, match="No space left"):
            full.write("a line\n")
        log_to(full)
        own.error("cannot record an event", {"stage": "dev"})
        with suppress(OSError):
            full.close()
