"""The engine's side of `hitless logs`: handlers' output as CloudWatch shows it, of all workers in the order of time.

Reads the files that the workers write, so it works while the engine is down.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from pathlib import Path

from hitless.cli.common import Context
from hitless.cli.homes import LogQuery
from hitless.cli.shipping import folders_of
from hitless.errors import UsageError
from hitless.store.store import Store

FOLLOW_EVERY_S = 0.2


def show_logs(ctx: Context, query: LogQuery) -> None:
    """Show the lines of the live release, or of the one that is named; follow them where asked to."""
    release, function = query.release, query.function
    folder = folders_of(ctx).logs / ctx.stage / f"r{release or _live(ctx)}"
    if release and not folder.is_dir() and not query.follow:
        kept = ", ".join(map(str, _releases(folder.parent))) or "none"
        raise UsageError(f"{ctx.stage} has no logs of release {release}", hint=f"releases with logs: {kept}")
    folders = [folder / function] if function else sorted(folder.glob("*"))
    if function and not folders[0].is_dir() and not query.follow:
        known = ", ".join(path.name for path in sorted(folder.glob("*"))) or "none yet"
        raise UsageError(f"{function} has written nothing in {folder.name}", hint=f"functions with logs: {known}")
    limit = query.limit or 0
    lines = list(heapq.merge(*(_stamped(path) for each in folders for path in _files(each))))
    if not query.follow:
        shown = [line for _, _, line in lines[-limit:]]
        if not shown:
            ctx.say(f"{ctx.stage} {folder.name}: no request has come yet")
        ctx.show(shown, lambda: "\n".join(shown))
        return
    ends = {path: path.stat().st_size for each in folders for path in each.glob("*.log")}
    for _, _, line in lines[-limit:]:
        _show(ctx, line)
    _follow(ctx, folder, function, ends)


def _show(ctx: Context, line: str) -> None:
    ctx.show(line, lambda: line)


def _releases(folder: Path) -> list[int]:
    return sorted(int(path.name[1:]) for path in folder.glob("r*") if path.name[1:].isdecimal())


def _live(ctx: Context) -> int:
    folders = folders_of(ctx)
    if folders.state_file.exists():
        store = Store(folders.state_file, read_only=True)
        try:
            if live := store.live(ctx.stage):
                return live[0]
        finally:
            store.close()
    kept = ", ".join(map(str, _releases(folders.logs / ctx.stage)))
    hint = f"name one by --release; with logs: {kept}" if kept else "`hitless up` ships the first"
    raise UsageError(f"{ctx.stage} has no live release", hint=hint)


def _files(folder: Path) -> list[Path]:
    """A worker's rotated file comes before its present one."""
    return sorted(folder.glob("*.log.1")) + sorted(folder.glob("*.log"))


def _stamped(path: Path) -> Iterator[tuple[str, str, str]]:
    """(instant, file, line): a line without an instant (written past Python) belongs to the one before it."""
    instant = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            head, tab, _ = line.partition("\t")
            if tab and head.endswith("Z"):
                instant = head
            yield instant, path.name, line.rstrip("\n")


def _follow(ctx: Context, folder: Path, function: str | None, ends: dict[Path, int]) -> None:
    while True:
        for path in sorted(folder.glob(f"{function or '*'}/*.log")):
            size = path.stat().st_size
            start = ends.get(path, 0)
            if size < start:
                start = 0  # rotated
            if size > start:
                with path.open("rb") as file:
                    file.seek(start)
                    whole = file.read(size - start).rpartition(b"\n")[0] + b"\n"
                ends[path] = start + len(whole)
                for line in whole.decode("utf-8", "replace").splitlines():
                    _show(ctx, line)
        time.sleep(FOLLOW_EVERY_S)
