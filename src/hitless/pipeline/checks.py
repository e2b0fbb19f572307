"""What a stage with `required_checks` takes: commits whose tests have passed before its branch moves.

As a protected branch of GitHub's with required status checks. The pushed commit has passed, or it is a merge of nothing
but the branch as it stood and commits that have: a merge is tested itself once it is there. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Lineage = Mapping[str, Sequence[str]]
"""Commit → its parents, the one that was merged into first."""


def missing(old: str, new: str, lineage: Lineage, has_passed: Callable[[str], bool]) -> tuple[str, ...]:
    """The commits whose tests must pass before a branch moves from `old` to `new`."""
    if has_passed(new):
        return ()
    parents = tuple(lineage.get(new, ()))
    if len(parents) < 2:
        return (new,)
    return tuple(one for one in parents if one != old and not has_passed(one))
