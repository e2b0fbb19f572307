"""docs/serverless-yml.md agrees with the code: its tables are compared with the code's tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hitless.service import rollouts, settings
from hitless.service.keys import KEYS, QUIET_PLUGINS, Here
from hitless.service.load import load_service
from hitless.service.model import DEFAULT_READY_TIMEOUT_S, DEFAULT_WORKERS, StageSettings

pytestmark = pytest.mark.component

PAGE = Path(__file__).parents[2] / "docs" / "serverless-yml.md"

Row = tuple[str, ...]


def tables() -> list[list[Row]]:
    """The page's tables, each without its two head lines, cells stripped."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [[tuple(cell.strip() for cell in line[1:-1].split(" | ")) for line in b.splitlines()[2:]] for b in blocks]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def key_rows(table: list[Row]) -> set[tuple[str, str]]:
    """(key path, effect) of a table with the columns where, keys and perhaps what is different."""
    found: set[tuple[str, str]] = set()
    for where, keys, *effect in table:
        prefix = "".join(f"{parent}." for parent in quoted(where))
        found |= {(prefix + key, "".join(effect)) for key in quoted(keys)}
    return found


@pytest.mark.parametrize(("here", "index"), [(Here.USED, 7), (Here.NOTICED, 8), (Here.AWS, 9), (Here.REFUSED, 10)])
def test_the_documentation_shows_the_table_of_keys(here: Here, index: int) -> None:
    assert key_rows(tables()[index]) == {(key.path, key.effect) for key in KEYS if key.here is here}


@pytest.mark.parametrize(
    ("index", "keys"),
    [
        (0, tuple(settings.SETTINGS)),
        (1, tuple(settings.STAGE)),
        (2, tuple(settings.PREVIEWS)),
        (3, tuple(rollouts.SMOKE)),
        (4, tuple(settings.TLS)),
        (5, tuple(settings.ACME)),
        (6, tuple(rollouts.ALARMS)),
    ],
)
def test_the_documentation_shows_every_setting(index: int, keys: tuple[str, ...]) -> None:
    assert tuple(quoted(row[0])[0] for row in tables()[index]) == keys


def test_the_documentation_shows_the_defaults() -> None:
    defaults = {quoted(row[0])[0]: row[2] for table in tables()[:2] for row in table}
    stage = StageSettings("dev", "dev")
    assert defaults["workers"] == f"`{DEFAULT_WORKERS}`"
    for key in ("home", "strategy", "approval"):
        assert defaults[key] == f"`{getattr(stage, key)}`"
    assert defaults["rehearsal"] == f"`{str(stage.rehearsal is not None).lower()}`"
    for key in ("shield", "release_header"):
        assert defaults[key] == f"`{str(getattr(stage, key)).lower()}`"
    assert defaults["ready_timeout_s"] == f"`{DEFAULT_READY_TIMEOUT_S}`"
    shown = ("error_rate_percent", "minimum_requests", "guard_s")
    alarms = ", ".join(f"{key}: {getattr(stage.alarms, key)}" for key in shown)
    assert defaults["alarms"] == f"`{{{alarms}}}`"
    assert defaults["listen"].startswith(f"`{stage.host}:` {stage.port}")


def test_the_documentation_lists_the_plugins_that_cause_no_notice() -> None:
    assert all(f"`{name}`" in PAGE.read_text(encoding="utf-8") for name in QUIET_PLUGINS)


def test_the_documented_examples_load_without_notices(tmp_path: Path) -> None:
    first, *others = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "handlers.py").write_text("def api(event, context): ...\nitems = check = api")
    for example in (first, *(yaml.safe_dump(merged(yaml.safe_load(first), yaml.safe_load(one))) for one in others)):
        (tmp_path / "serverless.yml").write_text(example)
        service = load_service(tmp_path, stage="prod", environ={})
        assert (service.notices, len(service.functions[0].routes), len(service.stages)) == ((), 3, 2)
    assert others


def merged(file: Any, more: Any) -> Any:
    """The example with what a later one adds or changes."""
    if isinstance(file, dict) and isinstance(more, dict):
        return {key: merged(file.get(key), more.get(key, file.get(key))) for key in {**file, **more}}
    return more
