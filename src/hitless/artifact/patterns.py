"""Serverless Framework's `package.patterns`: which files of a service's folder go into its package.

Everything is in, unless excluded; the last pattern that matches decides, and `!` excludes. The globs are those of
micromatch with `dot: true`: `*` and `?` stay within one part of a path, `**` as a whole part spans parts, `[a-z]`,
`{a,b}`, and the groups `@(a|b)`, `?(…)`, `*(…)`, `+(…)`. Pure.

Departures from Serverless, each so that work in the folder (running its tests, say) does not change an artifact:
folders that tools make are not looked into unless a pattern names them, and `.env` files stay out by default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from hitless.errors import BuildError

NEVER_FOLDERS = frozenset({".git", ".hg", ".svn", ".hitless"})
TOOL_FOLDERS = frozenset(
    {".venv", "node_modules", "__pycache__", ".serverless", ".serverless_plugins", ".pytest_cache", ".mypy_cache"}
    | {".ruff_cache", ".hypothesis", ".tox", ".nox"}
)
DEFAULT_EXCLUDES = (
    *("!.gitignore", "!**/.DS_Store", "!npm-debug.log", "!yarn-*.log"),
    *("!**/*.pyc", "!**/.env*", "!.coverage"),
)


class PackagePatterns:
    """The patterns of one package, compiled. Raises BuildError for one that cannot be followed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = tuple(patterns)
        self.given = given
        self._rules = [(not p.startswith("!"), _compiled(p)) for p in (*DEFAULT_EXCLUDES, *given)]
        self._rules.reverse()
        named = {part for p in given if not p.startswith("!") for part in p.split("/")}
        self._skipped = NEVER_FOLDERS | (TOOL_FOLDERS - named)

    def selects(self, name: str) -> bool:
        """Whether the file of that name (relative to the service's folder) goes into the package."""
        for include, rule in self._rules:
            if rule.fullmatch(name):
                return include
        return True

    def looks_into(self, folder: str) -> bool:
        """Whether a folder of that last name is walked at all."""
        return folder not in self._skipped

    def names_folder(self, folder: str) -> str | None:
        """The exclusion that names this folder but, as Serverless reads it, none of the files in it."""
        return next(
            (p for p in self.given if p.startswith("!") and p[1:].rstrip("/").removeprefix("./") == folder), None
        )


def _compiled(pattern: str) -> re.Pattern[str]:
    glob = pattern.removeprefix("!").removeprefix("./")
    if not glob or glob.startswith("/") or ".." in glob.split("/"):
        raise BuildError(
            f"package.patterns: {pattern!r} leads out of the service's folder",
            hint="a package holds files of the service's folder only; copy what is shared into it",
        )
    try:
        return re.compile("|".join(_translated(one) for one in _braces_expanded(glob)), re.DOTALL)
    except (re.error, ValueError) as error:
        raise BuildError(f"package.patterns: {pattern!r} cannot be read as a glob: {error}") from error


def _braces_expanded(glob: str) -> list[str]:
    """`a/{b,c{d,e}}` → `a/b`, `a/cd`, `a/ce`; braces without a comma are letters."""
    depth, start, commas = 0, -1, list[int]()
    for at, letter in enumerate(glob):
        if at and glob[at - 1] == "\\":
            continue
        if letter == "{":
            depth += 1
            if depth == 1:
                start, commas = at, []
        elif letter == "," and depth == 1:
            commas.append(at)
        elif letter == "}" and depth:
            depth -= 1
            if depth == 0 and commas:
                cuts = [start, *commas, at]
                choices = [glob[a + 1 : b] for a, b in pairwise(cuts)]
                return [one for c in choices for one in _braces_expanded(glob[:start] + c + glob[at + 1 :])]
    return [glob]


def _translated(glob: str) -> str:
    parts = glob.split("/")
    regex = ""
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if part != "**":
            regex += _part_translated(part) + ("" if last else "/")
        elif not last:
            regex += "(?:[^/]+/)*"
        else:
            regex = f"{regex[:-1]}(?:/.*)?" if regex.endswith("/") else f"{regex}.*"
    return regex


def _part_translated(part: str) -> str:
    regex, at, closings = "", 0, list[str]()
    while at < len(part):
        letter, after = part[at], part[at + 1 : at + 2]
        if after == "(" and letter in "@?*+!":
            if letter == "!":
                raise ValueError(
                    "the group !(…) is not supported; write one pattern to include and one with ! to exclude"
                )
            closings.append({"@": ")", "?": ")?", "*": ")*", "+": ")+"}[letter])
            regex += "(?:"
            at += 1
        elif letter == ")" and closings:
            regex += closings.pop()
        elif letter == "|" and closings:
            regex += "|"
        elif letter == "*":
            regex += "[^/]*"
        elif letter == "?":
            regex += "[^/]"
        elif letter == "[" and (end := part.find("]", at + 2)) > 0:
            inner = part[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            regex += "[" + ("^" + inner[1:] if inner[0] in "!^" else inner) + "]"
            at = end
        else:
            at += letter == "\\" and bool(after)
            regex += re.escape(part[at])
        at += 1
    if closings:
        raise ValueError("a group is not closed")
    return regex
