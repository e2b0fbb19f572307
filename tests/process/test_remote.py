"""Plain verbs on another machine, over a real sshd with keys that the test makes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Site
from tests.process.test_pipeline_services import written
from tests.support import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.process,
    pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="openssh-server is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="sshd logs in as the user who runs it"),
]


@pytest.fixture
def sshd() -> Iterator[tuple[int, str]]:
    """A port on which sshd listens, and the ssh command for it."""
    with tempfile.TemporaryDirectory(prefix="sshd-") as name, socket.socket() as probe:
        folder = Path(name)
        for key in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nSetEnv PATH={path}\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "config"], stderr=log)
        try:
            eventually(lambda: b"listening" in (folder / "log").read_bytes(), what="sshd listens")
            options = ["-F", "none", "-i", f"{folder}/user", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
            yield port, " ".join(["ssh", *options, "-o", f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR"])
        finally:
            server.terminate()
            server.wait()


def test_plain_verbs_work_on_another_machine(site: Site, sshd: tuple[int, str], tmp_path: Path) -> None:
    port, command = sshd
    data = Path(tempfile.mkdtemp(prefix="there-"))
    there = Site(data / "source/plain")
    site.environ["HITLESS_SSH_COMMAND"] = command
    (site.folder / ".env").write_text("SECRET=1")
    (site.folder / ".gitignore").write_text(".env\n.hitless/\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "1"]):
        subprocess.run(["git", "-C", site.folder, *words], check=True)
    try:
        site.hitless("remote", "add", "dev", f"ssh://root@127.0.0.1:{port}{data}")
        site.hitless("up", "--detach", "--remote", "dev")
        assert not (site.folder / ".hitless/state.sqlite").exists()
        assert not (there.folder / ".env").exists()
        site.touch("second")
        shipped = site.hitless("deploy", "--message", 'it\'s "quoted" $HOME').document
        assert (shipped["release"], shipped["outcome"]) == (2, "live")
        assert site.hitless("rollback").document["release"] == 1
        stage = site.hitless("status").document["stages"][0]
        assert stage["live"]["release"] == 1
        assert len(stage["live"]["commit"]) == 40
        assert site.hitless("releases").document[0]["message"] == 'it\'s "quoted" $HOME'
        # exit codes, and errors of ssh itself
        assert site.hitless("rollback", "77", exit_code=None).exit_code == 2
        site.hitless("remote", "add", "gone", "ssh://root@127.0.0.1:1/x")
        assert "ssh to root@127.0.0.1 failed" in site.hitless("status", "--remote", "gone", exit_code=1).stderr
    finally:
        site.hitless("down", "--force", exit_code=None)
        shutil.rmtree(data)


def test_a_service_of_a_shared_engine_ships_by_a_push_over_ssh(sshd: tuple[int, str], tmp_path: Path) -> None:
    port, command = sshd
    data = Path(tempfile.mkdtemp(prefix="there-"))
    team = written(tmp_path, "users", {"HITLESS_SSH_COMMAND": command})
    verb = team.site.hitless
    try:
        verb("remote", "add", "host", f"ssh://root@127.0.0.1:{port}{data}")
        verb("up", "--detach", "--shared", "127.0.0.1:0", "--remote", "host")
        path = verb("pipeline", "url", "--remote", "host").document["url"]
        team.git("remote", "add", "engine", f"ssh://root@127.0.0.1:{port}{path}")
        team.git("config", "core.sshCommand", command)
        team.site.touch("second")
        team.commit("second")
        assert "release 2 is live in users_dev" in team.push("dev")
        assert verb("promote", "dev", "prod", "--remote", "host").document["stage"] == "users_prod"
        runs = verb("pipeline", "runs", "--remote", "host").document
        assert [one["stage"] for one in runs] == ["users_prod", "users_dev"]
    finally:
        verb("down", "--engine", "--force", "--remote", "host", exit_code=None)
        shutil.rmtree(data)
