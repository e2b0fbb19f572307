"""The example service against its own OpenAPI document, by Schemathesis: its requests, its checks of the responses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Site

pytestmark = pytest.mark.process

WORLDCLOCK = Path(__file__).parents[2] / "examples" / "worldclock"


@pytest.fixture
def worldclock(tmp_path: Path) -> Iterator[Site]:
    """The example service, not started."""
    site = Site(
        shutil.copytree(WORLDCLOCK, tmp_path / "worldclock", ignore=shutil.ignore_patterns(".*", "__pycache__"))
    )
    yield site
    site.end()


# The phase `coverage` sends 3,000 requests: each zone's name in each place.
ALL = ("examples,coverage,fuzzing,stateful", 500)


@pytest.mark.parametrize(
    ("phases", "examples"),
    [("examples,fuzzing", 5), pytest.param(*ALL, marks=[pytest.mark.long, pytest.mark.timeout(3600)])],
)
def test_worldclock_does_as_its_openapi_document_says(worldclock: Site, phases: str, examples: int) -> None:
    worldclock.up("--listen", "127.0.0.1:0")
    check_contract(worldclock, "worldclock/openapi.json", phases, examples)


def check_contract(service: Site, document: str, phases: str, examples: int) -> None:
    """Fails if Schemathesis finds a response that the service's OpenAPI document does not allow."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", document]
    options = ["--url", service.url, "--max-examples", str(examples), "--phases", phases]
    done = subprocess.run(
        [*command, *options, "--seed", "7", "--no-color", "--continue-on-failure"],
        cwd=service.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert "No issues found" in done.stdout
