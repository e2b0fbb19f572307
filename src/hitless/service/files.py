"""Reads the files of `${file(…)}`: regular, at most 1 MiB, below the repository's root (else the service's folder).

Serverless Framework reads any file. Here a service file, which a pipeline takes from a branch, must not read
the machine's other files: absolute paths are refused, and so are `..` and links that resolve to the outside.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from hitless.service.value import JAVASCRIPT, FilePlace, Unresolved, Value, from_plain

MAX_FILE_BYTES = 1024 * 1024
MAX_FILES = 100

_SCRIPTS = {".js", ".cjs", ".mjs", ".ts"}
_SAMPLE = re.compile("example|sample|template|dist", re.IGNORECASE)


class Files:
    """Reads each file once. `read_yaml(path, name)` gives the tree of a YAML file; `name` is what messages call it."""

    def __init__(self, folder: Path, read_yaml: Callable[[Path, str], Value]) -> None:
        self._folder = folder
        self._root = repository_root(folder)
        self._read_yaml = read_yaml
        self._read: dict[Path, Value] = {}

    def read(self, written: str, at: Value) -> Value | None:
        """The content of the file that a reference at `at` names; None if there is no such file."""
        path = self._allowed(written, at)
        if path.suffix in _SCRIPTS:
            return Value(Unresolved(f"${{file({written})}}", JAVASCRIPT), at.place, at.path)
        if path not in self._read:
            if not self._exists(path, written, at):
                return None
            if len(self._read) >= MAX_FILES:
                raise at.fault("is one file more than can be read", f"at most {MAX_FILES} files can be read")
            self._read[path] = self._content(path, written, at)
        return self._read[path]

    def why_missing(self, written: str, at: Value) -> tuple[str, str]:
        """That there is no such file, and how to make it from a sample beside it (`.env.example`); "" for neither."""
        path = self._allowed(written, at)
        if os.path.exists(path):
            return "", ""
        while not os.path.isdir(path.parent):
            path = path.parent
        near = sorted(one for one in path.parent.glob("*") if path.stem in one.name and _SAMPLE.search(one.name))
        sample = next(iter(near), None)
        real = os.path.realpath(self._folder)
        copy = sample and f"copy {os.path.relpath(sample, real)} to {os.path.relpath(path, real)} and fill it in"
        return f"there is no file {written}", copy or ""

    def _allowed(self, written: str, at: Value) -> Path:
        if not written or "\0" in written:
            raise at.fault("names no file", "write ${file(path.yml):key}")
        if written.startswith(("/", "~")):
            raise at.fault(f"the file {written} is an absolute path", "write it relative to the service's folder")
        path = Path(os.path.realpath(self._folder / written))
        if not path.is_relative_to(self._root):
            raise at.fault(
                f"the file {written} is outside {self._root}",
                "files of the service's repository can be read; without a repository, those in its folder",
            )
        return path

    def _exists(self, path: Path, written: str, at: Value) -> bool:
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise at.fault(f"the file {written} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise at.fault(f"{written} is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise at.fault(f"the file {written} is larger than {MAX_FILE_BYTES} bytes")
        return True

    def _content(self, path: Path, written: str, at: Value) -> Value:
        name = os.path.relpath(path, os.path.realpath(self._folder))
        if path.suffix in {".yml", ".yaml"}:
            return self._read_yaml(path, name)
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text) if path.suffix in {".json", ".tfstate"} else text
        except OSError as error:
            raise at.fault(f"the file {written} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise at.fault(f"the file {written} is not UTF-8") from error
        except json.JSONDecodeError as error:
            raise at.fault(f"the file {written} is not JSON: {error.msg} in line {error.lineno}") from error
        return from_plain(content, FilePlace(name, 1))


def repository_root(folder: Path) -> Path:
    """The nearest parent folder that has a `.git`, else the folder itself; resolved."""
    real = Path(os.path.realpath(folder))
    return next((parent for parent in (real, *real.parents) if (parent / ".git").exists()), real)
