"""A person's word before a stage is touched: what is asked, who may still answer, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hitless.errors import ConflictError
from hitless.pipeline.parts import Parts
from hitless.pipeline.place import is_kept
from hitless.pipeline.states import RunState, StepName
from hitless.release.document import ReleaseDocument
from hitless.service.document import stage_to_json
from hitless.service.model import PROTECTION, StageSettings
from hitless.service.value import child_path
from hitless.store.runs import RunRow

EXPIRES_DAYS = 7
"""As CodePipeline's manual approval."""
MAX_WHY = 1000


async def question(
    parts: Parts, row: RunRow, live: ReleaseDocument | None, candidate: ReleaseDocument
) -> dict[str, Any]:
    """What is to be approved: commits, differences of configuration, the rehearsal's findings."""
    old = live.commit if live else None
    known = await is_kept(parts, row.commit)
    commits = await parts.repository.commits_between(old, row.commit) if known else ()
    rehearsed = [step.detail for step in parts.records.steps(row.run) if step.name == StepName.REHEARSE]
    return {
        "run": row.run,
        "stage": row.stage,
        "live_commit": old,
        "commit": row.commit,
        "commits": [{"commit": one.commit, "subject": one.subject, "author": one.author} for one in commits],
        "configuration": differences(live.to_json(), candidate.to_json()) if live else [],
        "artifacts": {name: artifact.digest for name, artifact in candidate.artifacts.items()},
        "rehearsal": rehearsed[0] if rehearsed else None,
        "overridden": row.overridden,
    }


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """`functions.api.memory_mb: 512 → 1024`, one a change; the values of secrets are not shown. Pure."""
    if path in ("commit", "message", "artifacts", "promoted_from"):
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), child_path(path, str(key)))]
    if isinstance(old, list) and isinstance(new, list) and all(_named(one) for one in (*old, *new)):
        return differences({one["name"]: one for one in old}, {one["name"]: one for one in new}, path)
    if old == new:
        return []
    if path.endswith("notify"):
        return [f"{path}: changed"]
    if path.endswith(".environment"):
        return [f"{path}.{name}: {what}" for name, what in _variables(dict(old or ()), dict(new or ()))]
    return [f"{path}: {_shown(old)} → {_shown(new)}"]


def changes_of(known: Sequence[StageSettings], new: StageSettings) -> str | None:
    """A sentence on what `new` changes in the protection of a stage that has the settings `known`; None where nothing.
    Whom `notify` names is not shown. Pure.
    """
    pairs = [({key: stage_to_json(one)[key] for key in PROTECTION} for one in (old, new)) for old in known]
    lines = dict.fromkeys(line.replace(": ", " ", 1) for old, now in pairs for line in differences(old, now))
    return f"this commit changes the protection of stage {new.name}: {', '.join(lines)}" if lines else None


def check_open(row: RunRow, expires_at: str | None, now: datetime) -> None:
    """Raises ConflictError where nobody is asked, or not any more."""
    run = row.run
    if row.state != RunState.WAITING or expires_at is None:
        raise ConflictError(
            f"run {run} does not wait for approval: it is {row.state}", hint=f"`hitless pipeline show {run}`"
        )
    if datetime.fromisoformat(expires_at) <= now:
        raise ConflictError(
            f"run {run} waited for approval until {expires_at}", hint=f"`hitless pipeline retry {run}` asks again"
        )


def _named(one: object) -> bool:
    return isinstance(one, Mapping) and "name" in one


def _shown(value: object) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _variables(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str]]:
    added = [(name, "added") for name in new if name not in old]
    removed = [(name, "removed") for name in old if name not in new]
    return [*added, *removed, *((name, "changed") for name in old if name in new and old[name] != new[name])]
