"""The shield of a shift: while it is up, a candidate's failed request is answered by the live version.

Up means two things for each function that moves: a variable of the API's stage tells the wrapper the literal numbers of
the live version and of the candidate, and the live version's own policy lets the function's role invoke it. Both are
there for the time of the shift alone. The variables are the memory: whoever finds them, after a machine's death, takes
down what they name; until then they mean nothing to any version but that candidate.
A shield that cannot be raised for want of a permission is said, and the release goes on without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from botocore.exceptions import ClientError

from hitless.aws.api_stages import ApiStage
from hitless.aws.codedeploy import Move
from hitless.aws.session import is_denied
from hitless.cloud.transform.model import SHIELD_PREFIX, FunctionIds

IN_HAND_S = 5.0
"""Requests that a candidate still has in hand when its weight has gone may need the live version to answer them."""


class Variables(Protocol):
    """Stage variables: aws.api_stages.ApiStages."""

    def variables(self, stage: ApiStage) -> dict[str, str]: ...
    def set(self, stage: ApiStage, variables: Mapping[str, str]) -> None: ...
    def drop(self, stage: ApiStage, names: Iterable[str]) -> None: ...


class Permissions(Protocol):
    """Who may invoke a version: aws.lambdas.Lambdas."""

    def let_invoke(self, function: str, version: str, *, role_of: str) -> None: ...
    def let_invoke_no_more(self, function: str, version: str) -> None: ...


class Shield:
    """Raised before a shift, taken down after it."""

    def __init__(
        self,
        variables: Variables,
        permissions: Permissions,
        say: Callable[[str], None],
        wait: Callable[[float], None],
    ) -> None:
        self._variables, self._permissions, self._say, self._wait = variables, permissions, say, wait

    def up(self, stage: ApiStage, moves: Mapping[FunctionIds, Move]) -> None:
        """Raise it for these moves."""
        if not moves:
            return
        versions = {ids.shield_variable: f"{move.current}:{move.target}" for ids, move in moves.items()}
        try:
            self._variables.set(stage, versions)
        except ClientError as error:
            self._without(error, "the release")
            return
        for ids, move in moves.items():
            try:
                self._permissions.let_invoke(move.function, move.current, role_of=move.target)
            except ClientError as error:
                self._without(error, move.function)
                self._variables.drop(stage, [ids.shield_variable])

    def down(self, stage: ApiStage, functions: Mapping[FunctionIds, str]) -> None:
        """Take down whatever stands, once the candidate has answered what it had in hand. `functions` are the
        service's, by Lambda's names.
        """
        found = self._variables.variables(stage)
        standing = {name: value for name, value in found.items() if name.startswith(SHIELD_PREFIX)}
        if not standing:
            return
        self._wait(IN_HAND_S)
        names = {ids.shield_variable: name for ids, name in functions.items()}
        for variable, versions in standing.items():
            if variable in names:
                self._permissions.let_invoke_no_more(names[variable], versions.partition(":")[0])
        self._variables.drop(stage, standing)

    def _without(self, error: ClientError, what: str) -> None:
        """Go on without a shield where it is denied to raise one."""
        if not is_denied(error):
            raise error
        self._say(f"{what} is not shielded: {error}")
