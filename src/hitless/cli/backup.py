"""`hitless backup` and `hitless restore`: the whole state of an engine as one archive.

The archive has all of the data folder except logs, locks and work in progress. The key of the secrets is outside of the
data folder, and is added only if asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

import hitless
from hitless.cli.common import Context, command
from hitless.documents import decode, to_text
from hitless.errors import ConflictError, EngineNotRunningError, MachineError, UsageError
from hitless.homes.folder import folders_of
from hitless.store.migrations import MIGRATIONS
from hitless.store.secrets import SecretKey
from hitless.store.store import Store

MANIFEST: Final = "backup.json"
KEY: Final = "secrets.key"
_LEFT_OUT: Final = (
    *("run", ".run-new", ".restore", "*.lock", "logs", "engine.log*", "bodies", "hooks", "unit", "remotes.json"),
    *("start-error.json", "state.sqlite*", "pipeline/work", "pipeline/runs/*/checkout"),
)
FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="The archive; - is standard output or input.")]


class Manifest(msgspec.Struct, frozen=True):
    """The version that wrote the archive, and the schema of its state file."""

    version: str
    schema: int


@command("backup", example="hitless backup clock.tar.gz")
def backup(
    ctx: Context,
    file: FileArgument,
    with_key: Annotated[bool, typer.Option("--with-key", help="Add the key of the secrets.")] = False,
) -> None:
    """Copy state, artifacts, secrets and repository into one archive.

    The engine may run meanwhile.
    """
    folders = folders_of(ctx)
    if not folders.state_file.exists():
        raise EngineNotRunningError(f"{folders.data} has no state to copy", hint="`hitless up` makes one")
    with tempfile.TemporaryDirectory(dir=folders.data, prefix=".restore") as name:
        aside = Path(name)
        with closing(Store(folders.state_file, read_only=True)) as store:
            store.copy_to(aside / folders.state_file.name)
        (aside / MANIFEST).write_text(to_text(Manifest(hitless.__version__, len(MIGRATIONS))))
        names = [MANIFEST, folders.state_file.name]
        if with_key:
            shutil.copyfile(SecretKey.of(os.environ).file, aside / KEY)
            names.append(KEY)
        left_out = [f"--exclude=./{one}" for one in (*_LEFT_OUT, f"{aside.name}")]
        output = aside / "archive"
        output.touch(0o600)
        _tar("-cz", "-f", str(output), "-C", name, *names, *left_out, "-C", str(folders.data), ".")
        if file == "-":
            with output.open("rb") as archive:
                shutil.copyfileobj(archive, sys.stdout.buffer)
            return
        target = Path(file).absolute()
        size = output.stat().st_size
        fresh = target.with_name(f".{target.name}.new")
        shutil.copy2(output, fresh)
        fresh.replace(target)
    ctx.show({"file": str(target), "bytes": size}, lambda: f"{target}: {size >> 10} kB")


@command("restore", example="hitless restore clock.tar.gz --data-dir /var/lib/hitless/clock")
def restore(ctx: Context, file: FileArgument) -> None:
    """Fill an empty data folder from an archive of `hitless backup`. `hitless up` then serves the same release."""
    folders = folders_of(ctx)
    if folders.remains():
        raise ConflictError(f"an engine is running on {folders.data}", hint="`hitless down` stops it")
    if folders.state_file.exists():
        raise ConflictError(f"{folders.data} already has state", hint="move it away, or name another --data-dir")
    folders.create()
    aside = folders.data / ".restore"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    try:
        # with their modes, despite the umask: handlers have a user of their own
        _tar("-xz", "-f", file, "--no-same-owner", "--preserve-permissions", "-C", str(aside))
        manifest = decode((aside / MANIFEST).read_bytes(), Manifest, f"{file}: {MANIFEST}", error=UsageError)
        if manifest.schema > len(MIGRATIONS):
            hint = f"install hitless {manifest.version}, or a later version"
            raise UsageError(f"{file} was written by hitless {manifest.version}, which is newer", hint=hint)
        (aside / MANIFEST).unlink()
        key = SecretKey.of(os.environ).file
        if (aside / KEY).exists() and not key.exists():
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (aside / KEY).replace(key)
        (aside / KEY).unlink(missing_ok=True)
        last = ["", folders.state_file.name, folders.settings_file.name]  # with its settings a unit's daemon starts
        for one in sorted(aside.iterdir(), key=lambda one: last.index(one.name) if one.name in last else 0):
            target = folders.data / one.name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            one.replace(target)
    except FileNotFoundError as error:
        raise UsageError(f"{file} is not an archive of `hitless backup`", hint="name another file") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    ctx.show(
        {"restored": str(folders.data), "version": manifest.version},
        lambda: "restored; `hitless up` serves the same release",
    )


def _tar(*words: str) -> None:
    done = subprocess.run(["tar", *words], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise MachineError(f"tar: {done.stderr.strip().splitlines()[-1]}", hint="check the file and the free space")
