"""Parsing HAProxy's output, from recorded samples (2.6.12)."""

from __future__ import annotations

import pytest

from hitless.gateway.observe import (
    by_key,
    by_release,
    parse_info,
    parse_map,
    parse_servers,
)
from hitless.gateway.state import ServerMode
from hitless.gateway.view import ServerView

pytestmark = pytest.mark.unit

MAP = """0x555abfb42c10 dev.1|GET|/x p00
0x555abfb42c11 dev.1|GET|/y p00

"""

SERVERS_STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change
3 p00 1 w0.aaaa - 2 0 1 1 0 5 2 0 6 0 0 0 - 0 - 0 0 - - 0
3 p00 2 w1.bbbb - 0 1 1 1 0 5 2 0 6 0 0 0 - 0 - 0 0 - - 0
3 p00 3 w2.cccc - 2 8 1 1 0 5 2 0 6 0 0 0 - 0 - 0 0 - - 0
3 p00 4 w3.dddd - 0 5 1 1 0 5 2 0 6 0 0 0 - 0 - 0 0 - - 0
9 hop 1 hop - 2 0 1 1 0 1 0 0 0 0 0 0 - 0 - 0 0 - - 0

"""

STAT = """# pxname,svname,qcur,qmax,scur,smax,slim,stot,status,
p00,w0.aaaa,0,0,1,2,8,10,UP,
p00,w1.bbbb,0,0,0,2,1,10,MAINT,
p00,w2.cccc,0,0,0,2,8,10,DRAIN,
p00,w3.dddd,0,0,0,2,8,10,MAINT,
p00,BACKEND,3,4,1,2,1,30,UP,

"""


def test_entries_of_a_map_keep_their_order() -> None:
    assert parse_map(MAP) == [("dev.1|GET|/x", "p00"), ("dev.1|GET|/y", "p00")]
    assert parse_map("\n") == []


def test_a_duplicate_key_in_a_map_never_equals_a_wanted_value() -> None:
    assert by_key([("a", "p00"), ("a", "p00"), ("b", "p01")]) == {"a": "p00 p00", "b": "p01"}


def test_patterns_are_grouped_by_release_and_unknown_patterns_are_listed_separately() -> None:
    entries = [("^dev[.]1[|]x$", "p00"), ("^other", "p09"), ("^dev[.]1[|]y$", "p01")]
    assert by_release(entries) == {
        "dev.1": (("^dev[.]1[|]x$", "p00"), ("^dev[.]1[|]y$", "p01")),
        "": (("^other", "p09"),),
    }


def test_observed_servers_have_their_mode_and_limit_and_leave_out_the_inner_hop() -> None:
    assert parse_servers(SERVERS_STATE, STAT) == {
        ("p00", "w0.aaaa"): ServerView(8, ServerMode.READY),
        ("p00", "w1.bbbb"): ServerView(1, ServerMode.MAINT),
        ("p00", "w2.cccc"): ServerView(8, ServerMode.DRAIN),
        ("p00", "w3.dddd"): ServerView(8, ServerMode.MAINT),
    }


def test_show_info_is_parsed_into_names_and_values() -> None:
    assert parse_info("Name: HAProxy\nPid: 10275\nUptime: 0d 0h00m01s\n\n")["Pid"] == "10275"
