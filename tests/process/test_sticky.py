"""A linear rollout seen by sticky clients: each moves once, from the old release to the new one."""

from __future__ import annotations

import json
import threading
import urllib.request
from itertools import groupby

import pytest

from tests.process.conftest import Site
from tests.support import eventually

pytestmark = pytest.mark.process

USERS = 24


class Watchers:
    """Clients that ask one after the other which release they get, each time on a new connection."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(part,)) for part in range(4)]
        self.seen: dict[str, list[str]] = {f"user-{number}": [] for number in range(USERS)}

    def __enter__(self) -> Watchers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _watch(self, part: int) -> None:
        mine = list(self.seen)[part::4]
        while not self._stop.is_set():
            for user in mine:
                request = urllib.request.Request(f"{self._url}/fast", headers={"Cookie": f"theme=dark; user={user}"})
                with urllib.request.urlopen(request, timeout=15) as answer:
                    self.seen[user].append(json.load(answer)["release"])


def test_in_a_linear_rollout_no_client_moves_back(site: Site) -> None:
    site.edit(
        "smoke: [GET /fast]", "strategy: Linear25PercentEvery1Second\n        sticky: cookie:user", "serverless.yml"
    )
    site.up()
    site.touch("another release")
    with Watchers(site.url) as watchers:
        eventually(lambda: all(watchers.seen.values()), what="everybody has asked")
        assert site.hitless("deploy").document["outcome"] == "live"
        eventually(lambda: all(seen[-1] == "2" for seen in watchers.seen.values()), what="everybody has moved")
    for user, seen in watchers.seen.items():
        assert [release for release, _ in groupby(seen)] == ["1", "2"], user
    moved_after = {sum(release == "1" for release in seen) for seen in watchers.seen.values()}
    assert len(moved_after) > 3
