"""The interface of a stage's home (this machine's engine, or AWS) for commands and the pipeline's errands.

A home returns documents and prints nothing; the command line prints them. Each home is a module that is imported only
if a stage runs there: a deploy on the engine and the daemon do not load boto3.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from hitless.documents import Discreet
from hitless.engine.folders import Folders, service_of, site_name
from hitless.errors import ConflictError, HitlessError, UsageError
from hitless.release.document import ReleaseDocument
from hitless.release.result import Step
from hitless.release.status import CandidateStatus
from hitless.service.load import load_service, peek
from hitless.service.model import Home, Service
from hitless.store.secrets import SecretStore

CLASSES = {Home.ENGINE: "hitless.homes.engine:EngineHome", Home.AWS: "hitless.homes.aws:AwsHome"}
"""Each is a StageHome, made of a Workplace."""


class Workplace(Discreet, frozen=True, kw_only=True):
    """Where a command works: a stage of the service in a folder, with the data folder of an engine."""

    HIDDEN = ("params",)
    stage: str
    service_dir: Path
    data_dir: Path
    say: Callable[[str], None]
    """Shows a message to a person."""
    options: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The values of `${opt:}`, as given."""
    params: Mapping[str, str] = msgspec.field(default_factory=dict)
    """The values of `${param:}`, as given."""

    def load(self, *, on_aws: bool = False, **options: str) -> Service:
        """The service of the folder, read for the stage; `options` are added to those given. ServiceFileError."""
        return load_service(
            self.service_dir,
            stage=self.stage,
            options={**self.options, **options},
            environ=os.environ,
            params=self.params,
            on_aws=on_aws,
            secrets={} if on_aws else SecretStore(self.data_dir).sealed(self.engine_stage),
        )

    @property
    def engine_stage(self) -> str:
        """The stage's name at the engine: on one that several services share, the service's name is part of it."""
        service = "" if "_" in self.stage else self.service_at_engine
        return site_name(service, self.stage) if service else self.stage

    @property
    def service_at_engine(self) -> str:
        """The service if several share the engine, otherwise empty. UsageError if neither stage nor folder names it."""
        if not Folders.of(self.data_dir, os.environ).is_shared:
            return ""
        service = service_of(self.stage) or peek(self.service_dir, os.environ, "service")
        if service is None:
            raise UsageError("several services share this engine", hint="name a service's folder with --service-dir")
        return service

    def load_for_aws(self, region: str | None = None) -> Service:
        """The service as osls, which always gets the stage, reads it."""
        return self.load(on_aws=True, stage=self.stage, **({"region": region} if region else {}))

    def try_load(self) -> Service | None:
        """The service, or None if it cannot be read for the stage, whatever its home."""
        try:
            return self.load_for_aws()
        except HitlessError:
            return None


class DeployOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `hitless deploy`. `strategy` as it was typed; None is the stage's own.

    `compare` and `core_outputs` belong to a dry run on AWS: compare with the live stack; a file of core's outputs.
    """

    strategy: str | None = None
    no_wait: bool = False
    force: bool = False
    message: str | None = None
    compare: bool = False
    core_outputs: Path | None = None


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted log lines. `limit`: number of past lines; `minutes`: their greatest age; None: the home's default."""

    function: str | None = None
    follow: bool = False
    release: int | None = None
    limit: int | None = None
    minutes: int | None = None


class RolloutNews(msgspec.Struct, frozen=True):
    """News of a rollout: a step, its result, or that it has begun (if the caller does not wait for the result)."""

    step: Step | None = None
    release: int | None = None
    """The release whose rollout has this step."""
    started: dict[str, Any] | None = None
    progress: CandidateStatus | None = None
    """Both releases, each second of a bake; only the engine gives it."""
    result: dict[str, Any] | None = None
    """The result as the command line prints it."""


class NothingLive(ConflictError):
    """The stage has no release yet."""


class StageHome(Protocol):
    """The verbs for one stage. Each returns the documented JSON document, or raises HitlessError."""

    def dry_run(self, service: Service, order: DeployOrder) -> dict[str, Any]:
        """Build the folder, and compare it with the live release; ships nothing."""

    def deploy(self, service: Service, order: DeployOrder) -> Iterator[RolloutNews]:
        """Build the folder and ship it."""

    def rollback(self, release: int | None, message: str | None) -> Iterator[RolloutNews]:
        """Ship an earlier release again; None is the previously live one."""

    def abort(self) -> Iterator[RolloutNews]:
        """Stop the rollout under way. ConflictError if there is none."""

    def logs(self, query: LogQuery) -> Iterator[str]:
        """The handlers' lines, oldest first; endless if the query follows."""

    def releases(self, limit: int | None = None) -> list[dict[str, Any]]:
        """All releases, or the newest, newest first."""

    def release(self, number: int) -> dict[str, Any]:
        """One release with the receipts of its rollouts. UsageError if there is none of that number."""

    def status(self) -> dict[str, Any]:
        """The document of `hitless status`, as far as this home knows it."""

    def live(self) -> ReleaseDocument:
        """The live release, its artifacts in the engine's store. NothingLive; ConflictError without a description."""


def home_at(kind: Home, place: Workplace) -> StageHome:
    """The verbs at that home."""
    made: StageHome = pkgutil.resolve_name(CLASSES[kind])(place)
    return made


def home_of(place: Workplace, named: Home | None = None) -> StageHome:
    """The given home, else the stage's; the engine if no service file can be read."""
    if named is None:
        service = place.try_load()
        named = service.settings.home if service is not None else Home.ENGINE
    return home_at(named, place)


def read_for(place: Workplace, named: Home | None = None) -> tuple[Service, StageHome]:
    """The service, read for its stage's home (or the given one), and that home. ServiceFileError."""
    try:
        service = place.load_for_aws() if named is Home.AWS else place.load()
    except HitlessError:
        if named is not None or place.load(on_aws=True).settings.home is Home.ENGINE:
            raise
        return place.load_for_aws(), home_at(Home.AWS, place)  # only AWS knows some of its values
    kind = named or service.settings.home
    return service if kind is named or kind is Home.ENGINE else place.load_for_aws(), home_at(kind, place)
