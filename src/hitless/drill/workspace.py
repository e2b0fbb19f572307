"""The copy of the service's folder that releases are made from. The user's own folder is never written to.

Releases differ by one marker module beside the first handler. A broken scenario adds code to the handlers' modules, so
that names, relative imports and package patterns stay as they are. `reset` undoes everything: each release starts from
the original. A setting in serverless.yml is changed in the parsed YAML nodes, not in plain values, so that
CloudFormation's tags and the variables stay as they are.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hitless.documents import replace_file
from hitless.errors import UsageError
from hitless.service.model import NODE_RUNTIMES, PROGRAM, PROGRAM_RUNTIMES, Service

MARKER = "hitless_drill_marker.py"
WRAPPER = "_hitless_drill_wrap"
PROCESS = "hitless.processes.drill_program"
LEFT_OUT = shutil.ignore_patterns(
    *(".hitless", ".git", ".venv", "venv", ".tox", ".nox", "node_modules", ".serverless", "__pycache__", "*.pyc"),
    *(".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "*.egg-info", ".DS_Store"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """The service to copy: its folder, its file's name, the stage, and its handlers as the file names them.

    A service without handlers is the program of a custom runtime.
    """

    folder: Path
    file_name: str
    stage: str
    handlers: tuple[str, ...]
    has_scripts: bool = False

    @classmethod
    def of(cls, service: Service, stage: str) -> Source:
        handlers = tuple(one.handler for one in service.functions if one.runtime not in PROGRAM_RUNTIMES)
        has_scripts = any(one.runtime in NODE_RUNTIMES for one in service.functions)
        return cls(service.folder, service.file.name, stage, handlers, has_scripts)


class Workspace:
    """A copy of a service in a temporary folder; call `remove` at the end."""

    def __init__(self, source: Source, *, data_dir: Path) -> None:
        self._stage = source.stage
        self._root = Path(tempfile.mkdtemp(prefix="hitless-drill-"))
        self.folder = self._root / source.folder.name
        self._file = self.folder / source.file_name
        data = data_dir.resolve()

        def ignore(folder: str, names: list[str]) -> set[str]:
            dropped = set(LEFT_OUT(folder, names))
            dropped.update(name for name in names if (Path(folder) / name).resolve() == data)
            return dropped

        try:
            shutil.copytree(source.folder, self.folder, symlinks=True, ignore=ignore)
            self._functions: dict[Path, list[str]] = {}
            for handler in dict.fromkeys(source.handlers):
                self._functions.setdefault(self._module_of(handler), []).append(handler.rpartition(".")[2])
            self.program = None if self._functions else self.folder / PROGRAM
            self._marker = self.program or next(iter(self._functions)).parent / MARKER
            self._check(self._marker)
        except shutil.Error as error:
            self.remove()
            raise UsageError(
                f"{source.folder}: cannot be copied: {error}", hint="check that every file in it is readable"
            ) from error
        except BaseException:
            self.remove()
            raise
        self._originals: dict[Path, bytes] = {}

    def mark(self, text: str) -> None:
        """Make this release differ from every other. Bytes after a program's end do not change what it does."""
        if self.program is not None:
            self._originals.setdefault(self.program, self.program.read_bytes())
            text = f"\n# {text}"
            return self._write(self.program, self.program.read_bytes() + text.encode())
        return self._write(self._marker, f"MARKER = {text!r}\n".encode())

    def unmark(self) -> None:
        """Remove the marker, so that the copy is packaged like the original."""
        if self.program is not None:
            return self.reset()
        return self._marker.unlink(missing_ok=True)

    def replace_program(self, script: bytes) -> None:
        """Put a script in the program's place."""
        assert self.program is not None
        self._originals.setdefault(self.program, self.program.read_bytes())
        self._write(self.program, script)

    def append(self, code: str, script: str = "") -> None:
        """Add code, or a script in JavaScript, at the end of each handler's module."""
        for module in self._functions:
            original = self._originals.setdefault(module, module.read_bytes())
            self._write(module, original + b"\n\n" + (code if module.suffix == ".py" else script).encode())

    def wrap(self, code: str) -> None:
        """Add code that defines the function WRAPPER, and wrap each handler, or the program, with it."""
        if self.program is not None:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as file:
                own = f"import sys\n\nsys.path += {sys.path!r}\nfrom {PROCESS} import main"
                file.writestr("__main__.py", f"{own}\n\n{code}\n\nmain({WRAPPER})\n")
                file.writestr(PROGRAM, self.program.read_bytes())
            self.replace_program(b"#!%b\n%b" % (os.fsencode(sys.executable), packed.getvalue()))
        for module, names in self._functions.items():
            original = self._originals.setdefault(module, module.read_bytes())
            wrapped = "\n".join(f"{name} = {WRAPPER}({name})" for name in names)
            self._write(module, original + f"\n\n{code}\n\n{wrapped}\n".encode())

    def set_stage(self, key: str, value: Setting) -> None:
        """Change a setting of the stage in serverless.yml. Raises UsageError if a variable is in the way."""
        self._originals.setdefault(self._file, self._file.read_bytes())
        changed = with_stage_setting(self._file.read_text("utf-8"), self._stage, key, value)
        self._write(self._file, changed.encode())

    def reset(self) -> None:
        """Undo all changes to the copy."""
        for path, original in self._originals.items():
            self._write(path, original)
        self._originals.clear()

    def remove(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def _module_of(self, handler: str) -> Path:
        module = handler.rpartition(".")[0].replace(".", "/")
        for path in (self.folder / f"{module}{end}" for end in ("/__init__.py", ".py", ".js", ".mjs", ".cjs")):
            if path.is_file():
                self._check(path)
                return path
        raise UsageError(f"{handler}: its module is not in the service's folder", hint="fix the handler's path")

    def _check(self, path: Path) -> None:
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise UsageError(
                f"{path.relative_to(self._root)}: a link points outside the service's folder", hint="copy it"
            )

    def _write(self, path: Path, content: bytes) -> None:
        """Replace the file, so that links are not followed and a read-only file can be changed."""
        self._check(path)
        replace_file(path, content, mode=0o755 if path == self.program else 0o666)


_NULL = "tag:yaml.org,2002:null"
Setting = int | Sequence[object] | Mapping[str, int]


def with_stage_setting(text: str, stage: str, key: str, value: Setting) -> str:
    """The file with `custom.hitless.stages.STAGE.KEY: VALUE`. Raises UsageError if a variable is in the way."""
    root = node = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        raise UsageError("serverless.yml is empty", hint="`hitless init` makes one to start from")
    *above, last = path = ("custom", "hitless", "stages", stage, key)
    for depth, name in enumerate(path):
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(
                f"serverless.yml: {'.'.join(above[: depth + 1])} is not a plain map,"
                " so a drill cannot change a setting in its copy",
                hint="write it as a map in serverless.yml, or omit the scenario",
            )
        inner = next((old for known, old in node.value if known.value == name and old.tag != _NULL), None)
        if inner is None or name is last:
            nested: object = value
            for outer in reversed(path[depth:]):
                nested = {outer: nested}
            added = yaml.compose(yaml.safe_dump(nested), Loader=yaml.SafeLoader)
            assert isinstance(added, yaml.MappingNode)
            node.value = [*(pair for pair in node.value if pair[0].value != name), *added.value]
            break
        node = inner
    return str(yaml.serialize(root))
