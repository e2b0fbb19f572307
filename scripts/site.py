"""Hooks of MkDocs for the site: README and CONTRIBUTING become pages, and links to files outside of docs/ plain text.

Run by `scripts/docs`. The pages themselves stay readable on a forge, so their links are those of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages outside of docs/ → their names in the site."""

_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s#:]+)(#[^)\s]*)?\)")


def anchor(heading: str, separator: str) -> str:
    """A forge's anchor of a heading: lower case, without punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", separator)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = next((one for one, name in PAGES.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")
    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [re.sub(r'(src|srcset)="docs/', r'\1="', link_in_site(text, source)) for text in parts[::2]]
    return "".join(parts)


def link_in_site(text: str, source: str) -> str:
    """The text of a page of the repository, with links that are relative to the page in the site."""
    return _LINK.sub(lambda found: _linked(found, source), text)


def _linked(found: re.Match[str], source: str) -> str:
    shown, target, part = found[1], found[2], found[3] or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path not in PAGES and (not path.startswith("docs/") or (ROOT / path).is_dir()):
        return shown.removeprefix("[").removesuffix("]")
    here = posixpath.dirname(_in_site(source)) or "."
    return f"{shown}({posixpath.relpath(_in_site(path), here)}{part})"


def _in_site(path: str) -> str:
    return PAGES.get(path) or path.removeprefix("docs/")
