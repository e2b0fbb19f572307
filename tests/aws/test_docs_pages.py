"""The commands for AWS in README and docs, run on the emulated AWS: each ends with 0."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws.docs_blocks import RUN, STAGES
from tests.aws.emulated import EmulatedAws
from tests.process.test_docs_pages import ENVIRONMENT, no_engine_is_left
from tests.support import free_port

pytestmark = [pytest.mark.aws, pytest.mark.long]


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in RUN))
def test_the_commands_for_aws_run(aws: EmulatedAws, tmp_path: Path, page: str) -> None:
    folder, path = tmp_path / "hello", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**aws.environ, **ENVIRONMENT, "PATH": path}

    def run(script: str, place: Path) -> None:
        command = ["bash", "-c", f"set -ex\n{script}"]
        done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"

    with no_engine_is_left(tmp_path):
        run("hitless init hello", tmp_path)
        file = folder / "serverless.yml"
        head, stages = re.split(r"^      prod:\n(?:        .*\n)+", file.read_text(), flags=re.MULTILINE)
        file.write_text(head + STAGES + stages)
        run(f"hitless up --detach --listen 127.0.0.1:{free_port()} && hitless deploy --stage prod", folder)
        for block in RUN:
            if block.page == page:
                run(block.script, folder)
