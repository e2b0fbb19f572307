"""`hitless aws deploy` killed at each of its calls, before the call takes effect and after, under load; then repeated.

Whatever was killed where, the same command once more ends right: the wanted release is live and answers, each alias is
at its version without weights, the Stage at the stack's Deployment, the record ended, nothing left over (that is what
`status` judges), and the client has seen no request fail.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.aws.kills import Killed, Point, killed_world, points
from tests.aws.release_support import Client

pytestmark = pytest.mark.aws

AT_ONCE = 3
"""Emulators side by side: a release mostly waits."""


def repeated_after(killed: Killed, point: Point) -> None:
    """Kill a deploy there, repeat it, and see that all is as it should be."""
    marker = killed.change()
    killed.kill(point, "deploy")
    again = killed.run("deploy")
    assert (again.code, again.json["outcome"] in ("live", "unchanged")) == (0, True), f"{point}: {again.err}"
    status = killed.run("status").json
    (newest, *_) = killed.run("releases", "--json").json
    version = str(newest["release"])
    assert status["release"] == newest["release"], point
    assert (newest["outcome"], newest["live"]) == ("live", True), point
    assert status["weights"] == {name: {v: 100} for name, v in newest["versions"].items()}, point
    assert (status["troubles"], status["candidate"]) == ([], None), point
    assert set(status["versions"].values()) == {version}, f"{point}: bytes were published twice, or a number was lost"
    code, answer = killed.world.get("/version")
    assert (code, answer["marker"]) == (200, marker), point


def shipped(killed: Killed) -> list[str]:
    """The calls of a release that nothing happens to, with one live before it."""
    killed.change()
    assert killed.run("deploy").code == 0
    killed.change()
    return killed.calls_of("deploy")


def sweep(place: Path, packages: Path, shard: int, shards: int) -> tuple[list[Point], list[Point], int]:
    """Every `shards`-th point; what was reached, what was not, and how many requests the client sent."""
    with killed_world(place, packages) as killed:
        mine = points(shipped(killed))[shard::shards]
        with Client(killed.world.url + "/version", every_s=0.02) as client:
            for point in mine:
                failed = client.failed
                repeated_after(killed, point)
                assert client.failed == failed, f"{point}: {client.statuses}"
        return killed.reached, killed.missed, client.asked


def test_a_deploy_that_is_killed_in_the_middle_of_an_update_is_finished_by_the_same_command(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    with killed_world(tmp_path / "world", packages) as killed:
        killed.world.edit("serverless.yml", "strategy: Canary10Percent5Minutes", "strategy: AllAtOnce")
        killed.change()
        assert killed.run("deploy").code == 0
        with Client(killed.world.url + "/version", every_s=0.02) as client:
            for nth in (1, 2):  # expand, contract
                repeated_after(killed, Point("cloudformation:UpdateStack", nth, after=True))
        assert (killed.missed, client.failed) == ([], 0), client.statuses
        assert client.asked > 100


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_deploy_that_is_killed_at_any_call_is_finished_by_the_same_command(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = [pool.submit(sweep, tmp_path / str(at), packages, at, AT_ONCE) for at in range(AT_ONCE)]
        ends = [run.result() for run in runs]
    reached = [point for one, _, _ in ends for point in one]
    missed = [point for _, one, _ in ends for point in one]
    print(f"{len(reached)} kills, {len(missed)} points not reached; {sum(asked for _, _, asked in ends)} requests")
    assert len(reached) > 90
    assert not [point for point in missed if point.changes]
    assert {"cloudformation:UpdateStack", "codedeploy:CreateDeployment", "s3:PutObject"} <= {
        point.operation for point in reached
    }
