"""The templates that hitless gives CloudFormation, for `test_template_snapshots.py`: core, pipeline, and every update
of the named transitions, of deploys and rollbacks, and of a stack that is taken over.

`python -m tests.unit.template_snapshots DIR` writes them as files. Run it in two checkouts and compare the folders with
`diff -r` to see what differs. `--record` writes the digests anew.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hitless.aws.template import FOLDER, load_template
from hitless.cloud.release.rollback import rollback
from hitless.errors import ServiceFileError
from hitless.release.result import Outcome
from hitless.service.model import AlarmSettings, Hooks
from tests.unit.cloud_fakes import World
from tests.unit.test_adoption_run import adopt, plain_world
from tests.unit.transitions import TRANSITIONS
from tests.unit.walk import Walk

DIGESTS = Path(__file__).parent / "fixtures" / "template-digests.json"

STRATEGIES = ("AllAtOnce", "Canary10Percent5Minutes", "Linear20PercentEvery2Minutes")
WORLDS: dict[str, Callable[[], World]] = {
    "plain": World,
    "a hook": lambda: World(hooks=Hooks(pre_traffic="meta")),
    "provisioned concurrency": lambda: World(provisioned=3),
    "scaled provisioned concurrency": lambda: World(provisioned=3, max_provisioned=9),
    "alarms": lambda: World(alarms=AlarmSettings(p99_ms=300, p99_relative_percent=150, also=("mine",))),
}


def updates() -> Iterator[tuple[str, list[Any]]]:
    """A case's name, and the template of each of its updates in order."""
    for path in sorted(FOLDER.glob("*.yml")):
        yield f"stack {path.stem}", [load_template(path.stem)]
    for transition in TRANSITIONS:
        walk = Walk()
        walk.ship(transition.before)
        try:
            walk.ship(transition.after)
            walk.ship(transition.after)
        except ServiceFileError:
            pass
        yield f"transition {transition.name}", walk.aws.log
    for name, make in WORLDS.items():
        world = make()
        for letter, strategy in (
            ("a", "AllAtOnce"),
            ("b", "Canary10Percent5Minutes"),
            ("c", "Linear20PercentEvery2Minutes"),
        ):
            assert world.deploy(letter, strategy).outcome is Outcome.LIVE
        rollback(world.cloud(), 2)
        yield f"deploys and a rollback, {name}", world.stack.log
    world = plain_world()
    adopt(world)
    world.deploy("b")
    yield "a stack is taken over", world.stack.log


def text(template: Any) -> str:
    """The template as JSON, its keys in their own order."""
    return json.dumps(template, indent=1, ensure_ascii=False) + "\n"


def digests() -> dict[str, list[str]]:
    """A case's name → the digest of each of its templates."""
    return {
        name: [hashlib.sha256(text(one).encode()).hexdigest()[:16] for one in templates]
        for name, templates in updates()
    }


def main() -> None:
    if sys.argv[1] == "--record":
        DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n", "utf-8")
        return
    folder = Path(sys.argv[1])
    for name, templates in updates():
        for at, template in enumerate(templates, 1):
            path = folder / name / f"{at}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(template), "utf-8")


if __name__ == "__main__":
    main()
