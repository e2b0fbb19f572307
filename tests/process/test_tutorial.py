"""The commands of docs/tutorial.md, run as they stand: each ends with 0, and prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import free_port

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
STEP = re.compile(r"^```sh\n(.*?)^```(?:\n\n```\n(.*?)^```)?", re.MULTILINE | re.DOTALL)
"""A block of commands, and the block of output that follows it directly."""


def test_the_commands_of_the_tutorial_do_what_the_page_says(tmp_path: Path) -> None:
    port = free_port()
    text = PAGE.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    text = text.replace("hitless up --detach", f"hitless up --detach --listen 127.0.0.1:{port}")
    steps = STEP.findall(text)
    assert len(steps) == len(re.findall(r"^## \d", text, re.MULTILINE))
    script = "".join(
        f"exec > {tmp_path}/{number}.txt\n{commands}[ $? = 0 ] || exit {number + 10}\n"
        for number, (commands, _) in enumerate(steps)
    )
    names = {f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, **names, "PATH": path},
            capture_output=True,
            text=True,
        )
    finally:
        if (tmp_path / "hello" / ".hitless").exists():
            subprocess.run([sys.executable, "-m", "hitless", "down", "--force", f"--service-dir={tmp_path}/hello"])
    assert ran.returncode == 0, ran.stderr
    for number, (commands, shown) in enumerate(steps):
        printed = (tmp_path / f"{number}.txt").read_text()
        for line in shown.splitlines():
            assert line in printed, f"{commands}{printed}"
    assert re.search(r"^0 of \d{3,} requests failed", (tmp_path / "4.txt").read_text(), re.MULTILINE)
    assert "succeeded" in (tmp_path / "6.txt").read_text()
