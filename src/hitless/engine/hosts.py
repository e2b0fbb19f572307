"""What a branch's preview is called: a label of the domain name system, made of the branch's name. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container

LONGEST_LABEL = 63
_DIGITS = 6
PREFIX = "preview_"
"""Of its stage. No name in serverless.yml holds an underscore: no stage of a service is ever mistaken for one."""


def label_of(branch: str, taken: Container[str]) -> str:
    """`feature/Login` → `feature-login`: lower case, letters and digits of ASCII, single hyphens between.

    Where that is another branch's (`taken`), was cut to 63 characters or has nothing left of the name, six digits of
    the branch's own digest follow.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", branch.lower()).strip("-")
    if plain and len(plain) <= LONGEST_LABEL and plain not in taken:
        return plain
    digest = hashlib.sha256(branch.encode("utf-8", "surrogateescape")).hexdigest()
    cut = plain[: LONGEST_LABEL - _DIGITS - 1].rstrip("-") or "branch"
    label = f"{cut}-{digest[:_DIGITS]}"
    while label in taken:  # another branch with the same name and the same six digits, or one that is called so
        digest = hashlib.sha256(digest.encode()).hexdigest()
        label = f"{cut}-{digest[:_DIGITS]}"
    return label


def stage_of(label: str) -> str:
    """The preview's stage."""
    return f"{PREFIX}{label}"
