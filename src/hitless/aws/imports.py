"""Resources that exist taken into a stack: CloudFormation's change sets of the type IMPORT.

Such a change set may import and nothing else: no other resource, output or tag changes in it, and each resource to
import has a DeletionPolicy (CloudFormation User Guide, "Import AWS resources into a CloudFormation stack").
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.follow import REPEAT
from hitless.aws.session import error_code
from hitless.aws.stacks import Stacks
from hitless.errors import CloudError

_NOT_IMPORTED = "is not imported by any stack"
"""What ListImports says of an export that nobody uses: it has no error code of its own."""


class Imports:
    """Imports into stacks of one account and region."""

    def __init__(self, cloudformation: Any, stacks: Stacks) -> None:
        self._cf, self._stacks = cloudformation, stacks

    def take_in(
        self, stack: str, template: Mapping[str, Any], resource: str, identifier: Mapping[str, str], *, url: str
    ) -> None:
        """Import the template's `resource`, known to its service by `identifier`. CloudError where CloudFormation
        refuses it: it is not there, another stack holds it, or something else would change. `url`: where the template
        lies in S3, for a call takes 51,200 bytes only.
        """
        made = self._cf.create_change_set(
            StackName=stack,
            ChangeSetName=f"hitless-{secrets.token_hex(6)}",
            ChangeSetType="IMPORT",
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[
                {"ParameterKey": key, "UsePreviousValue": True} for key in sorted(self._stacks.get(stack).parameters)
            ],
            ResourcesToImport=[
                {
                    "ResourceType": template["Resources"][resource]["Type"],
                    "LogicalResourceId": resource,
                    "ResourceIdentifier": dict(identifier),
                }
            ],
            TemplateURL=url,
        )["Id"]
        status, reason = self._stacks.computed(stack, made)
        if status == "FAILED":
            self._cf.delete_change_set(ChangeSetName=made, StackName=stack)
            raise CloudError(f"{stack}: CloudFormation does not import {resource}: {reason}", hint=REPEAT)
        seen = self._stacks.last_event(stack)
        self._cf.execute_change_set(ChangeSetName=made, StackName=stack)
        self._stacks.follow(stack, since=seen)

    def importers(self, export: str) -> tuple[str, ...]:
        """The stacks that use an export."""
        try:
            pages = self._cf.get_paginator("list_imports").paginate(ExportName=export)
            return tuple(str(name) for page in pages for name in page["Imports"])
        except ClientError as error:
            if error_code(error) == "ValidationError" and _NOT_IMPORTED in str(error):
                return ()
            raise
