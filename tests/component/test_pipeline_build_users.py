"""If the engine is root, each run's builds have their own user, and root follows none of their links."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hitless.clock import SystemClock
from hitless.pipeline.builds import BuildOrder, Builds
from hitless.pipeline.buildspec.processes import end_user
from hitless.pipeline.buildspec.run import Limits, User
from hitless.pipeline.environments import environment, keep_cache, restore_cache
from hitless.pipeline.repository import Repository
from hitless.pipeline.workshop import BUILD_UIDS, Workshop
from tests.component.pipeline_bench import PipelineBench
from tests.support import eventually

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(os.getuid() != 0, reason="builds run as somebody else only where the engine is root's"),
]
OLD, NEW = User(BUILD_UIDS[-3], BUILD_UIDS[-3]), User(BUILD_UIDS[-2], BUILD_UIDS[-2])
WHO = """version: 0.2
phases:
  build:
    commands:
      - echo "I am $(id -u)"
      - 'echo "parents: $(stat -c %u .. ../.. ../../.. | xargs)"'
      - if mv ../source ../elsewhere || ln -s /etc ../link; then exit 1; fi
      - if pgrep -r S -u "$(id -u)" -x sleep; then exit 1; fi
      - mkdir -p kept && touch kept/file
cache: {paths: [kept]}
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user can look into."""
    place = Path(tempfile.mkdtemp(prefix="hitless-users-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def owned(user: User, folder: Path) -> Path:
    folder.mkdir()
    os.chown(folder, user.uid, user.gid)
    return folder


def as_user(user: User) -> dict[str, Any]:
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


def test_each_run_builds_as_its_own_user_below_folders_of_root(open_place: Path) -> None:
    (open_place / "bench").mkdir()
    bench = PipelineBench(open_place / "bench")
    workshop = replace(Workshop.of(open_place / "data", {}), work=open_place / "work", user=User(65534, 65534))
    workshop.create()
    (bench.clone / "buildspec-test.yml").write_text(WHO)
    commit = bench.commit("1")
    bench.git("push", "-q", str(bench.repository.folder), "dev")
    builds = Builds(workshop, Repository(bench.repository.folder), SystemClock(), lambda: Limits(time_s=60))

    async def build(run: int) -> str:
        workshop.of_run(run).mkdir()
        workshop.make(workshop.work_of(run)).chmod(0o711)
        order = BuildOrder(run, commit, "dev", "", "ada")
        await builds.run(order)
        assert stat.S_IMODE((workshop.work_of(run) / "test").stat().st_mode) == 0o700, (
            "closed to the number's next user"
        )
        workshop.clean(run)
        return workshop.log(run).read_text()

    async def both() -> list[str]:
        return list(await asyncio.gather(build(1), build(1 + len(BUILD_UIDS))))  # at once, and of one remainder

    logs = asyncio.run(both())
    users = {int(line.split()[-1]) for log in logs for line in log.splitlines() if line.startswith("I am")}
    assert len(users) == 2
    assert users <= set(BUILD_UIDS)
    assert all("parents: 0 0 0" in log for log in logs)
    uid = BUILD_UIDS[301]
    with subprocess.Popen(["sleep", "100"], **as_user(User(uid, uid))) as left:
        later = asyncio.run(build(301))
        assert left.wait() == -signal.SIGKILL, "what an earlier build left ends before the next one begins"
    assert f"I am {uid}" in later, "it could work in the environment that another user's build had left"
    bench.store.close()


def test_a_user_id_in_use_by_another_engine_is_not_reused() -> None:
    workshop = Workshop(Path("/nonexistent"), Path("/nonexistent"), User(65534, 65534))
    with workshop.run_user(400) as one, workshop.run_user(400) as other:
        assert one
        assert other
        assert one.uid != other.uid
    with workshop.run_user(400) as again:
        assert again == one


def test_only_root_can_write_to_the_folders_above_a_build(tmp_path: Path) -> None:
    """uv, pytest, node and others look for settings in the folders above, where another build could leave some."""
    above = Workshop.of(tmp_path, {}).work.parents
    assert not [str(folder) for folder in above if folder.exists() and folder.stat().st_mode & 0o022]


def test_a_cache_is_packed_and_unpacked_as_the_builds_user(open_place: Path) -> None:
    """With a folder and a file of root's, to which a build could swap in a link."""
    caches, folder = open_place / "caches", owned(OLD, open_place / "source")
    caches.mkdir()
    for name in ("modules", "own"):
        owned(OLD, folder / name)
        (folder / name / "file").write_text("from the cache")
    (folder / "modules" / "secret").write_text("root's alone")
    (folder / "modules" / "secret").chmod(0o600)
    keep_cache(caches / "a", folder, ("own",), OLD)
    keep_cache(caches / "b", folder, ("modules",), OLD)
    keep_cache(caches / "c", folder, ("*/file",), OLD)
    fresh = owned(NEW, open_place / "fresh")
    (fresh / "modules").mkdir()
    for kept in ("a", "b", "c"):
        restore_cache(caches / kept, fresh, NEW)
    assert (fresh / "own" / "file").read_text() == "from the cache"
    assert (fresh / "own" / "file").stat().st_uid == NEW.uid
    assert list((fresh / "modules").iterdir()) == [], "only root could write there"
    assert (fresh / "modules").stat().st_uid == 0, "it was not given away either"
    assert not (caches / "b").exists(), "the user could not read all of it"
    assert {stat.S_IMODE(path.stat().st_mode) for path in caches.iterdir()} == {0o600}


def test_a_kept_environment_changes_to_the_next_runs_user_except_for_roots_files(open_place: Path) -> None:
    with environment(open_place, "dev", None, OLD) as place:
        (place / "planted").touch()
    with environment(open_place, "dev", None, NEW) as again:
        assert again == place
        owners = {path.lstat().st_uid for path in again.rglob("*") if path.name != "planted"}
        assert owners == {NEW.uid}
        assert (again / "planted").stat().st_uid == 0
        enters = [subprocess.run(["ls", again], check=False, **as_user(who)).returncode for who in (OLD, NEW)]
    assert enters == [2, 0], "a later run may get the number of the first"
    assert subprocess.run(["ls", again], check=False, **as_user(NEW)).returncode == 2
    (caches := open_place / "work" / "environments").mkdir(parents=True)
    left = owned(OLD, caches / "key-0")
    Workshop(open_place, open_place / "work", NEW).clean_all()
    assert left.stat().st_uid == 0, "nor does it find what a killed engine left"


def test_ending_a_builds_processes_exposes_no_environment(open_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINES_OWN_SECRET", "hush-hush")
    found = owned(OLD, open_place / "found")
    look = (
        "import glob, os\n"
        "while True:\n"
        "    for path in glob.glob('/proc/[0-9]*/environ'):\n"
        "        try: text = open(path, 'rb').read()\n"
        "        except OSError: continue\n"
        "        if b'hush' + b'-hush' in text: open('seen', 'wb').write(text)\n"
        "        open('looked', 'w')\n"
    )
    words = [sys.executable, "-I", "-S", "-c", look]
    with subprocess.Popen(words, cwd=found, env={}, **as_user(OLD)):
        eventually((found / "looked").exists, what="it looks at every process")
        end_user(OLD.uid)
    assert not (found / "seen").exists()
