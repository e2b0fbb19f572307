"""The options of `hitless aws bootstrap` that say who may release, beside the verb so that it stays readable."""

from __future__ import annotations

from typing import Annotated

import typer

Boundary = Annotated[
    str | None,
    typer.Option("--boundary", help="ARN of the organisation's own permissions boundary, for every role made."),
]
Trust = Annotated[
    str | None,
    typer.Option("--trust", help="Account ids and ARNs of roles that may release, beside the pipeline."),
]
ExternalId = Annotated[
    str | None, typer.Option("--external-id", help="What they must say; with --deploy-role, what it asks for.")
]
DeployRole = Annotated[
    str | None,
    typer.Option("--deploy-role", help="ARN of another account's deploy role: only the pipeline is made here."),
]
GitHubOidc = Annotated[
    bool | None,
    typer.Option("--github-oidc/--no-github-oidc", help="Let GitHub's workflows on the stage's branch release."),
]
GitHubEnvironment = Annotated[
    str | None,
    typer.Option("--github-environment", help="GitHub's environment that may release, instead of the branch."),
]
