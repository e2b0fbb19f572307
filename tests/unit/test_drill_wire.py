"""What crosses the pipe between coordinator and senders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.drill.load import payload_amends
from hitless.drill.pace import Pace, constant
from hitless.drill.wire import NOTE, RECORD, RECORDS, Flag, FrameReader, SenderPlan, WireRequest, frame

pytestmark = pytest.mark.unit


def test_a_plan_survives_the_way_to_the_sender() -> None:
    requests = (WireRequest(b"GET / HTTP/1.1\r\n", b"\x00\xff", False, True),)
    pace = Pace(constant(0.1), 3).to_json()
    plan = SenderPlan("host", (("127.0.0.1", 80), ("127.0.0.2", 80)), True, requests, (0, 0), pace, 1, 2, 20.0, 5, 10.0)
    line = plan.to_line()
    assert line.count(b"\n") == 1
    assert SenderPlan.from_line(line) == plan


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(0, 3_000), max_size=20))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(RECORDS if place % 2 else NOTE, payload) for place, payload in enumerate(payloads))
    places = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    reader = FrameReader()
    seen = [one for a, b in zip(places, places[1:], strict=False) for one in reader.feed(stream[a:b])]  # noqa: RUF007
    assert seen == [(RECORDS if place % 2 else NOTE, payload) for place, payload in enumerate(payloads)]


def test_amending_records_are_told_from_requests() -> None:
    plain = RECORD.pack(1, 2, 3, 16, 16, 200, 0, Flag.COMPLETE | Flag.NEW_CONNECTION)
    amending = RECORD.pack(1, 2, 3, 4, 5, 200, 7, Flag.COMPLETE | Flag.AMENDED)
    assert payload_amends(plain * 3) == 0
    assert payload_amends(plain + amending + plain + amending) == 2
