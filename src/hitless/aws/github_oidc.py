"""The account's OpenID Connect provider for the tokens of GitHub Actions. An account has one for all its services.

It belongs to no stage's stack: the last stage to go would take it from everybody's. What it may be used for is said by
the trust of each role alone.
"""

from __future__ import annotations

from typing import Any

from hitless.aws.session import Identity
from hitless.errors import ConflictError

HOST = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"


def provider_arn(partition: str, account: str) -> str:
    """An account's provider for GitHub: its ARN is made of the URL."""
    return f"arn:{partition}:iam::{account}:oidc-provider/{HOST}"


def ensure_provider(iam: Any, identity: Identity) -> tuple[str, bool]:
    """The provider's ARN, and whether it was made now.

    One that stands is used as it is. ConflictError where it does not take tokens for AWS: to widen it would widen what
    other roles trust.
    """
    arn = provider_arn(identity.partition, identity.account)
    try:
        found = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    except iam.exceptions.NoSuchEntityException:
        try:
            iam.create_open_id_connect_provider(Url=f"https://{HOST}", ClientIDList=[AUDIENCE])
        except iam.exceptions.EntityAlreadyExistsException:  # another stage's bootstrap, a moment ago
            return arn, False
        return arn, True
    if AUDIENCE not in found.get("ClientIDList", []):
        raise ConflictError(
            f"the account's provider for GitHub does not take tokens for {AUDIENCE}",
            hint=f"`aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn {arn} "
            f"--client-id {AUDIENCE}`, once the roles that trust it all ask for their audience",
            details={"provider": arn},
        )
    return arn, False
