"""The number of responses that clients are still reading, from HAProxy's and the worker's counts."""

from __future__ import annotations

import pytest

from hitless.engine.readers import SlowReaders
from hitless.gateway.observe import ServerLoad

pytestmark = pytest.mark.unit

KEY = ("p00", "w0.1")


def after(*looks: tuple[int, int, int | None]) -> int:
    """The number after samples of (HAProxy's requests, maxconn, requests that the worker ended or None: busy)."""
    readers = SlowReaders()
    for scur, maxconn, ended in looks:
        readers.observe(KEY, ServerLoad(scur, maxconn), ended)
    return readers.reading[KEY]


def test_requests_at_an_idle_worker_count_as_responses_being_read() -> None:
    assert after((3, 16, 10), (3, 16, 12)) == 3


def test_one_sample_does_not_count_a_reader_because_a_request_may_be_on_its_way() -> None:
    assert after((1, 16, 10)) == 0
    assert after((0, 16, 10), (1, 16, 10)) == 0
    assert after((2, 16, 10), (1, 16, 11)) == 1


def test_a_busy_workers_count_of_readers_is_kept_up_to_its_requests() -> None:
    assert after((3, 16, 10), (3, 16, 11), (5, 19, None)) == 3
    assert after((3, 16, 10), (3, 16, 11), (2, 19, None)) == 2
    assert after((3, 16, 10), (3, 16, 11), (5, 19, None), (5, 19, 12)) == 3, "one measure after it was busy is none"


def test_a_worker_whose_places_are_all_taken_by_readers_gets_twice_as_many() -> None:
    assert after((1, 1, 10), (1, 1, 10)) == 2
    assert after((1, 1, 10), (1, 1, 10), (3, 3, 12), (3, 3, 12)) == 6
    assert after((1, 1, 10), (1, 1, 11)) == 1, "it served somebody in between: it is not starved"


def test_a_worker_that_hangs_while_idle_gets_no_more_places() -> None:
    assert after((0, 1, 10), (0, 1, 10), (1, 1, 10), (1, 1, 10)) == 0
    hangs = [(0, 1, 10), (0, 1, 10), (1, 1, 10), (1, 1, 12), (1, 1, 12), *[(3, 3, 12), (6, 6, 12), (12, 12, 12)] * 2]
    assert after(*hangs) <= 2, "what it has ended bounds the responses that anybody reads"


def test_readers_that_left_are_no_longer_counted() -> None:
    assert after((3, 16, 10), (3, 16, 11), (0, 19, 12), (0, 19, 12)) == 0
