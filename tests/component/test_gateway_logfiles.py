"""The access log's file: rotation loses nothing, and writers never wait."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hitless.gateway.accesslog import files_of
from hitless.gateway.logfiles import EACH_STAGE, PipedLog

pytestmark = pytest.mark.component


def test_log_lines_keep_their_order_over_rotations_and_the_oldest_are_deleted(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = PipedLog(str(tmp_path / "fifo"), str(path), largest_bytes=1000, kept=3)
    writer = log.writer()
    for number in range(500):
        os.write(writer, f"line {number:04}\n".encode())
        log.take()
    assert [one.name for one in files_of(path)] == ["access.log.3", "access.log.2", "access.log.1", "access.log"]
    kept = [line for one in files_of(path) for line in one.read_text().splitlines()]
    assert kept == [f"line {number:04}" for number in range(500 - len(kept), 500)]
    assert 300 <= len(kept) < 500
    assert all(one.stat().st_size <= 1100 for one in files_of(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(writer)
    os.close(log.reader)


def test_a_log_writer_survives_its_reader_and_continues_with_the_next(tmp_path: Path) -> None:
    path, fifo = tmp_path / "access.log", str(tmp_path / "fifo")
    first = PipedLog(fifo, str(path))
    writer = first.writer()
    os.close(first.reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"nobody reads\n")
    second = PipedLog(fifo, str(path))
    os.write(writer, b"somebody reads\n")
    second.take()
    assert path.read_text() == "somebody reads\n"
    os.close(writer)
    os.close(second.reader)


def test_a_star_in_the_path_of_the_data_folder_has_no_meaning(tmp_path: Path) -> None:
    for name in ("dev", "shop_prod"):
        (tmp_path / "a*b" / name).mkdir(parents=True)
    for name, line in (("dev", b"{}\n"), (EACH_STAGE, b"shop_prod {}\n")):
        log = PipedLog(str(tmp_path / f"fifo-{len(name)}"), str(tmp_path / "a*b" / name / "access.log"))
        writer = log.writer()
        os.write(writer, line)
        log.take()
        os.close(writer)
        os.close(log.reader)
    assert {one.read_text() for one in tmp_path.glob("a[*]b/*/access.log")} == {"{}\n"}
    assert len(list(tmp_path.glob("a[*]b/*/access.log"))) == 2


def test_lines_of_several_stages_go_to_files_of_their_own(tmp_path: Path) -> None:
    for stage in ("shop_prod", "users_prod"):
        (tmp_path / stage).mkdir()
    log = PipedLog(str(tmp_path / "fifo"), str(tmp_path / EACH_STAGE / "access.log"), largest_bytes=60, kept=2)
    writer = log.writer()
    for part in (
        b'shop_prod {"a": 1}\nusers_prod {"b"',
        b': "c d"}\n- {}\ngone_prod {}\n../x {}\nshop_prod {"a": 2}\n',
    ):
        os.write(writer, part)
        log.take()
    assert (tmp_path / "shop_prod" / "access.log").read_text() == '{"a": 1}\n{"a": 2}\n'
    assert (tmp_path / "users_prod" / "access.log").read_text() == '{"b": "c d"}\n'
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fifo", "shop_prod", "users_prod"]
    os.write(writer, b"shop_prod " + b"x" * 70 + b"\n")
    log.take()
    assert [one.name for one in files_of(tmp_path / "shop_prod" / "access.log")] == ["access.log.1"]
    os.close(writer)
    os.close(log.reader)


def fill(writer: int) -> None:
    while True:
        os.write(writer, b"x" * 999 + b"\n")


def test_a_full_fifo_or_unwritable_log_blocks_no_writer(tmp_path: Path) -> None:
    log = PipedLog(str(tmp_path / "fifo"), str(tmp_path / "missing" / "access.log"))
    writer = log.writer()
    with pytest.raises(BlockingIOError):
        fill(writer)
    log.take()
    assert os.write(writer, b"dropped before, not now\n")
    os.close(writer)
    os.close(log.reader)
