"""What a rehearsal is held against: the engine's live release, a folder's code, or what is live on AWS."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

from hitless.cli.common import Context
from hitless.cli.shipping import build_document, folders_of, load, recorded
from hitless.errors import ConflictError
from hitless.release.document import ReleaseDocument
from hitless.service.model import Home, Service

AWS = "aws"
_HINT = "ship a first release, or name a folder that holds the live code: --against DIR"


class NothingLive(ConflictError):
    """The stage has no release yet."""


def live_of(ctx: Context, service: Service, against: str | None) -> ReleaseDocument:
    """The release to rehearse against, its artifacts in the data folder's store.

    `against` is `aws`, a folder, or None for the stage's home. Raises NothingLive where there is none.
    """
    if against == AWS or (against is None and service.settings.home is Home.AWS):
        return _on_aws(ctx, service)
    if against is None:
        return _here(ctx)
    there = replace(ctx, service_dir=Path(against).expanduser().resolve())
    return build_document(there, load(there))


def _here(ctx: Context) -> ReleaseDocument:
    """The live release as the state file has it; the engine need not run."""
    folders = folders_of(ctx)
    if not folders.state_file.exists():
        raise NothingLive(f"there is no release to rehearse against: no engine ever ran on {folders.data}", hint=_HINT)
    if (row := recorded(ctx)) is None:
        raise NothingLive(f"{ctx.stage} has no live release to rehearse against", hint=_HINT)
    return ReleaseDocument.from_json(row.document)


def _on_aws(ctx: Context, service: Service) -> ReleaseDocument:
    aws = importlib.import_module("hitless.cli.aws_live")  # only where it is asked for
    found: ReleaseDocument | None = aws.fetch_live(ctx, service.name, service.region)
    if found is None:
        raise NothingLive(
            f"{ctx.stage} has no live release on AWS to rehearse against", hint="`hitless deploy` ships a first one"
        )
    return found
