"""Installs the dependencies that package-lock.json locks for `nodejs*` functions, by npm.

`npm ci` runs in a folder of its own that has only npm's files, without development dependencies, and runs no script of
any package. So native add-ons are those that packages ship for the declared platform; nothing is compiled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hitless.artifact.model import Platform
from hitless.artifact.node import BESIDE
from hitless.artifact.uv import Installed, without_secrets
from hitless.errors import BuildError, MachineError

MODULES = "node_modules/"
PACKAGE, _LOCKS = "package.json", ("package-lock.json", "npm-shrinkwrap.json")
_CPU = {"x86_64": "x64", "arm64": "arm64"}
_REASON_CHARACTERS = 700


def key_of(files: Mapping[str, bytes], platform: Platform) -> str:
    """The key of what npm's files install on that platform, for the cache of dependencies."""
    parts = ["npm", 1, str(platform), *((name, text.decode()) for name, text in files.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def install(
    files: Mapping[str, bytes], platform: Platform, into: Path, environ: Mapping[str, str], keep_open: Sequence[int]
) -> Installed:
    """Install `node_modules` below `into`. npm keeps `keep_open` open. Raises BuildError, MachineError."""
    path = f"{BESIDE}:{environ.get('PATH', '')}"
    npm = shutil.which("npm", path=path)
    if npm is None:
        raise MachineError(f"{PACKAGE} has dependencies, and npm is not installed", hint="install Node.js with npm")
    for name, content in files.items():
        (into / name).write_bytes(content)
    command = [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-bin-links", "--no-audit", "--no-fund"]
    command += ["--loglevel=error", "--os=linux", f"--cpu={_CPU[platform.architecture]}", "--libc=glibc"]
    done = subprocess.run(
        command, cwd=into, env={**environ, "PATH": path, "npm_config_update_notifier": "false"}, text=True,
        stdin=subprocess.DEVNULL, capture_output=True, pass_fds=keep_open, check=False,
    )  # fmt: skip
    if done.returncode:
        told = [line for line in without_secrets(done.stderr, environ).splitlines() if "complete log" not in line]
        raise BuildError(
            f"{PACKAGE}: npm ci failed: {'; '.join(told)[:_REASON_CHARACTERS]}",
            hint="run `npm install --package-lock-only`, commit its file, and check the registry in .npmrc",
        )
    for name in (*files, f"{MODULES}.package-lock.json"):  # the last one names the registry
        (into / name).unlink(missing_ok=True)
    return Installed()


def read_package(folder: Path) -> Mapping[str, bytes] | None:
    """npm's files in the service's folder; None without dependencies. Raises BuildError if they are not locked."""
    files = {name: (folder / name).read_bytes() for name in (PACKAGE, *_LOCKS, ".npmrc") if (folder / name).is_file()}
    try:
        wanted = dict(json.loads(files.get(PACKAGE, b"{}")))
    except (ValueError, TypeError) as error:
        raise BuildError(f"{PACKAGE} is not a JSON object: {error}", hint=f"fix {PACKAGE}") from error
    if not (wanted.get("dependencies") or wanted.get("optionalDependencies")):
        return None
    if not any(lock in files for lock in _LOCKS):
        raise BuildError(
            f"{PACKAGE} has dependencies, and there is no {_LOCKS[0]}; other locks are not read",
            hint="run `npm install --package-lock-only` and commit it, or name a bundle's zip in package.artifact",
        )
    return files
