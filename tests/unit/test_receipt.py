"""A rollout's receipt: sums per release, the candidate's actual share, bounded readings, continuation from JSON."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from hitless.documents import decode, to_plain, to_text
from hitless.release.receipt import READINGS_KEPT, ReceiptDocument, ReceiptFacts, Side, Sums
from hitless.rollout.alarms import Reading, Verdict
from hitless.rollout.counted import Counted, PoolId, pool_counts
from hitless.rollout.receipt import POINTS_KEPT, Receipt

pytestmark = pytest.mark.unit


def counted(requests: int, failed: int = 0, *, pool: str = "r1-1", function: str = "api", restarts: int = 0) -> Counted:
    counts = {"requests": requests, "2xx": requests - failed, "5xx": failed, "restarts": restarts}
    return Counted.of({PoolId(function, pool): pool_counts(counts)})


def reading(verdict: Verdict, rate: float = 0.0) -> Reading:
    return Reading(verdict, f"{rate} %", {"error_rate_percent": rate})


def baked() -> Receipt:
    """A canary of 10 %: 100 requests at the candidate, 900 at the live release, which had 5000 before."""
    receipt = Receipt(ReceiptFacts(release=2))
    receipt.begin(counted(5000, 7))
    receipt.add_counts(counted(0, pool="r2-2"), counted(5000, 7), "00:00")
    receipt.add_weight(10, "00:00")
    receipt.add_counts(counted(100, 3, pool="r2-2"), counted(5900, 8), "00:10")
    return receipt


def shown(receipt: Receipt) -> Any:
    return to_plain(receipt.document())


def resumed(receipt: Receipt) -> Receipt:
    """The receipt as the next daemon continues it."""
    return Receipt.resumed(decode(to_text(receipt.document()), ReceiptDocument, "receipt"))


def test_the_live_releases_requests_count_from_the_rollouts_start() -> None:
    document = shown(baked())
    counts = {"requests": 100, "failed": 3, "shielded": 0, "by_class": {"2xx": 97, "5xx": 3}, "restarts": 0}
    assert document["candidate"] == {
        **counts,
        "functions": {"api": counts},
    }
    assert (document["live"]["requests"], document["live"]["failed"]) == (900, 1)
    assert document["complete"]


def test_an_interval_shows_the_requested_and_the_actual_share() -> None:
    receipt = baked()
    receipt.add_weight(100, "00:10")
    receipt.add_counts(counted(400, 3, pool="r2-2"), counted(6000, 8), "00:20")
    first, second = shown(receipt)["weights"]
    assert (first["asked_percent"], first["got_percent"], first["candidate"]["requests"]) == (10, 10, 100)
    assert (second["asked_percent"], second["got_percent"], second["live"]["requests"]) == (100, 75, 100)
    assert (first["to"], second["from"], second["to"]) == ("00:10", "00:10", "00:20")


def test_a_shielded_request_counts_for_the_candidate_even_after_its_pools_are_gone() -> None:
    receipt = baked()
    handed_over = {"handed_over_requests": 45, "handed_over_2xx": 44, "handed_over_5xx": 1}
    counts = {"requests": 200, "2xx": 150, "5xx": 50, "tried_5xx": 45, "shield_5xx": 1, **handed_over}
    candidate = Counted.of({PoolId("api", "r2-2"): pool_counts(counts)})
    receipt.add_counts(candidate, counted(6000, 9), "00:20")
    again = resumed(receipt)
    again.add_counts(Counted.of({}), counted(6010, 9), "00:21")
    assert again.counts_of(Side.CANDIDATE).sums() == Sums(200, 6, 44)
    assert again.counts_of(Side.LIVE).sums() == Sums(1010 - 45, 1, 0)


def test_requests_of_a_candidate_before_the_rollout_are_not_counted_after_json_either() -> None:
    receipt = Receipt()
    receipt.begin(counted(50, pool="r3-3"), counted(7000, 70))
    again = resumed(receipt)
    again.add_counts(counted(7010, 71), counted(90, pool="r3-3"), "00:01")
    assert again.counts_of(Side.CANDIDATE).sums() == Sums(10, 1, 0)
    assert again.counts_of(Side.LIVE).sums() == Sums(40, 0, 0)


def test_removed_pools_keep_their_last_count_and_new_pools_count_in_full() -> None:
    receipt = baked()
    receipt.add_counts(counted(100, 3, pool="r2-2"), counted(50, pool="r1-9"), "00:11")
    assert receipt.counts_of(Side.LIVE).total.requests == 950
    receipt.add_counts(Counted.of({}), Counted.of({}), "00:12")
    assert (receipt.counts_of(Side.LIVE).total.requests, receipt.counts_of(Side.CANDIDATE).total.requests) == (950, 100)


def test_a_receipt_read_from_json_continues_with_the_same_sums() -> None:
    receipt = baked()
    again = resumed(receipt)
    assert shown(again) == shown(receipt)
    for one in (receipt, again):
        one.add_counts(counted(150, 4, pool="r2-2"), counted(6300, 8), "00:20")
        one.add_weight(0, "00:20")
    assert shown(again) == shown(receipt)
    assert again.counts_of(Side.LIVE).total.requests == 1300


def test_only_a_restart_of_haproxy_during_the_rollout_makes_the_receipt_incomplete() -> None:
    receipt = Receipt()
    receipt.begin(counted(5000, restarts=2))
    receipt.add_counts(counted(10, pool="r2-2"), counted(5100, restarts=2), "00:01")
    assert shown(receipt)["complete"]
    receipt.add_counts(counted(20, pool="r2-2"), counted(5200, restarts=3), "00:02")
    document = shown(receipt)
    assert not document["complete"]
    assert "HAProxy was restarted" in document["missing"][0]


def test_decreased_counts_make_the_receipt_incomplete() -> None:
    receipt = Receipt()
    receipt.begin(counted(5000))
    receipt.add_counts(counted(0, pool="r2-2"), counted(40), "00:01")
    document = shown(receipt)
    assert document["live"]["requests"] == 0
    assert not document["complete"]
    lost = pool_counts({"requests": 3}, {"requests": 100})
    assert (lost.requests, lost.restarts) == (0, 1)


def test_a_long_rollout_keeps_a_bounded_number_of_points_over_its_whole_length() -> None:
    receipt = Receipt()
    receipt.begin(counted(0))
    for second in range(10_000):
        receipt.add_counts(counted(second, pool="r2-2"), counted(second), f"{second:05}")
    points = shown(receipt)["points"]
    assert POINTS_KEPT / 2 <= len(points) <= POINTS_KEPT
    assert points[0]["at"] == "00000"
    gaps = {int(b["at"]) - int(a["at"]) for a, b in pairwise(points)}
    assert len(gaps) == 1, f"evenly spaced, not {gaps}"
    assert int(points[-1]["at"]) >= 10_000 - max(gaps)


def test_a_receipt_keeps_the_first_last_changed_and_worst_alarm_readings() -> None:
    receipt = Receipt()
    receipt.add_reading(reading(Verdict.NOT_ENOUGH_DATA, 90), "0")
    for second in range(1, 500):
        receipt.add_reading(reading(Verdict.OK, 0.5 if second == 77 else 0.1), str(second))
    receipt.add_reading(reading(Verdict.ALARM, 3), "500")
    alarms: Any = shown(receipt)["alarms"]
    assert [r["at"] for r in alarms["readings"]] == ["0", "1", "499", "500"]
    assert alarms["verdicts"] == {"not_enough_data": 1, "ok": 499, "alarm": 1}
    assert alarms["worst"]["error_rate_percent"]["at"] == "500", "too few requests for a verdict are no worst case"


def test_a_receipt_keeps_a_bounded_number_of_readings_if_its_verdict_changes_often() -> None:
    receipt = Receipt()
    for second in range(1000):
        receipt.add_reading(reading(Verdict.OK if second % 2 else Verdict.NOT_ENOUGH_DATA), str(second))
    kept = shown(receipt)["alarms"]["readings"]
    assert len(kept) == READINGS_KEPT
    assert (kept[0]["at"], kept[-1]["at"]) == ("0", "999")
