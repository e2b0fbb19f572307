"""The IANA time zones, from the pinned `tzdata` package alone.

Invariant: the answers depend on `requirements.txt`, never on the machine. `ZoneInfo(name)` would prefer the system's
own files, so zones are read from the package's. A name is looked up among the known ones before it becomes a path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]

DATA = Path(tzdata.__file__).parent
VERSION: str = tzdata.IANA_VERSION


@dataclass(frozen=True, slots=True)
class Country:
    """An ISO 3166 country: two-letter code and English name."""

    code: str
    name: str


def _rows(table: str) -> list[list[str]]:
    lines = (DATA / "zoneinfo" / table).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def _countries() -> dict[str, Country]:
    names = {code: name for code, name, *_ in _rows("iso3166.tab")}
    return {zone: Country(code, names[code]) for code, _, zone, *_ in _rows("zone.tab")}


NAMES = tuple(sorted((DATA / "zones").read_text(encoding="utf-8").split()))
COUNTRIES = _countries()
"""The country of each zone that lies in one; zones such as `UTC` and legacy names have none."""

_KNOWN = frozenset(NAMES)


def _search_text(name: str) -> str:
    country = COUNTRIES.get(name)
    return f"{name.replace('_', ' ')} {country.name if country else ''}".lower()


_SEARCH_TEXTS = tuple((_search_text(name), name) for name in NAMES)


def search(query: str) -> tuple[str, ...]:
    """Zones whose name or country has the query in it, whatever the case; all of them if it is empty."""
    wanted = query.replace("_", " ").lower()
    return tuple(name for text, name in _SEARCH_TEXTS if wanted in text) if wanted else NAMES


def is_known(name: str) -> bool:
    return name in _KNOWN


@lru_cache(maxsize=128)
def load(name: str) -> ZoneInfo:
    """The rules of a zone. Raises KeyError for a name that is none."""
    if not is_known(name):
        raise KeyError(name)
    with zone_file(name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def zone_file(name: str) -> Path:
    """The compiled rules (TZif, RFC 9636) of a known zone."""
    return DATA.joinpath("zoneinfo", *name.split("/"))
