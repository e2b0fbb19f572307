"""The sentences of a receipt, made from the documents of `hitless releases`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Document = Mapping[str, Any]

FIGURES = {"error_rate_percent": ("error rate", "%"), "p99_ms": ("p99", "ms")}
VERBS = {"rollback": "the rollback to ", "guard": "the guard's return to "}
VERDICTS = {"ok": "ok", "alarm": "alarm", "not_enough_data": "not enough data"}


def headline(release: int, rollout: Document) -> str:
    """The cost in one line: `release 12: 0 of 8,000 requests failed`."""
    receipt, what = rollout["receipt"], VERBS.get(rollout["verb"], "") + f"release {release}"
    if receipt is None:
        return f"{what} has no receipt: an earlier version of hitless shipped it"
    cost, under_way = total(rollout), rollout["outcome"] is None
    so_far = " so far" if under_way else "" if cost["complete"] else ", as far as known"
    if not rollout["steps"] and not under_way:
        return f"{what} was {outcome(rollout)} before its first step"
    if not cost["requests"]:
        return f"{what}: no requests during the rollout{so_far}"
    requests = "request" if cost["requests"] == 1 else "requests"
    return f"{what}: {cost['failed']:,} of {cost['requests']:,} {requests} failed{so_far}"


def total(rollout: Document) -> Document:
    """The cost of the rollout, and of the return to the previous release if a guard rolled it back."""
    own: Document = rollout["receipt"]["cost"]
    after = (rollout.get("taken_back") or {}).get("cost")
    if not after:
        return own
    sums = {name: own[name] + after[name] for name in ("requests", "failed", "shielded")}
    return {**sums, "complete": own["complete"] and after["complete"]}


def sides(release: int, rollout: Document) -> list[dict[str, Any]]:
    """The counts of the candidate and of the live release: `name`, `counted`. The rollout must have a receipt."""
    receipt = rollout["receipt"]
    found = [{"name": f"candidate {release}", "counted": receipt["candidate"]}]
    if receipt["live"]:
        found.append({"name": f"live {rollout['previous_release']}", "counted": receipt["live"]})
    return found


def taken_back(rollout: Document) -> str | None:
    """The part of the cost after the alarm, if a guard rolled the release back."""
    back = rollout.get("taken_back")
    if not back or not back["cost"]:
        return None
    return (
        f"{back['cost']['failed']:,} of {back['cost']['requests']:,} of these after the alarm, until release"
        f" {back['release']} served alone; the figures below end with the alarm"
    )


def outcome(rollout: Document) -> str:
    return str(rollout["outcome"] or rollout["state"]).replace("_", " ")


def how(rollout: Document) -> str:
    """`live: deploy by Canary10Percent30Seconds in 31.2 s, after release 11`."""
    after = f", after release {rollout['previous_release']}" if rollout["previous_release"] is not None else ""
    took = f" in {duration(rollout['duration_s'])}" if rollout.get("duration_s") is not None else ""
    return f"{outcome(rollout)}: {rollout['verb']} by {rollout['strategy']}{took}{after}"


def shielded(rollout: Document) -> str | None:
    """How many requests were shielded, if any."""
    cost = rollout["receipt"]["cost"] if rollout["receipt"] else None
    if not cost or not cost["shielded"]:
        return None
    by = f"release {rollout['previous_release']}" if rollout["previous_release"] is not None else "the live release"
    return f"{cost['shielded']:,} requests that it failed were answered by {by}; no client saw an error"


def who(receipt: Document) -> str:
    """Who asked, as far as known."""
    said: Document = receipt.get("who") or {}
    parts = [said["user"]] if said.get("user") else []
    if said.get("sudo_user"):
        parts.append(f"by sudo from {said['sudo_user']}")
    if said.get("ci"):
        run = f" run {said['run']}" if said.get("run") else ""
        actor = f", started by {said['actor']}" if said.get("actor") else ""
        parts.append(f"in {said['ci']}{run}{actor}")
    return " ".join(parts) or "the engine itself, or an unknown caller"


def origin(receipt: Document) -> str | None:
    """The release that was promoted, if one was."""
    given = receipt.get("promoted_from")
    if not given:
        return None
    return f"release {given['release']} of {given['stage']}" + (" on AWS" if given["home"] == "aws" else "")


def alarms(receipt: Document) -> str:
    """How often the alarms were read, and with which verdicts."""
    verdicts = receipt["alarms"]["verdicts"]
    if not verdicts:
        return "not read: there was no bake and no guard"
    counted = ", ".join(f"{VERDICTS.get(name, name)} {number:,}" for name, number in verdicts.items())
    times = sum(verdicts.values())
    return f"read {'once' if times == 1 else f'{times:,} times'}: {counted}"


def worst(rollout: Document) -> str | None:
    """The highest figures that the alarms read, and when."""
    said = []
    for name, reading in rollout["receipt"]["alarms"]["worst"].items():
        what, unit = FIGURES.get(name, (name, ""))
        if value := reading["figures"][name]:
            after_s = seconds_between(rollout["started_at"], reading["at"])
            said.append(f"{what} {value:.3g} {unit} at {duration(after_s)}")
    return f"highest {', '.join(said)}" if said else None


def interval(each: Document) -> str:
    """The share that was asked for between two weights, and the share that the candidate got."""
    mine = each["candidate"].get("requests", 0)
    everyone = mine + each["live"].get("requests", 0)
    got = "no request" if each["got_percent"] is None else f"got {each['got_percent']:.3g} %"
    return f"asked {each['asked_percent']:g} %, {got} ({mine:,} of {everyone:,} in {duration(lasted_s(each))})"


def lasted_s(each: Document) -> float:
    return seconds_between(each["from"], each["to"])


def seconds_between(start: str, end: str) -> float:
    """Seconds between two timestamps of the documents; never below 0, even if the wall clock was set back."""
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def duration(seconds: float) -> str:
    """`0.41 s`, `31.2 s`, `12 min 5 s`, `2 h 3 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def short_digest(digest: str) -> str:
    """The first 12 digits of a digest."""
    kind, colon, value = digest.partition(":")
    return f"{kind}{colon}{value[:12]}"
