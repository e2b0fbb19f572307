"""The plain verbs on AWS, with documents in the shape that the engine's have."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from hitless.aws.session import ATTEMPTS_VARIABLE
from hitless.cli.aws_common import load_for_aws
from hitless.cli.aws_deploy import deploy_on_aws
from hitless.cli.aws_logs import Line, show_logs
from hitless.cli.aws_wire import conclude, connected_stage
from hitless.cli.common import Context
from hitless.cli.homes import DeployOrder, Drilled, LogQuery, StageHome
from hitless.cloud.release.abort import abort as stop
from hitless.cloud.release.rollback import rollback as roll_back
from hitless.cloud.standing import blank, standing
from hitless.cloud.status import release as read_release
from hitless.cloud.status import releases as read_releases
from hitless.errors import HitlessError, UsageError
from hitless.service.model import Service

LOOKS = "2"
"""How often a call is tried for `status`: whoever asks what runs wants to hear soon that AWS cannot be reached."""

NOT_COUNTED: Mapping[str, Any] = {"kept": True, "verb": None, "duration_s": None, "cost": None}
_NO_ROLLOUT: Mapping[str, Any] = {"strategy": None, "duration_s": None, "steps": [], "candidate": None, "live": None}


class AwsHome:
    """A stage on AWS."""

    def deploy(self, ctx: Context, service: Service, order: DeployOrder) -> None:
        """Build the folder and ship it, by CodeDeploy; a dry run writes the templates."""
        if order.no_wait:
            raise UsageError(
                "--no-wait: a release on AWS is brought to its end by this command, and nobody else would",
                hint="leave it out; cut off, the same command goes on where it was",
            )
        deploy_on_aws(ctx, service, order)

    def rollback(self, ctx: Context, release: int | None, message: str | None) -> None:
        """An earlier release's versions at once."""
        with connected_stage(ctx, load_for_aws(ctx)) as stage:
            result = roll_back(stage.cloud, release, why=message)
        conclude(ctx, result)

    def abort(self, ctx: Context) -> None:
        """Stop the shift under way."""
        with connected_stage(ctx, load_for_aws(ctx)) as stage:
            stopped = stop(stage.cloud, stage=ctx.stage)
        live = stopped["live"]
        document = {
            **_NO_ROLLOUT,
            **stopped,
            "live": None,
            "live_release": live,
            "reason": "aborted by hand",
        }
        said = f"release {live} serves" if live else "no release serves yet"
        ctx.show(document, lambda: f"release {stopped['release'] or '-'} was aborted; {said}")

    def logs(self, ctx: Context, query: LogQuery) -> None:
        """The last quarter of an hour in CloudWatch, a line as the engine shows one."""
        show_logs(ctx, load_for_aws(ctx), query, form=_as_the_engine)

    def releases(self, ctx: Context) -> list[dict[str, Any]]:
        """Newest first. What each cost is told one by one: CloudWatch is asked for it."""
        with connected_stage(ctx, load_for_aws(ctx)) as stage:
            return [{**NOT_COUNTED, **each} for each in read_releases(stage.cloud)]

    def release(self, ctx: Context, number: int) -> dict[str, Any]:
        """One release with its receipts."""
        with connected_stage(ctx, load_for_aws(ctx)) as stage:
            return {**NOT_COUNTED, **read_release(stage.cloud, number)}

    def drilled(self, ctx: Context) -> Drilled:
        """Its status comes from AWS, and is asked for seldom."""
        service = load_for_aws(ctx)
        return Drilled(
            status=lambda: {"service": service.name, "engine": None, "stages": [entry(ctx, service)]},
            release=lambda number: self.release(ctx, number),
            on_engine=False,
        )


HOME: Final[StageHome] = AwsHome()


def entry(ctx: Context, service: Service) -> dict[str, Any]:
    """The stage of the service as `status` shows it. Raises HitlessError where AWS does not answer."""
    with connected_stage(ctx, service, environ={ATTEMPTS_VARIABLE: LOOKS, **os.environ}) as stage:
        return standing(stage.cloud, service)


def entry_or_error(ctx: Context, service: Service) -> dict[str, Any]:
    """The same, with `error` where nothing could be learnt."""
    try:
        return entry(ctx, service)
    except HitlessError as error:
        ctx.say(f"warning: {service.stage} on AWS: {error.message}; {error.hint}")
        return {**blank(service.settings), "error": error.message}


def _as_the_engine(line: Line) -> str:
    return f"{line.to_json()['at']}\t{line.text.rstrip()}"
