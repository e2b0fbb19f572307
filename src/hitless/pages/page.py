"""Renders and writes HTML pages that stand alone: no script, nothing loaded, light and dark.

Each page extends `base.html` and shares `theme.css` and `style.css`. Templates escape all values. Those that end in
`.md` make Markdown for a comment on a forge; there the filter `cell` escapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from hitless.documents import replace_file
from hitless.errors import MachineError

MARKDOWN = ".md"


def environment_of(package: str, **names: Any) -> Environment:
    """Jinja with the package's templates, `base.html`, and `names` as global names. An unknown name is an error."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("hitless.pages", ".")]),
        autoescape=lambda name: not (name or "").endswith(MARKDOWN),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(names)
    environment.filters["thousands"] = lambda number: f"{number:,}"
    environment.filters["cell"] = lambda text: re.sub(r"[\\`*_\[\]<>|#@~&]", r"\\\g<0>", " ".join(str(text).split()))
    return environment


def write_page(path: Path, render: Callable[[str], str], *, option: str = "--report") -> None:
    """Write a page, or Markdown into a file `.md`, completely or not at all. `render` gets the suffix of its template.
    A device such as `/dev/null` is written to, not replaced.

    Raises MachineError if it cannot be written; `option` is the command's option that names the file.
    """
    text = render(MARKDOWN if path.suffix == MARKDOWN else ".html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            path.write_text(text, "utf-8")
            return
        replace_file(path, text)
    except OSError as error:
        raise MachineError(
            f"{path}: cannot be written: {error.strerror}", hint=f"name another with {option}"
        ) from error
