"""Who asked for a rollout or a run, from the kernel and the caller's environment."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from typing import Final, Self

import msgspec
from msgspec.structs import replace

LONGEST_NAME = 200
_CI: Final = (
    # name, proof that it runs there, who asked for the run, the run
    ("GitHub Actions", "GITHUB_ACTIONS", "GITHUB_ACTOR", "GITHUB_RUN_ID"),
    ("GitLab CI", "GITLAB_CI", "GITLAB_USER_LOGIN", "CI_PIPELINE_ID"),
    ("CodeBuild", "CODEBUILD_BUILD_ID", "CODEBUILD_INITIATOR", "CODEBUILD_BUILD_ID"),
)
"""Variables as the services document them: GitHub "Default environment variables", GitLab "Predefined variables",
CodeBuild "Environment variables in build environments"."""


class Who(msgspec.Struct, frozen=True):
    """Each is None if unknown. `user`: the owner of the calling process, from the kernel; `sudo_user`: who used sudo;
    `ci`, `actor`, `run`: the build service, who started the build, and the build.
    """

    user: str | None = None
    sudo_user: str | None = None
    ci: str | None = None
    actor: str | None = None
    run: str | None = None

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> Self:
        found = cls(sudo_user=_name(environ.get("SUDO_USER")))
        for name, proof, actor, run in _CI:
            if environ.get(proof):
                return replace(found, ci=name, actor=_name(environ.get(actor)), run=_name(environ.get(run)))
        return found

    def called_by(self, user: str | None) -> Self:
        """The same with the user that the kernel named, whatever was sent, and all names as `_name` has them."""
        return type(self)(*map(_name, (user, self.sudo_user, self.ci, self.actor, self.run)))


def _name(text: str | None) -> str | None:
    """The name in one line, cut at `LONGEST_NAME`; None if nothing is left."""
    return "".join(c for c in (text or "")[:LONGEST_NAME] if c.isprintable()).strip() or None


NOBODY: Final = Who()
"""The engine itself, or a caller that does not say."""


def who() -> str:
    """The person at the keyboard: a user of this machine, or of the one that an SSH login came from."""
    peer = os.environ.get("SSH_CONNECTION", "").split(" ")[0]
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{peer or socket.gethostname()}"
