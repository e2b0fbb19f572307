"""The protocol between coordinator and senders."""

from __future__ import annotations

import pytest

from hitless.documents import decode, to_text
from hitless.drill.pace import constant
from hitless.drill.wire import RECORD, Flag, SenderPlan, WireRequest, amendments

pytestmark = pytest.mark.unit


def test_a_plan_is_equal_after_encoding_and_decoding() -> None:
    requests = (WireRequest(b"GET / HTTP/1.1\r\n", b"\x00\xff", False, True),)
    plan = SenderPlan(
        host="host",
        addresses=(("127.0.0.1", 80), ("127.0.0.2", 80)),
        tls=True,
        requests=requests,
        order=(0, 0),
        pieces=constant(0.1),
        seed=3,
        first=1,
        senders=2,
    )
    line = to_text(plan)
    assert "\n" not in line
    assert decode(line, SenderPlan, "plan") == plan
    assert plan.share(1).connections == 25


def test_records_that_correct_an_earlier_one_are_counted() -> None:
    plain = RECORD.pack(1, 2, 3, 4, 16, 16, 200, 0, Flag.COMPLETE | Flag.NEW_CONNECTION)
    amending = RECORD.pack(1, 2, 3, 4, 5, 6, 200, 7, Flag.COMPLETE | Flag.AMENDED)
    assert amendments(plain * 3) == 0
    assert amendments(plain + amending + plain + amending) == 2
