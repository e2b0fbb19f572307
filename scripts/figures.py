"""Counts what the size and clarity of src/ are measured by, at one commit or at two side by side.

    .venv/bin/python scripts/figures.py [COMMIT [COMMIT]]     default: the files as they are now

Counted: lines by package, modules under 50 lines, `dict[str, Any]`, hand-written to_json and from_json, comment lines,
class names that several classes share.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
SMALL_LINES = 50
NOT_OURS = "src/hitless/templates/service/"
"""The scaffold's own code belongs to the service that it becomes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one tree. `lines` by package; `shared` by class name: how many classes have it."""

    lines: Counter[str]
    small: int
    loose: int
    conversions: int
    comments: int
    shared: Counter[str]

    @property
    def rows(self) -> list[tuple[str, int]]:
        """What is printed, with one number each."""
        total = sum(self.lines.values())
        return [
            *sorted(self.lines.items()),
            ("all lines", total),
            ("modules under 50 lines", self.small),
            ("dict[str, Any]", self.loose),
            ("to_json and from_json", self.conversions),
            ("comment lines", self.comments),
            ("class names of several classes", len(self.shared)),
            ("classes with such a name", sum(self.shared.values())),
        ]


def files(commit: str | None) -> dict[str, str]:
    """Path → text of every module of ours, in the working tree or at a commit."""
    if commit is None:
        found = {str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / "src").rglob("*.py")}
    else:
        names = git("ls-tree", "-r", "--name-only", commit, "src").split()
        found = {name: git("show", f"{commit}:{name}") for name in names if name.endswith(".py")}
    return {path: text for path, text in found.items() if not path.startswith(NOT_OURS)}


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


def figures(tree: dict[str, str]) -> Figures:
    """Count a tree."""
    lines: Counter[str] = Counter()
    names: Counter[str] = Counter()
    small = comments = 0
    for path, text in tree.items():
        length = text.count("\n")
        parts = PurePosixPath(path).parts
        lines[parts[2] if len(parts) > 3 else "(top)"] += length
        small += length < SMALL_LINES and parts[-1] != "__init__.py"
        names.update(node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef))
        comments += sum(
            token.type == tokenize.COMMENT and not token.string.startswith(("# type:", "# noqa"))
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
        )
    code = "\n".join(tree.values())
    return Figures(
        lines=lines,
        small=small,
        loose=code.count("dict[str, Any]"),
        conversions=code.count("def to_json(") + code.count("def from_json("),
        comments=comments,
        shared=Counter({name: count for name, count in names.items() if count > 1}),
    )


def main() -> None:
    commits = sys.argv[1:3] or [None]
    columns = [figures(files(commit)) for commit in commits]
    tables = [dict(column.rows) for column in columns]
    packages = sorted({name for column in columns for name in column.lines})
    totals = [label for label in tables[0] if label not in columns[0].lines]
    print(f"{'':32}" + "".join(f"{commit or 'now':>12.11}" for commit in commits))
    for label in (*packages, *totals):
        print(f"{label:32}" + "".join(f"{table.get(label, 0):12}" for table in tables))
    print("shared:", ", ".join(f"{name} {count}" for name, count in columns[-1].shared.most_common()))


if __name__ == "__main__":
    main()
