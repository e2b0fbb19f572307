"""Previews of two services on one engine and its two ports, by git, the command line and curl, under load."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import write_certificate
from tests.pebble import MISSING, pebble
from tests.process.conftest import kill
from tests.process.gateway_support import Load
from tests.process.pipeline_support import Team, states
from tests.process.test_pipeline_services import HANDLER
from tests.process.test_sites import SharedSite
from tests.support import eventually, free_port, gone

pytestmark = pytest.mark.process

SERVICE = """
service: {name}
provider: {{name: aws, runtime: python3.11, stage: dev}}
functions: {{main: {{handler: h.main, events: [{{http: GET /zones}}]}}}}
custom:
  hitless:
    previews: {{max: 2}}
    stages:
      dev: {{domain: {name}.example.org, alarms: {{guard_s: 0}}{tls}}}
"""
SHOP, USERS = "shop.example.org", "users.example.org"


def begun(folder: Path, name: str, *words: str, tls: str = "", **environ: str) -> Team:
    """A service on the shared engine; its remote is `engine`."""
    (folder / name).mkdir()
    team = Team(SharedSite(folder / name, {"HITLESS_DATA_DIR": str(folder / "home"), **environ}))
    team.site.folder.joinpath("serverless.yml").write_text(SERVICE.format(name=name, tls=tls))
    team.site.folder.joinpath("h.py").write_text(HANDLER.replace("@", name))
    team.site.folder.joinpath(".gitignore").write_text("__pycache__\n")
    team.git("init", "--quiet", "--initial-branch=dev")
    team.commit("first")
    team.site.hitless("up", "--detach", *words)
    team.url = team.site.hitless("pipeline", "url").document["url"]
    team.git("remote", "add", "engine", team.url)
    return team


@pytest.fixture
def ports() -> tuple[int, int]:
    """Of HTTP and HTTPS."""
    return free_port(), free_port()


def end(folder: Path) -> None:
    site = SharedSite(folder / "shop", {"HITLESS_DATA_DIR": str(folder / "home")})
    site.hitless("down", "--engine", "--force", exit_code=None)
    eventually(lambda: not site.folders.remains(), what="every process of the engine has ended")


@pytest.fixture
def teams(tmp_path: Path, ports: tuple[int, int]) -> Iterator[tuple[Team, Team]]:
    """`shop` has HTTPS by a certificate that covers its previews; `users` has HTTP."""
    write_certificate(tmp_path, SHOP, f"*.preview.{SHOP}")
    tls = f", tls: {{certificate: {tmp_path}/chain.pem, key: {tmp_path}/key.pem}}"
    addresses = f"--shared=127.0.0.1:{ports[0]}", f"--shared-tls=127.0.0.1:{ports[1]}"
    try:
        yield begun(tmp_path, "shop", *addresses, tls=tls), begun(tmp_path, "users")
    finally:
        end(tmp_path)


def curl(url: str, folder: Path) -> tuple[int, Any]:
    """Status and JSON of the URL, whose host is resolved to this machine; status 0 if there is no connection."""
    host, _, port = url.partition("://")[2].partition("/")[0].partition(":")
    words = [
        "curl",
        "--silent",
        "--cacert",
        str(folder / "chain.pem"),
        "--max-time",
        "10",
        "--write-out",
        "\n%{http_code}",
    ]
    done = subprocess.run(
        [*words, "--resolve", f"{host}:{port}:127.0.0.1", url], capture_output=True, text=True, timeout=20, check=False
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body) if body else None


def show(team: Team, branch: str, marker: str) -> str:
    """Push the branch with one more commit, from dev if it is new; returns what the pusher saw."""
    known = team.git("branch", "--list", branch).strip()
    team.git("switch", "--quiet", *([branch] if known else ["--create", branch, "dev"]))
    team.site.touch(marker)
    team.commit(marker)
    return team.push(branch)


def previews(team: Team) -> dict[str, Any]:
    return {one["stage"]: one for one in team.site.status()["previews"]}


def come_and_go(team: Team) -> None:
    """Make a preview, ship to it again, and delete its branch."""
    stage = f"{team.site.folder.name}_preview_goes"
    for number in range(2):
        assert "preview at " in show(team, "goes", str(number))
    workers = {worker["pid"] for one in previews(team)[stage]["functions"] for worker in one["workers"]}
    assert "the branch goes was deleted, and its preview is removed" in team.push(":goes")
    eventually(lambda: stage not in previews(team), what="the preview is gone")
    assert all(map(gone, workers))
    team.git("switch", "--quiet", "dev")
    team.git("branch", "--quiet", "-D", "goes")


def test_previews_of_two_services_come_and_go_under_load(
    teams: tuple[Team, Team], ports: tuple[int, int], tmp_path: Path
) -> None:
    (shop, users), (plain, secure) = teams, ports
    urls = {"shop": f"https://fix-1.preview.{SHOP}:{secure}", "users": f"http://fix-1.preview.{USERS}:{plain}"}
    loads = [
        Load(("127.0.0.1", secure), tls=True, host=SHOP, clients=1),
        Load(("127.0.0.1", plain), host=USERS, clients=1),
        Load(("127.0.0.1", plain), host=USERS, clients=1, keep_alive=False),
    ]
    with loads[0], loads[1], loads[2], ThreadPoolExecutor(2) as pushing:
        for team in teams:
            name = team.site.folder.name
            assert f"preview at {urls[name]}/" in show(team, "Fix/1", "one")
            assert curl(f"{urls[name]}/zones", tmp_path) == (200, [name, f"{name}-dev-main", "1"])
        assert list(pushing.map(come_and_go, teams, timeout=200)) == [None, None]
    assert [dict(load.failures) for load in loads] == [{}, {}, {}]
    assert all(load.sent > 100 for load in loads), [load.sent for load in loads]

    status = shop.site.status()
    assert [stage["stage"] for stage in status["stages"]] == ["shop_dev", "users_dev"]
    assert {one["stage"]: one["url"] for one in status["previews"]} == {
        f"{name}_preview_fix-1": url for name, url in urls.items()
    }
    assert users.site.hitless("releases", "--stage", "users_preview_fix-1").document[0]["live"]
    assert users.site.hitless("logs", "--stage", "users_preview_fix-1").document
    run = users.runs()[-1]
    assert (run["service"], run["preview"], states(run)["preview"]) == ("shop", urls["shop"], "succeeded")
    for gone_host in (f"goes.preview.{USERS}", f"fix-1.{USERS}", f"fix-1.preview.{SHOP}.invalid"):
        assert curl(f"http://{gone_host}:{plain}/zones", tmp_path)[0] == 404, gone_host
    assert curl(f"https://goes.preview.{SHOP}:{secure}/zones", tmp_path)[0] == 0, "the alert unrecognized_name"

    file = users.site.folder / "serverless.yml"
    file.write_text(file.read_text().replace("{max: 2}", f"{{domain: preview.{SHOP}}}"))
    users.site.hitless("pipeline", "url")
    assert f"skipped: the previews' domain preview.{SHOP} belongs to shop_dev" in show(users, "other", "other")

    kill(status["engine"]["gateway_pid"])
    kill(status["engine"]["pid"])
    shop.site.hitless("up", "--detach")
    for name, url in urls.items():
        eventually(lambda url=url: curl(f"{url}/zones", tmp_path)[0] == 200, what=f"{name} after the crash")  # type: ignore[misc]
    shop.site.hitless("down", "--engine")
    shop.site.hitless("up", "--detach")
    for name, url in urls.items():
        assert curl(f"{url}/zones", tmp_path) == (200, [name, f"{name}-dev-main", "1"])
    assert users.site.hitless("down").document["removed"] == ["users_dev"]
    assert set(previews(shop)) == {"shop_preview_fix-1"}
    assert curl(f"{urls['users']}/zones", tmp_path)[0] == 404


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_a_preview_gets_a_certificate_by_acme_which_goes_with_it(ports: tuple[int, int], tmp_path: Path) -> None:
    host, (plain, secure) = f"fix.preview.{SHOP}", ports
    with pebble(tmp_path / "pebble", http_port=plain) as authority:
        (tmp_path / "chain.pem").write_bytes(authority.root())
        for name in (SHOP, host):
            authority.resolve(name, "127.0.0.1")
        tls = f", tls: {{acme: {{directory: '{authority.directory}'}}}}"
        addresses = f"--shared=127.0.0.1:{plain}", f"--shared-tls=127.0.0.1:{secure}"
        try:
            team = begun(tmp_path, "shop", *addresses, tls=tls, REQUESTS_CA_BUNDLE=str(authority.trust))
            assert f"preview at https://{host}:{secure}/" in show(team, "fix", "one")
            answer = ["shop", "shop-dev-main", "1"]
            eventually(lambda: curl(f"https://{host}:{secure}/zones", tmp_path) == (200, answer), deadline_s=60)
            kept = {file.name for file in (tmp_path / "home" / "acme").rglob("*.*") if host in file.name}
            assert kept == {f"{host}.pem", f"{host}.json"}
            team.push(":fix")
            eventually(lambda: not previews(team), what="the preview is gone")
            assert not [file for file in (tmp_path / "home" / "acme").rglob("*") if host in file.name]
            assert curl(f"https://{host}:{secure}/zones", tmp_path)[0] == 0, "the alert unrecognized_name"
        finally:
            end(tmp_path)
