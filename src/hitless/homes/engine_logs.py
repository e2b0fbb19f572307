"""`hitless logs` on the engine: the output of all workers' handlers in time order, in CloudWatch's format.

Reads the files that the workers write, so it works while the engine is down. Following includes new releases, so that
the candidate's lines are shown during a deploy, too.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from hitless.errors import UsageError
from hitless.gateway.accesslog import lines_since, size_of
from hitless.homes.folder import folders_of, recorded
from hitless.homes.home import LogQuery, Workplace
from hitless.release.source import in_source

FOLLOW_EVERY_S = 0.2


def lines_of(place: Workplace, query: LogQuery) -> Iterator[str]:
    """The lines of the live release, or of the given one; if the query follows, then the stage's new ones."""
    release, function = query.release, query.function
    folder = folders_of(place).logs / place.engine_stage / f"r{release or _live(place)}"
    if release and not folder.is_dir() and not query.follow:
        kept = ", ".join(map(str, _releases(folder.parent))) or "none"
        raise UsageError(f"{place.engine_stage} has no logs of release {release}", hint=f"releases with logs: {kept}")
    folders = [folder / function] if function else sorted(folder.glob("*"))
    if function and not folders[0].is_dir() and not query.follow:
        known = ", ".join(path.name for path in sorted(folder.glob("*"))) or "none yet"
        raise UsageError(f"{folder.name} has no logs of a function {function}", hint=f"functions with logs: {known}")
    # a worker's rotated file comes before its current one
    files = [path for each in folders for pattern in ("*.log.1", "*.log") for path in sorted(each.glob(pattern))]
    lines = list(heapq.merge(*map(_stamped, files)))
    past = [line for _, _, line in lines[-(query.limit or 0) :]]
    if not query.follow:
        if not past:
            place.say(f"{place.engine_stage} {folder.name}: no request has come yet")
        return map(in_source, past)
    pattern = f"r{release or '*'}/{function or '*'}/*.log"
    return map(in_source, chain(past, followed(folder.parent, pattern, pause=lambda: time.sleep(FOLLOW_EVERY_S))))


def _releases(folder: Path) -> list[int]:
    return sorted(int(path.name[1:]) for path in folder.glob("r*") if path.name[1:].isdecimal())


def _live(place: Workplace) -> int:
    if row := recorded(place):
        return row.release
    kept = ", ".join(map(str, _releases(folders_of(place).logs / place.engine_stage)))
    if kept:
        raise UsageError(
            f"{place.engine_stage} has no live release", hint=f"choose one with --release; releases with logs: {kept}"
        )
    place.load()  # an error about an unknown stage is more helpful
    raise UsageError(
        f"{place.engine_stage} has no live release", hint=f"`hitless deploy --stage {place.stage}` ships the first"
    )


def _stamped(path: Path) -> Iterator[tuple[str, str, str]]:
    """(instant, file, line): a line without an instant (written past Python) belongs to the previous line."""
    instant = ""
    with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:  # it may have been removed
        for line in file:
            head, tab, _ = line.partition("\t")
            if tab and head.endswith("Z"):
                instant = head
            yield instant, path.name, line.rstrip("\n")


def followed(folder: Path, pattern: str, *, pause: Callable[[], None]) -> Iterator[str]:
    """The complete lines written to these files from now on, including new files; `pause` waits between two reads."""
    ends = {path: size_of(path) for path in folder.glob(pattern)}
    return _coming(folder, pattern, ends, pause)


def _coming(folder: Path, pattern: str, ends: dict[Path, int], pause: Callable[[], None]) -> Iterator[str]:
    while True:
        for path in sorted(folder.glob(pattern)):
            lines, ends[path] = lines_since(path, ends.get(path, 0))
            yield from lines
        pause()
