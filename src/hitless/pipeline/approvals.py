"""Manual approvals: the question (what an approver is asked), its time limit, and links to answer it without a login.

A link is signed for one question of one run. The key is in the data folder, private. Whoever has a link may answer.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from hitless.documents import sync_folder, to_plain
from hitless.errors import ConflictError
from hitless.forge.forge import ForkPullRequest
from hitless.pipeline.parts import Parts
from hitless.pipeline.repository import CommitInfo
from hitless.pipeline.runs import RunState, StepName
from hitless.release.changes import differences
from hitless.release.document import ReleaseDocument
from hitless.service.model import PROTECTION, StageSettings
from hitless.store.runs import RunRow

EXPIRES_DAYS = 7
"""The same as for CodePipeline's manual approvals."""
MAX_WHY = 1000
KEY_BYTES = 32


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """The facts for an approver, stored as the run's `question.json`."""

    run: int
    stage: str | None
    fork: ForkPullRequest | UnsetType = UNSET
    live_commit: str | UnsetType | None = UNSET
    commit: str
    commits: tuple[CommitInfo, ...]
    files: tuple[str, ...] | UnsetType | None = UNSET
    """The files that a fork's commits change; None if their base is not known here."""
    configuration: tuple[str, ...] = ()
    """What changes, one line each."""
    artifacts: Mapping[str, str] | UnsetType = UNSET
    rehearsal: Mapping[str, Any] | None = None
    overridden: str | UnsetType | None = UNSET
    protection: str | UnsetType | None = UNSET
    """What the commit changes in the protection of its stage."""


async def question(
    parts: Parts, row: RunRow, live: ReleaseDocument | None, candidate: ReleaseDocument, protection: str | None
) -> Question:
    """The question of a run that ships to a stage."""
    old = live.commit if live else None
    commits = await parts.repository.commits_between(old, row.commit) if await parts.holds(row.commit) else ()
    rehearsed = [step.detail for step in parts.records.steps(row.run) if step.name == StepName.REHEARSE]
    return Question(
        run=row.run,
        stage=row.stage,
        live_commit=old,
        commit=row.commit,
        commits=commits,
        configuration=tuple(differences(live.to_json(), candidate.to_json())) if live else (),
        artifacts=candidate.digests,
        rehearsal=rehearsed[0] if rehearsed else None,
        overridden=row.overridden,
        protection=protection,
    )


def changes_of(known: Sequence[StageSettings], new: StageSettings) -> str | None:
    """A sentence on what `new` changes in the protection of a stage that has the settings `known`; None if nothing. The
    targets of `notify` are not shown. Pure.
    """
    pairs = [({key: to_plain(one)[key] for key in PROTECTION} for one in (old, new)) for old in known]
    lines = dict.fromkeys(line.replace(": ", " ", 1) for old, now in pairs for line in differences(old, now))
    return f"this commit changes the protection of stage {new.name}: {', '.join(lines)}" if lines else None


def check_open(row: RunRow, expires_at: str | None, now: datetime) -> None:
    """Raise ConflictError if the run is not waiting for approval, or the time limit has passed."""
    run = row.run
    if row.state != RunState.WAITING or expires_at is None:
        raise ConflictError(
            f"run {run} is not waiting for approval; its state is {row.state}", hint=f"`hitless pipeline show {run}`"
        )
    if datetime.fromisoformat(expires_at) <= now:
        raise ConflictError(
            f"run {run} waited for approval until {expires_at}", hint=f"`hitless pipeline retry {run}` asks again"
        )


def link_key(folder: Path, *, sync: Callable[[int], None] = os.fsync) -> bytes:
    """The key in a pipeline's folder. A missing or incomplete one is replaced, because anybody could sign with an empty
    key. The file is on the disk (`sync`) before it gets its name, and the name before anything is signed.
    """
    file = folder / "link.key"
    with suppress(FileNotFoundError):
        if len(key := file.read_bytes()) == KEY_BYTES:
            return key
        file.unlink()
    fresh = file.with_suffix(f".{secrets.token_hex(8)}")
    fresh.touch(mode=0o600)
    with fresh.open("wb") as written:
        written.write(secrets.token_bytes(KEY_BYTES))
        written.flush()
        sync(written.fileno())
    with suppress(FileExistsError):  # the engine and the receiver may ask at once: the first key stays
        os.link(fresh, file)
    fresh.unlink()
    sync_folder(folder, sync)
    return file.read_bytes()


def link_token(key: bytes, run: int, asked_at: str) -> str:
    """The secret part of a link. Another question of the same run has another token."""
    return hmac.new(key, f"{run}|{asked_at}".encode(), hashlib.sha256).hexdigest()


def is_valid_token(key: bytes, run: int, asked_at: str, token: str) -> bool:
    return hmac.compare_digest(link_token(key, run, asked_at).encode(), token.encode())


def publish_receiver(folder: Path, url: str) -> None:
    """Record the receiver's public address, so that messages contain links."""
    (folder / "receiver.json").write_text(json.dumps({"url": url.rstrip("/")}))


def approval_link(folder: Path, run: int, asked_at: str) -> str | None:
    """The link of a question; None if no receiver was set up."""
    file = folder / "receiver.json"
    if not file.exists():
        return None
    url = json.loads(file.read_text())["url"]
    return f"{url}/approve/{run}?token={link_token(link_key(folder), run, asked_at)}"
