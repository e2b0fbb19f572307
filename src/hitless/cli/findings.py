"""The results of checks, as `hitless doctor`, `hitless aws doctor` and `hitless up` show them."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import msgspec

from hitless.cli.common import Context, UnsuccessfulResult
from hitless.documents import to_plain

ENOUGH_DESCRIPTORS = 4096
_MARKS = {True: "ok  ", False: "FAIL", None: "?   "}


class Finding(msgspec.Struct, frozen=True, rename={"fix": "mend"}):
    """The result of a check, and the command that fixes the problem. `well` is None if the check could not be made."""

    check: str
    well: bool | None
    found: str
    fix: str = ""


def show_findings(ctx: Context, findings: Sequence[Finding]) -> None:
    """Show the checks; UnsuccessfulResult with 1 if one found a problem. A check that was not made is no problem."""
    bad = [finding for finding in findings if finding.well is False]
    document = {"well": not bad and (all(finding.well for finding in findings) or None), "checks": to_plain(findings)}
    ctx.show(document, lambda: in_words(findings))
    if bad:
        raise UnsuccessfulResult(1, f"{len(bad)} of {len(findings)} checks found a problem", bad[0].fix)


def in_words(findings: Sequence[Finding]) -> str:
    """One line a check, and the fix below it if there is a problem or no result."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.well]}  {finding.check:<18} {finding.found}")
        if not finding.well and finding.fix:
            lines.append(f"      fix: {finding.fix}")
    return "\n".join(lines)


def descriptors() -> Finding:
    """Whether the limit is enough for a busy engine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    well = hard == resource.RLIM_INFINITY or hard >= ENOUGH_DESCRIPTORS
    fix = f"raise the hard limit to {ENOUGH_DESCRIPTORS}: `ulimit -n` as root, LimitNOFILE= in a systemd unit"
    return Finding("descriptor limit", well, f"{soft}, may be raised to {hard}", fix)
