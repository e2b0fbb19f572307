"""Application Auto Scaling of a version's provisioned concurrency: between two numbers, by how much of it is used.

It belongs to one version (`function:NAME:VERSION`), and goes with it: two versions are scaled each for itself.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from hitless.aws.session import Ignoring, is_denied
from hitless.errors import CloudError

POLICY = "hitless"
_WHAT = {"ServiceNamespace": "lambda", "ScalableDimension": "lambda:function:ProvisionedConcurrency"}


class Autoscaling:
    """Versions of one account and region. botocore's errors leave as they are but for a denied call."""

    def __init__(self, client: Any) -> None:
        self._scaling = client

    def scale(self, function: str, version: str, *, least: int, most: int, target_percent: int) -> None:
        """Have it scaled so, from now on; a version below `least` is raised to it. CloudError where that is denied."""
        what = {**_WHAT, "ResourceId": f"function:{function}:{version}"}
        try:
            self._scaling.register_scalable_target(**what, MinCapacity=least, MaxCapacity=most)
            self._scaling.put_scaling_policy(
                **what,
                PolicyName=POLICY,
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={
                    "TargetValue": target_percent / 100,
                    "PredefinedMetricSpecification": {
                        "PredefinedMetricType": "LambdaProvisionedConcurrencyUtilization"
                    },
                },
            )
        except ClientError as error:
            if not is_denied(error):
                raise
            raise CloudError(
                f"{function}: its provisioned concurrency may not be scaled: {error}",
                hint="bring core up to date by `hitless aws bootstrap`, or take custom.hitless.provisioned out",
            ) from error

    def scale_no_more(self, function: str, version: str) -> None:
        """Leave its number as it is; nothing where it is not scaled. Its policies and their alarms go with it."""
        with Ignoring("ObjectNotFoundException"):
            self._scaling.deregister_scalable_target(**_WHAT, ResourceId=f"function:{function}:{version}")

    def scaled(self, prefix: str) -> list[tuple[str, str]]:
        """(function, version) of all that are scaled whose function's name begins so."""
        pages = self._scaling.get_paginator("describe_scalable_targets").paginate(**_WHAT)
        ids = [str(one["ResourceId"]).split(":") for page in pages for one in page["ScalableTargets"]]
        return [(one[1], one[2]) for one in ids if one[1].startswith(prefix)]
