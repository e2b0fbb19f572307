"""The blocks of commands for AWS in README and docs that tests/aws/test_docs_pages.py runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A block of commands, by its page and its beginning. `instead`: a text of the page → what the test runs."""

    page: str
    begin: str
    instead: Mapping[str, str] = field(default_factory=dict)
    before: str = ""
    """What a reader has already done."""
    serves: bool = False
    """It serves until Ctrl-C."""

    @property
    def script(self) -> str:
        blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", (ROOT / self.page).read_text(), re.MULTILINE | re.DOTALL)
        (block,) = (one for each in blocks if (one := each.removeprefix("$ ")).startswith(self.begin))
        text: str = re.sub(r"^\$ ", "", block, flags=re.MULTILINE)
        for said, run in self.instead.items():
            assert said in text, f"{self.page} no longer has {said}"
            text = text.replace(said, run)
        return self.before + (f"timeout --signal INT 8 {text.rstrip()} || test $? = 124\n" if self.serves else text)


STAGES = """\
      prod: {}
      cloud: {home: aws, network: none, strategy: AllAtOnce, smoke: ['GET /health']}
"""
"""The stages that docs/how-to/to-aws.md shows, without a domain: the emulated account owns none."""
API = """API=$(hitless status --json | sed -nE 's|.*"https://([a-z0-9]+)[.]execute-api.*|\\1|p' | head -1)
API="$AWS_ENDPOINT_URL/restapis/$API/cloud/_user_request_"
"""
"""The address of the emulated API: the API's own name resolves on AWS only."""
RUN = (
    Block("README.md", "hitless aws plan"),
    Block("docs/how-to/to-aws.md", "scripts/setup", {"scripts/setup --aws": "osls --version"}),
    Block(
        "docs/how-to/to-aws.md",
        "hitless aws bootstrap",
        {
            "hitless drill --stage cloud": f"{API}hitless drill --target $API --stage cloud",
            "--duration 60": "--duration 3",
        },
    ),
    Block(
        "docs/aws.md",
        "hitless aws doctor",
        {
            "git push": "echo git push",
            "--package 'git+https://…/hitless@v0.1.0'": f"--repository team/hello --package {ROOT}",
            "destroy --stage dev ": "destroy --stage dev --confirm dev ",
        },
    ),
)
"""A push needs the pipeline's driver: tests/aws/test_pipeline_run.py."""
