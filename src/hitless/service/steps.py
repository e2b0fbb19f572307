"""Which steps a stage's run takes: `steps`, and what `approval` and `rehearsal` say of two of them.

`source`, `build` and `deploy` are always taken. Without `steps` so are `test` and `verify`, and the other two where
their own keys ask for them. With it the list decides, and a key that says otherwise is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.service.model import Approval, RehearsalSettings
from hitless.service.rollouts import read_rehearsal
from hitless.service.value import Value

ORDER = ("source", "test", "build", "rehearse", "approve", "deploy", "verify")


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that may be left out."""

    test: bool
    rehearsal: RehearsalSettings | None
    approval: Approval
    verify: bool


def read_steps(stage: Value) -> Steps:
    """Of a stage's entry. ServiceFileError on an unknown step, a wrong order, and what contradicts itself."""
    at, rehearsal, approval = (stage.get(key) for key in ("steps", "rehearsal", "approval"))
    settings = read_rehearsal(rehearsal)
    asked = Approval(approval.choice(list(Approval))) if approval is not None else Approval.NONE
    if at is None:
        return Steps(True, settings, asked, True)
    named = _named(at)
    rehearsed, approved = "rehearse" in named, "approve" in named
    if rehearsal is not None and (settings is not None) != rehearsed:
        what = "asks for a rehearsal, and steps has none" if settings else "says no, and steps has rehearse"
        raise rehearsal.fault(what, "say it in one place: `rehearse` among the steps is enough")
    if approval is not None and (asked is Approval.MANUAL) != approved:
        what = "asks for a person, and steps has no approve" if not approved else "says none, and steps has approve"
        raise approval.fault(what, "say it in one place: `approve` among the steps is enough")
    return Steps(
        "test" in named,
        (settings or RehearsalSettings()) if rehearsed else None,
        Approval.MANUAL if approved else Approval.NONE,
        "verify" in named,
    )


def _named(at: Value) -> list[str]:
    named = [item.choice(ORDER) for item in at.items()]
    if named != sorted(set(named), key=ORDER.index):
        raise at.fault("names a step twice, or out of order", f"their order is always {', '.join(ORDER)}")
    return named
