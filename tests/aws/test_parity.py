"""Sends the same requests to the service at both homes: exactly the listed differences occur."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws
from tests.aws.parity import DOCUMENT, Difference, Row, compare, listed, observe
from tests.aws.parity_requests import REQUESTS, WORLDCLOCK
from tests.aws.release_support import HITLESS, Worldclock

pytestmark = pytest.mark.aws

ECHO = """\
  echo:
    handler: worldclock/handlers/echo.handler
    events:
      - http: ANY /echo
      - http: ANY /echo/{first}
      - http: ANY /echo/{first}/{rest+}
      - http: POST /answer
      - http: GET /raise
"""


@pytest.fixture(scope="module")
def homes(running_aws: EmulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URLs of stage prod on the engine and on the emulated AWS: release 1 of the same folder."""
    running_aws.front.reset()
    running_aws.emulator.reset()
    service = Worldclock.new(running_aws, tmp_path_factory.mktemp("parity"))
    shutil.copy(Path(__file__).with_name("parity_echo.py"), service.folder / "worldclock" / "handlers" / "echo.py")
    service.edit("serverless.yml", "functions:\n", f"functions:\n{ECHO}")
    done = service.run("deploy")
    assert done.code == 0, done.err
    with engine(service) as url:
        yield url, service.url


@contextlib.contextmanager
def engine(service: Worldclock) -> Iterator[str]:
    where = ["--service-dir", str(service.folder), "--stage", "prod", "--json"]
    up = [str(HITLESS), "up", "--detach", "--listen", "127.0.0.1:0", *where]
    done = subprocess.run(up, env=service.environ, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stderr
        (url,) = (one["url"] for one in json.loads(done.stdout)["stages"] if one["stage"] == "prod")
        yield url
    finally:
        subprocess.run([str(HITLESS), "down", *where], env=service.environ, capture_output=True, check=False)


@pytest.fixture(scope="module")
def found(homes: tuple[str, str]) -> list[Difference]:
    """Each difference of each request."""
    on_engine, on_aws = homes
    return [
        difference
        for asked in REQUESTS
        for difference in compare(asked, observe(on_engine, asked), observe(on_aws, asked))
    ]


def rows() -> list[Row]:
    return listed(DOCUMENT.read_text("utf-8"))


def test_every_difference_between_the_homes_is_listed(found: list[Difference]) -> None:
    unlisted = [str(one) for one in found if not any(row.covers(one) for row in rows())]
    assert not unlisted, "\n".join(unlisted)


def test_every_listed_difference_still_exists(found: list[Difference]) -> None:
    idle = [f"{row.field} @ {row.request}" for row in rows() if not any(row.covers(one) for one in found)]
    assert not idle, "\n".join(idle)


def test_a_fault_of_the_emulator_names_the_aws_page_that_contradicts_it() -> None:
    undocumented = [row.field for row in rows() if row.cause == "emulator" and "docs.aws.amazon.com" not in row.why]
    assert not undocumented, undocumented


def test_the_comparison_sends_many_requests_and_gets_the_expected_statuses(homes: tuple[str, str]) -> None:
    assert len(REQUESTS) >= 90
    assert not [name for name, count in Counter(asked.name for asked in REQUESTS).items() if count > 1]
    for home in homes:
        statuses = {asked.name: observe(home, asked)["answer.status"] for asked in WORLDCLOCK}
        assert [name for name, status in statuses.items() if status == "200"] >= ["list zones"]
        assert statuses["health"] == statuses["convert by body"] == statuses["a meeting"] == "200"
        assert statuses["unknown route"] == "403"
        assert statuses["bad JSON"] == "400"
