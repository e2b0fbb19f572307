"""Three services on one engine and its two ports, by the command line, while clients use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hitless.engine.folders import Folders
from hitless.workers.shares import Shares
from tests.certificates import DOMAIN, write_certificate
from tests.process.conftest import Site
from tests.process.gateway_support import Load, ask
from tests.process.test_tls import free_port
from tests.support import eventually

pytestmark = pytest.mark.process

SERVICE = """
service: {name}
provider: {{name: aws, runtime: python3.11, stage: prod}}
functions: {{main: {{handler: h.main, events: [{{http: GET /zones}}]}}}}
custom: {{hitless: {{workers: 2, {weight}stages: {{prod: {{alarms: {{guard_s: 0}}, access_log: all, {settings}}}}}}}}}
"""
SESSIONS_SHARE = Shares().group is None and not Shares().trouble
"""Whether a weight is a nice value on this machine."""
HANDLER = """
import json
def main(event, context):
    return {"statusCode": 200, "body": json.dumps([context.function_name, context.function_version, event["path"]])}
"""


class SharedSite(Site):
    """A service on an engine that it shares."""

    @property
    def folders(self) -> Folders:
        return Folders.of(Path(self.environ["HITLESS_DATA_DIR"]), {})

    def deploys(self, number: int) -> None:
        for version in range(number):
            self.touch(f"{self.folder.name} {version}")
            assert self.hitless("deploy").document["outcome"] == "live"


def made(folder: Path, name: str, settings: str, weight: str = "") -> SharedSite:
    (folder / name).mkdir()
    (folder / name / "serverless.yml").write_text(SERVICE.format(name=name, settings=settings, weight=weight))
    (folder / name / "h.py").write_text(HANDLER)
    return SharedSite(folder / name, {"HITLESS_DATA_DIR": str(folder / "home")})


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[SharedSite, SharedSite, SharedSite]]:
    """Two services at one domain by HTTPS, and one at another by HTTP."""
    write_certificate(tmp_path, DOMAIN)
    at = f"domain: {DOMAIN}, tls: {{certificate: {tmp_path}/chain.pem, key: {tmp_path}/key.pem}}"
    orders, users = (
        made(tmp_path, "orders", at),
        made(
            tmp_path, "users", f"{at}, basePath: users, sticky: address", "cpu_weight: 25, " if SESSIONS_SHARE else ""
        ),
    )
    items = made(tmp_path, "items", "domain: items.example.org")
    yield orders, users, items
    orders.hitless("down", "--engine", "--force", exit_code=None)
    eventually(lambda: not orders.folders.remains(), what="every process of the engine has ended")


def nice_values(site: SharedSite) -> dict[str, set[str]]:
    """Service → the nice values that the kernel has for its sessions."""
    found: dict[str, set[str]] = {}
    for file in (site.folders.run / "w").glob("*/g*/zygote.json"):
        service = json.loads((file.parents[1] / "spec.json").read_text())["service"]
        pid = json.loads(file.read_text())["pid"]
        found.setdefault(service, set()).add(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    return found


def test_services_ship_come_and_go_under_load_on_one_port(sites: tuple[SharedSite, SharedSite, SharedSite]) -> None:
    orders, users, items = sites
    plain, secure = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    addresses = [f"--shared=127.0.0.1:{plain[1]}", f"--shared-tls=127.0.0.1:{secure[1]}"]
    orders.hitless("up", "--detach", *addresses)
    status = users.hitless("up", "--detach").document
    urls = {stage["stage"]: stage["url"] for stage in status["stages"]}
    base = f"https://{DOMAIN}:{secure[1]}"
    assert urls == {"orders_prod": base, "users_prod": f"{base}/users"}

    def told() -> Any:
        return ask(plain, "/zones", headers={"host": "items.example.org"})

    loads = [Load(secure, path=path, tls=True, host=DOMAIN, keep_alive=keep, clients=1)
             for path, keep in (("/zones", True), ("/users/zones", True), ("/zones", False))]  # fmt: skip
    with loads[0], loads[1], loads[2], ThreadPoolExecutor(2) as shipping:
        shipped = [shipping.submit(site.deploys, 2) for site in (orders, users)]
        assert told().status == 404
        items.hitless("up", "--detach")
        assert json.loads(told().body)[::2] == ["items-prod-main", "/zones"]
        assert items.hitless("down").document == {"stopped": False, "removed": ["items_prod"]}
        assert told().status == 404
        assert [one.result(timeout=120) for one in shipped] == [None, None]
        eventually(lambda: all(load.sent > 100 for load in loads), what="more than 100 requests of each kind")
    assert [dict(load.failures) for load in loads] == [{}, {}, {}]
    assert {stage["stage"]: stage["live"]["release"] for stage in orders.status()["stages"]} == {
        "orders_prod": 3,
        "users_prod": 3,
    }

    if SESSIONS_SHARE:
        assert nice_values(orders) == {"orders": {"0"}, "users": {"6"}}
    rows = [one for one in orders.hitless("metrics").document if one["name"] == "hitless_stage_answers_total"]
    counted = {(one["labels"]["stage"], one["labels"]["class"]): one["value"] for one in rows}
    assert counted["users_prod", "2xx"] == loads[1].sent
    assert counted["orders_prod", "2xx"] == loads[0].sent + loads[2].sent
    line = users.hitless("logs", "--access", "--limit", "1").document[0]
    assert (line["path"], line["route"], line["status"]) == ("/zones", "GET /zones", 200)
    text = (users.folder / "serverless.yml").read_text()
    (items.folder / "serverless.yml").write_text(text.replace("service: users", "service: items"))
    refused = items.hitless("up", "--detach", exit_code=1).document["error"]
    assert refused["message"] == f"{DOMAIN}/users belongs to users_prod already"
    assert set(urls) == {stage["stage"] for stage in orders.status()["stages"]}
    orders.hitless("down", "--engine")
    users.hitless("up", "--detach")  # as after a reboot: all services are back
    answers = {}
    for path in ("/zones", "/users/zones"):
        with Load(secure, path=path, tls=True, host=DOMAIN, clients=1) as load:
            eventually(lambda load=load: load.sent > 3, what="some responses")  # type: ignore[misc]
        answers[path] = dict(load.failures)
    assert answers == {"/zones": {}, "/users/zones": {}}
