"""`hitless pipeline receive`: GitHub's webhooks and approval links, over HTTP, beside the engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hitless.api.deliveries import Deliveries
from hitless.api.receiver import Receiver
from hitless.api.senders import server_of
from hitless.cli.common import Context, command
from hitless.errors import UsageError
from hitless.forge.github import GitHubForge
from hitless.forge.statuses import PostedComments, UndeliveredStatuses
from hitless.gateway.listeners import listen as port_of
from hitless.homes.engine import client_of
from hitless.homes.folder import folders_of
from hitless.pipeline.approvals import publish_receiver
from hitless.pipeline.repository import Repository
from hitless.pipeline.workshop import Workshop
from hitless.service.listen import parse_listen


@command(
    "pipeline receive",
    example="hitless pipeline receive --remote https://github.com/o/r.git --secret-file hook.key",
    local=True,
)
def receive(
    ctx: Context,
    remote: Annotated[str, typer.Option("--remote", help="The git URL that branches are fetched from.")],
    secret_file: Annotated[Path, typer.Option("--secret-file", help="Holds the webhook's secret.")],
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT")] = "127.0.0.1:9090",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Holds a token for commit statuses and comments."),
    ] = None,
    public_url: Annotated[
        str | None, typer.Option("--public-url", help="The receiver's public URL, for approval links in notifications.")
    ] = None,
) -> None:
    """Take GitHub's webhooks and approval links over HTTP. Runs until Ctrl-C; put a proxy with TLS before it."""
    client, workshop = client_of(ctx), Workshop.of(folders_of(ctx).data, os.environ, ctx.service_at_engine)
    try:
        host, port = parse_listen(listen)
    except ValueError as error:
        raise UsageError(f"--listen: {error}", hint="for example 127.0.0.1:9090; port 0 takes a free port") from error
    if public_url:
        publish_receiver(workshop.own, public_url)
    forge = GitHubForge(_read_secret(secret_file).encode(), _read_secret(token_file) if token_file else None)
    repository, undelivered = Repository(workshop.repository), UndeliveredStatuses(workshop.own)
    comments = PostedComments(workshop.own)
    deliveries = Deliveries(client, repository, forge, remote, undelivered, comments, ctx.say, workshop.service)
    receiver = Receiver(client, workshop.own, forge, deliveries)
    with port_of(host, port, purpose="the receiver") as listener:
        ctx.say(f"listening on http://{host}:{listener.getsockname()[1]}")
        server_of(receiver.application()).run(sockets=[listener])


def _read_secret(file: Path) -> str:
    """The one line of a file; UsageError if other users may read it."""
    if file.stat().st_mode & 0o077:
        raise UsageError(f"{file} can be read by others", hint=f"chmod 600 {file}")
    text = file.read_text().strip()
    if len(text) < 16:
        raise UsageError(f"{file} holds fewer than 16 characters", hint="openssl rand -hex 32 makes a secret")
    return text
