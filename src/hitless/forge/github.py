"""GitHub as a forge, by docs.github.com: webhooks, rest/commits/statuses and /comments, rest/issues/comments."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from hitless.documents import decode, to_text
from hitless.errors import UsageError
from hitless.forge.forge import BranchName, BranchUpdate, ForkPullRequest, PullNumber, RepositoryName, StatusRefused
from hitless.forge.statuses import CommitStatus

T = TypeVar("T")

_PULL_ACTIONS = ("opened", "synchronize", "reopened", "closed")
_HEADS = "refs/heads/"
_LONGEST_DESCRIPTION = 140
_LONGEST_COMMENT = 65_000
"""GitHub takes 65,536 characters."""
_TIMEOUT_S = 10
_MAX_RESPONSE = 1 << 20


class _Repository(msgspec.Struct):
    full_name: RepositoryName


class _Push(msgspec.Struct):
    ref: str
    repository: _Repository
    deleted: bool = False


class _End(msgspec.Struct):
    """The head or base of a pull request; `repo` is null if the repository was deleted."""

    repo: _Repository | None = None
    ref: str | None = None


class _Ends(msgspec.Struct):
    head: _End
    base: _End = msgspec.field(default_factory=_End)


class _Comment(msgspec.Struct):
    id: int


class _Pull(msgspec.Struct):
    action: str
    number: PullNumber
    repository: _Repository
    pull_request: _Ends


@dataclass(frozen=True, slots=True)
class GitHubForge:
    """`token` may set commit statuses and comments; without one none are set."""

    secret: bytes
    token: str | None = None
    api: str = "https://api.github.com"
    name: str = "github"
    max_body_bytes: int = 25 * 1024 * 1024
    """GitHub's own bound on a payload."""

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Check `X-Hub-Signature-256: sha256=HEX`, the HMAC of the body."""
        expected = "sha256=" + hmac.new(self.secret, body, hashlib.sha256).hexdigest()
        signature = headers.get("x-hub-signature-256", "")
        return bool(self.secret) and hmac.compare_digest(expected.encode(), signature.encode())

    def read(self, headers: Mapping[str, str], body: bytes) -> BranchUpdate | None:
        match headers.get("x-github-event"):
            case "push":
                return _of_push(_decode(body, _Push, "push"))
            case "pull_request":
                return _of_pull(_decode(body, _Pull, "pull_request"))
            case _:
                return None

    def set_status(self, repository: str, commit: str, status: CommitStatus) -> None:
        if self.token is None:
            return
        shown = msgspec.structs.replace(status, description=status.description[:_LONGEST_DESCRIPTION])
        self._send("POST", f"{repository}/statuses/{commit}", shown)

    def set_comment(self, repository: str, subject: str, text: str, known: int | None) -> int | None:
        if self.token is None:
            return None
        pull, number = subject.startswith("pull/"), subject.removeprefix("pull/")
        body = {"body": text[:_LONGEST_COMMENT]}
        if known is not None:
            try:
                self._send("PATCH", f"{repository}/{'issues/' if pull else ''}comments/{known}", body)
                return known
            except StatusRefused as refused:
                if not refused.final:
                    raise  # otherwise somebody deleted it, or the next call is refused too
        there = f"issues/{number}" if pull else f"commits/{subject}"
        sent = self._send("POST", f"{repository}/{there}/comments", body)
        try:
            return msgspec.json.decode(sent, type=_Comment).id
        except msgspec.DecodeError as error:
            raise StatusRefused(f"GitHub's response is not a comment: {error}", final=True) from error

    def _send(self, verb: str, path: str, document: object) -> bytes:
        headers = {"authorization": f"Bearer {self.token}", "accept": "application/vnd.github+json"}
        asked = urllib.request.Request(f"{self.api}/repos/{path}", to_text(document).encode(), headers, method=verb)
        try:
            with urllib.request.urlopen(asked, timeout=_TIMEOUT_S) as response:
                sent: bytes = response.read(_MAX_RESPONSE)
                return sent
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429
            raise StatusRefused(str(error), final=refused) from error


def _decode(body: bytes, kind: type[T], event: str) -> T:
    what = f"the webhook is not a {event} of GitHub"
    try:
        return decode(body, kind, what, error=UsageError)
    except (RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{what}: {error}", hint="see the webhook's settings") from error


def _of_push(push: _Push) -> BranchUpdate | None:
    if not push.ref.startswith(_HEADS):
        return None
    branch = _branch(push.ref.removeprefix(_HEADS))
    if branch is None:
        raise UsageError(f"the webhook is not a push of GitHub: {push.ref[:100]!r} is not accepted", hint="rename it")
    return BranchUpdate(push.repository.full_name, push.ref, branch, closed=push.deleted)


def _of_pull(pull: _Pull) -> BranchUpdate | None:
    """A pull request of the repository itself is a branch; one of another, or of a deleted one, is a fork's."""
    if pull.action not in _PULL_ACTIONS:
        return None
    repository, closed = pull.repository.full_name, pull.action == "closed"
    ref, branch = f"refs/pull/{pull.number}/head", f"pull/{pull.number}"
    head, base = pull.pull_request.head, pull.pull_request.base
    origin = head.repo.full_name if head.repo else None
    if origin == repository:
        return BranchUpdate(repository, ref, branch, closed, head=_branch(head.ref))
    return BranchUpdate(repository, ref, branch, closed, fork=ForkPullRequest(pull.number, origin, _branch(base.ref)))


def _branch(name: str | None) -> str | None:
    """The name, if it is one that is accepted."""
    try:
        return msgspec.convert(name, BranchName)
    except msgspec.ValidationError:
        return None
