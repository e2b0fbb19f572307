"""The schedule: pure arithmetic."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.drill.load import senders_for
from hitless.drill.pace import BLOCK, Pace, Piece, Pieces, constant, interleave, opens_connection, share_of, total

pytestmark = pytest.mark.unit
S = 1_000_000_000


@pytest.mark.parametrize(
    ("rate_per_s", "n", "due_ns"),
    [
        (1, 0, 0),
        (1, 3, 3 * S),
        (2_000, 1, 500_000),
        (2_000, 120_000, 60 * S),
        (3, 1, 333_333_333),
        (3, 3, S),
        (0.1, 1, 10 * S),
        (100_000, 8_640_000_000, 86_400 * S),
        (7, 7 * 86_400, 86_400 * S),
    ],
)
def test_a_request_is_due_at_its_number_divided_by_the_rate(rate_per_s: float, n: int, due_ns: int) -> None:
    assert Pace(constant(rate_per_s)).due_ns(n) == due_ns


@pytest.mark.parametrize(
    ("rate_per_s", "duration_s", "requests"),
    [(2_000, 60, 120_000), (1_500, 60, 90_000), (0.1, 10, 1), (0.1, 5, 1), (2.5, 3, 7), (3, 1.1, 3), (1_000, 0.3, 300)],
)
def test_the_number_of_requests_is_the_rate_times_the_duration(
    rate_per_s: float, duration_s: float, requests: int
) -> None:
    assert total(constant(rate_per_s), duration_s) == requests


@given(st.sampled_from([0.1, 1, 3, 7.5, 999, 2_000, 100_000]), st.integers(0, 10_000_000))
def test_the_number_of_due_requests_agrees_with_their_due_times(rate_per_s: float, n: int) -> None:
    pace = Pace(constant(rate_per_s))
    due = pace.due_ns(n)
    assert pace.count(due + 1) >= n + 1 or pace.due_ns(n + 1) == due
    assert pace.count(due) <= n + 1
    assert pace.due_ns(max(0, pace.count(due) - 1)) <= due


STEP = (Piece(0, 50, 50), Piece(10, 3_000, 3_000))
RAMP = (Piece(0, 50, 3_000, 20),)


@pytest.mark.parametrize(
    ("pieces", "n", "due_ns"),
    [
        (STEP, 0, 0),
        (STEP, 499, 9_980_000_000),
        (STEP, 500, 10 * S),
        (STEP, 503, 10 * S + 1_000_000),
        (STEP, 500 + 3_000 * 20, 30 * S),
        (RAMP, 30_500, 20 * S),
        (RAMP, 33_500, 21 * S),
        ((Piece(0, 10, 10), Piece(10, 10, 20, 10), Piece(30, 10, 10)), 100 + 150 + 200 + 10, 31 * S),
        ((Piece(0, 20, 10, 10),), 150, 10 * S),
    ],
)
def test_with_a_changing_rate_a_request_is_due_when_the_sum_reaches_its_number(
    pieces: Pieces, n: int, due_ns: int
) -> None:
    assert Pace(pieces).due_ns(n) == pytest.approx(due_ns, abs=100)


@pytest.mark.parametrize(("pieces", "requests"), [(STEP, 60_500), (RAMP, 45_500)])
def test_the_number_of_requests_is_the_sum_of_the_rate(pieces: Pieces, requests: int) -> None:
    assert total(pieces, 30 if pieces is STEP else 25) == requests


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("pieces", [STEP, RAMP, constant(700)], ids=["step", "ramp", "constant"])
def test_due_times_never_decrease_and_agree_with_the_number_of_requests(pieces: Pieces, seed: int | None) -> None:
    pace = Pace(pieces, seed)
    dues = [pace.due_ns(n) for n in range(20_000)]
    assert dues == sorted(dues)
    for n in (1, 499, 500, 501, 1_023, 1_024, 5_000, 19_999):
        assert abs(pace.count(dues[n]) - n) <= 1


def test_poisson_arrivals_vary_as_expected_and_are_the_same_in_every_process() -> None:
    pace = Pace(constant(1_000), 42)
    dues = [pace.due_ns(n) for n in range(50 * BLOCK)]
    gaps = [after - before for before, after in pairwise(dues)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1_000_000, rel=0.01)
    assert deviation == pytest.approx(mean, rel=0.03), "the gaps of a Poisson process deviate by their own mean"
    other = Pace(pace.pieces, pace.seed)
    assert [other.due_ns(n) for n in range(3, 9_999, 7)] == dues[3:9_999:7]
    assert Pace(constant(1_000), 43).due_ns(100) != dues[100]


@given(st.integers(1, 9), st.integers(0, 1_000))
def test_the_senders_shares_add_up_to_all_requests(senders: int, end: int) -> None:
    shares = [share_of(first, senders, end) for first in range(senders)]
    assert sum(shares) == end
    assert shares == [len(range(first, end, senders)) for first in range(senders)]


@pytest.mark.parametrize("percent", [0, 1, 20, 50, 99.5, 100])
def test_every_part_of_the_schedule_has_its_share_of_new_connections(percent: float) -> None:
    for start in (0, 12_345, 10**9):
        opened = sum(opens_connection(n, percent) for n in range(start, start + 10_000))
        assert opened == pytest.approx(100 * percent, abs=3)


def test_new_connections_are_independent_of_the_order_of_the_requests() -> None:
    for period in (2, 5, 10):
        by_place = [sum(opens_connection(n, 20) for n in range(place, 10_000, period)) for place in range(period)]
        assert max(by_place) < 1.05 * min(by_place)


@pytest.mark.parametrize(
    ("weights", "order"),
    [([1], (0,)), ([1, 1, 1], (0, 1, 2)), ([2, 1], (0, 1, 0)), ([1, 3], (1, 0, 1, 1)), ([4, 2], (0, 1, 0, 0, 1, 0))],
)
def test_requests_are_interleaved_evenly_by_weight(weights: list[int], order: tuple[int, ...]) -> None:
    assert interleave(weights) == order


@pytest.mark.parametrize(("rate", "cpus", "senders"), [(1, 2, 1), (4_000, 2, 1), (4_001, 2, 2), (100_000, 2, 4)])
def test_the_number_of_senders_follows_the_rate_up_to_two_per_processor(rate: int, cpus: int, senders: int) -> None:
    assert senders_for(rate, cpus) == senders
    assert senders_for(rate, cpus, http2=True) >= senders
