"""A hostile handler against its engine: each attempt to leave the sandbox is refused by the kernel."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from hitless.pipeline.buildspec.run import BuildPlan, User
from hitless.pipeline.buildspec.run import run as run_build
from hitless.pipeline.workshop import BUILD_UIDS
from hitless.worker.process import start_time
from hitless.workers.isolation import HANDLER_UIDS
from tests.process.conftest import SERVICES, Site
from tests.support import eventually, gone

pytestmark = pytest.mark.process

ABSTRACT = f"hitless-test-{os.getpid()}"
STORAGE_MB, TOO_MUCH_MB = 600, 700
"""More than the 512 MB that Lambda's /tmp has without `ephemeralStorageSize`, and more than the service's 640 MB."""


class Prey:
    """The running engine of a hostile service, and what its handler may want."""

    def __init__(self, site: Site, home: Path) -> None:
        self.site, self.home, self.run = site, home, site.folders.run
        self.data = site.folders.data

    def pid(self, name: str) -> int:
        return int(self.site.status()["engine"][name])

    def worker(self, function: str) -> int:
        found = next(one for one in self.site.stage()["functions"] if one["name"] == function)
        return int(found["workers"][0]["pid"])

    def pool(self, function: str) -> Path:
        """The folder of the function's sockets."""
        return next((self.run / "w").glob(f"dev-r*-{function}-*/g1"))

    def attempt(self, what: str, target: object = "") -> bool:
        """Whether the handler succeeded."""
        status, _, answer = self.site.get(f"/try?attempt={what}&target={quote(str(target))}")
        assert status == 200
        return bool(answer["out"])


@pytest.fixture(scope="module")
def prey() -> Iterator[Prey]:
    """In a folder that every user can look into, so that only what hitless does protects its files."""
    place = Path(tempfile.mkdtemp(prefix="hitless-prey-", dir="/var/tmp"))
    place.chmod(0o755)
    home = place / "home"
    for secret in (".ssh/id_ed25519", ".aws/credentials", "other/app.py"):
        (home / secret).parent.mkdir(parents=True)
        (home / secret).write_text("secret")
        (home / secret).chmod(0o644)
    shutil.copytree(SERVICES / "hostile", place / "service")
    site = Site(place / "service", {"HOME": str(home), "XDG_CACHE_HOME": str(place / "cache")})
    site.up()
    yield Prey(site, home)
    site.end()
    shutil.rmtree(place, ignore_errors=True)


Target = Callable[[Prey], object]
ATTEMPTS: list[tuple[str, str, Target]] = [
    ("the_state_file", "read", lambda prey: prey.data / "state.sqlite"),
    ("the_state_files_backup", "read", lambda prey: prey.data / "state.sqlite.backup"),
    ("an_artifacts_zip", "read", lambda prey: next((prey.data / "artifacts").rglob("*.zip"))),
    ("the_engines_log", "read", lambda prey: prey.data / "engine.log"),
    ("the_service_folder", "read", lambda prey: prey.site.folder / "serverless.yml"),
    ("another_services_code", "read", lambda prey: prey.home / "other" / "app.py"),
    ("ssh_keys", "read", lambda prey: prey.home / ".ssh" / "id_ed25519"),
    ("aws_credentials", "read", lambda prey: prey.home / ".aws" / "credentials"),
    ("the_password_file", "read", lambda prey: "/etc/shadow"),
    ("kernel_messages", "read", lambda prey: "/dev/kmsg"),
    ("a_neighbours_pool", "read", lambda prey: prey.pool("neighbour").parent / "spec.json"),
    ("a_neighbours_stats_page", "write", lambda prey: prey.pool("neighbour").parent / "page"),
    ("a_neighbours_environment", "read", lambda prey: f"/proc/{prey.worker('neighbour')}/environ"),
    ("the_engines_environment", "read", lambda prey: f"/proc/{prey.pid('pid')}/environ"),
    ("the_engines_descriptors", "read", lambda prey: f"/proc/{prey.pid('pid')}/fd/0"),
    ("a_neighbours_memory", "write_memory", lambda prey: prey.worker("neighbour")),
    ("tracing_a_neighbour", "trace", lambda prey: prey.worker("neighbour")),
    ("tracing_the_engine", "trace", lambda prey: prey.pid("pid")),
    ("signals_to_the_engine", "signal", lambda prey: prey.pid("pid")),
    ("signals_to_haproxy", "signal", lambda prey: prey.pid("gateway_pid")),
    ("signals_to_the_root_zygote", "signal", lambda prey: prey.pid("root_zygote_pid")),
    ("signals_to_a_neighbour", "signal", lambda prey: prey.worker("neighbour")),
    ("haproxys_admin_socket", "connect", lambda prey: prey.run / "gw" / "adm.sock"),
    ("the_guardians_socket", "connect", lambda prey: prey.run / "gw" / "guardian.sock"),
    ("haproxys_configuration", "read", lambda prey: prey.run / "gw" / "boot" / "haproxy.cfg"),
    ("haproxys_inner_socket", "connect", lambda prey: prey.run / "gw" / "hop" / "in.sock"),
    ("the_engines_api", "connect", lambda prey: prey.run / "api.sock"),
    ("the_root_zygotes_socket", "connect", lambda prey: prey.run / "w" / "root.sock"),
    ("a_neighbours_control_socket", "connect", lambda prey: prey.pool("neighbour") / "ctl.sock"),
    ("a_neighbours_worker", "connect", lambda prey: prey.pool("neighbour") / "w0.sock"),
    ("an_abstract_socket", "connect", lambda prey: f"@{ABSTRACT}"),
    ("the_stages_port", "share_port", lambda prey: prey.site.stage()["url"].rpartition(":")[2]),
    ("a_socket_in_the_runtime_folder", "bind", lambda prey: prey.run / "evil.sock"),
    ("a_file_beside_its_sockets", "write", lambda prey: prey.pool("api") / "evil"),
    ("its_pools_lock", "remove", lambda prey: prey.pool("api") / "alive.lock"),
    ("its_zygotes_record", "remove", lambda prey: prey.pool("api") / "zygote.json"),
    ("its_own_artifact", "write", lambda prey: "ROOT/evil.py"),
    ("its_own_artifacts_mode", "chmod", lambda prey: "ROOT"),
    ("etc", "write", lambda prey: "/etc/hitless-evil"),
    ("usr", "write", lambda prey: "/usr/hitless-evil"),
    ("kernel_settings", "write", lambda prey: "/proc/sys/kernel/core_pattern"),
    ("a_fork_bomb", "start_threads", lambda prey: 1100),
    ("filling_tmp", "fill", lambda prey: TOO_MUCH_MB),
    ("a_huge_log", "grow_log", lambda prey: TOO_MUCH_MB),
    ("a_link_in_its_logs", "link_log", lambda prey: prey.data / "state.sqlite"),
    ("root", "setuid", lambda prey: 0),
    ("groups", "setgroups", lambda prey: 0),
    ("capabilities", "own_capabilities", lambda prey: ""),
    ("mounts", "mount", lambda prey: "/tmp"),
    ("a_new_user_namespace", "unshare", lambda prey: "0x10000000"),
    ("a_new_mount_namespace", "unshare", lambda prey: "0x20000"),
    ("keys_of_the_kernel", "system_call", lambda prey: "keyctl"),
    ("io_uring", "system_call", lambda prey: "io_uring_setup"),
    ("page_faults_in_user_space", "system_call", lambda prey: "userfaultfd"),
    ("performance_events", "system_call", lambda prey: "perf_event_open"),
    ("bpf", "system_call", lambda prey: "bpf"),
    ("comparing_kernel_pointers", "system_call", lambda prey: "kcmp"),
    ("system_calls_of_another_abi", "system_call", lambda prey: "getpid of another ABI"),
    ("tracing_its_own_child", "trace_child", lambda prey: ""),
    ("chroot", "chroot", lambda prey: "/tmp"),
    ("devices", "mknod", lambda prey: "/tmp/null"),
    ("more_descriptors", "raise_limit", lambda prey: "RLIMIT_NOFILE"),
    ("more_processes", "raise_limit", lambda prey: "RLIMIT_NPROC"),
    ("a_childs_descriptors", "descriptors_of_a_child", lambda prey: ""),
    ("the_oom_score", "lower_score", lambda prey: ""),
]


@pytest.mark.parametrize(("what", "target"), [one[1:] for one in ATTEMPTS], ids=[one[0] for one in ATTEMPTS])
def test_a_handler_cannot_reach(prey: Prey, what: str, target: Target) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{ABSTRACT}")
        listener.listen()
        assert not prey.attempt(what, target(prey)) or what == "bind"
    assert not (prey.run / "evil.sock").exists()


OUTSIDERS = {
    "read",
    "write",
    "connect",
    "bind",
    "share_port",
    "write_memory",
    "trace",
    "signal",
    "remove",
    "mount",
    "mknod",
}
OPEN_TO_ALL = {"the_service_folder", "another_services_code", "ssh_keys", "aws_credentials", "an_abstract_socket"}
"""Their owner, who is this test, has given others the right to read them."""


def outsiders_attempts(prey: Prey) -> str:
    """What a build and another user of the machine may want of the engine, its services and the machine."""
    chosen = [one for one in ATTEMPTS if one[1] in OUTSIDERS and one[0] not in {*OPEN_TO_ALL, "its_own_artifact"}]
    return json.dumps([(name, what, str(target(prey))) for name, what, target in chosen])


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users can use, with the attempts as a program."""
    place = Path(tempfile.mkdtemp(prefix="hitless-hostile-", dir="/var/tmp"))
    place.chmod(0o777)
    for name in ("source", "scratch"):
        (place / name).mkdir()
        (place / name).chmod(0o777)
    shutil.copy(SERVICES / "hostile" / "handlers.py", place / "source")
    yield place
    shutil.rmtree(place)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as other users")
@pytest.mark.parametrize("who", ["build", "another user"])
def test_neither_a_build_nor_another_user_of_the_machine_reaches(prey: Prey, open_place: Path, who: str) -> None:
    attempts, source = outsiders_attempts(prey), open_place / "source"
    if who == "build":
        (source / "attempts").write_text(attempts)
        plan = BuildPlan(
            buildspec="version: 0.2\nphases: {build: {commands: [/usr/bin/python3 handlers.py < attempts]}}",
            source=str(source), scratch=str(open_place / "scratch"), log="", environ={},
            user=User(BUILD_UIDS[-1], BUILD_UIDS[-1]),
        )  # fmt: skip
        written: list[bytes] = []
        assert run_build(plan, output=written.append).succeeded, written
        shown = b"".join(written).decode()
    else:
        command = ["/usr/bin/python3", "handlers.py"]
        done = subprocess.run(
            command, cwd=source, input=attempts, capture_output=True, text=True, check=True,
            user=65534, group=65534, extra_groups=[], env={},
        )  # fmt: skip
        shown = done.stdout
    tried = [json.loads(line.removeprefix("tried ")) for line in shown.splitlines() if line.startswith("tried ")]
    assert len(tried) == len(json.loads(attempts)) >= 30
    assert [one for one in tried if one["out"]] == []


def test_a_handler_may_write_to_tmp_and_start_programs_as_a_user_of_its_own(prey: Prey) -> None:
    status, _, used = prey.site.get("/use")
    assert (status, used["child"], used["found"]) == (200, "from a child", True)
    assert used["uid"] in HANDLER_UIDS if os.getuid() == 0 else used["uid"] == os.getuid()
    assert not Path("/tmp/own").exists(), "its /tmp is its own"
    assert prey.attempt("fill", STORAGE_MB)
    assert prey.site.status()["engine"]["isolation_missing"] == []


def test_a_handlers_process_ends_with_its_release_and_no_other_process_does(prey: Prey) -> None:
    """Last, because it damages the pool's stats page: the engine signals only processes of the pool."""
    gateway = prey.pid("gateway_pid")
    _, _, planted = prey.site.get(f"/plant?target={gateway}:{start_time(gateway)}")
    prey.site.touch("another release")
    assert prey.site.hitless("deploy").document["outcome"] == "live"
    eventually(lambda: gone(planted["daemon"]), what="the end of the process that the handler left behind")
    assert prey.pid("gateway_pid") == gateway
    assert prey.site.get("/use")[0] == 200
