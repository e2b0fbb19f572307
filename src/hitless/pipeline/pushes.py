"""Pushes: which are refused, and which runs an accepted one starts.

A stage's branch cannot be deleted. A guarded stage (one that needs approval, or is named prod) accepts only a commit
that was live in the previous stage. A stage with `required_checks` accepts only commits that have passed their tests. A
push with `-o override=REASON` is accepted nevertheless, and its run and release keep the reason. Other pushes are
accepted: a force-push ships the branch's new commit, a tag starts nothing. Any other branch is tested, and has a
preview if the service has previews; deleting the branch removes the preview.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hitless.documents import to_plain
from hitless.pipeline.definition import Definition
from hitless.pipeline.orders import RefUpdate
from hitless.pipeline.parts import Parts
from hitless.pipeline.promotion import was_live
from hitless.pipeline.runs import RunOptions
from hitless.service.model import StageSettings
from hitless.store.runs import NewRun

MAX_UPDATES = 1000
MAX_RUNS_A_PUSH = 10

Lineage = Mapping[str, Sequence[str]]
"""Commit → its parents, the first parent first."""


def refusals_of(
    parts: Parts,
    definition: Definition | None,
    updates: list[RefUpdate],
    options: Mapping[str, str],
    lineage: Lineage,
) -> list[str]:
    """The reasons to refuse the push. `lineage`: each pushed commit's parents, which only git's hook can see yet."""
    if definition is None:
        return ["the pipeline is not set up: run `hitless pipeline url` in the service's folder"]
    if len(updates) > MAX_UPDATES:
        return [f"more than {MAX_UPDATES} branches and tags in one push"]
    return [
        sentence
        for update in updates
        for entry in (definition.deployed_from(update.branch) if update.branch else ())
        if (sentence := _refusal(parts, definition, entry, update, options, lineage))
    ]


def _refusal(
    parts: Parts,
    definition: Definition,
    entry: StageSettings,
    update: RefUpdate,
    options: Mapping[str, str],
    lineage: Lineage,
) -> str | None:
    if update.deletes:
        return f"{update.branch} feeds the stage {entry.name} and cannot be deleted"
    if "override" in options:
        return None
    before = definition.previous_stage(entry.name)
    if entry.required_checks and not update.creates:
        untested = untested_commits(update.old, update.new, lineage, parts.records.has_passed)
        if untested:
            return (
                f"{', '.join(one[:12] for one in untested)} passed no tests yet, which {entry.name} requires: push a"
                " branch of its own first and merge it once its run succeeded, or push with -o override='why'"
            )
    if definition.requires_promotion(entry) and before and not was_live(parts, before, update.new):
        return (
            f"{update.new[:12]} was never live in {before}, so it does not ship to {entry.name}: promote it"
            f" (`hitless promote {before} {entry.name}`), or push with -o override='why'"
        )
    return None


def untested_commits(old: str, new: str, lineage: Lineage, has_passed: Callable[[str], bool]) -> tuple[str, ...]:
    """The commits whose tests must pass before a branch with required checks moves from `old` to `new`. Pure.

    As for GitHub's required status checks, the pushed commit must have passed, or be a merge of the branch's old commit
    with commits that have. The merge itself is tested after the push.
    """
    if has_passed(new):
        return ()
    parents = tuple(lineage.get(new, ()))
    if len(parents) < 2:
        return (new,)
    return tuple(one for one in parents if one != old and not has_passed(one))


async def plan_runs(
    parts: Parts, definition: Definition | None, updates: list[RefUpdate], options: Mapping[str, str], actor: str
) -> list[NewRun | str]:
    """The runs that an accepted push starts; a sentence for a branch or tag that starts none."""
    plans: list[NewRun | str] = []
    for update in updates:
        if update.branch is None:
            plans.append(f"{update.ref} starts no run: only branches do")
        elif update.deletes:
            goes = parts.previews is not None and parts.previews.close(update.branch, "its branch was deleted")
            plans.append(f"the branch {update.branch} was deleted{', and its preview is removed' if goes else ''}")
        elif sum(isinstance(plan, NewRun) for plan in plans) >= MAX_RUNS_A_PUSH:
            plans.append(f"{update.branch} starts no run: more than {MAX_RUNS_A_PUSH} in one push")
        else:
            plans += await _runs_of(parts, definition, update, options, actor)
            plans += _of_previews(parts, update.branch, definition, options)
    return plans


def _of_previews(
    parts: Parts, branch: str, definition: Definition | None, options: Mapping[str, str]
) -> list[NewRun | str]:
    """Sentences that say why there will be no preview; removes one that is no longer wanted."""
    if "no-preview" in options:
        goes = parts.previews is not None and parts.previews.close(branch, "a push said no-preview")
        return [f"the preview of {branch} goes"] if goes else []
    if "preview" not in options:
        return []
    if definition and definition.deployed_from(branch):
        return [f"{branch} feeds a stage, and gets no preview"]
    if parts.preview_settings is None:
        read = "`hitless pipeline url` read it" if parts.workshop.service else "the engine was started"
        return [f"no preview: serverless.yml had no custom.hitless.previews when {read}"]
    return []


async def _runs_of(
    parts: Parts, definition: Definition | None, update: RefUpdate, options: Mapping[str, str], actor: str
) -> list[NewRun]:
    assert update.branch is not None
    info = await parts.repository.describe(update.new)
    entries = definition.deployed_from(update.branch) if definition else ()
    previews = parts.preview_settings if "no-preview" not in options else None
    kept = to_plain(
        RunOptions(
            skip_rehearsal="skip-rehearsal" in options,
            forced=not update.creates and not await parts.repository.is_ancestor(update.old, update.new),
            preview=not entries and previews is not None and ("preview" in options or previews.automatic),
        )
    )
    new = NewRun(branch=update.branch, commit=info.commit, message=info.subject, options=kept, verb="push", actor=actor)
    if not entries:
        return [new]
    planned = []
    for entry in entries:
        guarded = definition is not None and (definition.requires_promotion(entry) or entry.required_checks)
        override = options.get("override") if guarded else None
        message = info.subject + (f" (override: {override})" if override else "")
        planned.append(replace(new, stage=parts.at_engine(entry.name), message=message, overridden=override))
    return planned
