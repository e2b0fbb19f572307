"""What git's hook and the commands ask of the pipeline: updated branches and tags, push options, promotions.

The commands that send these to the daemon import this module, so it imports nothing of the engine.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from hitless.errors import UsageError
from hitless.service.model import Home

NOTHING = "0" * 40
"""git's id for a commit that does not exist: the old one of a new branch, the new one of a deleted branch."""
MAX_OPTION = 500
OPTIONS = ("override", "skip-rehearsal", "preview", "no-preview")
_HEADS = "refs/heads/"

CommitId = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{40}|[0-9a-f]{64})\Z")]


class RefUpdate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One line that git gives to a hook; as JSON a list."""

    old: CommitId
    new: CommitId
    ref: Annotated[str, msgspec.Meta(max_length=1000)]

    @property
    def branch(self) -> str | None:
        return self.ref.removeprefix(_HEADS) if self.ref.startswith(_HEADS) else None

    @property
    def deletes(self) -> bool:
        return set(self.new) == {"0"}

    @property
    def creates(self) -> bool:
        return set(self.old) == {"0"}


class Promotion(msgspec.Struct, frozen=True, rename={"source": "from", "source_home": "from_home"}):
    """An order to promote. `document` is the target's configuration in the service's folder, a `ReleaseDocument`. If
    the repository has the commit, the commit's own is used instead. `folder` has the serverless.yml of stages on AWS.
    """

    source: str
    target: str = ""
    source_home: Home = Home.ENGINE
    document: dict[str, Any] | None = None
    folder: str | None = None
    skip_rehearsal: bool = False
    actor: str = ""


def read_options(lines: list[str]) -> dict[str, str]:
    """`-o KEY=VALUE` of a push. Raises UsageError for an unknown or overlong one."""
    options = {}
    for line in lines:
        key, _, value = line.partition("=")
        if key not in OPTIONS:
            raise UsageError(f"the push option {key!r} is unknown", hint=f"known: {', '.join(OPTIONS)}")
        if len(value) > MAX_OPTION or not value.isprintable():
            raise UsageError(f"the push option {key} is not a line of up to {MAX_OPTION} characters", hint="shorten it")
        options[key] = value
    if "override" in options and not options["override"].strip():
        raise UsageError("the push option override gives no reason", hint="git push -o override='why' …")
    return options
