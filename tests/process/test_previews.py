"""Previews of branches, with real git, a real engine, real HAProxy and real deaths."""

from __future__ import annotations

import http.client
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from hitless.pipeline.workshop import Workshop
from tests.process.conftest import SERVICES, Site
from tests.process.pipeline_support import Team
from tests.support import free_port

pytestmark = pytest.mark.process

PREVIEWS = "    previews: {{listen: '127.0.0.1:{port}', max: 2}}\n"


class Previewed(Team):
    """A team whose service has previews."""

    port: int = 0

    def begin(self) -> None:
        self.port = free_port()
        file = self.site.folder / "serverless.yml"
        head, rest = file.read_text().split("    stages:", 1)
        file.write_text(f"{head}{PREVIEWS.format(port=self.port)}    stages:{rest}")
        super().begin()

    def ask(self, branch: str, path: str = "/release") -> tuple[int, Any]:
        """One request to the branch's host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"host": f"{branch}.preview.localhost:{self.port}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def previews(self) -> dict[str, Any]:
        """By branch."""
        return {one["preview"]["branch"]: one for one in self.site.status()["previews"]}

    def begin_branch(self, branch: str, marker: str) -> str:
        """A branch with a commit of its own, pushed; what the pusher saw."""
        self.git("switch", "--quiet", "--create", branch, "dev")
        self.site.touch(marker)
        self.commit(marker)
        return self.push(branch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    folder = tmp_path_factory.mktemp("team") / "plain"
    shutil.copytree(SERVICES / "plain", folder)
    one = Previewed(Site(folder))
    try:
        one.begin()
        yield one
    finally:
        one.site.end()
        shutil.rmtree(Workshop.of(one.site.folders.data, os.environ).work, ignore_errors=True)


def test_a_branch_answers_under_its_host_until_it_is_deleted(place: Previewed) -> None:
    said = place.begin_branch("feature/Login", "one")
    url = f"http://feature-login.preview.localhost:{place.port}"
    assert f"preview at {url}/" in said
    assert place.ask("feature-login")[0] == 200
