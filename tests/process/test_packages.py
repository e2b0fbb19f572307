"""The source distribution and the wheel serve from environments of their own, without the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
OSLS = ROOT / "node" / "node_modules" / ".bin" / "osls"
UV = uv.find_uv_bin()
Install = Callable[[Path, Path], Path]


def run(*words: object, cwd: Path, **environ: str) -> str:
    """Standard output of a command that has neither the checkout's environment nor its sources in its paths."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HITLESS_", "PYTHON", "VIRTUAL"))}
    checkout = str(ROOT)
    kept["PATH"] = os.pathsep.join(one for one in kept["PATH"].split(os.pathsep) if not one.startswith(checkout))
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=kept | environ, capture_output=True, text=True, check=False, timeout=1500
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both packages. The wheel is built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def by_pip(package: Path, folder: Path) -> Path:
    run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", folder / "venv", cwd=folder)
    run(folder / "venv/bin/pip", "install", "--quiet", package, cwd=folder)
    return folder / "venv/bin/hitless"


def by_pipx(package: Path, folder: Path) -> Path:
    places = {"PIPX_HOME": str(folder / "pipx"), "PIPX_BIN_DIR": str(folder / "bin")}
    run(UV, "tool", "run", "pipx", "install", package, cwd=folder, **places)
    return folder / "bin/hitless"


def by_uv(package: Path, folder: Path) -> Path:
    places = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    run(UV, "tool", "install", "--quiet", package, cwd=folder, **places)
    return folder / "bin/hitless"


@pytest.mark.parametrize(
    ("install", "kind"), [(by_pip, "wheel"), (by_pip, "sdist"), (by_pipx, "wheel"), (by_uv, "sdist")]
)
def test_an_installed_package_serves_a_new_service(
    packages: dict[str, Path], install: Install, kind: str, tmp_path: Path
) -> None:
    hitless = install(packages[kind], tmp_path)
    environment = hitless.resolve().parent.parent
    place = run(environment / "bin/python", "-c", "import hitless; print(hitless.__file__)", cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(environment)

    run(hitless, "init", "hello", cwd=tmp_path)
    service = tmp_path / "hello"
    run(hitless, "up", "--detach", "--listen", "127.0.0.1:0", cwd=service)
    try:
        url = json.loads(run(hitless, "status", "--json", cwd=service))["stages"][0]["url"]
        with urllib.request.urlopen(f"{url}/hello/you", timeout=10) as response:
            assert json.load(response) == {"greeting": "Hello, you!"}
        run(hitless, "deploy", "--force", cwd=service)
    finally:
        run(hitless, "down", cwd=service)


def test_a_wheel_has_completion_and_writes_the_templates_for_aws(packages: dict[str, Path], tmp_path: Path) -> None:
    hitless = by_uv(packages["wheel"], tmp_path)
    assert "_HITLESS_COMPLETE=complete_bash" in run(hitless, "--show-completion", "bash", cwd=tmp_path)
    asked = {"_HITLESS_COMPLETE": "complete_bash", "COMP_WORDS": "hitless pipeline re", "COMP_CWORD": "2"}
    assert run(hitless, cwd=tmp_path, **asked).split() == ["retry", "receive"]
    if not OSLS.exists():
        pytest.skip("osls is not installed: scripts/setup --dev")
    run(hitless, "init", "hello", cwd=tmp_path)
    words = ("deploy", "--home", "aws", "--stage", "prod", "--dry-run", "--json")
    document = json.loads(run(hitless, *words, cwd=tmp_path / "hello", HITLESS_OSLS=str(OSLS)))
    assert "Resources" in json.loads(Path(document["template"]).read_text())
