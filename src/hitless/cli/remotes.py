"""Hosts that have a name, in the data folder, and the ssh connection that runs a verb on one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hitless.documents import decode, replace_file, to_text
from hitless.errors import MachineError, UsageError
from hitless.homes.folder import ask_git, commit_of
from hitless.service.load import peek
from hitless.service.value import did_you_mean

FILE: Final = "remotes.json"
SSH_VARIABLE: Final = "HITLESS_SSH_COMMAND"
SENDING: Final = frozenset({"up", "deploy", "rehearse", "invoke"})
"""Verbs that read the service's files."""
_OURS: Final = ("--remote", "--service-dir", "--data-dir")
_RUN: Final = (
    'h() { if [ "$(id -u)" = 0 ]; then env HITLESS_COMMIT="$c" hitless "$@"; '
    'else sudo -n env HITLESS_COMMIT="$c" hitless "$@"; fi; }; '
)


class Remote(msgspec.Struct, frozen=True):
    """`target` is ssh's; `data` is the engine's data folder there."""

    target: str
    port: int | None
    data: str


def read_remotes(data: Path) -> Mapping[str, Remote]:
    try:
        return decode((data / FILE).read_bytes(), dict[str, Remote], str(data / FILE))
    except OSError:  # of a folder that cannot be used, the command itself says more
        return {}


def write_remotes(data: Path, remotes: Mapping[str, Remote]) -> None:
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(data / FILE, to_text(remotes), mode=0o600)


def remote_of(data: Path, name: str) -> Remote:
    """UsageError if there is no remote of that name."""
    found = read_remotes(data)
    if name not in found:
        hint = did_you_mean(name, found) or f"`hitless remote add {name} ssh://USER@HOST` first"
        raise UsageError(f"there is no remote {name}", hint=hint)
    return found[name]


def remote_words(words: Sequence[str], remote: Remote, folder: str, stage: str) -> list[str]:
    """The command line for the host: its folders in place of ours, and the stage always named."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in _OURS:
            next(rest, None)
        elif not word.startswith(tuple(f"{option}=" for option in _OURS)):
            kept.append(word)
    if not any(word in ("-s", "--stage") or word.startswith("--stage=") for word in kept):
        kept += ["--stage", stage]
    return [*kept, "--data-dir", remote.data, "--service-dir", f"{remote.data}/source/{folder}"]


def folder_there(service_dir: Path) -> str:
    """The name of a folder's copy on the host: the service's, because services of one engine may have folders of one
    name. The folder's own if that is no name.
    """
    name = peek(service_dir, os.environ, "service") or ""
    return name if re.fullmatch("[A-Za-z][0-9A-Za-z-]*", name) else service_dir.name


def run_there(remote: Remote, words: Sequence[str], verb: str, service_dir: Path, stage: str) -> int:
    """Run the verb on the host and return its exit code. MachineError if ssh fails."""
    there = remote_words(words, remote, folder_there(service_dir), stage)
    script = f"c={shlex.quote(commit_of(service_dir) or '')}; {_RUN}"
    if verb in SENDING:
        script += f"h remote receive {shlex.join(there[-4:])} && "
    script += f"h {shlex.join(there)}"
    ssh = [*shlex.split(os.environ.get(SSH_VARIABLE, "ssh")), *(("-p", str(remote.port)) if remote.port else ())]
    command = [*ssh, "-T", "--", remote.target, script]
    try:
        if verb not in SENDING:
            code = subprocess.run(command, check=False).returncode
        else:
            packing = ["tar", "-cz", "-C", str(service_dir), "--no-recursion", "--null", "-T", "-"]
            names = "\0".join(files_of(service_dir)).encode()
            with subprocess.Popen(packing, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tar:
                with subprocess.Popen(command, stdin=tar.stdout) as connection:
                    assert tar.stdin is not None
                    assert tar.stdout is not None
                    tar.stdout.close()
                    tar.stdin.write(names)
                    tar.stdin.close()
                code = connection.returncode
    except (OSError, BrokenPipeError) as error:
        raise MachineError(f"cannot run ssh: {error.strerror}", hint="install the OpenSSH client and tar") from error
    if code == 255:  # ssh(1): an error of ssh itself
        raise MachineError(f"ssh to {remote.target} failed", hint=f"try `ssh {remote.target}` by hand")
    return code


def files_of(folder: Path) -> Iterable[str]:
    """The folder's files that a host needs: in git those that are not ignored, otherwise all."""
    listed = ask_git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    if not any(listed):
        found = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
        listed = sorted(str(path.relative_to(folder)) for path in found)
    skipped = (".git", ".hitless", ".venv", "node_modules")
    return [name for name in listed if name.partition("/")[0] not in skipped and os.path.lexists(folder / name)]
