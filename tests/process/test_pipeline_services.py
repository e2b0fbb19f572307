"""Two services on one engine, each with a repository and runs of its own, by git and the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.gateway_support import ask
from tests.process.pipeline_support import Team, states
from tests.process.test_sites import SharedSite
from tests.process.test_tls import free_port
from tests.support import eventually

pytestmark = pytest.mark.process

SERVICE = """
service: {name}
provider: {{name: aws, runtime: python3.11, stage: dev}}
functions: {{main: {{handler: h.main, events: [{{http: GET /zones}}]}}}}
custom:
  hitless:
    stages:
      dev: {{domain: {name}.invalid, smoke: [GET /zones], alarms: {{guard_s: 0}}}}
      prod: {{domain: {name}.invalid, basePath: prod, smoke: [GET /zones], alarms: {{guard_s: 0}}}}
"""
"""No resolver knows a name below .invalid (RFC 6761, 6.4): verify must reach the stage at the engine's own address."""
HANDLER = """
import json
def main(event, context):
    return {"statusCode": 200, "body": json.dumps(["@", context.function_name, context.function_version])}
"""
TESTS = 'version: 0.2\nphases: {build: {commands: [test "$STAGE" = dev]}}\n'


def written(folder: Path, name: str, environ: dict[str, str]) -> Team:
    """A service in a git repository with one commit on dev."""
    (folder / name).mkdir()
    team = Team(SharedSite(folder / name, environ))
    files = {
        "serverless.yml": SERVICE.format(name=name),
        "h.py": HANDLER.replace("@", name),
        "buildspec-test.yml": TESTS,
    }
    for file, text in (files | {".gitignore": "__pycache__\n.hitless/\n"}).items():
        (team.site.folder / file).write_text(text)
    team.git("init", "--quiet", "--initial-branch=dev")
    team.commit("first")
    return team


def begun(folder: Path, name: str, *words: str) -> Team:
    """A service on the shared engine; its remote is `engine`."""
    team = written(folder, name, {"HITLESS_DATA_DIR": str(folder / "home")})
    team.site.hitless("up", "--detach", *words)
    team.url = team.site.hitless("pipeline", "url").document["url"]
    team.git("remote", "add", "engine", team.url)
    return team


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    site = SharedSite(next(tmp_path.glob("*/serverless.yml")).parent, {"HITLESS_DATA_DIR": str(tmp_path / "home")})
    site.hitless("down", "--engine", "--force", exit_code=None)
    eventually(lambda: not site.folders.remains(), what="every process of the engine has ended")


def test_each_service_of_a_shared_engine_ships_promotes_and_leaves_by_its_own_pipeline(home: Path) -> None:
    address = ("127.0.0.1", free_port())
    shop = begun(home, "shop", f"--shared=127.0.0.1:{address[1]}")
    users = begun(home, "users")

    def told(name: str, path: str = "/zones") -> list[str]:
        found: list[str] = json.loads(ask(address, path, headers={"host": f"{name}.invalid"}).body)
        return found

    for number, team, push in ((2, shop, shop.push), (3, shop, shop.push_over_ssh), (2, users, users.push)):
        team.site.touch(str(number))
        commit = team.commit(f"change {number}")
        assert f"release {number} is live in {team.site.folder.name}_dev" in push("dev")
        waited = team.site.hitless("pipeline", "wait").document
        assert (waited["service"], waited["commit"], waited["state"]) == (team.site.folder.name, commit, "succeeded")
        assert {states(waited)[step] for step in ("test", "verify")} == {"succeeded"}
    assert (told("shop"), told("users")) == (["shop", "shop-dev-main", "3"], ["users", "users-dev-main", "2"])

    promoted = users.site.hitless("promote", "dev", "prod").document
    assert (promoted["stage"], promoted["outcome"]) == ("users_prod", "live")
    assert told("users", "/prod/zones") == ["users", "users-prod-main", "1"]
    assert [one["stage"] for one in shop.site.hitless("pipeline", "runs").document] == ["shop_dev", "shop_dev"]
    assert {one["stage"] for one in users.runs()} == {"shop_dev", "users_dev", "users_prod"}

    shop.site.hitless("backup", str(home / "state.tar.gz"))
    removed = users.site.hitless("down").document["removed"]
    assert removed == ["users_dev", "users_prod"]
    assert not Path(users.url).exists()
    assert {one["stage"] for one in shop.runs()} == {"shop_dev"}
    shop.site.hitless("down", "--engine")
    shutil.rmtree(home / "home")
    shop.site.hitless("restore", str(home / "state.tar.gz"))
    shop.site.hitless("up", "--detach")
    shop.site.touch("after the restore")
    shop.commit("after the restore")
    assert "release 4 is live in shop_dev" in shop.push("dev")
    assert Path(users.url).exists(), "the archive has the repositories of all services"
