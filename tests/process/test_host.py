"""An engine under a unit of systemd: the unit's own command lines, started as systemd starts them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hitless.cli.host import DATA, HostUnits
from tests.process.conftest import Site
from tests.support import eventually

pytestmark = pytest.mark.process


PIDS = ("pid", "guardian_pid", "gateway_pid", "root_zygote_pid", "spooler_pid")


class Unit:
    """Runs the ExecStart line of the unit for the site's data folder, and listens to its notifications."""

    def __init__(self, site: Site, folder: Path) -> None:
        text = HostUnits(python=sys.executable).unit_text()
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        data = str(site.folder / ".hitless")
        self.start_words = shlex.split(lines["ExecStart"].replace(f"{DATA}/%i", data))
        self.stop_words = [*self.start_words, "--stop"]
        assert " --stop " in lines["ExecStop"]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(30)
        self.environ = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "600000"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.figures = f"127.0.0.1:{probe.getsockname()[1]}"
        self.environ["HITLESS_METRICS"] = self.figures
        self.journal = folder / "journal"
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.journal.open("ab") as journal:
            self.daemon = subprocess.Popen(self.start_words, env=self.environ, start_new_session=True, stderr=journal)
        while not self.notify.recv(1000).startswith(b"READY=1"):
            pass

    def kill(self, number: signal.Signals) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(30)


@pytest.fixture
def unit(site: Site, tmp_path: Path) -> Iterator[Unit]:
    data = site.folder / ".hitless"
    data.mkdir(mode=0o700)
    run = Path(tempfile.mkdtemp(prefix="hitless-"))  # pytest's folders are too long for sockets
    (data / "unit").write_text(f"hitless@clock.service\n{run}\n")
    found = Unit(site, tmp_path)
    yield found
    (data / "unit").unlink()  # so that the end of the test waits for no unit
    subprocess.run(found.stop_words, env=found.environ, check=False)
    if found.daemon is not None:
        found.daemon.kill()
        found.daemon.wait()
    found.notify.close()
    shutil.rmtree(run)


def test_a_unit_starts_adopts_stops_and_boots_the_engine(site: Site, unit: Unit) -> None:
    unit.start()  # waits for settings
    site.up()
    before = site.status()["engine"]
    with urllib.request.urlopen(f"http://{unit.figures}/metrics") as response:
        assert b'hitless_requests_total{function="api",release="1",stage="dev"}' in response.read()
    for path in ("live", "ready"):
        with urllib.request.urlopen(f"http://{unit.figures}/-/{path}") as response:
            assert response.status == 200
    while unit.notify.recv(1000) != b"WATCHDOG=1":
        pass
    unit.kill(signal.SIGTERM)
    assert site.get("/fast")[0] == 200
    unit.start()
    after = site.status()["engine"]
    assert after["gateway_pid"] == before["gateway_pid"]
    assert after["pid"] != before["pid"]
    # the machine stops, and boots again
    subprocess.run(unit.stop_words, env=unit.environ, check=True)
    assert unit.daemon is not None
    unit.daemon.wait(30)
    eventually(lambda: not site.folders.remains())
    unit.start()
    assert site.stage()["live"]["release"] == 1
    site.up()
    assert site.get("/fast")[0] == 200
    # after `down` the unit's daemon waits for the next `up`
    site.hitless("down")
    assert not site.folders.settings_file.exists()
    logged = [json.loads(line) for line in unit.journal.read_text().splitlines()]
    sentences = [line["sentence"] for line in logged if line["event"] == "engine event"]
    assert {"the engine started", "the engine stopped"} <= {*sentences}


def test_a_unit_is_upgraded_by_the_end_of_its_daemon(site: Site, unit: Unit) -> None:
    """systemd starts the daemon again when it ends (Restart=always), here the test does."""
    unit.start()
    site.up()
    before = site.status()["engine"]
    with ThreadPoolExecutor(1) as commands:
        upgrade = commands.submit(site.hitless, "upgrade", "--force")
        assert unit.daemon is not None
        assert unit.daemon.wait(30) == 0
        assert site.get("/release")[0] == 200
        unit.start()
        parts = {one["part"] for one in upgrade.result().document["replaced"]}
    after = site.status()["engine"]
    assert after["pid"] == unit.daemon.pid
    assert parts >= {"daemon", "guardian", "HAProxy"}
    assert not {before[name] for name in PIDS} & {after[name] for name in PIDS}
    assert site.get("/release")[0] == 200
