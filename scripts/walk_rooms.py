"""Prints the modules of cli/, homes/ and cloud/ whose functions run while `hitless aws deploy` ships a release, in the
order in which they are first entered, and how often the walk goes back to one of them.

`scripts/walk_rooms.py` ships the second release of a service to the in-memory AWS of the unit tests. What the command
does before that (reading the service, building, connecting) is not part of the walk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.unit.cloud_fakes import World  # noqa: E402

ROOMS = tuple(str(ROOT / "src" / "hitless" / name) + "/" for name in ("cli", "homes", "cloud"))


def walk() -> tuple[list[str], int]:
    """The rooms in the order in which they are first entered, and the number of returns to one that was left."""
    world = World(provisioned=3, max_provisioned=9)
    world.deploy("a")
    entered: list[str] = []

    def seen(frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(ROOMS) and (not entered or entered[-1] != file):
            entered.append(file)

    sys.setprofile(seen)
    try:
        world.deploy("b")
    finally:
        sys.setprofile(None)
    rooms = list(dict.fromkeys(entered))
    return [str(Path(one).relative_to(ROOT / "src" / "hitless")) for one in rooms], len(entered) - len(rooms)


def main() -> None:
    rooms, returns = walk()
    for at, room in enumerate(rooms, 1):
        print(f"{at:3}  {room}")
    print(f"{len(rooms)} rooms, {returns} returns")


if __name__ == "__main__":
    main()
