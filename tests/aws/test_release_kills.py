"""`hitless aws deploy` and `rollback` are killed at each call, before or after it takes effect, under load; then
repeated.

Whatever was killed where, the same command once more ends right: the wanted release is live and answers, each alias is
at its version without weights, the Stage at the stack's Deployment, the record ended, nothing left over (that is what
`status` judges), and the client has seen no request fail.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.aws.kills import Killed, Point, killed_world, points
from tests.aws.release_support import Client

pytestmark = pytest.mark.aws

WRITES_OBJECT = "s3:CopyObject"
"""What the front calls it: the two differ by a header alone, and by no permission."""

AT_ONCE = 3
"""Emulators side by side: a release mostly waits."""

EMULATORS = 9
"""All in all. An emulator keeps a process for each version that it ever invoked (30 MiB, and four a
release): with three of them for all points, the last points had no memory left on a machine of 24 GiB.
"""


def repeated_after(killed: Killed, point: Point) -> None:
    """Kills a deploy at that point, repeats it, and checks the result."""
    marker = killed.change()
    killed.kill(point, "deploy")
    again = killed.world.run("deploy")
    assert (again.code, again.json["outcome"] in ("live", "unchanged")) == (0, True), f"{point}: {again.err}"
    newest = check_stage_is_healthy(killed, point, marker)
    assert newest["live"], point
    assert set(newest["versions"].values()) == {str(newest["release"])}, f"{point}: bytes were published twice"


def repaired_after(killed: Killed, point: Point) -> None:
    """Kills a deploy at that point, repairs the stage, and checks that one release is live."""
    before = killed.live_marker
    marker = killed.change()
    killed.kill(point, "deploy")
    done = killed.world.run("repair")
    assert (done.code, done.json["left"]) == (0, []), f"{point}: {done.err}"
    _, answer = killed.world.get("/version")
    assert answer["marker"] in (before, marker), point
    newest = check_stage_is_healthy(killed, point, answer["marker"])
    assert newest["outcome"] is not None, point
    assert newest["live"] == (answer["marker"] == marker) or newest["outcome"] == "live", point


def rolled_back_after(killed: Killed, point: Point) -> None:
    """Kills a rollback between the first two releases at that point, repeats it, and checks the result."""
    target = "1" if killed.world.run("status").json["release"] == 2 else "2"
    killed.kill(point, "rollback", target)
    again = killed.world.run("rollback", target)
    assert (again.code, again.json["release"]) == (0, int(target)), f"{point}: {again.err}"
    check_stage_is_healthy(killed, point, f"m{target}")


def check_stage_is_healthy(killed: Killed, point: Point, marker: str) -> dict[str, Any]:
    """Checks that the stage has no faults and this marker's release has all traffic. Returns the newest release."""
    status = killed.world.run("status").json
    assert (status["troubles"], status["candidate"]) == ([], None), point
    releases = killed.world.run("releases").json
    (live,) = (one for one in releases if one["live"])
    assert (live["outcome"], live["release"]) == ("live", status["release"]), point
    assert status["weights"] == {name: {version: 100} for name, version in live["versions"].items()}, point
    code, answer = killed.world.get("/version")
    assert (code, answer["marker"]) == (200, marker), point
    killed.live_marker = marker
    newest: dict[str, Any] = releases[0]
    return newest


def shipped(killed: Killed) -> list[str]:
    """The calls of an uninterrupted deploy, with one release live before it."""
    killed.change()
    assert killed.world.run("deploy").code == 0
    killed.live_marker = killed.change()
    return killed.calls_of("deploy")


def shipped_twice(killed: Killed) -> list[str]:
    """The calls of an uninterrupted rollback between two releases."""
    for _ in range(2):
        killed.change()
        assert killed.world.run("deploy", "--strategy", "AllAtOnce").code == 0
    return killed.calls_of("rollback")


@dataclass
class Sweep:
    """All points of a command; each is tried on one of several emulators."""

    place: Path
    calls: Callable[[Killed], list[str]]
    attempt: Callable[[Killed, Point], None]
    chosen: Callable[[Point], bool] = lambda point: True
    reached: list[Point] = field(default_factory=list)
    missed: list[Point] = field(default_factory=list)
    asked: int = 0

    def run(self) -> None:
        (self.place / "packages").mkdir()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in [pool.submit(self.shard, at, EMULATORS) for at in range(EMULATORS)]:
                done.result()
        print(f"{len(self.reached)} kills, {len(self.missed)} points not reached, 0 of {self.asked} requests failed")
        assert not [point for point in self.missed if point.changes]

    def shard(self, at: int, shards: int) -> None:
        with killed_world(self.place / str(at), self.place / "packages") as killed:
            found = [point for point in points(self.calls(killed)) if self.chosen(point)]
            with Client(killed.world.url + "/version", every_s=0.02) as client:
                for point in found[at::shards]:
                    self.attempt(killed, point)
                    assert client.failed == 0, f"{point}: {client.statuses}"
            self.reached += killed.reached
            self.missed += killed.missed
            self.asked += client.asked


def test_a_deploy_killed_during_a_stack_update_is_finished_by_the_same_command(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    with killed_world(tmp_path / "world", packages) as killed:
        killed.world.edit("serverless.yml", "strategy: Canary10Percent5Minutes", "strategy: AllAtOnce")
        killed.change()
        assert killed.world.run("deploy").code == 0
        with Client(killed.world.url + "/version", every_s=0.02) as client:
            for nth in (1, 2):  # expand, contract
                repeated_after(killed, Point("cloudformation:UpdateStack", nth, after=True))
        assert (killed.missed, client.failed) == ([], 0), client.statuses
        assert client.asked > 100


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_deploy_killed_at_any_call_is_finished_by_the_same_command(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, shipped, repeated_after)
    sweep.run()
    assert len(sweep.reached) > 120
    named = {point.operation for point in sweep.reached}
    assert {"cloudformation:UpdateStack", "codedeploy:CreateDeployment", WRITES_OBJECT} <= named


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_deploy_killed_after_any_change_is_fixed_by_repair(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, shipped, repaired_after, chosen=lambda point: point.after)
    sweep.run()
    assert len(sweep.reached) > 25


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_rollback_killed_at_any_call_is_finished_by_the_same_command(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, shipped_twice, rolled_back_after)
    sweep.run()
    assert len(sweep.reached) > 30
