"""Builds the daemon's objects on the real HAProxy, processes, files and AWS. No other module does."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from random import Random

from hitless.artifact.store import ArtifactStore
from hitless.cli.settings import Address, EngineSettings
from hitless.clock import SystemClock
from hitless.engine.acme import Acme
from hitless.engine.budget import DiskBudget, budget_bytes
from hitless.engine.engine import Engine
from hitless.engine.folders import Folders
from hitless.engine.machine import Machine
from hitless.engine.previews import Previews
from hitless.engine.retention import Retention
from hitless.engine.sites import Sites
from hitless.errors import MachineError
from hitless.gateway.binary import find_haproxy
from hitless.gateway.gateway import Gateway
from hitless.gateway.listeners import listen
from hitless.gateway.state import SHARED, SharedTls
from hitless.pipeline.builds import MAX_AT_ONCE, Builds, limits_of
from hitless.pipeline.children import call_process
from hitless.pipeline.definition import Definition
from hitless.pipeline.errands import AwsErrands
from hitless.pipeline.notify import Notice, Notifier
from hitless.pipeline.packaging import package_in_process
from hitless.pipeline.parts import Parts
from hitless.pipeline.pipeline import Pipeline
from hitless.pipeline.pipelines import Pipelines
from hitless.pipeline.rehearsal.leftovers import PREFIX
from hitless.pipeline.rehearsal.report import rehearse
from hitless.pipeline.repository import Repository
from hitless.pipeline.workshop import Workshop
from hitless.rollout.hooks import LifecycleHooks
from hitless.rollout.pools import ReleasePools
from hitless.scaling.decide import ScaleInPace
from hitless.service.model import DEFAULT_PREVIEW_PORT, PreviewSettings
from hitless.store.runs import PushRecords, RunRecords
from hitless.store.secrets import SecretStore
from hitless.store.store import Store
from hitless.traces.exporter import Exporter
from hitless.traces.otlp import TraceSettings
from hitless.traces.records import Requests, Rollouts
from hitless.workers.fleet import Fleet
from hitless.workers.shares import Shares


def build_machine(
    folders: Folders, settings: EngineSettings, store: Store, *, leave: Callable[[], None]
) -> tuple[Engine, Machine, Previews | None]:
    """Build the engine of a data folder, its machine, and its previews if the settings turn them on. Start nothing.

    `leave` ends the daemon. Raises MachineError if HAProxy is missing or too old.
    """
    clock, common = SystemClock(), settings.shared
    call = partial(call_process, "hitless.processes.acme", log=folders.daemon_log)
    acme = Acme(folders.data / "acme", clock, lambda plan: call(plan=plan))
    answers = any(one.settings.acme for one in settings.tls) or (common and common.https and not common.challenges)
    stages = tuple(address.stage for address in settings.addresses)
    gateway = Gateway(
        folders.run,
        clock=clock,
        haproxy=find_haproxy(os.environ),
        stages=stages,
        pools=settings.pools,
        shared=settings.previews is not None or common is not None,
        tls=settings.tls,
        secure=SharedTls(common.https[1], common.challenges) if common and common.https else None,
        thumbprint=acme.thumbprint() if answers else "",
        logs=folders.logs,
        bodies=folders.data / "bodies",
    )
    shares = Shares() if common is not None else None
    fleet = Fleet(folders.run, clock=clock, python=sys.executable, shares=shares)
    artifacts = ArtifactStore(folders.artifacts)
    pools = ReleasePools(fleet, gateway, artifacts, store, folders.logs)
    retention = Retention(store, artifacts, folders.logs, clock)
    engine = Engine(
        service=settings.service,
        stages=stages,
        store=store,
        pools=pools,
        retention=retention,
        hooks=LifecycleHooks(artifacts, folders.logs, folders.data / "hooks", shares),
        clock=clock,
        secrets=SecretStore(folders.data),
    )

    sites = Sites(engine, gateway, shares, acme) if shares is not None else None
    previews = None
    if sites is not None or settings.previews is not None:
        read = partial(_preview_settings, settings, Workshop.of(folders.data, os.environ))
        previews = Previews(engine, gateway, read, pools_kept=settings.stage_pools, sites=sites)
    limit, disk = budget_bytes(os.environ), DiskBudget(folders.data, store, artifacts, retention, clock, engine.say)
    machine = Machine(
        engine,
        fleet,
        gateway,
        clock=clock,
        listen=partial(_bind, settings),
        leave=leave,
        acme=acme,
        pace=ScaleInPace.of(os.environ),
        previews=previews,
        sites=sites,
        budget=partial(disk.watch, limit) if limit else None,
    )
    return engine, machine, previews


def _preview_settings(settings: EngineSettings, common: Workshop, service: str) -> PreviewSettings | None:
    """Those of the engine's start, or of a service on an engine that several share."""
    found = Definition.read(replace(common, service=service).definition) if settings.shared else settings
    return found.previews if found else None


def _bind(settings: EngineSettings) -> Mapping[str, socket.socket]:
    """Bind all addresses or none."""
    with ExitStack() as bound:
        sockets = {one.stage: bound.enter_context(_listen(one)) for one in settings.bound}
        if (shared := settings.previews) is not None:
            movable = shared.port == DEFAULT_PREVIEW_PORT
            sockets[SHARED] = bound.enter_context(_listen(Address("previews", shared.host, shared.port, movable)))
        bound.pop_all()  # all are bound: keep them open
    return sockets


def build_exporter(folders: Folders, engine: Engine, store: Store) -> Exporter | None:
    """Build the exporter of traces. None without an endpoint and in a rehearsal. Raises MachineError."""
    settings = None if folders.data.parent.name.startswith(PREFIX) else TraceSettings.of(os.environ)
    if settings is None:
        return None
    engine.pools.traced = round((1 - settings.ratio) * (1 << 48))
    sources = Rollouts(store).ended, Requests(engine, folders.logs).logged
    return Exporter(settings, engine.say, SystemClock(), Random(), *sources)


def build_pipelines(
    folders: Folders, engine: Engine, machine: Machine, store: Store, previews: Previews | None
) -> Pipelines:
    """Build the pipelines of the engine's services. Start nothing."""
    clock, places = SystemClock(), asyncio.Semaphore(MAX_AT_ONCE)
    common = Workshop.of(folders.data, os.environ)
    notifier = Notifier(clock, engine.say, common.user)

    def warn(sentence: str, stage: str | None) -> None:
        engine.say(sentence, stage)
        live = engine.live_release(stage or "")
        notice = Notice("warning", f"{stage}: {sentence}", stage)
        notifier.send(live.document.settings.notify if live else (), notice)

    def make(service: str) -> Pipeline:
        workshop = replace(common, service=service)
        repository = Repository(workshop.repository)
        builds = Builds(workshop, repository, clock, lambda: limits_of(Definition.read(workshop.definition)), places)
        return Pipeline(
            Parts(
                engine=engine,
                workshop=workshop,
                repository=repository,
                records=RunRecords(store, service or None),
                pushes=PushRecords(store, service),
                run_build=builds.run,
                package=partial(package_in_process, folders.artifacts),
                clock=clock,
                urls=machine.urls,
                rehearse=partial(rehearse, folders.data, service),
                notify=notifier.notify,
                previews=previews and previews.of(service),
                on_aws=AwsErrands(folders.data),
                reach=machine.reach,
            )
        )

    engine.warn = warn
    return Pipelines(engine, common, make, shared=machine.sites is not None, close=notifier.close)


def _listen(address: Address) -> socket.socket:
    try:
        return listen(address.host, address.port, purpose=address.purpose)
    except MachineError:
        if not address.movable:
            raise
        return listen(address.host, 0, purpose=address.purpose)
