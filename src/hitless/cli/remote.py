"""`hitless remote`: plain verbs on a host of `hitless host install`, over the user's own ssh.

The verb runs on the host with the same options. Verbs that build send the service's folder first, in the same
connection: the files that git does not ignore, without .git. Nothing listens on the network for it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
import typer

from hitless.cli.common import Context, command
from hitless.cli.host import DATA
from hitless.cli.remotes import Remote, read_remotes, write_remotes
from hitless.errors import MachineError, UsageError

_SAFE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def parse_url(url: str, service: str) -> Remote:
    """`ssh://[USER@]HOST[:PORT][/ENGINE]`; the engine is by default called like the service. UsageError.

    A path with more than one part is a data folder that `hitless host install` did not make.
    """
    hint = "for example ssh://root@203.0.113.7, or ssh://root@example.com:2222/clock"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url}: {error}", hint=hint) from error
    engine = parts.path.strip("/") or service
    names = (parts.hostname or "", parts.username or "root", *engine.split("/"))
    if parts.scheme != "ssh" or parts.password or parts.query or not all(map(_SAFE.fullmatch, names)):
        raise UsageError(f"{url} is not ssh://[USER@]HOST[:PORT][/ENGINE]", hint=hint)
    target = f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)
    return Remote(target, port, parts.path.rstrip("/") if "/" in engine else f"{DATA}/{engine}")


@command("remote add", example="hitless remote add prod ssh://root@203.0.113.7/clock", local=True)
def add(
    ctx: Context,
    name: Annotated[str, typer.Argument(help="A name for --remote. If a stage has this name, it runs there.")],
    url: Annotated[
        str, typer.Argument(metavar="ssh://[USER@]HOST[:PORT][/ENGINE]", help="ENGINE: as in host install.")
    ],
) -> None:
    """Name a host, so that `--remote NAME` runs a verb there. The verbs of a stage of that name always run there."""
    file = ctx.service_dir / "serverless.yml"
    found = re.search(r"(?m)^service:\s*['\"]?([\w-]+)", file.read_text() if file.exists() else "")
    remote = parse_url(url, found[1] if found else "")
    if not _SAFE.fullmatch(name):
        raise UsageError(f"{name} is not a valid name", hint="use letters, digits, - and _")
    write_remotes(ctx.data_dir, {**read_remotes(ctx.data_dir), name: remote})
    ctx.show(
        {"remote": name, **msgspec.to_builtins(remote)},
        lambda: f"`hitless deploy --remote {name}` ships to {remote.target}:{remote.data}",
    )


@command("remote receive", example="tar -cz . | hitless remote receive", hidden=True, local=True)
def receive(ctx: Context) -> None:
    """Replace the service's folder by the archive on standard input."""
    fresh, old = (ctx.service_dir.with_name(f".{ctx.service_dir.name}.{word}") for word in ("new", "old"))
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    words = ["tar", "-xz", "--no-same-owner", "--no-same-permissions", "-C", str(fresh)]
    if subprocess.run(words, check=False, stdout=subprocess.DEVNULL).returncode:
        raise MachineError("the folder was not received completely", hint="repeat the command")
    if ctx.service_dir.exists():
        ctx.service_dir.rename(old)
    fresh.rename(ctx.service_dir)
    shutil.rmtree(old, ignore_errors=True)
