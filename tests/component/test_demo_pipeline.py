"""The result of `scripts/demo --pipeline`: its last line is a contract, and it ends with 0 only on success."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from scripts.demo_pipeline import ENOUGH, Day, LoadOnAll, account

pytestmark = pytest.mark.component

STAGES = ("dev", "staging", "prod")


@pytest.mark.parametrize(
    ("requests", "failed", "went_wrong", "code"),
    [(ENOUGH, 0, False, 0), (ENOUGH, 1, False, 1), (ENOUGH - 1, 0, False, 1), (ENOUGH, 0, True, 1)],
    ids=["well", "one failed", "too few to say", "a step went wrong"],
)
def test_the_demo_succeeds_only_with_enough_requests_no_failure_and_all_expected_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], requests: int, failed: int, went_wrong: bool, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        load = LoadOnAll(dict.fromkeys(STAGES, f"http://127.0.0.1:{listener.getsockname()[1]}"), 1.0)
    day = Day(tmp_path, tmp_path)
    for one in load.driven.values():
        one.requests = requests
    load.driven["prod"].failed[0] = failed
    day.expect("the canary is <stopped>", not went_wrong)
    report = tmp_path / "report.html"
    assert account(day, load, {"dev": 4, "staging": 3, "prod": 2}, report, 150.0) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{3 * requests} requests, {failed} failed, 9 releases; report {report}"
    page = report.read_text()
    mark = "" if code == 0 else ' class="not-ok"'
    assert f"<h1{mark}>{failed} of {3 * requests:,} requests failed from git push to prod</h1>" in page
    assert "the canary is &lt;stopped&gt;" in page
