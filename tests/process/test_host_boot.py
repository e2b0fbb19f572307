"""A machine that systemd boots: install, serve, restart and upgrade under load, reboot, back up, uninstall, restore.

systemd runs in namespaces of its own (`systemd-nspawn`), with this machine's /usr and an /etc of the test.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-container is not installed"),
    pytest.mark.skipif(os.getuid() != 0, reason="systemd-nspawn needs root"),
]

REPOSITORY = Path(__file__).parents[2]
BOOT_S, PACKAGED_S = 240, 900
DATA = "/var/lib/hitless/clock"
UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash -eux /out/script
StandardOutput=append:/out/log
StandardError=append:/out/log
ExecStopPost=/bin/systemctl poweroff --force --no-block
[Install]
WantedBy=multi-user.target
"""
LOAD = """\
import json, os, sys, threading, time, urllib.request
stages = json.load(open("/out/status.json"))["stages"]
end, answers = time.monotonic() + float(sys.argv[1]), []
def send():
    while time.monotonic() < end and not os.path.exists("/out/enough"):
        try:
            with urllib.request.urlopen(stages[0]["url"] + "/fast", timeout=10) as response:
                answers.append(response.status)
        except OSError as error:
            answers.append(repr(error))
threads = [threading.Thread(target=send) for _ in range(4)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
failed = [one for one in answers if one != 200]
sys.exit(f"{len(failed)} of {len(answers)} failed: {failed[:3]}" if failed or len(answers) < 20 else 0)
"""
LOADING = "python3 /out/load.py"
AWAIT = f"until hitless status --json --data-dir {DATA} >/out/status.json 2>/dev/null; do sleep 0.2; done"
UPGRADED = f"""
touch /out/enough
wait $load
rm /out/enough
systemctl is-active hitless@clock
systemctl status --no-pager --lines=0 hitless@clock
{AWAIT}
main=$(systemctl show --property=MainPID --value hitless@clock)
grep -q "\\"pid\\": $main," /out/status.json
"""
"""The load saw no failure, and the unit is active with the new daemon as its main process."""
WORKER = "pgrep -o -f 'hitless: worker plain/dev'"
HAS_OWN_USER = f"""
grep -q '"isolation_missing": \\[\\]' /out/status.json
lent=$(sed -n s/hitless-clock://p /etc/subuid)
test $(sed -n s/hitless-clock://p /etc/subgid) = $lent
test $(ps -o uid= -p $({WORKER})) = $((${{lent%:*}} + 1))
"""
"""The service is the first one, and the range's own first id is for processes without a service."""
FIRST_BOOT = f"""
hitless host install clock
mkdir /etc/systemd/system/hitless@clock.service.d
printf '[Service]\\nUnsetEnvironment=HITLESS_USERS\\n' >/etc/systemd/system/hitless@clock.service.d/first.conf
systemctl daemon-reload
systemctl restart hitless@clock
install -d -o hitless-clock -g hitless-clock {DATA}/source
cp -r {REPOSITORY}/tests/services/plain/. {DATA}/source/
chown -R hitless-clock: {DATA}/source
cd {DATA}/source
hitless up --detach --data-dir {DATA}
{AWAIT}
grep -q '"isolation_missing": \\[\\]' /out/status.json
test $(ps -o user:20= -p $({WORKER})) = hitless-clock  # as with the unit of the first release
rm -r /etc/systemd/system/hitless@clock.service.d
hitless host install
{LOADING} 10 & load=$!
sleep 1
systemctl restart hitless@clock
wait $load
before=$(systemctl show --property=MainPID --value hitless@clock)
{LOADING} 200 & load=$!
hitless upgrade --force --json --data-dir {DATA} >/out/upgrade.json
{UPGRADED}
test $main != $before
{HAS_OWN_USER}
systemctl kill --signal=KILL hitless-users@clock.service || true
touch {DATA}/source/marker
hitless deploy --service-dir {DATA}/source --data-dir {DATA} --json >/out/deploy.json
{HAS_OWN_USER}
test -n "$(hitless logs --service-dir {DATA}/source --data-dir {DATA})"
systemctl show --property=ActiveState hitless-users@clock.socket | grep -q =active
hitless host status | grep -q "users ${{lent%:*}}-"
pkill -KILL -u hitless-clock -f 'hitless: engine|hitless: guardian|haproxy -db'
{AWAIT}
{LOADING} 1
hitless backup - --data-dir {DATA} >/out/backup
echo done >/out/first
"""
SECOND_BOOT = f"""
{AWAIT}
{LOADING} 1
{HAS_OWN_USER}
hitless host uninstall --yes
for left in /etc/hitless /var/lib/hitless /run/hitless* /etc/systemd/system/hitless*
do if [ -e $left ]; then exit 1; fi; done
if grep hitless /etc/passwd /etc/subuid /etc/subgid || pgrep -f 'hitless[.:]'; then exit 1; fi
hitless host install clock
hitless restore - --data-dir {DATA} </out/backup
{AWAIT}
{LOADING} 1
echo done >/out/second
"""


def make_root(root: Path) -> None:
    """The files of a machine whose system is this one's /usr."""
    for folder in ("usr", "out", "root", "var/lib", "etc/systemd/system/multi-user.target.wants"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("os-release", "passwd", "group", "shadow", "nsswitch.conf", "login.defs", "ld.so.cache", "hosts"):
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    for name in ("ssl", "alternatives", "pam.d", "default", "security"):
        shutil.copytree(f"/etc/{name}", root / "etc" / name, symlinks=True)
    (root / "etc/machine-id").write_text(secrets.token_hex(16) + "\n")  # without it, the presets enable all units
    units = root / "etc/systemd/system"
    (units / "script.service").write_text(UNIT)
    (units / "multi-user.target.wants/script.service").symlink_to("../script.service")
    for name in ("systemd-networkd-wait-online", "systemd-logind", "systemd-firstboot", "console-getty"):
        (units / f"{name}.service").symlink_to("/dev/null")
    (root / "out/load.py").write_text(LOAD)


def boot(root: Path, script: str, *, packaged: bool = False) -> str:
    """Boot, run the script, power off. Returns the script's log. With `packaged`, /usr may change, and hitless is what
    the script installs.
    """
    path = ":".join(
        ([] if packaged else [str(Path(sys.executable).parent)]) + ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    )
    (root / "out/script").write_text(f"export HOME=/root PATH={path}\n{script}")
    log = root / "out/log"
    log.unlink(missing_ok=True)
    calls = "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"
    words = [
        "systemd-nspawn",
        "-D",
        str(root),
        "--overlay=/usr::/usr" if packaged else "--bind-ro=/usr",
        f"--bind-ro={REPOSITORY}",
        "--private-network",
    ]
    words += ["--register=no", "--keep-unit", f"--system-call-filter={calls}", "-b", "systemd.unit=multi-user.target"]
    subprocess.run(
        ["timeout", str(PACKAGED_S if packaged else BOOT_S), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return log.read_text() if log.exists() else "systemd did not start"


def test_a_service_survives_restarts_kills_and_a_reboot_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"  # pytest's own folder is closed to other users
    make_root(root)
    log = boot(root, FIRST_BOOT)
    assert (root / "out/first").exists(), log[-3000:]
    replaced = {one["part"] for one in json.loads((root / "out/upgrade.json").read_text())["replaced"]}
    assert {"daemon", "guardian", "spooler", "root zygote", "HAProxy"} < replaced
    log = boot(root, SECOND_BOOT)
    assert (root / "out/second").exists(), log[-3000:]


PACKAGED = f"""
mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates
touch /var/lib/dpkg/status /var/lib/dpkg/available
dpkg --install --force-depends /out/hitless_0.0.1_*.deb
hitless host install clock
install -d -o hitless-clock -g hitless-clock {DATA}/source
cp -r {REPOSITORY}/tests/services/plain/. {DATA}/source/
chown -R hitless-clock: {DATA}/source
(cd {DATA}/source && hitless up --detach --data-dir {DATA})
hitless host install idle
{AWAIT}
{LOADING} 900 & load=$!
dpkg --install --force-depends /out/hitless_0.0.2_*.deb
{UPGRADED}
grep -q '"version": "0.0.2"' /out/status.json
if grep -l /opt/hitless/0.0.1/ /proc/[0-9]*/maps; then exit 1; fi
grep -q ^ExecStart=/opt/hitless/current/bin/python /etc/systemd/system/hitless@.service
systemctl is-active hitless@idle
ls /opt/hitless
echo done >/out/packaged
"""


def test_the_debian_package_upgrades_the_running_services(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_root(root)
    for version in ("0.0.1", "0.0.2"):
        tree = tmp_path / version
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in tracked.stdout.rstrip("\0").split("\0"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tree / name)
        for file in (tree / "pyproject.toml", tree / "src/hitless/__init__.py"):
            file.write_text(re.sub(r'(?m)^(version|__version__) = ".*"', rf'\1 = "{version}"', file.read_text()))
        command, environ = (
            [tree / "scripts/debian", root / "out"],
            {"HITLESS_PYTHON": sys.executable, "HITLESS_COMPILED": "0"},
        )
        built = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False)
        assert built.returncode == 0, built.stderr
    log = boot(root, PACKAGED, packaged=True)
    assert (root / "out/packaged").exists(), log[-3000:]
