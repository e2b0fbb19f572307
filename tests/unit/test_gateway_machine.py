"""HAProxy's version and the guardian's back-off."""

from __future__ import annotations

import re

import pytest

from hitless.errors import MachineError
from hitless.gateway.binary import require_version
from hitless.gateway.guardian import LONGEST_DELAY_S, restart_delay_s

pytestmark = pytest.mark.unit

RECENT = (
    "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\nStatus: long-term supported",
    "HAProxy version 3.0.5-8e879a5 2024/09/19 - https://haproxy.org/",
    "HAProxy version 3.4-dev1 2025/12/01",
)
OLD = {
    "HAProxy version 2.5.9-1 2023/01/01": "2.5.9",
    "HA-Proxy version 1.8.8-1ubuntu0.11 2020/06/22\nCopyright 2000-2018 Willy Tarreau": "1.8.8",
    "HA-Proxy version 2.0.33-0+deb10u2 2024/01/01 - https://haproxy.org/": "2.0.33",
}


@pytest.mark.parametrize("text", RECENT)
def test_a_recent_haproxy_is_accepted(text: str) -> None:
    require_version(text, "/x/haproxy")


@pytest.mark.parametrize("text", OLD)
def test_an_old_haproxy_is_refused_with_an_install_hint(text: str) -> None:
    message = re.escape(f"/x/haproxy is HAProxy {OLD[text]}; hitless needs 2.6 or newer")
    with pytest.raises(MachineError, match=message) as caught:
        require_version(text, "/x/haproxy")
    assert "apt install haproxy" in caught.value.hint


def test_another_program_is_not_accepted_as_haproxy() -> None:
    with pytest.raises(MachineError, match="does not look like HAProxy"):
        require_version("nginx version: nginx/1.24.0", "/usr/sbin/nginx")


def test_the_first_death_restarts_at_once_and_a_crash_loop_backs_off() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, 12)]
    assert delays[:4] == [0.0, 0.05, 0.1, 0.2]
    assert delays == sorted(delays)
    assert max(delays) == LONGEST_DELAY_S
