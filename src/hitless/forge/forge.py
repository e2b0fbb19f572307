"""The pipeline's interface to a forge. GitHub is in `github.py`; another forge is one more file beside it.

A webhook only says that something changed. The pipeline then fetches the remote's current state, so a repeated webhook
has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Protocol

import msgspec

from hitless.forge.statuses import CommitStatus

MAX_PULL_NUMBER = 10**9
REPOSITORY = r"\A(?!\.{1,2}/)[A-Za-z0-9._-]{1,100}/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}\Z"
BRANCH = r"\A(?!-)(?!.*(?:\.\.|//|@\{|\.lock\Z|/\Z|\.\Z))[^\x00-\x20~^:?*\[\\\x7f]{1,200}\Z"
"""Stricter than git-check-ref-format(1): names are used without quoting, so characters that need it are refused."""

RepositoryName = Annotated[str, msgspec.Meta(pattern=REPOSITORY)]
BranchName = Annotated[str, msgspec.Meta(pattern=BRANCH)]
PullNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_PULL_NUMBER)]


class ForkPullRequest(msgspec.Struct, frozen=True):
    """A pull request from the repository `origin` (owner/name; None if it was deleted) into the branch `base`."""

    number: PullNumber
    origin: RepositoryName | None = None
    base: str | None = None

    @property
    def branch(self) -> str:
        """The name shown to people."""
        return f"pull/{self.number}"

    @property
    def description(self) -> str:
        return f"pull request {self.number} of {self.origin or 'a deleted repository'}"


class BranchUpdate(msgspec.Struct, frozen=True):
    """A webhook's message: fetch the remote's `ref` into the local `branch`, or remove `branch` if `closed`.

    For a pull request from the same repository, `head` is its source branch. One from a fork updates no branch.
    """

    repository: str
    ref: str
    branch: str
    closed: bool = False
    head: str | None = None
    fork: ForkPullRequest | None = None


class StatusRefused(Exception):
    """The forge rejected a commit status or a comment. `final` is true if a retry cannot succeed."""

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


class Forge(Protocol):
    """One forge, with its secrets. `name` is the path that its webhooks are sent to."""

    @property
    def name(self) -> str: ...
    @property
    def max_body_bytes(self) -> int: ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the webhook is signed with the shared secret."""

    def read(self, headers: Mapping[str, str], body: bytes) -> BranchUpdate | None:
        """The message of a verified webhook; None if it needs no action. Raises UsageError if malformed."""

    def set_status(self, repository: str, commit: str, status: CommitStatus) -> None:
        """Set the status on the commit; does nothing without a token. Blocking. Raises StatusRefused."""

    def set_comment(self, repository: str, subject: str, text: str, known: int | None) -> int | None:
        """Write Markdown beside a pull request (`pull/N`) or a commit, over the comment `known` if it still exists.

        The comment's id; None without a token. Blocking. Raises StatusRefused.
        """
