"""The pipeline's interface to a forge. GitHub is in `github.py`; another forge is one more file beside it.

A webhook is only a hint to look. What is fetched is what the remote holds now, so a repeated webhook starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

import msgspec

from hitless.forge.statuses import CommitStatus

MAX_NUMBER = 10**9
REPOSITORY = r"\A(?!\.{1,2}/)[A-Za-z0-9._-]{1,100}/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}\Z"
BRANCH = r"\A(?!-)(?!.*(?:\.\.|//|@\{|\.lock\Z|/\Z|\.\Z))[^\x00-\x20~^:?*\[\\\x7f]{1,200}\Z"
"""Narrower than git-check-ref-format(1): nothing of these names is quoted anywhere."""

RepositoryName = Annotated[str, msgspec.Meta(pattern=REPOSITORY)]
BranchName = Annotated[str, msgspec.Meta(pattern=BRANCH)]
PullNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_NUMBER)]


class Fork(msgspec.Struct, frozen=True):
    """A pull request from the repository `origin` (owner/name; None if it was deleted) into the branch `base`."""

    number: PullNumber
    origin: RepositoryName | None = None
    base: str | None = None

    @property
    def branch(self) -> str:
        """The name that people know it by."""
        return f"pull/{self.number}"

    @property
    def sentence(self) -> str:
        return f"pull request {self.number} of {self.origin or 'a deleted repository'}"


@dataclass(frozen=True, slots=True)
class BranchUpdate:
    """A webhook's message: `ref` of the remote is to be fetched into `branch` here, or `branch` removed if `closed`.

    For a pull request of the team, `head` is the branch that it is of. For one of a fork, no branch is touched.
    """

    repository: str
    ref: str
    branch: str
    closed: bool = False
    head: str | None = None
    fork: Fork | None = None


class StatusRefused(Exception):
    """The forge did not take a commit status. `final`: it never will."""

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
        """The message of a verified webhook; None if it is of no concern here. Raises UsageError if malformed."""

    def set_status(self, repository: str, commit: str, status: CommitStatus) -> None:
        """Show the status at the commit; does nothing without a token. Blocking. Raises StatusRefused."""
