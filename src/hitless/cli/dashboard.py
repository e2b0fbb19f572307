"""`hitless dashboard`: a web page that shows the engine and controls it, in a process of its own beside the daemon."""

from __future__ import annotations

import os
import ssl
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from hitless.api.client import EngineClient
from hitless.cli.common import Context, command
from hitless.cli.status import entries_on_aws
from hitless.clock import SystemClock
from hitless.dashboard.door import LOOPBACK, Door
from hitless.dashboard.pages import Pages
from hitless.dashboard.server import Dashboard
from hitless.dashboard.sources import Elsewhere, Feed, History
from hitless.errors import EngineNotRunningError, UsageError
from hitless.gateway.listeners import listen as port_of
from hitless.homes.folder import folders_of
from hitless.release.who import Who, who
from hitless.service.listen import parse_listen


@command("dashboard", example="hitless dashboard")
def dashboard(
    ctx: Context,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="The address; port 0 takes a free one.")
    ] = "127.0.0.1:9191",
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="PEM file: the chain of certificates, for TLS.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="PEM file: the certificate's private key.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The host name in the browser, if it is not the listening address.")
    ] = None,
) -> None:
    """Serve a web page with stages, rollouts and runs. Prints a link that works once; runs until Ctrl-C."""
    folders, clock = folders_of(ctx), SystemClock()
    if not folders.state_file.exists():
        raise EngineNotRunningError(f"no engine has run on {folders.data}", hint="start one with `hitless up`")
    try:
        host, port = parse_listen(listen)
    except ValueError as error:
        raise UsageError(f"--listen: {error}", hint="for example 127.0.0.1:9191; port 0 takes a free port") from error
    tls = tls_options(host, certificate, key)
    door = Door(clock, hosts=frozenset({*LOOPBACK, name or host}), secure=bool(tls))
    history, client = History(folders.state_file), EngineClient(folders.api_socket)
    elsewhere = Elsewhere(clock, ctx, partial(entries_on_aws, ctx))
    pages = Pages(Feed(client, clock, elsewhere), history, folders, clock)
    app = Dashboard(client, door, pages, clock, f"{who()} (dashboard)", Who.of_environment(os.environ)).application()
    with port_of(host, port, purpose="the dashboard") as listener:
        shown = f"[{name or host}]" if ":" in (name or host) else name or host
        url = f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}{door.new_link()}"
        ctx.show({"url": url}, lambda: url)
        ctx.say("the link works once, for ten minutes; Ctrl-C ends the dashboard, and the engine continues")
        ctx.on_interrupt[:] = "the dashboard has ended", "the engine continues; `hitless dashboard` starts another"
        options: dict[str, Any] = {"ws": "none", "log_config": None, "access_log": False, "lifespan": "off", **tls}
        server = uvicorn.Server(uvicorn.Config(app, server_header=False, timeout_graceful_shutdown=1, **options))
        try:
            server.run(sockets=[listener])
        finally:
            history.close()


def tls_options(host: str, certificate: Path | None, key: Path | None) -> dict[str, Path]:
    """uvicorn's options for TLS. UsageError if the address is reachable from outside and TLS is missing."""
    if certificate is None or key is None:
        if certificate or key:
            raise UsageError("--certificate and --key belong together", hint="pass both, or neither")
        if host not in LOOPBACK:
            raise UsageError(
                f"--listen {host}: other machines can reach this address, so the dashboard needs TLS",
                hint="pass --certificate and --key, or listen on 127.0.0.1 and use `ssh -L 9191:127.0.0.1:9191`",
            )
        return {}
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--certificate {certificate}: {error}", hint="both files must be PEM, and match") from error
    return {"ssl_certfile": certificate, "ssl_keyfile": key}
