"""The engine's own bare git repository, to which users push. Nothing in a pushed commit is run by git.

Its hooks are two lines of shell that call this hitless. No clone's configuration, pusher's environment or commit can
choose another program: hooks, file system monitors and textconv of pushed files are never run.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from hitless.documents import replace_file
from hitless.errors import ConflictError, MachineError
from hitless.pipeline.buildspec.run import User, credentials
from hitless.pipeline.children import EndProcess, run_child

GIT_TIMEOUT_S = 120.0
MAX_PUSH_BYTES = 1 << 30
MAX_FILES_BYTES = 4 << 30
"""Limit of a commit's files: a few kilobytes of a push can contain the same folder a million times."""
MAX_COMMITS = 50
MAX_OUTPUT_BYTES = 16 << 20
"""Limit of git's output: a commit's message or list of files can exceed the memory."""
FETCH_LOCK = "hitless-fetch.lock"
"""A lock: shared for fetches, in the receiver's process; exclusive for packing."""
_TIDY = {"gc.autoDetach": "false", "pack.threads": "1", "pack.windowMemory": "64m", "gc.pruneExpire": "90.days.ago"}
"""Nothing is pruned: a commit without a branch may still belong to a retried run or a live release."""
HOOKS = ("pre-receive", "post-receive")
_CONFIG = {
    "receive.advertisePushOptions": "true",
    "receive.denyNonFastForwards": "false",
    "receive.maxInputSize": str(MAX_PUSH_BYTES),
    "receive.autogc": "false",
    "transfer.fsckObjects": "true",
    "core.sharedRepository": "0600",
    "core.fsync": "all",  # without it a power cut takes commits of runs that have succeeded
}


class CommitInfo(msgspec.Struct, frozen=True):
    """A commit for people."""

    commit: str
    subject: str
    author: str


def hook_command(data: Path, service: str = "") -> list[str]:
    """The command that an engine's repository calls as its hooks, with the hook's name appended. `service`: whose
    repository it is, if several services share the engine.
    """
    return [sys.executable, "-m", "hitless.processes.git_hook", str(data), *filter(None, [service])]


class Repository:
    """A bare repository in the data folder. Raises MachineError if git is missing or fails."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_FILES_BYTES) -> None:
        """`max_bytes`: limit of a commit's extracted files."""
        self.folder, self._max_bytes = folder, max_bytes

    def create(self, hook: Sequence[str], *, head: str) -> None:
        """Make it, or update an existing one. `hook` is the command of the hooks, without a hook's name."""
        fresh = Repository(self.folder.with_suffix(".new"))  # git syncs neither HEAD nor config
        shutil.rmtree(fresh.folder, ignore_errors=True)
        fresh._run("init", "--bare", "--quiet", f"--initial-branch={head}")
        fresh.folder.chmod(0o700)
        for key, value in {**_CONFIG, "core.hooksPath": str(self.folder / "hooks")}.items():
            fresh._run("config", key, value)
        os.sync()
        if self.exists():
            (fresh.folder / "config").replace(self.folder / "config")
            shutil.rmtree(fresh.folder)
        else:
            fresh.folder.rename(self.folder)
        (self.folder / "hooks").mkdir(exist_ok=True)
        for name in HOOKS:
            self._write_hook(name, hook)
        os.sync()

    def renew_hooks(self, hook: Sequence[str]) -> None:
        """Let existing hooks call `hook`, because those of an earlier version may call a module that has moved."""
        for name in HOOKS:
            if (self.folder / "hooks" / name).is_file():
                self._write_hook(name, hook)

    def _write_hook(self, name: str, hook: Sequence[str]) -> None:
        path, text = self.folder / "hooks" / name, f"#!/bin/sh\nexec {shlex.join([*hook, name])}\n"
        if path.is_file() and path.read_text() == text:
            return
        replace_file(path, text, mode=0o700)  # git may be about to run it

    def exists(self) -> bool:
        return (self.folder / "HEAD").is_file()

    async def head_of(self, branch: str) -> str | None:
        """The commit of a branch."""
        return await self._commit_at(f"refs/heads/{branch}")

    async def has(self, commit: str) -> bool:
        code, _, _ = await self._ask("cat-file", "-e", f"{commit}^{{commit}}")
        return code == 0

    async def describe(self, commit: str) -> CommitInfo:
        (found,) = await self._log(commit, 1)
        return found

    async def committed_at(self, commit: str) -> str:
        return (await self._git("log", "-1", "--format=%cI", commit, "--")).strip()

    async def commits_between(self, old: str | None, new: str) -> tuple[CommitInfo, ...]:
        """The commits of `new` that `old` does not have, newest first; only `new` itself if `old` is missing."""
        what = f"{old}..{new}" if old and await self.has(old) else f"{new}"
        return await self._log(what, MAX_COMMITS if old else 1)

    async def changed_files(self, old: str, new: str, *, limit: int) -> list[str]:
        """Paths that differ since `new` left `old`, sorted; git's quoting for unusual names."""
        out = await self._git("diff", "--name-only", "--no-renames", "--no-ext-diff", f"{old}...{new}", "--")
        return out.splitlines()[:limit]

    async def parents(self, commit: str) -> tuple[str, ...]:
        """First parent first; empty if the repository does not have the commit."""
        code, out, _ = await self._ask("rev-list", "--parents", "--max-count=1", commit, "--")
        return tuple(out.decode().split()[1:]) if code == 0 else ()

    async def is_ancestor(self, old: str, new: str) -> bool:
        code, _, _ = await self._ask("merge-base", "--is-ancestor", old, new)
        return code == 0

    async def fast_forward(self, branch: str, commit: str) -> bool:
        """Move a branch forward to `commit`; False if that would lose commits of the branch."""
        old = await self.head_of(branch)
        if old == commit:
            return True
        if old is not None and not await self.is_ancestor(old, commit):
            return False
        code, _, error = await self._ask("update-ref", f"refs/heads/{branch}", commit, old or "0" * 40)
        if code != 0:
            raise ConflictError(
                f"the branch {branch} could not be moved to {commit[:12]}: {error.decode(errors='replace').strip()}",
                hint="somebody pushed to it at the same time: run it again",
            )
        return True

    async def fetch(self, remote: str, ref: str) -> str:
        """Fetch one ref of another repository, without a branch. Returns its commit. MachineError, or if too large."""
        quietly = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-gc")
        words = [*self._command(), "fetch", *quietly, "--", remote, f"+{ref}:refs/incoming/fetched"]
        bounded = ["sh", "-c", f'ulimit -f {MAX_PUSH_BYTES // 512} && exec "$@"', "sh", *words]
        with await asyncio.to_thread(self._lock, fcntl.LOCK_SH):
            await self._checked("fetch", bounded)
        return (await self._git("rev-parse", "refs/incoming/fetched^{commit}")).strip()

    async def tidy(self) -> bool:
        """Let git pack if there are many loose objects or packs: at the lowest priority, in one thread, with a time
        limit. False if a fetch or another packing is in progress. Raises MachineError.
        """
        try:
            lock = self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        settings = [word for key, value in _TIDY.items() for word in ("-c", f"{key}={value}")]
        words = ["nice", "-n", "19", *self._command(), *settings, "gc", "--auto", "--quiet"]
        with lock:
            await self._checked("gc", words, end=_kill_all)
        return True

    def _lock(self, how: int) -> IO[str]:
        """Held until the file is closed. BlockingIOError if it is taken and `how` does not wait."""
        file = (self.folder / FETCH_LOCK).open("a")
        try:
            fcntl.flock(file, how)
        except BaseException:
            file.close()
            raise
        return file

    async def fork_head(self, number: int) -> str | None:
        """The last fetched commit of a fork's pull request."""
        return await self._commit_at(f"refs/forks/{number}")

    async def keep_fork(self, number: int, commit: str | None) -> None:
        """Keep a fork's commit under a ref that is not a branch, or forget it (None)."""
        words = ("-d", f"refs/forks/{number}") if commit is None else (f"refs/forks/{number}", commit)
        await self._git("update-ref", *words)

    async def move(self, branch: str, new: str | None, old: str | None) -> None:
        """Move a branch from `old` (None: it does not exist) to `new` (None: remove it), without a hook."""
        words = ("-d", f"refs/heads/{branch}") if new is None else (f"refs/heads/{branch}", new)
        await self._git("update-ref", *words, old or "0" * 40)

    async def extract(self, commit: str, folder: Path, *, user: User | None = None) -> None:
        """Extract the commit's files into an existing folder, owned by `user`."""
        await asyncio.to_thread(self._extract, commit, folder, user)

    def _extract(self, commit: str, folder: Path, user: User | None) -> None:
        self._overrule_attributes()
        words = [*self._command(), "archive", "--format=tar", commit]
        # without the engine's owner's git configuration, because a commit's attributes could name one of its filters
        environ = {**_environ(), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        with (
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ) as archive,
            subprocess.Popen(
                ["head", "-c", str(self._max_bytes)], stdin=archive.stdout, stdout=subprocess.PIPE
            ) as bounded,
        ):
            assert archive.stdout is not None
            archive.stdout.close()  # only head reads it now, so git ends when head does
            try:
                tar = subprocess.run(
                    ["tar", "-x", "-C", str(folder), "--no-same-owner"],
                    stdin=bounded.stdout, capture_output=True, timeout=GIT_TIMEOUT_S, check=False,
                    env={"PATH": os.environ.get("PATH", os.defpath)}, **credentials(user),
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                archive.kill()
                raise MachineError(
                    f"the files of {commit[:12]} took longer than {GIT_TIMEOUT_S:g} s to check out",
                    hint="is the disk busy?",
                ) from error
        if archive.returncode == -signal.SIGPIPE:
            raise MachineError(
                f"the files of {commit[:12]} take up more than {self._max_bytes} bytes", hint="push a smaller commit"
            )
        if tar.returncode or archive.returncode:
            why = tar.stderr.decode(errors="replace").strip() or f"git archive ended with {archive.returncode}"
            raise MachineError(f"the files of {commit[:12]} could not be checked out: {why}", hint="is the disk full?")

    def _overrule_attributes(self) -> None:
        """Overrule a commit's attributes, by which `git archive` would leave out or rewrite files, unlike a clone."""
        file = self.folder / "info" / "attributes"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            replace_file(file, "* -export-ignore -export-subst\n")  # other processes may be reading it

    def _command(self) -> list[str]:
        return ["git", "--git-dir", str(self.folder), "-c", "core.fsmonitor=false", "-c", "core.pager=cat"]

    def _run(self, *words: str) -> None:
        command = [*self._command(), *words]
        try:
            done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_S, check=False, env=_environ())
        except OSError as error:
            raise MachineError(f"git cannot be run: {error}", hint="install git (Debian package git)") from error
        if done.returncode:
            why = done.stderr.decode(errors="replace").strip()
            raise MachineError(f"git {words[0]}: {why}", hint=f"inspect the repository {self.folder}")

    async def _log(self, what: str, most: int) -> tuple[CommitInfo, ...]:
        out = await self._git("log", f"-{most}", "--format=%H%x00%s%x00%an", what, "--")
        rows = (line.split("\0") for line in out.split("\n") if line)
        return tuple(CommitInfo(full, _shown(what, 200), _shown(author, 100)) for full, what, author in rows)

    async def _commit_at(self, ref: str) -> str | None:
        code, out, _ = await self._ask("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return out.decode().strip() or None if code == 0 else None

    async def _git(self, *words: str) -> str:
        return await self._checked(words[0], [*self._command(), *words])

    async def _checked(self, verb: str, command: Sequence[str], *, end: EndProcess = subprocess.Popen.kill) -> str:
        code, out, error = await self._converse(verb, command, end)
        if code:
            why = error.decode(errors="replace").strip() or f"ended with {code}"
            raise MachineError(f"git {verb}: {why}", hint=f"inspect the repository {self.folder}")
        return out.decode(errors="replace")

    async def _ask(self, *words: str) -> tuple[int, bytes, bytes]:
        return await self._converse(words[0], [*self._command(), *words])

    async def _converse(
        self, verb: str, command: Sequence[str], end: EndProcess = subprocess.Popen.kill
    ) -> tuple[int, bytes, bytes]:
        limits: dict[str, Any] = {"timeout_s": GIT_TIMEOUT_S, "max_bytes": MAX_OUTPUT_BYTES}
        try:
            return await run_child(command, environ=_environ(), end=end, **limits)
        except OSError as error:
            raise MachineError(f"git cannot be run: {error}", hint="install git (Debian package git)") from error
        except TimeoutError as error:
            raise MachineError(f"git {verb} took longer than {GIT_TIMEOUT_S:g} s", hint="is the disk slow?") from error
        except ValueError as error:
            hint = f"the push is too large ({command[-2]}): push fewer changes at a time"
            raise MachineError(f"git {verb}: {error}", hint=hint) from error


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill git and all processes that it started; it leads its own session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environ() -> Mapping[str, str]:
    """This process's environment without the variables that the git of a hook or shell has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}


def _shown(text: str, longest: int) -> str:
    """Untrusted text in one line, without control characters."""
    return "".join(one if one.isprintable() else "�" for one in text[:longest])
