"""GitHub's webhooks: whether one is genuine, and what it asks for. Pure.

By docs.github.com/webhooks: `X-Hub-Signature-256: sha256=HEX` is the HMAC of the body by the shared secret. A delivery
is only a hint to look: what is fetched is what the remote holds now, so that one that is sent again starts nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hitless.errors import UsageError

MAX_BODY_BYTES = 25 * 1024 * 1024
"""GitHub's own bound on a payload."""
_BRANCH = re.compile(r"(?!-)(?!.*(?:\.\.|//|@\{|\.lock$|/$|\.$))[^\x00-\x20~^:?*\[\\\x7f]{1,200}")
REPOSITORY = re.compile(r"(?!\.{1,2}/)[A-Za-z0-9._-]{1,100}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_PULL_ACTIONS = ("opened", "synchronize", "reopened")
MAX_NUMBER = 10**9


@dataclass(frozen=True, slots=True)
class Fork:
    """A pull request of the repository `origin` (owner/name; None where it is gone) into the branch `base`."""

    number: int
    origin: str | None
    base: str | None

    @property
    def branch(self) -> str:
        """What people know it by."""
        return f"pull/{self.number}"

    @property
    def sentence(self) -> str:
        return f"pull request {self.number} of {self.origin or 'a repository that is gone'}"

    @classmethod
    def from_json(cls, document: Any) -> Fork:
        """Raises UsageError where it is none."""
        if not isinstance(document, Mapping):
            raise UsageError("not a fork's pull request", hint="see the receiver's log")
        number, origin, base = document.get("number"), document.get("origin"), document.get("base")
        if (
            type(number) is not int  # True is one, too
            or not 1 <= number <= MAX_NUMBER
            or not (origin is None or (isinstance(origin, str) and REPOSITORY.fullmatch(origin)))
            or not (base is None or isinstance(base, str))
        ):
            raise UsageError("not a fork's pull request: its number or repository", hint="see the receiver's log")
        return cls(number, origin, base)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`ref` of the remote is to be fetched into `branch` here; `closed`: the branch goes instead. `head`: the team's
    own branch that a pull request is of. With a `stranger` no branch here is touched.
    """

    repository: str
    ref: str
    branch: str
    closed: bool = False
    head: str | None = None
    stranger: Fork | None = None


def is_genuine(secret: bytes, body: bytes, signature: str | None) -> bool:
    """Whether whoever signed the body knows the secret."""
    expected = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    return bool(secret) and hmac.compare_digest(expected.encode(), (signature or "").encode())


def read_event(event: str, body: bytes) -> Wanted | None:
    """What a genuine delivery asks for; None for what is of no concern here. Raises UsageError for a malformed one."""
    if event not in ("push", "pull_request"):
        return None
    try:
        document = json.loads(body)
        repository = _matched(REPOSITORY, document["repository"]["full_name"])
        return _push(document, repository) if event == "push" else _pull(document, repository)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the delivery is no {event} of GitHub's: {error!r}", hint="see the webhook's settings"
        ) from error


def _push(document: Mapping[str, Any], repository: str) -> Wanted | None:
    ref = str(document["ref"])
    if not ref.startswith("refs/heads/"):
        return None
    branch = _matched(_BRANCH, ref.removeprefix("refs/heads/"))
    return Wanted(repository, ref, branch, closed=bool(document.get("deleted")))


def _pull(document: Mapping[str, Any], repository: str) -> Wanted | None:
    """Of the repository itself it is a branch; of any other, and of one that is gone, a stranger's."""
    pull, number = document["pull_request"], document["number"]
    if type(number) is not int or not 1 <= number <= MAX_NUMBER:
        raise ValueError("the pull request's number is none")
    closed = document["action"] == "closed"
    if not closed and document["action"] not in _PULL_ACTIONS:
        return None
    ref, branch = f"refs/pull/{number}/head", f"pull/{number}"
    origin = (pull["head"]["repo"] or {}).get("full_name")
    if origin == repository:
        return Wanted(repository, ref, branch, closed, head=_branch_of(pull["head"]))
    named = _matched(REPOSITORY, origin) if origin is not None else None
    stranger = Fork(number, named, _branch_of(pull.get("base") or {}))
    return Wanted(repository, ref, branch, closed, stranger=stranger)


def _branch_of(end: Mapping[str, Any]) -> str | None:
    name = end.get("ref")
    return name if isinstance(name, str) and _BRANCH.fullmatch(name) else None


def _matched(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise ValueError(f"{str(text)[:100]!r} is not a name that is taken")
    return text


def status_of(run: Mapping[str, Any]) -> dict[str, str]:
    """A commit's status for a run, by docs.github.com/rest/commits/statuses."""
    state = {"succeeded": "success", "queued": "pending", "running": "pending", "waiting_for_approval": "pending"}
    said = f"run {run['run']}: {run['state'].replace('_', ' ')}" + (f": {run['reason']}" if run["reason"] else "")
    context = f"hitless/{run['stage'] or 'tests'}"
    status = {"state": state.get(run["state"], "failure"), "context": context}
    if url := run.get("preview"):
        return {**status, "description": f"{said}, preview at {url}/"[:140], "target_url": f"{url}/"}
    return {**status, "description": said[:140]}
