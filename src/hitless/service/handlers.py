"""Checks that a handler exists, in the source and without running it, so that a typo does not cost a rollout.

Only certain mistakes are errors: a missing file, a missing name at its top level, or a coroutine. A
module that creates names as it runs (`import *`, `globals()`, `__getattr__`) is accepted. So is one that a
dependency may bring: the build looks for it once requirements.txt is installed.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hitless.service.value import Value, did_you_mean

MAX_MODULE_BYTES = 4 * 1024 * 1024

_MODULE = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*")
_DYNAMIC_CALLS = {"globals", "exec", "setattr"}


def check_handler(handler: Value, folder: Path) -> str:
    """The handler as written (`src/handlers.zones`), if the file and the name in it exist; else ServiceFileError."""
    text = handler.text()
    module, _, attribute = text.rpartition(".")
    if not _MODULE.fullmatch(module) or not attribute.isidentifier():
        raise handler.fault(
            f"{handler.shown()} is not a handler", "write path/to/module.function, relative to the service's folder"
        )
    path = _module_file(handler, folder, module)
    if path is None:
        return text
    name = path.relative_to(folder).as_posix()
    tree = _parsed(handler, path, name)
    names = set(_bound(tree.body))
    if attribute not in names and not _is_dynamic(tree, names):
        hint = did_you_mean(attribute, names) or f"define {attribute} in {name}, or name what it defines"
        if name.endswith(f".{attribute}"):
            hint = f"write {module}.FUNCTION, with a function of {name}"
        raise handler.fault(f"{name} does not define {attribute}", hint)
    if _is_coroutine(tree, attribute):
        raise handler.fault(
            f"{name} defines {attribute} as async; Lambda calls plain functions",
            "make it a def that runs the coroutine",
        )
    return text


def _module_file(handler: Value, folder: Path, module: str) -> Path | None:
    """The module's file; None if it may be a dependency's."""
    base = folder / module.replace(".", "/")
    for path in (base / "__init__.py", base.with_name(base.name + ".py")):
        if not path.is_file():
            continue
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise handler.fault(f"{path.relative_to(folder).as_posix()} is a link out of the service's folder")
        return path
    wanted = f"{module.replace('.', '/')}.py"
    beside = base.parent if base.parent.is_dir() else folder
    near = did_you_mean(wanted, [path.relative_to(folder).as_posix() for path in sorted(beside.glob("*.py"))[:200]])
    if not near and (folder / "requirements.txt").exists() and not (folder / wanted.partition("/")[0]).exists():
        return None
    raise handler.fault(f"there is no {wanted} in the service's folder", near or "a handler is path/to/module.function")


def _parsed(handler: Value, path: Path, name: str) -> ast.Module:
    try:
        if path.stat().st_size > MAX_MODULE_BYTES:
            raise handler.fault(f"{name} is larger than {MAX_MODULE_BYTES} bytes")
        return ast.parse(path.read_bytes(), filename=name)
    except SyntaxError as error:
        raise handler.fault(f"{name}:{error.lineno}: syntax error: {error.msg}", f"fix {name}") from error
    except (OSError, ValueError) as error:
        raise handler.fault(f"{name} cannot be read: {error}") from error


def _bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    """What these statements bind in their own scope."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case _:
                yield from _stored(statement)


def _stored(statement: ast.stmt) -> Iterator[str]:
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            yield from _bound([child])
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from _bound(child.body)
        else:
            yield from (n.id for n in ast.walk(child) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _is_coroutine(tree: ast.Module, name: str) -> bool:
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name]
    return bool(functions) and isinstance(functions[-1], ast.AsyncFunctionDef) and not functions[-1].decorator_list


def _is_dynamic(tree: ast.Module, names: set[str]) -> bool:
    if "*" in names or "__getattr__" in names:
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _DYNAMIC_CALLS:
            return True
        if isinstance(node, ast.Global):
            return True
    return False
