"""Installs the dependencies that package-lock.json locks for `nodejs*` functions, by npm.

`npm ci` runs in a folder of its own that has only npm's files, without development dependencies, and runs no script of
any package. So native add-ons are those that packages ship for the declared platform; nothing is compiled.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.artifact.model import Platform
from hitless.artifact.node import path_with_node
from hitless.artifact.uv import Installed, without_secrets
from hitless.errors import BuildError, MachineError

MODULES = "node_modules/"
PACKAGE, _LOCKS = "package.json", ("package-lock.json", "npm-shrinkwrap.json")
_OTHER_LOCKS = ("yarn.lock", "pnpm-lock.yaml", "bun.lock")
_CPU = {"x86_64": "x64", "arm64": "arm64"}
_DISK = ("ENOSPC", "EDQUOT", "EROFS")
_NETWORK = ("ENOTFOUND", "ECONNREFUSED", "ETIMEDOUT", "EAI_AGAIN", "ECONNRESET")
_REASON_CHARACTERS = 700


@dataclass(frozen=True, slots=True)
class NodePackage:
    """npm's files of a service: name → bytes."""

    files: Mapping[str, bytes]

    def key(self, platform: Platform) -> str:
        """The key of what it installs on that platform, for the cache of dependencies."""
        parts = ["npm", 1, str(platform), *((name, text.decode()) for name, text in self.files.items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    def install(
        self, platform: Platform, into: Path, environ: Mapping[str, str], keep_open: Sequence[int]
    ) -> Installed:
        """Install `node_modules` below `into`. npm keeps `keep_open` open. Raises BuildError, MachineError."""
        path = path_with_node(environ)
        npm = shutil.which("npm", path=path)
        if npm is None:
            raise MachineError(f"{PACKAGE} has dependencies, and npm is not installed", hint="install Node.js with npm")
        for name, content in self.files.items():
            (into / name).write_bytes(content)
        command = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-bin-links", "--no-audit", "--no-fund"]
        command += ["--loglevel=error", "--os=linux", f"--cpu={_CPU[platform.architecture]}", "--libc=glibc"]
        done = subprocess.run(
            command, cwd=into, env={**environ, "PATH": path, "npm_config_update_notifier": "false"}, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, pass_fds=keep_open, check=False,
        )  # fmt: skip
        if done.returncode:
            raise _refusal(without_secrets(done.stderr, environ))
        for name in (*self.files, f"{MODULES}.package-lock.json"):  # the last one names the registry
            (into / name).unlink(missing_ok=True)
        return Installed()


def read_package(folder: Path, names: Iterable[str]) -> NodePackage | None:
    """npm's files in the service's folder; None without dependencies. Raises BuildError if they are not locked.

    A package that has `node_modules` among its own files (`names`), and no lock, needs nothing installed.
    """
    files = {name: (folder / name).read_bytes() for name in (PACKAGE, *_LOCKS, ".npmrc") if (folder / name).is_file()}
    documents = {name: _document(name, text) for name, text in files.items() if name.endswith(".json")}
    lock = next((name for name in _LOCKS if name in files), None)
    wanted = documents.get(PACKAGE, {})
    if not (wanted.get("dependencies") or wanted.get("optionalDependencies")):
        return None
    if lock is None and any(name.startswith(MODULES) for name in names):
        return None
    if lock is None:
        other = next((f"; {name} is not read" for name in _OTHER_LOCKS if (folder / name).exists()), "")
        raise BuildError(
            f"{PACKAGE} has dependencies, and there is no {_LOCKS[0]}{other}",
            hint="run `npm install --package-lock-only` and commit it, or name a bundle's zip in package.artifact",
        )
    for name, entry in documents[lock].get("packages", {}).items():
        if entry.get("link") or str(entry.get("resolved", "")).startswith("file:"):
            raise BuildError(
                f"{lock}: {name} is a file of this machine, which npm ci does not find in a build",
                hint="publish the package, or bundle it and name the bundle's zip in package.artifact",
            )
    return NodePackage(files)


def _document(name: str, text: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise BuildError(f"{name} is not a JSON object: {error}", hint=f"fix {name}") from error
    return document


def _refusal(said: str) -> BuildError | MachineError:
    lines = [re.sub(r"^npm (error|ERR!)( code)?\s*", "", line) for line in said.splitlines()]
    told = [line for line in lines if line and "complete log of this run" not in line]
    reason = "; ".join(told)[:_REASON_CHARACTERS] or "npm gave no reason"
    if any(sign in said for sign in _DISK):
        return MachineError(f"npm ci failed: {reason}", hint="free space on its disk and that of npm's cache")
    hint = f"fix {PACKAGE} and {_LOCKS[0]}; `npm install --package-lock-only` makes them agree"
    if any(sign in said for sign in _NETWORK):
        hint = "check the network and the registry in .npmrc"
    return BuildError(f"{_LOCKS[0]}: npm ci failed: {reason}", hint=hint, details={"npm": told[-20:]})
