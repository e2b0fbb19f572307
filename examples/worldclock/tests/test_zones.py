"""The zones come from the pinned package, whatever the machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from worldclock import zones

from .client import FOLDER


def test_the_machines_own_data_is_not_used(tmp_path: Path) -> None:
    liar = tmp_path / "Europe" / "Berlin"
    liar.parent.mkdir()
    liar.write_bytes(zones.zone_file("Asia/Tokyo").read_bytes())
    script = (
        "from datetime import datetime; from zoneinfo import ZoneInfo; from worldclock import zones\n"
        "day = datetime(2026, 1, 1)\n"
        "print(zones.load('Europe/Berlin').utcoffset(day), ZoneInfo('Europe/Berlin').utcoffset(day))"
    )
    environment = {**os.environ, "PYTHONTZPATH": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", script], cwd=FOLDER, env=environment, capture_output=True, text=True, check=True
    )

    assert out.stdout.split() == ["1:00:00", "9:00:00"]


def test_every_zone_of_the_package_loads() -> None:
    assert len(zones.NAMES) > 400
    for name in zones.NAMES:
        assert isinstance(zones.load(name), ZoneInfo)


@pytest.mark.parametrize("name", ["", "Mars/Phobos", "/etc/passwd", "../zones", "Europe"])
def test_a_name_that_is_no_zone_never_becomes_a_path(name: str) -> None:
    with pytest.raises(KeyError):
        zones.load(name)


def test_importing_the_functions_starts_no_thread_and_opens_no_socket() -> None:
    script = (
        "import os, socket, threading\n"
        "class Refused(socket.socket):\n"
        "    def __init__(self, *a, **k): raise AssertionError('a socket at import')\n"
        "socket.socket = Refused\n"
        "import worldclock.handlers.zones, worldclock.handlers.convert\n"
        "import worldclock.handlers.meetings, worldclock.handlers.meta\n"
        "print(threading.active_count())"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=FOLDER, capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "1"
