"""Parses HAProxy's output for `show …` into views and numbers. Pure."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hitless.gateway.routes import Entry, release_of_pattern
from hitless.gateway.state import ServerMode, shield_of
from hitless.gateway.view import ServerKey, ServerView

FORCED_MAINT, FORCED_DRAIN = 0x01, 0x08
"""Bits of srv_admin_state (HAProxy's management guide, "show servers state")."""

INNER = ("hop", "spool")
"""The configuration's own backends; each pool has one more, see `hitless.gateway.state.shield_of`."""


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """A pool's current requests: with a worker or on the way to one (`scur`), waiting for one (`qcur`)."""

    scur: int
    qcur: int

    @property
    def idle(self) -> bool:
        return self.scur + self.qcur == 0


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """A worker's requests as HAProxy counts them, including responses that clients are still reading, and its limit."""

    scur: int
    maxconn: int


def is_pool(backend: str) -> bool:
    """Whether a backend is a pool of workers, and not one that leads to pools."""
    return backend not in INNER and not backend.startswith((shield_of(""), "challenges_"))


def parse_map(text: str) -> list[Entry]:
    """`show map`: lines of address, key, value, in HAProxy's order."""
    rows = (line.split(" ", 2) for line in text.splitlines() if line.startswith("0x"))
    return [(row[1], row[2] if len(row) > 2 else "") for row in rows]


def by_key(entries: list[Entry]) -> dict[str, str]:
    """Key → value. A duplicate key gets all its values joined, which never equals a wanted value."""
    result: dict[str, str] = {}
    for key, value in entries:
        result[key] = f"{result[key]} {value}" if key in result else value
    return result


def by_release(entries: list[Entry]) -> dict[str, tuple[Entry, ...]]:
    """Entries of an ordered map under their release; unknown ones under the empty name."""
    result: dict[str, tuple[Entry, ...]] = {}
    for key, value in entries:
        release = release_of_pattern(key)
        result[release] = (*result.get(release, ()), (key, value))
    return result


def parse_servers(servers_state: str, stat: str) -> dict[ServerKey, ServerView]:
    """Servers by pool and name, with the administrative state of `show servers state` and the limit of `show stat`."""
    limits = {(row["pxname"], row["svname"]): int(row["slim"] or 0) for row in parse_stats(stat)}
    result: dict[ServerKey, ServerView] = {}
    for line in servers_state.splitlines():
        fields = line.split()
        if len(fields) < 7 or line.startswith("#") or not is_pool(fields[1]):
            continue
        key, admin = (fields[1], fields[3]), int(fields[6])
        mode = (
            ServerMode.MAINT if admin & FORCED_MAINT else ServerMode.DRAIN if admin & FORCED_DRAIN else ServerMode.READY
        )
        result[key] = ServerView(limits.get(key, 0), mode)
    return result


def parse_stat(text: str) -> Iterator[Mapping[str, str]]:
    """`show stat`: CSV whose first line is a comment with the columns' names."""
    start = text.find("# pxname")
    if start < 0:
        return
    lines = [line for line in text[start + 2 :].splitlines() if "," in line]
    names = lines[0].split(",")
    for line in lines[1:]:
        # Hundreds of rows several times a second: split is five times as fast as the csv module.
        fields = next(csv.reader([line])) if '"' in line else line.split(",")
        yield dict(zip(names, fields, strict=False))


def parse_stats(text: str) -> Iterator[Mapping[str, str]]:
    """The output of several `show stat …` in one."""
    for part in text.split("# pxname")[1:]:
        yield from parse_stat(f"# pxname{part}")


def parse_info(text: str) -> dict[str, str]:
    """`show info`: `Name: value` lines."""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
