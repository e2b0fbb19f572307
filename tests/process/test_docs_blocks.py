"""The commands of README and docs that need a change to run on one machine: each block ends with 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.aws.docs_blocks import Block
from tests.process.docs_blocks import RUN
from tests.process.test_docs_pages import AT_ONCE, ENVIRONMENT, no_engine_is_left
from tests.support import free_port

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(600)]


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}: {block.begin.strip()}")
def test_the_commands_of_a_page_run(tmp_path: Path, block: Block) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ports = {name: str(free_port()) for name in ("PORT", "TLS_PORT")}
    keys = {"HITLESS_SECRETS_KEY_FILE": f"{tmp_path}/secrets.key"}
    environ = {**os.environ, **ENVIRONMENT, **keys, **ports, "PATH": path}
    changed = f"{AT_ONCE}; s/hitless:/hitless:\\n    previews: {{}}/"
    begin = f"hitless init clock && cd clock && sed -i '{changed}' serverless.yml"
    script = f"{begin}\nhitless up --detach --listen 127.0.0.1:{free_port()}\n{block.script}"
    with no_engine_is_left(tmp_path), no_engine_is_left(tmp_path, "there"):
        done = subprocess.run(
            ["bash", "-c", f"set -ex\n{script}"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
