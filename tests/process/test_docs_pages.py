"""The commands of README, the tutorial and the how-to pages, run as they stand: each ends with 0, and prints what the
page shows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import free_port

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
STEP = re.compile(r"^```sh\n(.*?)^```(?:\n\n```\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
"""A block of commands, and the block of output that follows it directly."""
TUTORIAL = "tutorial.md"
ON_THE_TUTORIALS_SERVICE = ("how-to/roll-back.md", "how-to/approve.md", "how-to/secrets.md", "serverless-yml.md")
WITH_A_SERVICE_OF_ITS_OWN = (
    "how-to/migrate-a-database.md",
    "how-to/from-gunicorn-and-nginx.md",
    "how-to/from-kamal.md",
    "how-to/from-serverless-framework.md",
)
RUN = ("README.md", *(f"docs/{page}" for page in (TUTORIAL, *ON_THE_TUTORIALS_SERVICE, *WITH_A_SERVICE_OF_ITS_OWN)))
"""The pages whose blocks `sh` are run here."""
AT_ONCE = "s/strategy: .*/strategy: AllAtOnce/; s/rehearsal: true/rehearsal: {beside_s: 1}/"
CHANGED = "echo '# changed' >> app/api.py && "
SHORTER = {
    "cd hello  ": f"cd hello && sed -i '{AT_ONCE}' serverless.yml",
    "hitless deploy  ": CHANGED + "hitless deploy",
    "hitless deploy --strategy Canary10Percent30Seconds": CHANGED + "hitless deploy --strategy Canary10Percent1Seconds",
    "--rate 500 --duration 30": "--rate 50 --duration 5 --releases 1",
}
"""In README → in the test: it makes the changes that a reader makes, and takes less time."""
ENVIRONMENT = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@contextmanager
def no_engine_is_left(folder: Path, name: str = ".hitless") -> Iterator[None]:
    """Whatever a page does, the engines that it started in folders of that name end with the test."""
    try:
        yield
    finally:
        for data in folder.glob(f"**/{name}"):
            down = [sys.executable, "-m", "hitless", "down", "--force", f"--data-dir={data}"]
            subprocess.run([*down, f"--service-dir={data.parent}"])


VARIES = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+Z?|\d\d:\d\d:\d\d|127\.0\.0\.1:\d+|\b[0-9a-f]{7,64}\b|\d[\d,]*(\.\d+)? m?s\b|\b\d+,\d+\b"
)
"""Times, ports, ids, durations and large numbers."""


def lines_of(output: str) -> list[str]:
    """The lines, without what differs from run to run."""
    return [" ".join(VARIES.sub("#", line).split()) for line in output.splitlines()]


def first_missing(shown: str, came: str) -> str | None:
    """The first line of a shown output that did not come, in that order; None if all did."""
    left = iter(lines_of(came))
    return next((line for line in lines_of(shown) if line not in left), None)


def printed(
    page: Path, folder: Path, port: int, before: str = "", shorter: Mapping[str, str] | None = None
) -> list[str]:
    """What each block of commands of a page printed, in one shell in that folder.

    All commands ended with 0, and printed what the page shows.
    """
    text = page.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    for said, run in (shorter or {}).items():
        assert said in text, f"{page.name} no longer has {said}"
        text = text.replace(said, run)
    text = text.replace("hitless up --detach", f"hitless up --detach --listen 127.0.0.1:{port}")
    steps = STEP.findall(text)
    place = folder / f"{page.stem}-output"
    place.mkdir()
    script = f"set -e\n{before}" + "".join(
        f"exec > {place}/{number}.txt\n{commands}" for number, (commands, _) in enumerate(steps)
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = {"HITLESS_SECRETS_KEY_FILE": f"{folder}/secrets.key"}
    environ = {**os.environ, **ENVIRONMENT, **home, "PATH": path}
    ran = subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, f"{sorted(place.iterdir())[-1]}: {ran.stderr}"
    found = [(place / f"{number}.txt").read_text() for number in range(len(steps))]
    for came, (commands, shown) in zip(found, steps, strict=True):
        assert first_missing(shown, came) is None, f"{commands}{came}"
    return found


def test_the_commands_of_readme_run(tmp_path: Path) -> None:
    with no_engine_is_left(tmp_path):
        _, shipped, pushed = printed(ROOT / "README.md", tmp_path, free_port(), shorter=SHORTER)
    assert re.search(r"^0 of [\d,]{3,} requests failed", shipped, re.MULTILINE)
    assert "run 3 of prod: succeeded, release 1" in pushed


def test_the_commands_of_the_tutorial_do_what_the_page_says(tmp_path: Path) -> None:
    page = DOCS / TUTORIAL
    with no_engine_is_left(tmp_path):
        found = printed(page, tmp_path, free_port())
    assert len(found) == len(re.findall(r"^## \d", page.read_text(), re.MULTILINE))
    assert re.search(r"^0 of [\d,]{3,} requests failed", found[4], re.MULTILINE)
    assert "succeeded" in found[6]


def test_the_commands_of_the_how_to_pages_do_what_the_pages_say(tmp_path: Path) -> None:
    port = free_port()
    begin = f"hitless init hello && cd hello && hitless up --detach --listen 127.0.0.1:{port}\n"
    with no_engine_is_left(tmp_path):
        for name in ON_THE_TUTORIALS_SERVICE:
            printed(DOCS / name, tmp_path, port, begin)
            begin = "cd hello\n"
        for name in WITH_A_SERVICE_OF_ITS_OWN:
            printed(DOCS / name, tmp_path, free_port())
