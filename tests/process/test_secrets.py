"""A rotated secret on a real engine: shipped at once, kept by the next push, and in no file of the engine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.process.conftest import Site
from tests.process.pipeline_support import Team

pytestmark = pytest.mark.process

STAGES = "    stages: {dev: {listen: '127.0.0.1:0', alarms: {guard_s: 0}}}\n"


def test_a_push_keeps_a_rotated_secret_and_no_file_has_its_value(tmp_path: Path) -> None:
    site = Site.plain(tmp_path)
    site.environ = {"HITLESS_SECRETS_KEY_FILE": str(tmp_path / "keys" / "key"), "RUNS_FILE": "of-the-shell"}
    file, handlers = site.folder / "serverless.yml", site.folder / "handlers.py"
    file.write_text(file.read_text().replace("${env:RUNS_FILE, ''}", "'x-${ssm:/plain/token}'"))
    handlers.write_text(
        handlers.read_text().replace('"function_version"', '"token": os.environ["RUNS_FILE"], "function_version"')
    )
    site.hitless("secrets", "set", "/plain/token", stdin="first-s3cret\n")
    with Team(site, STAGES).at_work() as team:
        assert token(site) == "x-first-s3cret"
        stored = site.hitless("secrets", "set", "/plain/token", stdin="second-s3cret").document
        assert (stored["used_by"], stored["needs_release"]) == (["api", "misbehave"], True)
        assert token(site) == "x-first-s3cret", "a release is immutable"
        assert "keeps its values of api.RUNS_FILE" in site.hitless("up", "--detach").stderr
        shipped = site.hitless("secrets", "set", "/plain/token", "--release", "now", stdin="third-s3cret").document
        assert (shipped["outcome"], token(site)) == ("live", "x-third-s3cret")

        site.touch("a new commit")
        team.commit("another")
        team.push("dev")
        run = team.ended(team.last_run())
        assert (run["state"], token(site)) == ("succeeded", "x-third-s3cret")

        held = {path: path.read_bytes() for path in files(site.folders.data)}
        assert len(held) > 20
        assert [str(path) for path, content in held.items() if b"-s3cret" in content] == []
        assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"-s3cret" in words_of(pid)]
        assert stat.S_IMODE((tmp_path / "keys" / "key").stat().st_mode) == 0o600


def token(site: Site) -> str:
    return str(site.get("/fast")[2]["token"])


def files(folder: Path) -> list[Path]:
    """All files of the data folder; not those of the runtime folder, which a link in it names."""
    return [Path(base, name) for base, _, names in os.walk(folder) for name in names if Path(base, name).is_file()]


def words_of(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        return b""
