"""A stage on this machine: runs the commands over the engine's API. EngineNotRunningError if no engine is running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

import msgspec

from hitless.api.client import EngineClient
from hitless.api.requests import DeployRequest, RollbackRequest
from hitless.documents import convert, to_plain
from hitless.engine import releases as views
from hitless.engine.folders import Folders
from hitless.errors import EngineNotRunningError, UsageError
from hitless.homes.engine_logs import lines_of
from hitless.homes.folder import build_document, folders_of, recorded, tell_notices
from hitless.homes.home import DeployOrder, LogQuery, NothingLive, RolloutNews, Workplace
from hitless.release.changes import differences
from hitless.release.document import ReleaseDocument
from hitless.release.who import Who
from hitless.service.load import NAMES
from hitless.service.model import Service
from hitless.store.store import Store


class EngineHome(msgspec.Struct, frozen=True):
    """The engine of the data folder."""

    place: Workplace

    def dry_run(self, service: Service, order: DeployOrder) -> dict[str, Any]:
        _refuse_aws_options(order)
        tell_notices(self.place, service)
        document = build_document(self.place, service, message=order.message)
        try:
            return _comparison(document, self.live())
        except NothingLive:
            return _comparison(document, None)

    def deploy(self, service: Service, order: DeployOrder) -> Iterator[RolloutNews]:
        _refuse_aws_options(order)
        tell_notices(self.place, service)
        client_of(self.place)  # raises before the build if no engine is running
        document = build_document(self.place, service, message=order.message)
        return self.ship(document, strategy=order.strategy, force=order.force, wait=not order.no_wait)

    def ship(
        self, document: ReleaseDocument, *, strategy: str | None, force: bool = False, wait: bool = True
    ) -> Iterator[RolloutNews]:
        """Ship a release whose artifacts are in the engine's store."""
        order = DeployRequest(document.to_json(), strategy, force, wait, Who.of_environment(os.environ))
        return self._rollout("deploy", order)

    def rollback(self, release: int | None, message: str | None) -> Iterator[RolloutNews]:
        return self._rollout("rollback", RollbackRequest(release, message, who=Who.of_environment(os.environ)))

    def abort(self) -> Iterator[RolloutNews]:
        return self._rollout("abort", {})

    def logs(self, query: LogQuery) -> Iterator[str]:
        """Read the workers' log files, so that it works while the engine is down."""
        if query.minutes is not None:
            raise UsageError("--minutes is for a stage on AWS", hint="use --limit to choose the number of past lines")
        return lines_of(self.place, query)

    def releases(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Read from the state file if no engine is running, as `release` and `events` do."""
        with _state_at_rest(self.place) as store:
            if store is not None:
                return list(to_plain(views.releases(store, self.place.engine_stage)))[:limit]
        return list(client_of(self.place).call("GET", f"/stages/{self.place.engine_stage}/releases"))[:limit]

    def release(self, number: int) -> dict[str, Any]:
        with _state_at_rest(self.place) as store:
            if store is not None:
                return dict(to_plain(views.release(store, self.place.engine_stage, number)))
        return dict(client_of(self.place).call("GET", f"/stages/{self.place.engine_stage}/releases/{number}"))

    def events(self, limit: int) -> list[dict[str, Any]]:
        """The newest events, oldest first: number, time, stage and sentence of each."""
        with _state_at_rest(self.place) as store:
            if store is not None:
                return [asdict(event) for event in store.events(limit=limit, stage=self.place.engine_stage)]
        return list(client_of(self.place).call("GET", "/events", limit=limit, stage=self.place.engine_stage))

    def coming_events(self, after: int) -> Iterator[dict[str, Any]]:
        """Each event after the one with that number, as it happens. EngineNotRunningError."""
        return client_of(self.place).stream("GET", "/events", follow=1, after=after, stage=self.place.engine_stage)

    def status(self) -> dict[str, Any]:
        return dict(client_of(self.place).call("GET", "/status"))

    def live(self) -> ReleaseDocument:
        """Read the state file: the engine need not be running."""
        hint = "ship a first release, or name a folder that holds the live code: --against DIR"
        folders = folders_of(self.place)
        if not folders.state_file.exists():
            raise NothingLive(
                f"there is no release to rehearse against: no engine has run on {folders.data}", hint=hint
            )
        if (row := recorded(self.place)) is None:
            raise NothingLive(f"{self.place.engine_stage} has no live release to rehearse against", hint=hint)
        return ReleaseDocument.from_json(row.document)

    def _rollout(self, verb: str, body: object) -> Iterator[RolloutNews]:
        lines = client_of(self.place).stream("POST", f"/stages/{self.place.engine_stage}/{verb}", body, progress=1)
        return (convert(line, RolloutNews, "a line about the rollout") for line in lines)


@contextmanager
def _state_at_rest(place: Workplace) -> Iterator[Store | None]:
    """The state file, to read; None if an engine is running or never ran."""
    folders = folders_of(place)
    if folders.engine_is_alive() or not folders.state_file.exists():
        yield None
        return
    with closing(Store(folders.state_file, read_only=True)) as store:
        yield store


def client_of(place: Workplace) -> EngineClient:
    """A client of the running engine. EngineNotRunningError if none is running."""
    folders = folders_of(place)
    if not folders.engine_is_alive():
        raise EngineNotRunningError(f"no engine is running on {folders.data}", hint=_how_to_start(place, folders))
    return EngineClient(folders.api_socket)


def has_service_file(place: Workplace) -> bool:
    """Whether the folder has a serverless.yml."""
    return any((place.service_dir / name).exists() for name in NAMES)


def _how_to_start(place: Workplace, folders: Folders) -> str:
    if folders.remains():
        return "start it with `hitless up`: it adopts the processes that still serve"
    if not folders.data.exists() and not has_service_file(place):
        return f"{place.service_dir} has no serverless.yml: go to the service's folder, or name it with --service-dir"
    return "start it with `hitless up`"


def _refuse_aws_options(order: DeployOrder) -> None:
    for given, option in ((order.compare, "--compare"), (order.core_outputs, "--core-outputs")):
        if given:
            raise UsageError(f"{option} is for a dry run on AWS", hint="`hitless deploy --home aws --dry-run`")


def _comparison(document: ReleaseDocument, live: ReleaseDocument | None) -> dict[str, Any]:
    """The dry run's document: each function's artifact compared with the live one, and the changed configuration."""
    old, new = live.digests if live else {}, document.digests
    return {
        "stage": document.settings.name,
        "dry_run": True,
        "artifacts": new,
        "functions": [{"name": name, "action": _action(old.get(name), new.get(name))} for name in sorted({*old, *new})],
        "configuration": differences(live.to_json(), document.to_json()) if live else [],
    }


def _action(live: str | None, new: str | None) -> str:
    if new is None:
        return "remove"
    if live is None:
        return "add"
    return "keep" if live == new else "change"
