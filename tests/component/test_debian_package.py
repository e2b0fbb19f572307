"""The Debian package has what a host needs, with the modes and owners that dpkg will set."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed"),
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deb")
    command = [str(ROOT / "scripts/debian"), str(folder), "--no-deps"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.strip())


def test_the_package_has_the_wheel_the_unit_and_the_dependencies(package: Path, tmp_path: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout.splitlines()
    assert all(line.split()[1] == "root/root" for line in listed)
    assert listed[0].startswith("drwxr-xr-x"), "dpkg gives / the mode of this entry"
    subprocess.run(["dpkg-deb", "-R", package, tmp_path], check=True)
    control = (tmp_path / "DEBIAN/control").read_text()
    assert "haproxy (>= 2.6)" in control
    unit = (tmp_path / "lib/systemd/system/hitless@.service").read_text()
    assert "ExecStart=/opt/hitless/current/bin/python -m hitless.processes.engine" in unit
    (wheel,) = (tmp_path / "usr/share/hitless/wheels").glob("hitless-*.whl")
    files = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hitless/")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert {name for name in files if not name.startswith("hitless/_compiled/")} == {*tracked.stdout.split()}
    for script in ("postinst", "prerm", "postrm"):
        file = tmp_path / "DEBIAN" / script
        assert file.stat().st_mode & 0o777 == 0o755
        subprocess.run(["sh", "-n", file], check=True)
