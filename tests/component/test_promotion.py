"""Promotions between the homes: digests are checked at each step, and both homes show releases in one form."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.artifact.store import ArtifactStore
from hitless.aws.buckets import Bucket
from hitless.cli.status import in_words
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.promotion import fetch_artifacts, given_artifacts, promotable
from hitless.cloud.release.proving import faults_of
from hitless.cloud.release.rollback import rollback
from hitless.cloud.status import blank_status, release, releases, stage_status
from hitless.documents import to_plain
from hitless.errors import CloudError, ConflictError, EngineError, UsageError
from hitless.homes.aws import NOT_COUNTED
from hitless.receipts.text import table
from hitless.release.document import PromotedFrom
from hitless.release.status import Status
from hitless.service.model import Home, Hooks
from hitless.service.strategy import AllAtOnce
from tests.unit.cloud_fakes import NAMES, World, package
from tests.unit.release_support import sha256

pytestmark = pytest.mark.component


@dataclass
class FakeBucket(Bucket):
    """Zips by their digest (hex); `fetched` tells which were asked for."""

    zips: dict[str, bytes]
    fetched: list[str] = field(default_factory=list)

    def get_artifact(self, sha256: str, target: Path) -> None:
        self.fetched.append(sha256)
        target.write_bytes(self.zips[sha256])


def zipped(place: Path, text: str) -> tuple[str, bytes]:
    """A zip's digest, and its bytes."""
    file = place / "made.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("app.py", text)
    content = file.read_bytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}", content


def test_a_promotion_from_aws_has_the_digests_that_lambda_runs() -> None:
    world = World()
    world.deploy("a")
    world.deploy("b")
    found = promotable(world.cloud(), "prod")
    assert (found.release, found.commit) == (2, "commit-b")
    assert found.artifacts == dict.fromkeys(NAMES, f"sha256:{sha256('b')}")
    assert found.promoted_from == PromotedFrom(Home.AWS, "prod", 2)


def test_a_commit_that_waited_for_an_approval_is_promoted_though_a_newer_one_is_live() -> None:
    world = World()
    world.deploy("a")
    world.deploy("b")
    found = promotable(world.cloud(), "prod", "commit-a")
    assert (found.release, found.commit) == (1, "commit-a")
    assert found.artifacts == dict.fromkeys(NAMES, f"sha256:{sha256('a')}")
    assert promotable(world.cloud(), "prod", "commit-b").release == 2
    with pytest.raises(ConflictError, match="prod had no live release of this commit"):
        promotable(world.cloud(), "prod", "commit-c")


def test_a_version_whose_bytes_differ_from_the_release_is_not_promoted() -> None:
    world = World()
    world.deploy("a")
    published = world.stack.published[next(iter(world.stack.published))]
    published[0] = published[0].replace("artifacts/a", "artifacts/c")
    with pytest.raises(CloudError, match="does not serve the bytes of release 1 of prod"):
        promotable(world.cloud(), "prod")


def test_a_stage_without_a_release_cannot_be_promoted() -> None:
    with pytest.raises(ConflictError, match="prod has no live release"):
        promotable(World().cloud(), "prod")


def test_only_missing_and_damaged_artifacts_are_fetched(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    first, one = zipped(tmp_path, "one")
    second, two = zipped(tmp_path, "two")
    bucket = FakeBucket({first.removeprefix("sha256:"): one, second.removeprefix("sha256:"): two})
    assert fetch_artifacts(bucket, store, [first, second, first]) == 2
    assert fetch_artifacts(bucket, store, [first, second]) == 0
    damaged = store.zip_path(first)
    damaged.chmod(0o644)
    damaged.write_bytes(bytes(len(one)))
    assert fetch_artifacts(bucket, store, [first, second]) == 1
    assert store.verify(first)


def test_promoted_artifacts_are_added_to_the_engines_store(tmp_path: Path) -> None:
    store, service = ArtifactStore(tmp_path / "artifacts"), package("a", Hooks()).service
    digest, content = zipped(tmp_path, "x" * 1000)
    fetch_artifacts(FakeBucket({digest.removeprefix("sha256:"): content}), store, [digest])
    found = given_artifacts(service, dict.fromkeys(NAMES, digest), store)
    assert {(one.digest, one.zip_bytes, one.unpacked_bytes, one.local) for one in found.values()} == {
        (digest, len(content), 1000, False)
    }
    with pytest.raises(UsageError, match="no artifact for meta"):
        given_artifacts(service, {"convert": digest}, store)
    store.zip_path(digest).chmod(0o644)
    store.zip_path(digest).write_bytes(bytes(len(content)))
    with pytest.raises(EngineError, match="or damaged"):
        given_artifacts(service, dict.fromkeys(NAMES, digest), store)


def test_the_status_of_a_stage_on_aws_has_the_engines_form() -> None:
    world = World()
    service = package("a", Hooks()).service
    assert stage_status(world.cloud(), service).live is None
    world.deploy("a")
    shown = to_plain(stage_status(world.cloud(), service))
    assert (shown["stage"], shown["home"], shown["strategy"]) == ("prod", "aws", "Canary10Percent5Minutes")
    assert (shown["live"]["release"], shown["live"]["commit"], shown["candidate"]) == (1, "commit-a", None)
    assert shown["live"]["artifacts"] == dict.fromkeys(NAMES, f"sha256:{sha256('a')}")
    assert [(one["name"], one["version"], one["workers"]) for one in shown["functions"]] == [
        ("convert", "1", []),
        ("meta", "1", []),
    ]


def test_a_stage_on_aws_is_printed_like_one_of_the_engine() -> None:
    world, service = World(), package("a", Hooks()).service
    world.deploy("a")
    world.deploy("b")
    trouble = {"what": "no shift is under way", "where": "alias live", "mends": "`hitless aws repair`"}
    entry = replace(stage_status(world.cloud(), service), url="https://api.example.org", troubles=[trouble])
    blanked = replace(blank_status(service.settings), error="AWS cannot be reached")
    shown = in_words(Status("worldclock", None, (entry, blanked))).splitlines()
    assert shown[0] == "worldclock: no engine is running here"
    assert shown[2].startswith("prod on AWS  https://api.example.org  release 2 since 2026-11-24")
    assert shown[3].split() == ["convert", "version", "2", "100", "%"]
    assert "  problem: alias live: no shift is under way; `hitless aws repair`" in shown
    assert shown[-1] == "prod on AWS  no URL  unknown: AWS cannot be reached"
    listed = table([{**NOT_COUNTED, **each} for each in releases(world.cloud())]).splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [["*", "2", "live"], ["1", "live", "-"]]


def test_the_status_has_the_weight_of_a_candidate_on_aws() -> None:
    world = World()
    service = package("a", Hooks()).service
    world.deploy("a")
    seen: list[dict[str, Any]] = []

    def look(number: int, name: str) -> None:
        if name == "look at a deployment" and not seen:
            world.at = None
            seen.append(to_plain(stage_status(world.cloud(), service))["candidate"])

    world.at = look
    world.deploy("b")
    assert [(one["release"], one["state"], one["weight_percent"]) for one in seen] == [(2, "baking", 10)]


def test_receipts_keep_a_rollbacks_reason_and_a_promotions_origin() -> None:
    world = World()
    world.deploy("a")
    shipped = Deploy(world.cloud(), Path).run(
        package("b", Hooks()),
        strategy=AllAtOnce(),
        commit=None,
        message="b",
        promoted_from=PromotedFrom(Home.ENGINE, "dev", 1),
    )
    assert shipped.outcome == "live"
    rollback(world.cloud(), None, why="b was slow")
    rollback(world.cloud(), 2)
    told = [one["receipt"] for number in (1, 2) for one in release(world.cloud(), number)["rollouts"]]
    assert [(one["why"], one["promoted_from"]) for one in told] == [
        ("b was slow", None),
        (None, None),
        ("b", {"home": "engine", "stage": "dev", "release": 1}),
        ("b", {"home": "engine", "stage": "dev", "release": 1}),
    ]
    assert [one["verb"] for one in release(world.cloud(), 2)["rollouts"]] == ["rollback", "promote"]


def test_verification_compares_the_bytes_behind_the_aliases() -> None:
    world = World()
    service = package("a", Hooks()).service
    world.deploy("a")
    right = dict.fromkeys(NAMES, f"sha256:{sha256('a')}")
    assert faults_of(world.cloud(), service, 1, right).faults == ()
    (fault,) = faults_of(world.cloud(), service, 1, {**right, "meta": f"sha256:{sha256('b')}"}).faults
    assert fault == "meta: version 1 does not hold the bytes that were shipped"
    (gone,) = faults_of(world.cloud(), service, 1, {**right, "gone": right["meta"]}).faults
    assert gone == "gone: not on AWS"
    assert faults_of(world.cloud(), service, 2, right).superseded
