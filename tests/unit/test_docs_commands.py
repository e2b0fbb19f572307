"""Every `hitless` command in README and docs is one that the command line accepts: verbs, options and values. And every
block of commands is run by tests/process/test_docs_pages.py, test_docs_blocks.py or tests/aws/test_docs_pages.py, or
listed here with the reason why not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from hitless.cli.main import build
from tests.aws.docs_blocks import RUN as RUN_ON_AWS
from tests.process.docs_blocks import RUN as RUN_WITH_CHANGES
from tests.process.test_docs_pages import RUN, first_missing

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = get_command(build())
REFUSED: type[Exception] = typer.BadParameter.__mro__[1]
"""The error that typer raises for arguments that it does not accept."""


def commands(text: str) -> Iterator[list[str]]:
    """The words after `hitless` of each command in a code block, or alone between backticks.

    A shell's substitution is one word. Lines with an ellipsis, and verbs with alternatives (`runs|show`), are left out.
    """
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(hitless [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        joined = re.sub(r"\$\([^)]*\)", "substituted", line)
        if "…" in joined or "..." in joined:
            continue
        words = shlex.split(joined, comments=True) if joined.count("'") % 2 == 0 else []
        yield from _after_hitless(words)


def _after_hitless(words: list[str]) -> Iterator[list[str]]:
    for first, word in enumerate(words):
        before = words[first - 1] if first else "&&"
        if word != "hitless" or (before not in ("&&", "$", "|") and not before.endswith(";")):
            continue
        given: list[str] = []
        for each in words[first + 1 :]:
            if each in ("&&", "||", "|", ">", "<", ">>", "&", ";"):
                break
            given.append("1" if each.rstrip(";") in ("N", "RUN", "RELEASE", "SECONDS", "MINUTES") else each.rstrip(";"))
            if each.endswith(";"):
                break
        if given and not any(re.search(r"[\[\]|]|^VERB$|^COMMAND$", each) for each in given):
            yield given


def refusal(words: list[str]) -> str | None:
    """Why the command line does not accept the words; None if it does. Nothing is run."""
    command, context, name = COMMAND, None, "hitless"
    try:
        while True:
            context = command.make_context(name, list(words), parent=context)
            if not hasattr(command, "resolve_command"):
                return None
            found, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            name = found or name
    except (typer.Exit, SystemExit):  # --help and --version
        return None
    except REFUSED as error:
        said = str(getattr(error, "message", error))
        # A page may name a group of verbs alone, or an option without its value.
        mentioned = not said or said.startswith("Usage:") or said.endswith("requires an argument.")
        return None if mentioned else f"hitless {' '.join(words)}: {said}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_accepted(page: Path) -> None:
    assert [said for words in commands(page.read_text()) if (said := refusal(words))] == []


def test_unknown_verbs_options_and_values_are_found() -> None:
    text = """Call `hitless deplow` or:
```
$ hitless deploy --fast && hitless status; hitless releases 12
hitless rollback six   # a number
git push "$(hitless pipeline url)" dev
```"""
    given = list(commands(text))
    assert [" ".join(words) for words in given] == ["deploy --fast", "status", "releases 12", "rollback six", "deplow"]
    assert [refusal(words) is None for words in given] == [False, True, True, False, False]


def test_the_pages_have_commands() -> None:
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 100


ACCOUNTS = "needs two AWS accounts; tests/aws/test_bootstrap_identity.py runs these options"
VERBS = "an overview of the verbs; tests/aws/test_release_lifecycle.py, test_homes.py and test_repair.py run them"
ADOPTION = "needs a stack of plain Serverless Framework; tests/aws/test_adoption.py adopts one"
PIPELINES = "makes three pipelines; tests/aws/test_pipeline_stages.py runs a pipeline of several stages"
NOT_RUN = {
    ("README.md", "git clone"): "installs hitless itself, as scripts/setup does before the tests",
    ("docs/aws-emulation.md", "scripts/setup"): "starts every emulator; tests/aws does",
    ("docs/aws-releases.md", "hitless deploy"): VERBS,
    ("docs/aws-releases.md", "aws events"): "needs the AWS CLI, which hitless does not install",
    ("docs/aws-releases.md", "hitless aws bootstrap"): ADOPTION,
    ("docs/aws.md", "hitless aws bootstrap --stage prod"): ACCOUNTS,
    ("docs/aws.md", "hitless aws bootstrap --stage staging"): PIPELINES,
    ("docs/host.md", "apt install"): "installs units on the machine; tests/process/test_host.py writes them elsewhere",
    ("docs/host.md", "/opt/hitless/bin/pip install"): "needs an installed unit; tests/process/test_host.py",
    ("docs/host.md", "hitless host status"): "needs installed units; tests/component/test_host.py",
    (
        "docs/homes.md",
        "hitless promote",
    ): "needs two accounts; tests/aws/test_homes.py promotes both ways",
    ("docs/how-to/from-serverless-framework.md", "hitless aws doctor"): ADOPTION,
    ("docs/pipeline.md", "cd orders"): "tests/process/test_pipeline_services.py runs these commands",
    ("docs/pipeline.md", "cd users"): "tests/process/test_shared_previews.py runs these commands",
    (
        "docs/receipts.md",
        "hitless releases 12",
    ): "shows the receipt of one rollout; tests/unit/test_receipt.py has its form",
    ("docs/receipts.md", "* * * * *"): "a line of a crontab",
}
"""Page and beginning of a block of commands → why it is not run."""


def blocks() -> Iterator[tuple[str, str, str]]:
    """Page, language and text of each block with commands of a shell."""
    for page in PAGES:
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            if language in ("", "sh", "console") and re.search(
                r"^(\$ |hitless |git |scripts/|.*&& hitless )", block, re.M
            ):
                yield str(page.relative_to(ROOT)), language, block.removeprefix("$ ")


def test_every_block_of_commands_is_run_or_listed() -> None:
    found = list(blocks())
    run = [page for page, language, _ in found if language == "sh"]
    assert set(run) == set(RUN)
    others = [(page, block) for page, language, block in found if language != "sh"]
    known_by = [*NOT_RUN, *((block.page, block.begin) for block in (*RUN_ON_AWS, *RUN_WITH_CHANGES))]
    listed = {(page, begin): [b for p, b in others if p == page and b.startswith(begin)] for page, begin in known_by}
    assert [key for key, starts in listed.items() if not starts] == [], "these blocks are gone"
    known = [(page, block) for (page, _), starts in listed.items() for block in starts]
    assert [other for other in others if other not in known] == [], "write `sh` and run it, or say why not"


def test_a_shown_output_must_have_come_but_for_times_ids_and_ports() -> None:
    came = "started\nlive in 3.21 s, commit 0a1b2c3d4e\nat 127.0.0.1:41234, 0 of 4,301 requests failed\nrelease 2"
    shown = "live in 0.8 s, commit 9f8e7d6c5b\nat 127.0.0.1:8080, 0 of 310,112 requests failed\nrelease 2"
    assert first_missing(shown, came) is None
    assert first_missing("release 2\nstarted", came) == "started", "in another order"
    assert first_missing("release 3", came) == "release 3"
    assert first_missing("at 127.0.0.1:8080, 1 of 310,112 requests failed", came) == "at #, 1 of # requests failed"
    assert first_missing("start", came) == "start", "a part of a line"


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block[0]}: {block[1]}")
def test_a_block_that_is_not_run_has_a_reason(block: tuple[str, str]) -> None:
    assert len(NOT_RUN[block].split()) > 1
    pytest.skip(NOT_RUN[block])
