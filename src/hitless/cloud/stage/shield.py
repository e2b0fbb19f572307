"""The shield of a canary on AWS: the API stage's variables that make the wrapper ask the live version."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from botocore.exceptions import ClientError

from hitless.aws.api_stages import ApiStage, ApiStages
from hitless.aws.codedeploy import Move
from hitless.aws.lambdas import Lambdas
from hitless.aws.session import is_denied, is_unspread
from hitless.cloud.transform.model import (
    SHIELD_PREFIX,
    FunctionIds,
)

SPREADS_S, IN_HAND_S = 5.0, 5.0
"""A new permission takes a while (aws/serverless-application-model#838). Requests that a candidate still has when its
weight is 0 may need the live version's response.
"""


class Shield:
    """The shield of a shift: while it is up, the live version answers requests that the candidate fails.

    For each function that moves, a variable of the API's stage tells the wrapper the numbers of both versions, and the
    live version's policy lets the function's role invoke it. Both exist only during the shift. After a machine's death
    the variables tell the next command what to remove; other versions ignore them. If a permission to raise it is
    missing, the release continues without a shield and reports that.
    """

    def __init__(
        self, stages: ApiStages, lambdas: Lambdas, say: Callable[[str], None], wait: Callable[[float], None]
    ) -> None:
        self._stages, self._lambdas, self._say, self._wait = stages, lambdas, say, wait

    def up(self, stage: ApiStage, moves: Mapping[FunctionIds, Move]) -> None:
        """Raise it for these moves."""
        if not moves:
            return
        versions = {ids.shield_variable: f"{move.current}:{move.target}" for ids, move in moves.items()}
        try:
            self._stages.set(stage, versions)
        except ClientError as error:
            self._without(error, "the release")
            return
        for ids, move in moves.items():
            try:
                self._lambdas.allow_invoke(move.function, move.current, role_of=move.target)
            except ClientError as error:
                self._without(error, move.function)
                self._stages.drop(stage, [ids.shield_variable])
        self._wait(SPREADS_S)

    def down(self, stage: ApiStage, functions: Mapping[FunctionIds, str]) -> None:
        """Remove the shield once the candidate has answered its requests. `functions`: the service's Lambda names."""
        found = self._stages.variables(stage)
        standing = {name: value for name, value in found.items() if name.startswith(SHIELD_PREFIX)}
        if not standing:
            return
        self._wait(IN_HAND_S)
        names = {ids.shield_variable: name for ids, name in functions.items()}
        for variable, versions in standing.items():
            if variable in names:
                self._lambdas.revoke_invoke(names[variable], versions.partition(":")[0])
        self._stages.drop(stage, standing)

    def _without(self, error: ClientError, what: str) -> None:
        """Continue without a shield if the call was denied, or names a role that AWS does not know yet; else raise."""
        if not is_denied(error) and not is_unspread(error):
            raise error
        self._say(f"{what} is not shielded: {error}")
