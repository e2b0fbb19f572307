"""What a security scanner (checkov) asks of a service's template and is not done, with the reason, on each resource.

What the service's own file sets is left for the scanner to judge: only what this layer or osls decides is answered.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.cloud.transform.model import Resource

SKIPS: Mapping[str, Mapping[str, str]] = {
    "AWS::ApiGateway::Method": {
        "CKV_AWS_59": "Who may call a route is the service's own to say, by an authorizer in serverless.yml",
    },
    "AWS::ApiGateway::Stage": {
        "CKV_AWS_120": "A cache would answer for a release that is live no more",
    },
    "AWS::ApiGateway::RestApi": {
        "CKV_AWS_237": "Never replaced: the API keeps its id, so that its URL lives as long as the stack",
    },
    "AWS::Lambda::Function": {
        "CKV_AWS_45": "HITLESS_COMMIT, a commit's 40 digits, has the form of a secret key",
        "CKV_AWS_115": "A reserved limit would throttle both versions of a shift; the account's own limit holds",
        "CKV_AWS_116": "Invoked by API Gateway and answered at once: there is nothing to put into a queue",
        "CKV_AWS_173": "Encrypted by Lambda's own key; secrets do not belong into the environment",
    },
    "AWS::Logs::LogGroup": {
        "CKV_AWS_158": "Encrypted by CloudWatch's own key; a key of its own costs, and locks out whoever loses it",
    },
    "AWS::IAM::Role": {
        "CKV_AWS_111": "Network interfaces, traces and alarms: these calls know no resource in IAM",
    },
}
"""Type → check → why it is not done."""


def answer_scanner(resources: Mapping[str, Resource]) -> None:
    """Write the reasons into the resources' metadata, where the scanner reads them."""
    for resource in resources.values():
        if skips := SKIPS.get(resource["Type"]):
            listed = [{"id": check, "comment": reason} for check, reason in skips.items()]
            resource.setdefault("Metadata", {}).setdefault("checkov", {"skip": listed})
