"""Every `hitless` command in README and docs is one that the command line accepts: verbs, options and values. And every
block of commands is run by tests/process/test_docs_pages.py, or listed here with the reason why not.
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
from tests.process.test_docs_pages import RUN

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


AWS = "needs an AWS account; tests/aws runs these commands on emulators"
LOAD = "takes minutes; tests/process/test_drill_command.py runs smaller drills"
PIPELINE = "an overview; the tutorial and tests/process/test_pipeline.py run these commands"
NOT_RUN = {
    ("README.md", "git clone"): "installs hitless itself, as scripts/setup does before the tests",
    ("README.md", "hitless deploy"): "an overview; the tutorial runs the same commands with smaller numbers",
    ("README.md", "git push"): PIPELINE,
    ("README.md", "hitless aws plan"): AWS,
    ("docs/aws-emulation.md", "scripts/setup"): "starts every emulator; tests/aws does",
    ("docs/aws-releases.md", "hitless deploy"): AWS,
    ("docs/aws-releases.md", "aws events"): AWS,
    ("docs/aws-releases.md", "hitless aws bootstrap"): AWS,
    ("docs/aws.md", "hitless aws doctor"): AWS,
    ("docs/aws.md", "hitless aws bootstrap --stage prod"): AWS,
    ("docs/aws.md", "hitless aws bootstrap --stage staging"): AWS,
    ("docs/dashboard.md", "hitless dashboard\n"): "tests/component/test_dashboard.py opens the dashboard",
    (
        "docs/dashboard.md",
        "hitless dashboard --listen",
    ): "needs a certificate; tests/component/test_dashboard_door.py has one",
    ("docs/drill.md", "hitless drill"): LOAD,
    ("docs/homes.md", "export HITLESS_DATA_DIR"): "needs two services in folders of the reader",
    ("docs/host.md", "apt install"): "installs units on the machine; tests/process/test_host.py writes them elsewhere",
    ("docs/host.md", "/opt/hitless/bin/pip install"): "needs an installed unit; tests/process/test_host.py",
    ("docs/host.md", "hitless backup"): "writes outside of the folder; tests/process/test_backup.py",
    ("docs/host.md", "hitless remote add"): "needs a host with ssh",
    ("docs/host.md", "hitless host status"): "needs installed units; tests/component/test_host.py",
    ("docs/homes.md", "hitless promote"): AWS,
    ("docs/how-to/from-serverless-framework.md", "hitless aws doctor"): AWS,
    ("docs/how-to/to-aws.md", "scripts/setup"): AWS,
    ("docs/how-to/to-aws.md", "hitless aws bootstrap"): AWS,
    ("docs/pipeline.md", "git remote add"): PIPELINE,
    ("docs/pipeline.md", "git push engine feature/login"): "tests/process/test_previews.py runs these commands",
    ("docs/pipeline.md", "hitless pipeline receive"): "needs a repository on GitHub",
    (
        "docs/receipts.md",
        "hitless releases 12",
    ): "shows the receipt of one rollout; tests/unit/test_receipt.py has its form",
    ("docs/receipts.md", "* * * * *"): "a line of a crontab",
    ("docs/serverless-yml.md", "hitless secrets set"): "how-to/secrets.md runs these commands",
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
    assert set(run) == {f"docs/{page}" for page in RUN}
    others = [(page, block) for page, language, block in found if language != "sh"]
    listed = {(page, begin): [b for p, b in others if p == page and b.startswith(begin)] for page, begin in NOT_RUN}
    assert [key for key, starts in listed.items() if not starts] == [], "these blocks are gone"
    known = [(page, block) for (page, _), starts in listed.items() for block in starts]
    assert [other for other in others if other not in known] == [], "write `sh` and run it, or say why not"


@pytest.mark.parametrize("block", NOT_RUN, ids=lambda block: f"{block[0]}: {block[1]}")
def test_a_block_that_is_not_run_has_a_reason(block: tuple[str, str]) -> None:
    assert len(NOT_RUN[block].split()) > 1
    pytest.skip(NOT_RUN[block])
