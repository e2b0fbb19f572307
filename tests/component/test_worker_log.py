"""A worker's log file, written by a process of its own because it takes descriptors 1 and 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.component


def write(folder: Path, code: str) -> str:
    """Run code with `log` open on folder/w0.log and `out` as its stream; returns the file."""
    setup = (
        "import os, sys\nfrom pathlib import Path\nfrom hitless.worker.log import LogFile, LogStream\n"
        f"folder = Path({str(folder)!r})\nlog = LogFile(rotate_at_bytes=300_000)\nlog.open(folder / 'w0.log')\n"
        "out = LogStream(log, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", setup + code], check=False, timeout=30)
    text = (folder / "w0.log").read_text(errors="replace")
    assert done.returncode == 0, text
    return text


def messages(text: str) -> list[str]:
    return [line.partition("\t")[2] for line in text.splitlines()]


def test_the_start_line_waits_for_the_first_other_line(tmp_path: Path) -> None:
    text = write(
        tmp_path,
        "log.start('1', '7')\nassert (folder / 'w0.log').read_text() == ''\n"
        "assert log.lines('said')\nassert not log.lines('more')\nlog.end('REPORT 1')\n",
    )
    assert messages(text) == ["START RequestId: 1 Version: 7", "said", "more", "END RequestId: 1", "REPORT 1"]


def test_partial_log_lines_are_joined_and_ended(tmp_path: Path) -> None:
    text = write(tmp_path, "out.write('a'); out.write('b\\nc\\nd'); out.flush(); out.end_line(); out.write('\\n')\n")
    assert messages(text) == ["ab", "c", "d", " "]


def test_unencodable_text_is_written_escaped(tmp_path: Path) -> None:
    assert messages(write(tmp_path, "out.write('\\ud800 é\\n')\n")) == ["\\ud800 é"]


def test_a_log_that_grows_is_rotated_and_one_old_file_is_kept(tmp_path: Path) -> None:
    write(
        tmp_path,
        "for number in range(9000):\n    log.start(str(number), '7')\n    log.end('x' * 100)\nos.write(1, b'raw\\n')\n",
    )
    old, new = (tmp_path / "w0.log.1").stat().st_size, (tmp_path / "w0.log").stat().st_size
    assert 300_000 < old < 900_000
    assert new < 900_000
    assert (tmp_path / "w0.log").read_text().endswith("raw\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w0.log", "w0.log.1"]


def test_a_large_log_is_rotated_when_it_is_opened(tmp_path: Path) -> None:
    for number in range(7):
        with (tmp_path / "w0.log").open("a") as log:
            log.write(f"{number}" * 100_001)
        write(tmp_path, "os.write(1, b'new\\n')\nos._exit(0)\n")
    assert (tmp_path / "w0.log").read_text().endswith("6new\n")
    assert (tmp_path / "w0.log").stat().st_size < 300_000
    assert 300_000 < (tmp_path / "w0.log.1").stat().st_size < 500_000


def test_a_log_that_another_process_rotated_is_not_rotated_again(tmp_path: Path) -> None:
    write(
        tmp_path,
        "os.write(1, b'x' * 300_001)\nos.replace(folder / 'w0.log', folder / 'w0.log.1')\n"
        "(folder / 'w0.log').write_text('of another\\n')\nlog.start('1', '7')\nlog.end('REPORT')\n"
        "os.write(1, b'here\\n')\n",
    )
    assert (tmp_path / "w0.log").read_text() == "of another\nhere\n"
    assert (tmp_path / "w0.log.1").stat().st_size > 300_000


def test_a_full_disk_for_logs_fails_no_request(tmp_path: Path) -> None:
    text = write(
        tmp_path,
        "full, file = os.open('/dev/null', os.O_RDONLY), os.dup(1)  # writing to it fails, as on a full disk\n"
        "os.dup2(full, 1)\nlog.start('1', '7')\nout.write('lost\\n')\nlog.end('REPORT')\n"
        "os.dup2(file, 1)\nout.write('there is room again\\n')\n",
    )
    assert messages(text) == ["there is room again"]


def test_a_requests_log_is_truncated_at_its_limit_with_a_note(tmp_path: Path) -> None:
    text = write(
        tmp_path,
        "log = LogFile(request_characters=10_000)\nout = LogStream(log, 1)\n"
        "log.start('1', '7')\nfor _ in range(300):\n    out.write('x' * 99 + '\\n')\nlog.lines('of ours')\n"
        "log.end('REPORT 1')\nlog.start('2', '7')\n"
        "out.write('again\\n')\nlog.end('REPORT 2')\n",
    )
    said = messages(text)
    assert 70 < said.count("x" * 99) < 100
    assert [line for line in said if line and not line.startswith("x")] == [
        "START RequestId: 1 Version: 7",
        "hitless: the log of this request is cut off here, it is too long",
        "of ours",
        "END RequestId: 1",
        "REPORT 1",
        "START RequestId: 2 Version: 7",
        "again",
        "END RequestId: 2",
        "REPORT 2",
    ]
