"""The commands of the tutorial and of the how-to pages, run as they stand: each ends with 0, and prints what the page
shows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import free_port

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

DOCS = Path(__file__).parents[2] / "docs"
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
RUN = (TUTORIAL, *ON_THE_TUTORIALS_SERVICE, *WITH_A_SERVICE_OF_ITS_OWN)
"""The pages whose blocks `sh` are run here."""
ENVIRONMENT = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@contextmanager
def no_engine_is_left(folder: Path) -> Iterator[None]:
    """Whatever a page does, the engines that it started end with the test."""
    try:
        yield
    finally:
        for data in folder.glob("**/.hitless"):
            subprocess.run([sys.executable, "-m", "hitless", "down", "--force", f"--service-dir={data.parent}"])


def printed(page: Path, folder: Path, port: int, before: str = "") -> list[str]:
    """What each block of commands of a page printed, in one shell in that folder.

    All of them ended with 0, and printed what the page shows.
    """
    text = page.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = text.replace("hitless up --detach", f"hitless up --detach --listen 127.0.0.1:{port}")
    steps = STEP.findall(text)
    place = folder / f"{page.stem}-output"
    place.mkdir()
    script = before + "".join(
        f"exec > {place}/{number}.txt\n{commands}[ $? = 0 ] || exit {number + 10}\n"
        for number, (commands, _) in enumerate(steps)
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    home = {"HITLESS_SECRETS_KEY_FILE": f"{folder}/secrets.key"}
    environ = {**os.environ, **ENVIRONMENT, **home, "PATH": path}
    ran = subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = [(place / f"{number}.txt").read_text() for number in range(len(steps))]
    for came, (commands, shown) in zip(found, steps, strict=True):
        for line in shown.splitlines():
            assert line in came, f"{commands}{came}"
    return found


def test_the_commands_of_the_tutorial_do_what_the_page_says(tmp_path: Path) -> None:
    page = DOCS / TUTORIAL
    with no_engine_is_left(tmp_path):
        found = printed(page, tmp_path, free_port())
    assert len(found) == len(re.findall(r"^## \d", page.read_text(), re.MULTILINE))
    assert re.search(r"^0 of \d{3,} requests failed", found[4], re.MULTILINE)
    assert "succeeded" in found[6]


def test_the_commands_of_the_how_to_pages_do_what_the_pages_say(tmp_path: Path) -> None:
    port = free_port()
    begin = f"hitless init hello && cd hello && hitless up --detach --listen 127.0.0.1:{port} || exit 1\n"
    with no_engine_is_left(tmp_path):
        for name in ON_THE_TUTORIALS_SERVICE:
            printed(DOCS / name, tmp_path, port, begin)
            begin = "cd hello\n"
        for name in WITH_A_SERVICE_OF_ITS_OWN:
            printed(DOCS / name, tmp_path, free_port())
