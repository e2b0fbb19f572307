"""`hitless secrets`: the values of `${ssm:NAME}` on the engine, encrypted in the data folder."""

from __future__ import annotations

import getpass
import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from hitless.cli.common import Context, command
from hitless.cli.following import conclude, follow
from hitless.clock import SystemClock, timestamp
from hitless.engine.folders import hold
from hitless.errors import ConflictError, UsageError
from hitless.homes.engine import EngineHome, client_of, has_service_file
from hitless.homes.folder import folders_of, recorded
from hitless.release.document import ReleaseDocument
from hitless.store.secrets import SecretKey, SecretStore, outdated, used_secrets

Name = Annotated[str, typer.Argument(metavar="NAME", help="As in ${ssm:NAME}, for example /clock/database-url.")]
RELEASE = "now: ship the live release with the new value; later: at the next release."


class When(StrEnum):
    """When a new value takes effect."""

    NOW = "now"
    LATER = "later"


@command("secrets set", example="hitless secrets set /clock/database-url --stage prod < url.txt")
def set_secret(
    ctx: Context, name: Name, release: Annotated[When, typer.Option("--release", help=RELEASE)] = When.LATER
) -> None:
    """Store a secret of the stage. The value comes from standard input or a prompt."""
    folders, live = folders_of(ctx), _live(ctx)
    if release is When.NOW and live is None:
        raise UsageError(f"{ctx.stage} has no live release", hint="leave out --release, then run `hitless up`")
    if release is When.NOW:
        client_of(ctx)  # raises before the value is stored if no engine is running
    value, store, now = _value(name), SecretStore(folders.data), timestamp(SystemClock().now())
    folders.create()
    with os.fdopen(hold(folders.data / "secrets.lock"), "rb"):
        changed = store.set(ctx.engine_stage, name, value, SecretKey.of(os.environ), now)
    if release is When.NOW and live is not None:
        conclude(ctx, follow(ctx, EngineHome(ctx).ship(live, strategy=None)))
        return
    users = sorted(used_secrets(live).get(name, ())) if live else []
    waits = live is not None and name in outdated(live, store.sealed(ctx.engine_stage))
    said = f"{name} {'is stored' if changed else 'has this value already'}: {_use(users, waits)}"
    document = {"stage": ctx.stage, "name": name, "changed": changed, "used_by": users, "needs_release": waits}
    ctx.show(document, lambda: said + "; `hitless deploy` or `--release now` ships the new value" * waits)


@command("secrets list", example="hitless secrets list --stage prod")
def list_secrets(ctx: Context) -> None:
    """List the stage's secrets, without values. Shows which functions of the live release use them."""
    store, live = SecretStore(folders_of(ctx).data), _live(ctx)
    used, old = (used_secrets(live), outdated(live, store.sealed(ctx.engine_stage))) if live else ({}, set())
    found = [
        {"name": name, "set_at": secret.set_at, "used_by": sorted(used.get(name, ())), "needs_release": name in old}
        for name, secret in sorted(store.of(ctx.engine_stage).items())
    ]
    text = "{name}  set {set_at}  {use}"
    ctx.show_each(found, lambda one: text.format(use=_use(one["used_by"], one["needs_release"]), **one), follow=False)


@command("secrets unset", example="hitless secrets unset /clock/old-key")
def unset_secret(
    ctx: Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also if the live release or serverless.yml uses it.")] = False,
) -> None:
    """Forget a secret of the stage. Refused if the live release or serverless.yml uses it."""
    folders, live = folders_of(ctx), _live(ctx)
    store = SecretStore(folders.data)
    users = sorted({*(used_secrets(live).get(name, ()) if live else ()), *_users_in_file(ctx, name)})
    if users and not force and name in store.of(ctx.engine_stage):
        raise ConflictError(
            f"the secret {name} is used in stage {ctx.stage} by {', '.join(users)}",
            hint="remove it from serverless.yml and deploy; or --force: the live release keeps its value, builds fail",
        )
    folders.create()
    with os.fdopen(hold(folders.data / "secrets.lock"), "rb"):
        store.unset(ctx.engine_stage, name)
    ctx.show({"stage": ctx.stage, "name": name, "used_by": users}, lambda: f"{ctx.stage} has no secret {name} any more")


def _live(ctx: Context) -> ReleaseDocument | None:
    row = recorded(ctx)
    return ReleaseDocument.from_json(row.document) if row is not None else None


def _users_in_file(ctx: Context, name: str) -> list[str]:
    """The functions whose environment in serverless.yml names the secret. ServiceFileError."""
    functions = ctx.load(on_aws=True).functions if has_service_file(ctx) else ()  # with the variables as written
    return [one.name for one in functions if any(f"${{ssm:{name}}}" in text for _, text in one.environment)]


def _value(name: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"value of {name}: ", stream=sys.stderr)
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError(f"the value of {name} is not UTF-8", hint="encode it, for example in base64") from error


def _use(users: list[str], waits: bool) -> str:
    if not users:
        return "the live release does not use it"
    return f"{'its earlier value is ' * waits}used by {', '.join(users)}"
