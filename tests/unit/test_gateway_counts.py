"""Counts that continue over HAProxy's restarts."""

from __future__ import annotations

import pytest

from hitless.documents import to_text
from hitless.gateway.counts import CountSample, GatewayTally, parse_counts, question, read_tally
from hitless.rollout.counted import pool_counts

pytestmark = pytest.mark.unit

HEAD = (
    "pxname,svname,stot,econ,eresp,wretr,wredis,dresp,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,req_tot"
)
ANSWER = f"""Name: HAProxy
Pid: 41

# {HEAD},cli_abrt,srv_abrt,
stage_dev,FRONTEND,3,,,,,0,0,9,0,2,1,0,12,,,
hop_inner,FRONTEND,3,,,,,0,0,9,0,0,0,0,12,,,
hop,BACKEND,3,0,0,0,0,0,0,3,0,0,0,0,,0,0,
p00,w0.aaaa,7,0,0,0,0,0,0,7,0,0,0,0,,0,0,
p00,BACKEND,10,1,2,3,4,0,0,9,0,0,1,0,,5,6,

"""


def sample(pid: int, requests: int, failed: int = 0) -> CountSample:
    return CountSample(pid, {"p00": {"requests": requests, "2xx": requests - failed, "5xx": failed}})


def test_pools_are_counted_by_sessions_and_stages_by_requests() -> None:
    totals = GatewayTally().after(parse_counts(ANSWER)).totals()
    assert set(totals) == {"p00", "stage_dev"}
    pool = totals["p00"]
    assert (pool["requests"], pool["2xx"], pool["5xx"]) == (10, 9, 1)
    assert pool["retries"] == 3
    assert totals["stage_dev"]["requests"] == 12
    assert totals["stage_dev"]["4xx"] == 2


TABLE = """# table: stages, type: string, size:4096, used:2
0x5634d2cacfc8: key=users_prod use=0 exp=0 http_req_cnt=4 http_req_rate(1000)=1 gpc0=0 gpc1=2 gpc2=0 gpc3=1 gpc4=1 gpc5=0
0x5634d2c72208: key=shop-x_prod use=1 exp=0 http_req_cnt=7 http_req_rate(1000)=0 gpc0=0 gpc1=7 gpc2=0 gpc3=0 gpc4=0 gpc5=0

"""  # noqa: E501
"""As HAProxy 2.6.12 shows it."""


def test_stages_at_a_shared_listener_are_counted_in_a_table() -> None:
    totals = GatewayTally().after(parse_counts(ANSWER.replace("# pxname", f"{TABLE}# pxname"))).totals()
    assert set(totals) == {"p00", "stage_dev", "stage_users_prod", "stage_shop-x_prod"}
    assert totals["stage_users_prod"] == {
        "requests": 4, "1xx": 0, "2xx": 2, "3xx": 0, "4xx": 1, "5xx": 1, "other": 0, "restarts": 0,
    }  # fmt: skip


SHIELDED = f"""Name: HAProxy
Pid: 41

# {HEAD},cli_abrt,srv_abrt,
p00,BACKEND,100,0,0,0,0,0,0,60,0,5,35,0,,0,0,
shield_p00,candidate,90,0,0,33,33,0,0,55,0,5,0,0,,0,0,
shield_p00,live,33,0,0,0,0,0,0,28,0,2,3,0,,0,0,
shield_p00,alone,2,0,0,0,0,0,0,0,0,0,2,0,,0,0,
shield_p00,BACKEND,92,0,0,33,33,0,0,83,0,7,5,0,,0,0,
try_p00,FRONTEND,1,,,,,0,0,55,0,5,31,0,91,,,

"""


def test_failed_and_shielded_requests_are_counted_separately() -> None:
    """Of 100 requests, 33 went to the live release, which failed 3. Of 31 that the shield answered with 5xx, two had no
    other release; 4 did not go through the shield. Four of the 33 had got no response at all.
    """
    tally = GatewayTally().after(parse_counts(SHIELDED))
    counts = read_tally(to_text(tally)).totals()["p00"]
    seen = pool_counts(counts)
    assert (seen.requests, seen.shielded, seen.failed) == (100, 30, 4 + 3 + 2)
    assert counts["handed_over_4xx"] == 2
    assert pool_counts(counts, counts).failed == pool_counts(counts, counts).shielded == 0


def test_readings_of_one_process_replace_each_other() -> None:
    tally = GatewayTally().after(sample(1, 10)).after(sample(1, 25))
    assert tally.totals()["p00"]["requests"] == 25


def test_a_restart_keeps_the_counts_of_the_earlier_process() -> None:
    tally = (
        GatewayTally()
        .after(sample(1, 10, failed=1))
        .after(sample(2, 3))
        .after(sample(2, 5, failed=2))
        .after(sample(3, 1))
    )
    counts = tally.totals()["p00"]
    assert counts["requests"] == 16
    assert counts["5xx"] == 3


def test_decreased_counters_mean_a_restart_even_under_the_same_pid() -> None:
    assert GatewayTally().after(sample(1, 10)).after(sample(1, 4)).totals()["p00"]["requests"] == 14


def test_a_tally_continues_after_a_round_trip_through_json() -> None:
    tally = GatewayTally().after(sample(1, 10)).after(sample(2, 5))
    again = read_tally(to_text(tally))
    assert again == tally
    assert again.after(sample(2, 6)).totals()["p00"]["requests"] == 16
    assert again.after(sample(3, 6)).totals()["p00"]["requests"] == 21


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"gone": 1}'])
def test_an_unreadable_tally_starts_from_zero(text: str) -> None:
    assert read_tally(text).totals() == {}


def test_the_difference_of_two_readings_is_the_traffic_between_them() -> None:
    first = GatewayTally().after(sample(1, 10, failed=1))
    second = first.after(sample(1, 30, failed=4))
    between = pool_counts(second.totals()["p00"], first.totals()["p00"])
    assert (between.requests, between.by_class["5xx"], between.by_class["2xx"]) == (20, 3, 17)


def test_restarts_are_counted_and_the_first_reading_is_not_a_restart() -> None:
    tally = GatewayTally().after(sample(7, 10)).after(sample(7, 20))
    assert tally.totals()["p00"]["restarts"] == 0
    again = read_tally(to_text(tally.after(sample(8, 1)))).after(sample(8, 2))
    assert again.totals()["p00"]["restarts"] == 1
    assert pool_counts(again.totals()["p00"], tally.totals()["p00"]).restarts == 1


def test_a_reading_of_some_pools_keeps_the_last_counts_of_the_others() -> None:
    both = CountSample(1, {"p00": {"requests": 10}, "p01": {"requests": 5}})
    tally = GatewayTally().after(both).after(CountSample(1, {"p01": {"requests": 7}}))
    assert {name: each["requests"] for name, each in tally.totals().items()} == {"p00": 10, "p01": 7}
    restarted = tally.after(CountSample(2, {"p01": {"requests": 1}})).totals()
    assert {name: each["requests"] for name, each in restarted.items()} == {"p00": 10, "p01": 8}


def test_only_the_wanted_pools_are_asked_for_unless_they_are_many() -> None:
    assert question({"p01"}) == "show info;show stat p01 2 -1;show stat shield_p01 6 -1;show stat try_p01 1 -1"
    assert question(None) == question([f"p{number}" for number in range(100)])
    apart = SHIELDED.replace("shield_p00,candidate", f"# {HEAD},cli_abrt,srv_abrt,\nshield_p00,candidate")
    assert parse_counts(apart.replace("try_p00", f"# {HEAD},cli_abrt,srv_abrt,\ntry_p00")) == parse_counts(SHIELDED)
