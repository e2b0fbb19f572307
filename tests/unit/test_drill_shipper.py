"""Outcomes in a command's exit code and document."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hitless.drill.shipper import Shipped, Shipper, document_of, stage_of
from hitless.drill.workspace import with_stage_setting
from hitless.errors import ConflictError, EngineNotRunningError, HitlessError, UsageError

pytestmark = pytest.mark.unit


class Command(Shipper):
    """A shipper whose command ends with this exit code and document."""

    def __init__(self, code: int, document: dict[str, object]) -> None:
        super().__init__(service_dir=Path(), data_dir=Path(), stage="dev", strategy=None, home=None, read_status=dict)
        self.ended = code, document

    async def _run(self, verb: str, folder: Path, *arguments: str) -> dict[str, Any]:
        code, document = self.ended
        return document_of(verb, code, json.dumps(document).encode(), b"")


@pytest.mark.parametrize(
    ("code", "document", "shipped"),
    [
        (0, {"release": 4, "outcome": "live", "reason": None, "candidate": None}, Shipped(4, "live")),
        (0, {"release": 4, "outcome": "live", "candidate": {"shielded": 3}}, Shipped(4, "live", None, {"shielded": 3})),
        (3, {"release": 5, "outcome": "rolled_back", "reason": "no"}, Shipped(5, "rolled_back", "no")),
        (2, {"error": {"message": "serverless.yml:3: bad"}}, Shipped(None, "error", "serverless.yml:3: bad")),
        (1, {}, Shipped(None, "error", "hitless exited with status 1 and named no error")),
    ],
)
def test_a_rollouts_outcome_is_read_from_the_commands_document(
    code: int, document: dict[str, object], shipped: Shipped
) -> None:
    assert asyncio.run(Command(code, document).rollback(None)) == shipped


@pytest.mark.parametrize(("code", "kind"), [(1, ConflictError), (2, UsageError), (5, EngineNotRunningError)])
def test_an_error_keeps_the_meaning_of_its_exit_code(code: int, kind: type[HitlessError]) -> None:
    with pytest.raises(kind, match="no engine") as error:
        document_of("up", code, b'{"error": {"message": "no engine", "hint": "start it"}}', b"")
    assert error.value.hint == "start it"


@pytest.mark.parametrize(
    ("out", "err", "message"),
    [(b"", b"Traceback\nKeyError: 1\n", "KeyError: 1"), (b"not JSON", b"", "`hitless deploy` wrote no document")],
)
def test_a_command_that_prints_no_document_is_an_error_with_its_last_line(out: bytes, err: bytes, message: str) -> None:
    with pytest.raises(ConflictError) as error:
        document_of("deploy", 1, out, err)
    assert error.value.message == message


def test_a_stage_unknown_to_the_engine_is_an_error_that_names_it() -> None:
    with pytest.raises(UsageError, match="'qa'") as error:
        stage_of({"stages": [{"stage": "dev"}]}, "qa")
    assert "dev" in error.value.hint


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("service: x\n", "custom:\n  hitless:\n    stages:\n      dev:\n        ready_timeout_s: 3\n"),
        ("custom: {hitless: {stages: {dev: {branch: d}}}}\n", "branch: d"),
        ("custom: {hitless: {stages: {dev: null}}}\n", "ready_timeout_s: 3"),
        ("custom: {hitless: {stages: {dev: {ready_timeout_s: 30}}}}\n", "ready_timeout_s: 3}"),
        ("a: !Sub '${X}'\nb: !Ref C\n", "a: !Sub '${X}'\nb: !Ref 'C'\n"),
    ],
)
def test_changing_a_stages_setting_keeps_everything_else(text: str, changed: str) -> None:
    result = with_stage_setting(text, "dev", "ready_timeout_s", 3)
    assert changed in result
    assert result.count("ready_timeout_s") == 1


@pytest.mark.parametrize(
    "text", ["", "[]", "custom: ${file(x.yml)}\n", "custom: {hitless: {stages: {dev: '${file(x)}'}}}\n"]
)
def test_a_variable_instead_of_a_map_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"serverless\.yml"):
        with_stage_setting(text, "dev", "ready_timeout_s", 3)
