"""The states of a rollout, what may follow what, and how one can end."""

from __future__ import annotations

from enum import StrEnum


class RolloutState(StrEnum):
    """Where a rollout stands."""

    PREPARING = "preparing"
    TESTING = "testing"
    SHIFTING = "shifting"
    BAKING = "baking"
    CONFIRMING = "confirming"
    DRAINING = "draining"
    WITHDRAWING = "withdrawing"
    ENDED = "ended"


class RolloutVerb(StrEnum):
    """What asked for a rollout."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    GUARD = "guard"


_S = RolloutState
TRANSITIONS: dict[RolloutState, frozenset[RolloutState]] = {
    _S.PREPARING: frozenset({_S.TESTING, _S.SHIFTING, _S.WITHDRAWING}),
    _S.TESTING: frozenset({_S.SHIFTING, _S.WITHDRAWING}),
    _S.SHIFTING: frozenset({_S.BAKING, _S.CONFIRMING, _S.SHIFTING, _S.DRAINING, _S.WITHDRAWING, _S.ENDED}),
    _S.BAKING: frozenset({_S.SHIFTING, _S.DRAINING, _S.WITHDRAWING}),
    _S.CONFIRMING: frozenset({_S.SHIFTING, _S.WITHDRAWING}),
    _S.DRAINING: frozenset({_S.ENDED}),
    _S.WITHDRAWING: frozenset({_S.ENDED}),
    _S.ENDED: frozenset(),
}
