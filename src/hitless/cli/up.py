"""`hitless up` and `hitless down`: start the engine and wait until the stage responds; stop all of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, BinaryIO
from urllib.parse import urlsplit

import typer
from msgspec import structs

from hitless.api.client import EngineClient, RemoteError
from hitless.api.requests import ShutdownRequest
from hitless.cli.common import Context, UnsuccessfulResult, command
from hitless.cli.daemon_log import put_aside_if_large
from hitless.cli.findings import descriptors
from hitless.cli.following import conclude, follow
from hitless.cli.settings import EngineSettings, SharedAddresses
from hitless.clock import SystemClock
from hitless.engine.certificates import read_certificate
from hitless.engine.folders import Folders, hold, site_name
from hitless.errors import ConflictError, EngineError, EngineNotRunningError, HitlessError, UsageError
from hitless.gateway.binary import find_haproxy
from hitless.gateway.listeners import listen as listen_on
from hitless.homes.engine import EngineHome, client_of
from hitless.homes.folder import build_document, folders_of, load, recorded
from hitless.pipeline.workshop import remove_build_folder
from hitless.release.document import ReleaseDocument, environment_changes
from hitless.service.listen import parse_listen
from hitless.service.model import Home, Service

ANSWER_DEADLINE_S = 10.0
STOP_DEADLINE_S = 60.0
UNIT_DEADLINE_S = 60.0


@command("up", example="hitless up --detach --listen 127.0.0.1:8080")
def up(
    ctx: Context,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Address of this stage; port 0 takes a free one."),
    ] = None,
    shared: Annotated[
        str | None,
        typer.Option(
            "--shared", metavar="HOST:PORT", help="Start an engine that several services share, at this address."
        ),
    ] = None,
    shared_tls: Annotated[
        str | None, typer.Option("--shared-tls", metavar="HOST:PORT", help="The HTTPS address of the shared engine.")
    ] = None,
    challenges: Annotated[
        str | None,
        typer.Option("--challenges", metavar="HOST:PORT", help="An ACME client, for /.well-known/acme-challenge/."),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", "-d", help="Return when the URL responds; the engine runs until `down` or a reboot."),
    ] = False,
) -> None:
    """Start the engine, or adopt the running one. Ships a first release if the stage has none."""
    started = bring_up(ctx, listen, _shared(shared, shared_tls, challenges))
    status = started.call("GET", "/status")
    url = next(s["url"] for s in status["stages"] if s["stage"] == ctx.engine_stage)
    port = int(listen.rpartition(":")[2]) if listen else 0
    if port and port != int(url.rpartition(":")[2]):
        ctx.say(f"note: {ctx.stage} keeps its address while the engine runs; run `hitless down` first to change it")
    if detach:
        ctx.show(status, lambda: f"{ctx.stage} serves at {url}")
        return
    _attend(ctx, f"{ctx.stage} serves at {url}; Ctrl-C stops the engine")


@command("down", example="hitless down --force")
def down(
    ctx: Context,
    force: Annotated[bool, typer.Option("--force", help="Do not wait for open requests.")] = False,
    engine: Annotated[
        bool, typer.Option("--engine", help="Stop an engine that services share, with all of them.")
    ] = False,
) -> None:
    """Finish open requests and stop all processes of the engine. The data stays.

    On an engine that several services share, remove only this service: its stages, its git repository and its runs.
    """
    folders = folders_of(ctx)
    if folders.is_shared and not engine:
        _leave(ctx)
        return
    if not folders.remains():
        raise EngineNotRunningError(f"no engine is running on {folders.data}", hint="`hitless up` starts one")
    if not folders.engine_is_alive():
        ensure_daemon(folders)  # it adopts the processes of its predecessor, so that they end in order
    if folders.is_managed:
        folders.settings_file.unlink(missing_ok=True)  # systemd starts the daemon again, which then waits for `up`
    EngineClient(folders.api_socket).call("POST", "/shutdown", ShutdownRequest(force))
    if not await_end(folders, STOP_DEADLINE_S):
        raise EngineError("some processes of the engine have not ended", hint="`hitless down --force`")
    remove_build_folder(folders.data)
    ctx.show({"stopped": True}, lambda: "the engine has stopped; its data stays")


def _leave(ctx: Context) -> None:
    client, service = client_of(ctx), structs.replace(ctx, stage="").service_at_engine
    own = site_name(service, "")
    client.call("DELETE", "/pipeline", service=service)  # first: a run would add its stage again
    gone = [one["stage"] for one in client.call("GET", "/status")["stages"] if one["stage"].startswith(own)]
    for stage in gone:
        client.call("DELETE", f"/stages/{stage}")
    removed = f"removed {', '.join(gone)}; " if gone else "the engine has no stage of this service; "
    ctx.show({"stopped": False, "removed": gone}, lambda: removed + "`hitless down --engine` stops the engine")


def bring_up(ctx: Context, listen: str | None, shared: SharedAddresses | None = None) -> EngineClient:
    """A running engine whose stage responds. If this fails, everything that it started is stopped."""
    service = load(ctx)
    if service.settings.home is Home.AWS:
        raise UsageError(
            f"{service.file.name}: the home of stage {service.stage} is AWS, not this machine's engine",
            hint=f"`hitless deploy --stage {service.stage}`; or set `home: engine` for the stage",
        )
    folders = folders_of(ctx)
    settings = _settings(service, listen, folders, shared)
    folders.create()
    if folders.is_open_to_others:
        ctx.say(f"warning: other users may read {folders.data}: `chmod 700` it unless they need to")
    if not (limit := descriptors()).well:
        ctx.say(f"warning: descriptor limit {limit.found}, which bounds clients and workers: {limit.fix}")
    with hold_start(folders):  # a second `up` waits, then finds the first one's engine
        return _bring_up(ctx, service, settings, folders)


def hold_start(folders: Folders) -> BinaryIO:
    """Hold the lock of the commands that start or replace the daemon, until the returned file is closed."""
    return os.fdopen(hold(folders.data / "up.lock"), "rb")


def _bring_up(ctx: Context, service: Service, settings: EngineSettings, folders: Folders) -> EngineClient:
    client = EngineClient(folders.api_socket)
    alive = folders.engine_is_alive()
    served = alive or folders.listens()
    if not served:  # MachineError if HAProxy is missing or a port is taken, before time is spent on a build
        find_haproxy(os.environ)
        for listener in settings.tls:
            if listener.settings.acme is None and (trouble := read_certificate(listener).trouble(SystemClock().now())):
                ctx.say(f"warning: {trouble}")
        for address in settings.bound:
            if not address.movable and not folders.is_managed:  # the unit may bind ports that this user may not
                listen_on(address.host, address.port, purpose=address.purpose).close()
    elif EngineSettings.read(folders).tls != settings.tls:
        ctx.say("note: `tls` has changed; `hitless down`, then `hitless up` uses it")
    if not served and settings.shared is not None:
        settings.write(folders)  # it decides the stage's name at the engine
    row = recorded(ctx)
    first = build_document(ctx, service, message="first release") if row is None else None
    if row is not None and (changed := environment_changes(ReleaseDocument.from_json(row.document), service.functions)):
        ctx.say(
            f"note: release {row.release} keeps its values of {', '.join(changed)}; `hitless deploy` ships the new ones"
        )
    if not alive:
        if not served:
            settings.write(folders)
        ensure_daemon(folders)
        ctx.on_interrupt[:] = "interrupted: the engine keeps running", "stop it with `hitless down`"
    if first is not None:
        try:
            result = follow(ctx, EngineHome(ctx).ship(first, strategy="AllAtOnce"))
            if result and result["outcome"] not in ("live", "unchanged"):
                conclude(ctx, result)
        except (UnsuccessfulResult, HitlessError):
            if not served:
                client.call("POST", "/shutdown", ShutdownRequest(force=True))
                await_end(folders)
            elif settings.shared is not None:
                with suppress(HitlessError):  # it has no such stage if the claim was refused
                    client.call("DELETE", f"/stages/{ctx.engine_stage}")
            raise
    _await_answer(client, ctx.engine_stage)
    return client


def start_daemon(
    folders: Folders,
    *,
    under: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the daemon in a session of its own and wait until it is ready. Raises its error if it fails.

    `under` is a command that starts it and ends with it; `stdin` is that command's input. `env` is the daemon's
    environment; default: this process's.
    """
    ready, told = os.pipe()
    words = [sys.executable, "-m", "hitless.processes.engine", "--data-dir", str(folders.data), "--ready-fd", str(told)]
    put_aside_if_large(folders.daemon_log)
    try:
        with folders.daemon_log.open("ab") as log:
            os.fchmod(log.fileno(), 0o600)
            daemon = subprocess.Popen(
                [*under, *words], stdin=stdin, stdout=log, stderr=log, cwd="/", env=env, start_new_session=True,
                pass_fds=(told,),
            )  # fmt: skip
    finally:
        os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        word = pipe.read()
    document: dict[str, Any] = json.loads(word) if word else {}
    if not document.get("ready"):
        daemon.wait()
    if "error" in document:
        raise RemoteError(document["error"])
    if not document.get("ready"):
        lines = folders.daemon_log.read_text(errors="replace").splitlines()[-5:]
        raise EngineError("the engine ended while it started: " + " | ".join(lines), hint=f"see {folders.daemon_log}")
    return daemon


def ensure_daemon(folders: Folders, env: Mapping[str, str] | None = None) -> None:
    """Start the daemon, or wait for the unit of systemd that starts it. Raises its error if it fails."""
    if not folders.is_managed:
        start_daemon(folders, env=env)
        return
    folders.start_error.unlink(missing_ok=True)
    end_s = time.monotonic() + UNIT_DEADLINE_S
    while not (folders.engine_is_alive() and folders.api_socket.exists()):
        with suppress(FileNotFoundError):
            raise RemoteError(json.loads(folders.start_error.read_bytes())["error"])
        if time.monotonic() > end_s:
            unit = folders.unit_file.read_text().split()[0]
            raise EngineError(f"{unit} did not start the engine", hint=f"`journalctl -u {unit}` says why")
        time.sleep(0.1)


def _shared(http: str | None, https: str | None, challenges: str | None) -> SharedAddresses | None:
    """The addresses of a shared engine, if they are given."""
    given = {"--shared": http, "--shared-tls": https, "--challenges": challenges}
    found = {option: parse_address(text, option) for option, text in given.items() if text}
    if found and "--shared" not in found:
        raise UsageError("--shared-tls and --challenges need --shared", hint="it redirects and answers challenges")
    others = found.get("--shared-tls"), found.get("--challenges")
    return SharedAddresses(found["--shared"], *others) if found else None


def _settings(service: Service, listen: str | None, folders: Folders, shared: SharedAddresses | None) -> EngineSettings:
    shared = shared or (EngineSettings.read(folders).shared if folders.is_shared else None)
    if shared is not None:
        return _of_several(listen, folders, shared)
    settings = EngineSettings.of(service)
    if listen is None:
        return settings
    given = parse_address(listen, "--listen")
    own = next(one for one in settings.addresses if one.stage == service.stage)
    moved = replace(own, host=given[0], port=given[1], movable=False)
    return replace(settings, addresses=tuple(moved if one is own else one for one in settings.addresses))


def _of_several(listen: str | None, folders: Folders, shared: SharedAddresses) -> EngineSettings:
    if listen is not None:
        raise UsageError("--listen: services share this engine's address", hint="leave it out")
    if shared.https is not None and not shared.https[1]:
        raise UsageError("--shared-tls needs a fixed port: clients are redirected to it", hint="such as :443")
    if folders.listens() and EngineSettings.read(folders).shared != shared:
        raise ConflictError("the running engine has other addresses", hint="`hitless down --engine` stops it")
    return EngineSettings("(shared)", (), 0, shared=shared)


def parse_address(text: str, option: str) -> tuple[str, int]:
    """An option's HOST:PORT. UsageError."""
    try:
        return parse_listen(text)
    except ValueError as error:
        hint = f"for example {option} 127.0.0.1:8080; port 0 takes a free port"
        raise UsageError(f"{option} {text}: not HOST:PORT", hint=hint) from error


def _await_answer(client: EngineClient, stage: str) -> None:
    """Return when the stage's URL takes connections and its live release runs."""
    deadline = time.monotonic() + ANSWER_DEADLINE_S
    while True:
        found = next((s for s in client.call("GET", "/status")["stages"] if s["stage"] == stage), None)
        if found is None or found["url"] is None:
            raise EngineError(
                f"the running engine has no listener for stage {stage}", hint="`hitless down`, then `hitless up` again"
            )
        if idle := [function["name"] for function in found["functions"] if function["zygote_pid"] is None]:
            raise EngineError(
                f"release {found['live']['release']} of {stage} does not serve requests: "
                f"{', '.join(idle)} could not be started",
                hint="`hitless events` says why; `hitless deploy` ships the service again",
            )
        at = urlsplit(found["url"])
        if not re.fullmatch(r"[0-9.]+|.*:.*", str(at.hostname)) and found["live"] is not None:
            return  # its URL has a domain, which may have another address here
        try:
            with socket.create_connection((at.hostname, at.port), timeout=1.0):
                if found["live"] is not None:
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise EngineError(f"{found['url']} does not respond", hint="see `hitless events` and `hitless doctor`")
        time.sleep(0.05)


def _attend(ctx: Context, greeting: str) -> None:
    """Foreground: greet, show events; start the daemon again when it dies; stop everything on Ctrl-C or SIGTERM."""
    folders = folders_of(ctx)
    client = EngineClient(folders.api_socket)

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, leave)
    try:
        past = client.call("GET", "/events", limit=1)
        after = past[-1]["event"] if past else 0
        ctx.say(greeting)
        while True:
            try:
                for event in client.stream("GET", "/events", follow=1, after=after):
                    after = int(event["event"])
                    ctx.say(f"{event['at']}  {event['stage'] or '-'}  {event['sentence']}")
            except HitlessError:
                pass
            if not folders.remains():
                return  # by `hitless down` from another shell
            with hold_start(folders):  # `hitless upgrade` starts the daemon itself
                if not folders.engine_is_alive() and folders.remains():
                    ctx.say("the daemon has died; starting it again, while the gateway and workers keep running")
                    ensure_daemon(folders)
    except KeyboardInterrupt as asked:
        ctx.say("stopping")
        client.call("POST", "/shutdown", ShutdownRequest())
        await_end(folders)
        if not asked.args:  # by Ctrl-C, not by SIGTERM
            ctx.on_interrupt[:] = "interrupted: the engine was stopped", "`hitless up` starts it again"
            raise


def await_end(folders: Folders, deadline_s: float = ANSWER_DEADLINE_S) -> bool:
    """Wait until nothing of the engine remains; False after that many seconds."""
    end_s = time.monotonic() + deadline_s
    while folders.remains():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True
