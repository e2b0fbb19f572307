"""The bodies that the command line, the git hook and the receiver send to the daemon's API.

That of a promotion is `hitless.pipeline.orders.Promotion`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hitless.forge.forge import ForkPullRequest
from hitless.pipeline.orders import CommitId, RefUpdate
from hitless.release.who import Who


class DeployRequest(msgspec.Struct, frozen=True):
    """Ship a release whose artifacts are in the engine's store. Without `wait` the response ends when it has begun."""

    release: dict[str, Any]
    """A `ReleaseDocument`."""
    strategy: str | None = None
    force: bool = False
    wait: bool = True
    who: Who | None = None
    """The engine adds the user."""


class RollbackRequest(msgspec.Struct, frozen=True):
    """Ship an earlier release again; None is the one live before this one."""

    release: int | None = None
    message: str | None = None
    wait: bool = True
    who: Who | None = None


class ShutdownRequest(msgspec.Struct, frozen=True):
    """Stop the engine; with `force` without waiting for requests in hand."""

    force: bool = False


class PushRequest(msgspec.Struct, frozen=True):
    """A push, as git gives it to its hook. `lineage`: each pushed commit's parents, which only the hook can see yet."""

    updates: list[RefUpdate]
    options: list[str] = []
    actor: str = ""
    lineage: dict[str, list[str]] | None = None


class ForkRequest(msgspec.Struct, frozen=True):
    """Ask a maintainer about the commit of a fork's pull request."""

    fork: ForkPullRequest
    commit: CommitId
    actor: str = ""


class ClosePreviewRequest(msgspec.Struct, frozen=True):
    """End the preview of a branch."""

    branch: str = ""
    why: str = ""


class RunRequest(msgspec.Struct, frozen=True):
    """A person approves, rejects or stops a run."""

    by: str = ""
    why: str | None = None
