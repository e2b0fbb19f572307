"""Faults that only load shows: leaks and locks. Healthy code has none.

The faults pass the service's tests, its smoke requests and every comparison of single responses.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import SERVICES, Site

pytestmark = pytest.mark.process

HANDLER = "def api(event: dict[str, Any], context: Any) -> dict[str, Any]:\n"
SLEEPS = "    time.sleep(0.010)\n"
LOCKS = """\
    with open(os.environ["LOCK_FILE"], "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(0.010)
"""
CROWDS = """\
    mine = f"{os.environ['LOCK_FILE']}.{os.getpid()}"
    open(mine, "w").close()
    time.sleep(0.012 * len(glob.glob(os.environ["LOCK_FILE"] + ".*")))
    os.unlink(mine)
"""
FAILS_UNDER_LOAD = """\
    with open(os.environ["LOCK_FILE"], "a") as file:
        file.write(".")
    if os.path.getsize(os.environ["LOCK_FILE"]) > 100:
        raise TimeoutError
"""
QUICK = "{beside_s: 1.5, shift_s: 1}"


def leaks(size: int) -> str:
    return f"    KEPT.append(bytearray({size}))\n"


@pytest.fixture
def pair() -> Iterator[tuple[Site, Site]]:
    """Live's folder and the candidate's. No engine runs on either, because the rehearsal has its own."""
    with tempfile.TemporaryDirectory(prefix="hitless-pair-") as place:
        sites = []
        for name in ("live", "candidate"):
            folder = Path(place) / name
            shutil.copytree(SERVICES / "plain", folder)
            one = Site(folder, {"RUNS_FILE": f"{place}/marks/runs"})
            one.allow(Path(place) / "marks")
            one.edit("import json\n", "import fcntl\nimport glob\nimport json\n")
            one.edit(HANDLER, f"KEPT: list[bytearray] = []\n\n\n{HANDLER}")
            one.edit(
                "  environment:\n", f"  environment:\n    LOCK_FILE: {place}/marks/{name}.lock\n", "serverless.yml"
            )
            sites.append(one)
        yield sites[0], sites[1]


def does(site: Site, more: str) -> None:
    """Make the handler of the service's usual routes do this first."""
    site.edit(HANDLER, HANDLER + more)


def rehearse(live: Site, candidate: Site, exit_code: int, *words: str, rehearsal: str = QUICK) -> Any:
    candidate.edit("listen: 127.0.0.1:0\n        ready", f"rehearsal: {rehearsal}\n        ready", "serverless.yml")
    against = ("rehearse", "--against", str(live.folder))
    return candidate.hitless(*against, *words, exit_code=exit_code, timeout_s=180).document


def test_a_rehearsal_reports_memory_leaks_and_locks(pair: tuple[Site, Site]) -> None:
    live, candidate = pair
    does(live, SLEEPS)
    does(candidate, LOCKS + leaks(32_000))
    found = rehearse(live, candidate, 3)
    said = " | ".join(found["objections"])
    assert "it leaks memory" in said
    assert "they wait for each other" in said
    assert "GET /fast: 6 at once take" in said
    assert found["answers"] == []
    assert found["candidate"]["memory_growth_mb"] > 2 > found["live"]["memory_growth_mb"]


def test_a_rehearsal_of_healthy_code_finds_no_problems(pair: tuple[Site, Site]) -> None:
    live, candidate = pair
    candidate.touch("another release of the same behaviour")
    found = rehearse(live, candidate, 0)
    assert (found["may_ship"], found["objections"]) == (True, [])
    assert found["candidate"]["requests"] > 50


def test_a_rehearsal_is_undecided_if_both_releases_fail_under_load(pair: tuple[Site, Site]) -> None:
    """Both respond to single requests but hardly under load, as on an overloaded machine."""
    for site in pair:
        does(site, FAILS_UNDER_LOAD)
    found = rehearse(*pair, 1)
    assert (found["may_ship"], found["objections"], found["rollout"]) == (False, [], None)
    assert found["candidate"]["failed"] > 0.5 * found["candidate"]["requests"] > 10
    assert found["sentence"].startswith("undecided: ")


def test_a_rehearsal_is_undecided_if_requests_find_no_free_worker(pair: tuple[Site, Site]) -> None:
    for site in pair:
        does(site, '    if event["path"] != "/fast":\n        return {"statusCode": 503, "body": "{}"}\n')
    found = rehearse(*pair, 1)
    assert "live's copy did not answer 3 of 5" in found["undecided"][0]
    assert found["load"] is None


@pytest.mark.long
@pytest.mark.parametrize("size", [2_000, 16_000, 200_000])
def test_a_rehearsal_reports_memory_leaks_of_every_size(pair: tuple[Site, Site], size: int) -> None:
    live, candidate = pair
    does(candidate, leaks(size))
    (said,) = rehearse(live, candidate, 3, rehearsal="true")["objections"]
    assert "it leaks memory" in said


@pytest.mark.long
def test_a_rehearsal_does_not_take_a_filling_cache_for_a_leak(pair: tuple[Site, Site]) -> None:
    live, candidate = pair
    does(candidate, "    len(KEPT) < 300 and KEPT.append(bytearray(20_000))\n")
    assert rehearse(live, candidate, 0, rehearsal="true")["objections"] == []


@pytest.mark.long
def test_a_rehearsal_reports_a_handler_that_slows_down_under_concurrency(pair: tuple[Site, Site]) -> None:
    live, candidate = pair
    does(live, SLEEPS)
    does(candidate, CROWDS)
    said = " | ".join(rehearse(live, candidate, 3, rehearsal="true")["objections"])
    assert "they wait for each other" in said


@pytest.mark.long
@pytest.mark.parametrize("again", range(5))
def test_repeated_rehearsals_of_healthy_code_find_no_problems(pair: tuple[Site, Site], again: int) -> None:
    live, candidate = pair
    does(live, SLEEPS)
    does(candidate, SLEEPS)
    candidate.touch(f"release {again}")
    assert rehearse(live, candidate, 0, rehearsal="true")["objections"] == []
