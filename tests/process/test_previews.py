"""Previews of branches, with real git, a real engine, real HAProxy, and killed processes."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.conftest import Site, kill
from tests.process.pipeline_support import LoadOnAll, Team, states
from tests.support import eventually, free_port, gone

pytestmark = pytest.mark.process


class Previewed(Team):
    """A team whose service has previews."""

    port: int = 0

    def begin(self) -> None:
        self.port = free_port()
        file = self.site.folder / "serverless.yml"
        head, rest = file.read_text().split("    stages:", 1)
        previews = f"    previews: {{listen: '127.0.0.1:{self.port}', max: 2}}\n"
        file.write_text(f"{head}{previews}    stages:{rest}")
        super().begin()

    def ask(self, host: str, path: str = "/release") -> tuple[int, Any]:
        """Send one request to a host below the previews' domain."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"host": f"{host}.preview.localhost:{self.port}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def release(self, host: str) -> int:
        """The release that responds there."""
        status, document = self.ask(host)
        assert status == 200, document
        return int(document["release"])

    def previews(self) -> dict[str, Any]:
        """The previews by branch, as in `status`."""
        return {one["preview"]["branch"]: one for one in self.site.status()["previews"]}

    def pids(self, branch: str) -> set[int]:
        """The processes of the preview alone."""
        functions = self.previews()[branch]["functions"]
        workers = {worker["pid"] for function in functions for worker in function["workers"]}
        return workers | {function["zygote_pid"] for function in functions}

    def show(self, branch: str, marker: str) -> str:
        """Push the branch with one more commit, from dev if it is new; returns what the pusher saw."""
        known = self.git("branch", "--list", branch).strip()
        self.git("switch", "--quiet", *([branch] if known else ["--create", branch, "dev"]))
        self.site.touch(marker)
        self.commit(marker)
        return self.push(branch)

    def delete(self, branch: str) -> None:
        """Delete the branch and wait until every process of its preview has ended."""
        pids = self.pids(branch)
        assert f"the branch {branch} was deleted, and its preview is removed" in self.push(f":{branch}")
        self.git("switch", "--quiet", "dev")
        self.git("branch", "--quiet", "-D", branch)
        eventually(lambda: branch not in self.previews(), what="the preview is gone")
        eventually(lambda: all(map(gone, pids)), what="its processes have ended")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    """One engine and one repository for all of this module."""
    with Previewed(Site.plain(tmp_path_factory.mktemp("team"))).at_work() as one:
        yield one


def test_a_preview_serves_under_its_host_until_its_branch_is_deleted(place: Previewed) -> None:
    said = place.show("feature/Login", "one")
    url = f"http://feature-login.preview.localhost:{place.port}"
    assert f"preview at {url}/" in said
    assert states(place.runs()[0]) == {"source": "succeeded", "test": "succeeded", "preview": "succeeded"}
    assert place.release("feature-login") == 1
    assert place.ask("FEATURE-login")[0] == 200
    status, document = place.ask("feature")
    assert (status, document) == (404, {"message": "Not Found"})
    shown = place.previews()["feature/Login"]
    assert (shown["stage"], shown["url"], shown["preview"]["from_stage"]) == ("preview_feature-login", url, "dev")
    assert all(len(function["workers"]) == 1 for function in shown["functions"])
    assert [stage["stage"] for stage in place.site.status()["stages"]] == ["dev", "staging", "prod"]
    assert f"preview of feature/Login until {shown['preview']['expires_at']}" in human_status(place)

    assert f"preview at {url}/" in place.show("feature/Login", "two")
    assert place.release("feature-login") == 2
    assert place.site.hitless("releases", "--stage", "preview_feature-login").document[0]["live"]

    place.delete("feature/Login")
    assert place.ask("feature-login")[0] == 404
    assert not (place.site.folders.logs / "preview_feature-login").exists()


def human_status(place: Previewed) -> str:
    """The status as people see it."""
    words = [sys.executable, "-m", "hitless", "status", "--service-dir", str(place.site.folder)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_previews_and_releases_of_a_stage_fail_no_request(place: Previewed) -> None:
    """Neither on the stage nor on a preview that ships again meanwhile."""
    place.show("stays", "one")
    urls = {"dev": place.site.stage()["url"], "stays": f"http://127.0.0.1:{place.port}"}
    with LoadOnAll(urls, 100, hosts={"stays": f"stays.preview.localhost:{place.port}"}) as load:
        for index in range(2):
            place.show("stays", f"stays {index}")
            place.show("comes-and-goes", f"one {index}")
            place.git("switch", "--quiet", "dev")
            place.site.touch(f"dev {index}")
            place.commit(f"dev {index}")
            assert "is live in dev" in place.push("dev")
            place.delete("comes-and-goes")
    for name, driven in load.driven.items():
        assert +driven.failed == {}, name
        assert driven.requests > 200
    assert place.release("stays") == 3
    place.delete("stays")


def test_previews_survive_haproxy_and_the_daemon(place: Previewed) -> None:
    place.show("stays", "one")
    status = place.site.status()
    kill(status["engine"]["gateway_pid"])
    eventually(lambda: place.ask("stays")[0] == 200, what="the preview answers again")
    kill(status["engine"]["pid"])
    assert place.ask("stays")[0] == 200, "without a daemon"
    place.site.up()
    assert place.ask("stays")[0] == 200
    assert "preview at" in place.show("stays", "two")
    assert place.release("stays") == 2
    kill(place.site.status()["engine"]["gateway_pid"])
    eventually(lambda: place.release("stays") == 2, what="the newest release answers again")
    place.delete("stays")


@pytest.mark.long
def test_a_preview_is_served_again_after_the_engine_restarts(place: Previewed) -> None:
    place.show("stays", "one")
    place.site.hitless("down")
    place.site.up()
    assert place.ask("stays")[0] == 200
    place.delete("stays")


@pytest.mark.long
def test_a_branch_beyond_the_maximum_is_tested_without_a_preview(place: Previewed) -> None:
    for branch in ("one", "two"):
        place.show(branch, branch)
    said = place.show("three", "three")
    assert "skipped: 2 previews are already running (max: 2); the next to expire is that of one" in said
    assert place.runs()[0]["state"] == "succeeded"
    assert place.ask("three")[0] == 404
    for branch in ("one", "two"):
        place.delete(branch)
