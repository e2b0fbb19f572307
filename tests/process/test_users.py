"""A user for each service of an engine that is not root: lent by a process with just the capabilities of its unit."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hitless.cli.host import USERS_SERVICE, HostUnits
from hitless.engine.folders import Folders
from hitless.worker.users import borrow
from hitless.workers.isolation import USERS_VARIABLE
from tests.process.conftest import SERVICES, Ran, Site, kill
from tests.process.gateway_support import ask
from tests.process.test_tls import free_port
from tests.support import eventually

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.getuid() != 0, reason="only root can act as other users"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux is not installed"),
]

ENGINE, FIRST, COUNT = 61990, 400000, 3
"""The engine's user, and the range that is lent to it: the first id is for processes without a service."""
DOMAIN = "{}.example.org"


def unit_lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


class Lender:
    """Starts the process of the unit for each connection that waits, as systemd does."""

    def __init__(self, folder: Path) -> None:
        self.path, self.files = folder / "users.sock", (folder / "subuid", folder / "subgid")
        for file in self.files:
            file.write_text(f"someone:100000:65536\n{ENGINE}:{FIRST}:{COUNT}\n")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        os.chown(self.path, ENGINE, ENGINE)
        self.path.chmod(0o600)
        self.listener.listen()
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._serve)

    def words(self) -> list[str]:
        lines = unit_lines(HostUnits(python=sys.executable).unit_text(USERS_SERVICE))
        kept = ",".join(f"+{name.lower().removeprefix('cap_')}" for name in lines["AmbientCapabilities"].split())
        assert lines["CapabilityBoundingSet"] == lines["AmbientCapabilities"]
        words = ["setpriv", f"--reuid={ENGINE}", f"--regid={ENGINE}", "--clear-groups", f"--inh-caps=-all,{kept}"]
        words += [f"--ambient-caps=-all,{kept}", f"--bounding-set=-all,{kept}", "--no-new-privs"]
        return [*words, *shlex.split(lines["ExecStart"]), *map(str, self.files)]

    def _serve(self) -> None:
        """Like a socket unit: the descriptor is number 3 of a new process whenever none runs and somebody connects."""
        while not self.ended.is_set():
            if select.select([self.listener], [], [], 0.05)[0]:
                self.process = subprocess.Popen(
                    self.words(), preexec_fn=self._pass_on, close_fds=False, env={}, cwd="/"
                )
                self.process.wait()

    def _pass_on(self) -> None:
        os.dup2(self.listener.fileno(), 3)
        os.set_inheritable(3, True)

    def end(self) -> None:
        self.ended.set()
        if self.process is not None:
            self.process.kill()
        self.thread.join()
        self.listener.close()


class UserSite(Site):
    """A service on the shared engine of a user who is not root."""

    @property
    def folders(self) -> Folders:
        return Folders(Path(self.environ["HITLESS_DATA_DIR"]), Path(self.environ["XDG_RUNTIME_DIR"]) / "none")

    @property
    def run(self) -> Path:
        return (self.folders.data / "run").resolve()

    def hitless(self, *words: str, exit_code: int | None = 0, timeout_s: float = 120, stdin: str | None = None) -> Ran:
        command = [sys.executable, "-m", "hitless", *words, "--json", "--service-dir", str(self.folder)]
        done = subprocess.run(
            command, user=ENGINE, group=ENGINE, extra_groups=[], umask=0o077, cwd="/", env=self.environ,
            input=stdin or "", capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
        assert exit_code in (None, done.returncode), f"hitless {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr)

    def get_json(self, path: str) -> Any:
        host = DOMAIN.format(self.folder.name)
        answer = ask(("127.0.0.1", int(self.environ["PORT"])), path, headers={"host": host})
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def user(self) -> int:
        return int(self.get_json("/use")["uid"])

    def pool(self, function: str) -> Path:
        """The folder of the function's newest sockets."""
        name = self.folder.name
        return max((self.run / "w").glob(f"{name}_dev-r*-{function}-*/g*"), key=lambda one: one.stat().st_mtime_ns)

    def zygote(self, function: str) -> int:
        return int(json.loads((self.pool(function) / "zygote.json").read_text())["pid"])


class Host:
    """An engine of two hostile services, and its lender."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.chmod(0o755)
        self.lender = Lender(place)
        home = place / "home"
        self.environ = {
            "HOME": str(home), "HITLESS_DATA_DIR": str(home), "XDG_RUNTIME_DIR": str(place / "r"),
            "PATH": os.environ["PATH"], "PORT": str(free_port()), USERS_VARIABLE: str(self.lender.path),
        }  # fmt: skip
        for folder in (home, place / "r"):
            folder.mkdir(mode=0o700)
            os.chown(folder, ENGINE, ENGINE)
        self.one, self.other = self._service("one"), self._service("other")
        self.lender.thread.start()

    def _service(self, name: str) -> UserSite:
        folder = self.place / name
        shutil.copytree(SERVICES / "hostile", folder)
        (folder / "own.py").write_text(f"SERVICE = {name!r}")
        file = folder / "serverless.yml"
        text = file.read_text().replace("service: hostile", f"service: {name}")
        file.write_text(text.replace("listen: 127.0.0.1:0", f"domain: {DOMAIN.format(name)}"))
        subprocess.run(["chown", "-R", f"{ENGINE}:{ENGINE}", folder], check=True)
        return UserSite(folder, self.environ)

    def up(self) -> None:
        self.one.hitless("up", "--detach", f"--shared=127.0.0.1:{self.environ['PORT']}")
        self.other.hitless("up", "--detach")

    def processes(self) -> list[int]:
        """The processes of the lent users. No zombies: orphans become children of the tests, which reap only some."""
        uids = ",".join(map(str, range(FIRST, FIRST + 256)))
        done = subprocess.run(["pgrep", "--uid", uids, "--runstates", "D,I,R,S,T"], capture_output=True)
        return [*map(int, done.stdout.split())]

    def end(self) -> None:
        self.one.hitless("down", "--engine", "--force", exit_code=None)
        self.lender.end()
        eventually(lambda: not self.processes(), what="every process of a service has ended")


@pytest.fixture
def host() -> Iterator[Host]:
    place = Path(tempfile.mkdtemp(prefix="hl-users-", dir="/var/tmp"))
    found = Host(place)
    yield found
    found.end()
    shutil.rmtree(place)


def capabilities(pid: int) -> dict[str, int]:
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return {name: int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")}


def targets(host: Host) -> list[tuple[str, str, str]]:
    """What a handler of one service may want of the other, and of the engine: name, attempt, target."""
    other, run, home = host.other, host.other.run, host.other.folders.data
    pool, zygote = other.pool("api"), other.zygote("api")
    worker = int(other.get_json("/use")["pid"])
    root = next(
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit() and title(pid).startswith(f"hitless: root zygote {run}")
    )
    found: list[tuple[str, str, object]] = [
        ("log", "read", home / "logs/other_dev/r1/api/w0.log"),
        ("log_of_the_zygote", "write", home / "logs/other_dev/r1/api/zygote.log"),
        ("artifacts", "read", next(one for one in home.glob("artifacts/trees/*/own.py") if "other" in one.read_text())),
        ("state", "read", home / "state.sqlite"),
        ("ids", "read", home / "users.json"),
        ("specification", "read", pool.parent / "spec.json"),
        ("page", "write", pool.parent / "page"),
        ("socket", "connect", pool / "w0.sock"),
        ("control", "connect", pool / "ctl.sock"),
        ("root_zygote", "connect", run / "w/root.sock"),
        ("api", "connect", run / "api.sock"),
        ("lender", "connect", host.lender.path),
        ("new_socket", "bind", pool / "evil.sock"),
    ]
    for pid in (worker, zygote, root):
        found += [(f"{what}_{pid}", what, pid) for what in ("write_memory", "trace", "signal")]
        found += [(f"{name}_{pid}", "read", f"/proc/{pid}/{name}") for name in ("environ", "root", "cwd")]
    return [(name, what, str(target)) for name, what, target in found]


def title(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def tried(attempts: list[tuple[str, str, str]], uid: int) -> dict[str, bool]:
    """What succeeds for a process of that user without any further isolation."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", SERVICES / "hostile/handlers.py"], cwd="/", input=json.dumps(attempts),
        capture_output=True, text=True, check=True, user=uid, group=uid, extra_groups=[], env={},
    )  # fmt: skip
    rows = [json.loads(line.removeprefix("tried ")) for line in done.stdout.splitlines()]
    return {row["name"]: row["out"] for row in rows}


def test_two_services_have_two_users_which_reach_nothing_of_each_other_or_of_the_engine(host: Host) -> None:
    host.up()
    assert (host.one.user(), host.other.user()) == (FIRST + 1, FIRST + 2)
    status = host.one.hitless("status").document["engine"]
    assert status["isolation_missing"] == []
    attempts = targets(host)
    for _, what, target in attempts:
        assert not host.one.get_json(f"/try?attempt={what}&target={target}")["out"], (what, target)
    by_the_user_alone = tried(attempts, FIRST + 1)
    assert len(by_the_user_alone) == len(attempts) >= 25
    assert not any(by_the_user_alone.values()), by_the_user_alone
    by_the_engines_user = tried(attempts, ENGINE)
    assert by_the_engines_user["state"], "the attempts succeed for a user who may"
    for name, pid in (("worker", int(host.one.get_json("/use")["pid"])), ("zygote", host.one.zygote("api"))):
        assert capabilities(pid) == dict.fromkeys(capabilities(pid), 0) | {"NoNewPrivs": 1}, name
    # The engine's user reads what the handlers wrote, and no other user can.
    host.one.get_json("/try?attempt=setuid&target=0")
    assert "START RequestId" in json.dumps(host.one.hitless("logs").document)
    for file in (host.one.folders.data / "logs").rglob("*.log"):
        assert file.parent.stat().st_mode & 0o7 == 0


def test_a_service_keeps_its_user_over_restarts_and_its_processes_end(host: Host) -> None:
    host.up()
    before = host.one.user(), host.other.user()
    (host.one.folder / "marker").write_text("another release")
    assert host.one.hitless("deploy").document["outcome"] == "live"
    assert (host.one.user(), host.other.user()) == before
    kill(host.one.zygote("neighbour"))
    eventually(lambda: host.one.pool("neighbour").name == "g2" and host.one.user() == before[0])
    kill(host.one.hitless("status").document["engine"]["pid"])
    host.one.hitless("up", "--detach")
    assert host.one.hitless("upgrade", "--force").document["replaced"]
    assert (host.one.user(), host.other.user()) == before
    host.one.hitless("down", "--engine")
    eventually(lambda: not host.processes())
    host.environ["PORT"] = str(free_port())
    host.up()
    assert (host.one.user(), host.other.user()) == before
    (host.one.folder / "event.json").write_text("{}")
    event = str(host.one.folder / "event.json")
    third = host.one.hitless("invoke", "neighbour", "--event", event).document
    assert json.loads(third["body"])["uid"] == before[0]


def test_an_engine_of_the_first_release_is_upgraded_and_may_return(host: Host) -> None:
    """Before, all ran as the engine's user; both have to write the same logs."""
    socket_path = host.environ.pop(USERS_VARIABLE)
    host.up()
    assert (host.one.user(), host.other.user()) == (ENGINE, ENGINE)
    for users, expected in ((socket_path, FIRST + 1), ("", ENGINE), (socket_path, FIRST + 1)):
        host.environ[USERS_VARIABLE] = users
        kill(host.one.hitless("status").document["engine"]["pid"])
        host.one.hitless("up", "--detach")
        host.one.hitless("upgrade", "--force")
        assert host.one.user() == expected
        missing = host.one.hitless("status").document["engine"]["isolation_missing"]
        assert missing == ([] if users else ["a user of its own (HITLESS_USERS is empty)"])
        for worker in (0, 1):
            assert (host.one.folders.data / f"logs/one_dev/r1/neighbour/w{worker}.log").exists()


def asked(host: Host, request: bytes, *, uid: int, unshare: bool = True) -> str:
    """The reply to a process of that user, which has left its user namespace or not."""
    script = (
        "import ctypes, socket, sys\n"
        f"if {unshare}: assert ctypes.CDLL(None).unshare(0x10000000) == 0\n"
        f"with socket.socket(socket.AF_UNIX) as asking: asking.connect({str(host.lender.path)!r});"
        f" asking.sendall({request!r}); print(asking.recv(1000).decode()); print(open('/proc/self/uid_map').read())"
    )
    words = ["/usr/bin/python3", "-I", "-c", script]
    done = subprocess.run(words, user=uid, group=uid, extra_groups=[], capture_output=True, text=True, check=False)
    return done.stdout or done.stderr


def test_the_lender_maps_only_ids_of_the_range_for_processes_of_the_engines_user(host: Host) -> None:
    reply, one, other = asked(host, b"1\n", uid=ENGINE).splitlines()[:3]
    assert reply == str(FIRST + 1)
    assert [line.split() for line in (one, other)] == [[str(id), str(id), "1"] for id in (ENGINE, FIRST + 1)]
    for request in (b"3\n", b"-1\n", b"-400000\n", b"99999999999999999999", b"1 2", b"\n", b"\xff", b"1_0"):
        reply = asked(host, request, uid=ENGINE)
        assert "is left" in reply or "is not mapped" in reply, reply
        assert str(FIRST) not in reply.splitlines()[-1]
    assert "only the engine's user may ask" in asked(host, b"1\n", uid=0, unshare=False)
    assert "PermissionError" in asked(host, b"1\n", uid=65534)
    assert "PermissionError" in asked(host, b"1\n", uid=FIRST + 1)
    assert "is not mapped" in asked(host, b"1\n", uid=ENGINE, unshare=False)
    for text in (f"{ENGINE}:0:10\n", "", f"someone:{FIRST}:9\n", f"{ENGINE}:{FIRST}:9"):  # subgid differs, or has none
        host.lender.files[1].write_text(text)
        assert "lend 0, and this is service 1" in asked(host, b"1\n", uid=ENGINE)
    process = host.lender.process
    assert process is not None
    both = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
    assert capabilities(process.pid) == dict.fromkeys(capabilities(process.pid), both) | {"NoNewPrivs": 1}


def test_a_killed_lender_costs_nothing_and_a_missing_one_stops_new_pools_only(host: Host) -> None:
    host.up()
    assert host.lender.process is not None
    with suppress(ProcessLookupError):
        host.lender.process.send_signal(signal.SIGKILL)
    for marker in ("killed", "again"):
        (host.one.folder / "marker").write_text(marker)
        assert host.one.hitless("deploy").document["outcome"] == "live"
    host.lender.path.rename(host.place / "away")
    (host.one.folder / "marker").write_text("missing")
    failed = host.one.hitless("deploy", exit_code=3)
    assert "the service gets no user of its own" in json.dumps(failed.document)
    assert host.one.user() == FIRST + 1
    (host.place / "away").rename(host.lender.path)
    assert host.one.hitless("deploy").document["outcome"] == "live"


def test_borrowing_from_nobody_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no user of its own: .*: No such file"):
        borrow(str(tmp_path / "none"), 1)
