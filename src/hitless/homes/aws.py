"""A stage on AWS: runs the commands in this process with boto3 and osls. Documents have the engine's format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from hitless.artifact.model import Host, Platform
from hitless.artifact.store import ArtifactStore
from hitless.aws.buckets import Bucket
from hitless.aws.session import ATTEMPTS_VARIABLE, aws_errors, connect
from hitless.aws.stacks import Stacks
from hitless.cloud import status as views
from hitless.cloud.records.records import Records
from hitless.cloud.release.deploy import Deploy
from hitless.cloud.release.promotion import fetch_artifacts, given_artifacts, live_release, promotable
from hitless.cloud.release.proving import faults_of
from hitless.cloud.release.rollback import abort, rollback
from hitless.cloud.status import blank_status, stage_status
from hitless.documents import to_plain
from hitless.errors import HitlessError, UsageError
from hitless.homes.aws_deploy import deploy_on_aws, dry_run_on_aws, packaged, strategy_of
from hitless.homes.aws_logs import cloudwatch_lines
from hitless.homes.aws_stage import AwsStage, connected_stage, core_of
from hitless.homes.errands import GivenArtifacts
from hitless.homes.folder import folders_of, store_of
from hitless.homes.home import DeployOrder, LogQuery, NothingLive, RolloutNews, Workplace
from hitless.release.document import Origin, ReleaseDocument
from hitless.release.result import Result, Verified
from hitless.service.model import Service

BUCKET_VARIABLE = "HITLESS_ARTIFACT_BUCKET"
"""The stage's artifact bucket, if it is given: a build's role may read the bucket, but no stack."""
PROMOTE_VARIABLE = "HITLESS_PROMOTE_FROM"
"""The stage whose release a deploy ships instead of building; the build's own role reads it, not the deploy role."""
STATUS_ATTEMPTS = "2"
"""Attempts for each call of `status`, so that it soon reports that AWS cannot be reached."""
NOT_COUNTED: Mapping[str, Any] = {"kept": True, "verb": None, "duration_s": None, "cost": None}
_NO_ROLLOUT: Mapping[str, Any] = {"strategy": None, "duration_s": None, "steps": [], "candidate": None, "live": None}


@dataclass(frozen=True, slots=True)
class AwsHome:
    """The stacks of a stage, in the account of the environment's credentials."""

    place: Workplace
    profile: str | None = None

    def dry_run(self, service: Service, order: DeployOrder) -> dict[str, Any]:
        return dry_run_on_aws(self.place, service, order)

    def deploy(self, service: Service, order: DeployOrder) -> Iterator[RolloutNews]:
        if source := os.environ.get(PROMOTE_VARIABLE):
            yield RolloutNews(result=to_plain(self.promote(source, strategy=order.strategy, from_profile="")))
        else:
            yield RolloutNews(result=deploy_on_aws(self.place, service, order))

    def ship(self, given: GivenArtifacts, strategy: str | None = None) -> Result:
        """Ship these bytes with the folder's configuration, by the stage's strategy or the given one.

        UsageError or EngineError if an artifact is missing, before any call to AWS.
        """
        service, store = self.place.load_for_aws(), store_of(self.place)
        chosen = strategy_of(service, strategy)
        artifacts = given_artifacts(service, given.digests, store)
        with connected_stage(self.place, service) as stage:
            stage.cloud.stack.refuse_plain()
            made = packaged(self.place, service, stage.core, stage.aws.subprocess_environ(), artifacts)
            cloud = stage.cloud
            if given.who is not None:
                cloud = replace(cloud, who=given.who.called_by(stage.aws.identity().name))
            return Deploy(cloud, store.zip_path).run(
                made,
                strategy=chosen,
                commit=given.commit,
                message=given.message,
                promoted_from=given.promoted_from,
            )

    def promote(self, source: str, *, strategy: str | None, from_profile: str | None) -> Result:
        """Ship the live release of `source`, a stage on AWS in any account; the digests are checked."""
        if source == self.place.stage:
            raise UsageError(f"{source} cannot be promoted to itself", hint="`hitless promote staging prod`")
        strategy_of(self.place.load_for_aws(), strategy)  # refused before anything is fetched
        begin = AwsHome(structs.replace(self.place, stage=source), from_profile)
        origin = begin.origin(os.environ.get("HITLESS_COMMIT"))
        self.place.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fetched = begin.fetch(origin.artifacts.values())
        count = len(set(origin.artifacts.values()))
        self.place.say(f"release {origin.release} of {source}: {count} artifacts, {fetched} fetched, digests checked")
        given = GivenArtifacts(origin.artifacts, origin.commit, origin.message, origin.promoted_from)
        return self.ship(given, strategy)

    def rollback(self, release: int | None, message: str | None) -> Iterator[RolloutNews]:
        yield RolloutNews(result=to_plain(self.rolled_back(release, message)))

    def rolled_back(self, release: int | None, message: str | None) -> Result:
        """Roll back. Returns the result: the earlier release's versions get traffic at once."""
        with self._connected() as stage:
            return rollback(stage.cloud, release, why=message)

    def abort(self) -> Iterator[RolloutNews]:
        stopped = self.aborted()
        live = {"live": None, "live_release": stopped["live"], "reason": "aborted by hand"}
        yield RolloutNews(result={**_NO_ROLLOUT, **stopped, **live})

    def aborted(self) -> dict[str, Any]:
        """Stop the shift under way; the document of `hitless aws abort`."""
        with self._connected() as stage:
            return abort(stage.cloud, stage=self.place.stage)

    def logs(self, query: LogQuery) -> Iterator[str]:
        """Read CloudWatch; lines have the engine's format."""
        return (f"{line.at}\t{line.text.rstrip()}" for line in cloudwatch_lines(self.place, query))

    def releases(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The releases, without counts of failed requests: each would need a call to CloudWatch."""
        return [{**NOT_COUNTED, **each} for each in self.recorded_releases(limit)]

    def recorded_releases(self, limit: int | None = None) -> list[dict[str, Any]]:
        """The records in the stage's bucket; the document of `hitless aws releases`."""
        with self._connected() as stage:
            return views.releases(stage.cloud, limit)

    def release(self, number: int) -> dict[str, Any]:
        return {**NOT_COUNTED, **self.recorded_release(number)}

    def recorded_release(self, number: int) -> dict[str, Any]:
        """The record of a release; the document of `hitless aws releases N`."""
        with self._connected() as stage:
            return views.release(stage.cloud, number)

    def status(self) -> dict[str, Any]:
        service = self.place.load_for_aws()
        return {"service": service.name, "engine": None, "stages": [entry(self.place, service)]}

    def stack_status(self) -> dict[str, Any]:
        """The document of `hitless aws status`: the versions, their weights and the problems."""
        service = self.place.load_for_aws()
        with connected_stage(self.place, service) as stage:
            return views.status(stage.cloud, service=service.name, stage=service.stage)

    def live(self) -> ReleaseDocument:
        """Download from the stage's artifact bucket, and check each artifact's digest."""
        service, folders, stage = self.place.load_for_aws(), folders_of(self.place), self.place.stage
        folders.create()
        aws = connect(service.region)
        with aws_errors():
            name = os.environ.get(BUCKET_VARIABLE)
            if not name:
                stacks = Stacks(aws.client("cloudformation"), say=self.place.say)
                name = core_of(stacks, service.name, stage, service.region).bucket
            bucket = Bucket(aws.client("s3"), name)
            found = live_release(Records(bucket, stage))
            if found is None:
                raise NothingLive(
                    f"{stage} has no live release on AWS to rehearse against",
                    hint="`hitless deploy` ships a first one",
                )
            number, live = found
            fetched = fetch_artifacts(bucket, ArtifactStore(folders.artifacts), live.digests.values())
        self.place.say(f"rehearsing against release {number} of {stage} on AWS; artifacts fetched: {fetched}")
        targets = {Platform(function.runtime, function.architecture) for function in live.functions}
        for declared in sorted(str(target) for target in targets if Host.here().differences(target)):
            self.place.say(f"note: the live release is built for {declared}; it may not start on this machine")
        return live

    def origin(self, commit: str | None = None) -> Origin:
        """The live release, with the digests that Lambda reports; or an earlier one of that commit."""
        with self._connected() as stage:
            return promotable(stage.cloud, self.place.stage, commit)

    def fetch(self, digests: Iterable[str]) -> int:
        """Fetch the stage's zips into the store and check their digests. Returns how many were missing there."""
        with self._connected() as stage:
            return fetch_artifacts(stage.cloud.bucket, store_of(self.place), digests)

    def verify(self, release: int, digests: Mapping[str, str]) -> Verified:
        """Check a release that has just gone live with these artifacts: its bytes, and its smoke requests."""
        service = self.place.load_for_aws()
        with connected_stage(self.place, service) as stage:
            return faults_of(stage.cloud, service, release, digests)

    def _connected(self) -> AbstractContextManager[AwsStage]:
        return connected_stage(self.place, self.place.load_for_aws(), profile=self.profile)


def entry(place: Workplace, service: Service) -> dict[str, Any]:
    """The stage of the service in the document of `hitless status`."""
    with connected_stage(place, service, environ={ATTEMPTS_VARIABLE: STATUS_ATTEMPTS, **os.environ}) as stage:
        return dict(to_plain(stage_status(stage.cloud, service)))


def entry_or_error(place: Workplace, service: Service) -> dict[str, Any]:
    """Like `entry`; with `error` if AWS cannot be reached."""
    try:
        return entry(place, service)
    except HitlessError as error:
        place.say(f"warning: {service.stage} on AWS: {error.message}; {error.hint}")
        return {**to_plain(blank_status(service.settings)), "error": error.message}
