"""Request files, and the copy of the service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from hitless.drill import scenarios
from hitless.drill.requests import MAX_BODY_BYTES, DrillRequest, read_requests
from hitless.drill.workspace import MARKER, Source, Workspace
from hitless.errors import UsageError
from tests.support import eventually

SERVICES = Path(__file__).parents[1] / "services"
pytestmark = pytest.mark.component


def test_a_file_of_requests_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(
        '{"method": "POST", "path": "/items", "headers": {"X-A": "1"}, "body": "{}", "weight": 3, "status": 201}\n'
        "\n"
        "# a remark\n"
        '{"path": "/zones?q=a"}\n'
        '{"method": "PUT", "path": "/x", "body": {"a": 1}, "check_release": false}\n'
    )
    assert read_requests(file) == (
        DrillRequest("POST", "/items", (("X-A", "1"),), b"{}", 3, 201),
        DrillRequest("GET", "/zones?q=a"),
        DrillRequest("PUT", "/x", (("Content-Type", "application/json"),), b'{"a": 1}', check_release=False),
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "truncated"),
        ("[]", "got `array`"),
        ("{}", "path"),
        ('{"path": "items"}', "path"),
        ('{"path": "/a b"}', "path"),
        ('{"path": "/a\\r\\nX: y"}', "path"),
        ('{"path": "/", "method": "get"}', "method"),
        ('{"path": "/", "method": "CONNECT"}', "method"),
        ('{"path": "/", "method": "A B"}', "method"),
        ('{"path": "/", "header": {}}', "unknown field `header`"),
        ('{"path": "/", "headers": []}', "headers"),
        ('{"path": "/", "headers": {"X": 1}}', "headers.X"),
        ('{"path": "/", "headers": {"X": "a\\r\\nY: b"}}', "headers.X"),
        ('{"path": "/", "headers": {"X\\r\\nY": "b"}}', "headers"),
        ('{"path": "/", "headers": {"Content-Length": "5"}}', "headers.Content-Length"),
        ('{"path": "/", "weight": 0}', "weight"),
        ('{"path": "/", "weight": 1.5}', "weight"),
        ('{"path": "/", "weight": true}', "weight"),
        ('{"path": "/", "status": 99}', "status"),
        ('{"path": "/", "check_release": 1}', "check_release"),
        ('{"path": "/", "body": "' + "x" * (MAX_BODY_BYTES + 1) + '"}', "body"),
    ],
)
def test_a_bad_line_is_an_error_with_file_and_line(tmp_path: Path, line: str, what: str) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"path": "/ok"}\n\n' + line + "\n")
    with pytest.raises(UsageError, match=r"requests\.jsonl:3: ") as error:
        read_requests(file)
    assert what in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe", b'{"path": "/"}\n' * 1_001])
def test_a_file_without_requests_or_with_too_many_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"requests\.jsonl"):
        read_requests(file)


def test_a_missing_file_of_requests_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.jsonl"):
        read_requests(tmp_path / "gone.jsonl")


def service(folder: Path) -> Path:
    (folder / "src" / "pack").mkdir(parents=True)
    (folder / "serverless.yml").write_text("service: x\n")
    (folder / "src" / "a.py").write_text("A = 1\n")
    (folder / "src" / "pack" / "__init__.py").write_text("B = 1\n")
    for name in (".hitless/state.sqlite", ".venv/x", ".git/HEAD", "src/__pycache__/a.pyc", "data/big"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder


def copied(folder: Path, *handlers: str, data: str = "data") -> Workspace:
    return Workspace(Source(folder, "serverless.yml", "dev", handlers), data_dir=folder / data)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_a_drills_copy_of_the_service_excludes_data_environments_and_caches(tmp_path: Path) -> None:
    workspace = copied(service(tmp_path / "s"), "src/a.one")
    assert names(workspace.folder) == {"serverless.yml", "src/a.py", "src/pack/__init__.py"}
    workspace.remove()
    assert not workspace.folder.exists()


def test_the_changes_of_a_release_are_undone_before_the_next(tmp_path: Path) -> None:
    folder = service(tmp_path / "s")
    workspace = copied(folder, "src/a.one", "src.pack.two", "src/a.three")
    before = {name: (workspace.folder / name).read_text() for name in names(workspace.folder)}
    workspace.mark("1")
    workspace.append("raise SystemExit")
    workspace.set_stage("ready_timeout_s", 3)
    assert (workspace.folder / "src/a.py").read_text() == "A = 1\n\n\nraise SystemExit"
    assert (workspace.folder / "src/pack/__init__.py").read_text() == "B = 1\n\n\nraise SystemExit"
    assert "ready_timeout_s: 3" in (workspace.folder / "serverless.yml").read_text()
    workspace.append("twice")
    assert "raise" not in (workspace.folder / "src/a.py").read_text()
    workspace.reset()
    assert names(workspace.folder) == {*before, f"src/{MARKER}"}
    workspace.unmark()
    assert {name: (workspace.folder / name).read_text() for name in names(workspace.folder)} == before
    assert (folder / "src/a.py").read_text() == "A = 1\n"
    workspace.remove()


def test_a_scenario_wraps_every_handler_of_a_module(tmp_path: Path) -> None:
    folder = service(tmp_path / "s")
    (folder / "src" / "a.py").write_text(
        "def one(event, context):\n    return 'one'\n\ndef three(event, context):\n    return 'three'\n"
    )
    workspace = copied(folder, "src/a.one", "src/a.three")
    requests = [DrillRequest("GET", "/a%20b?x=1"), DrillRequest("POST", "/a b")]
    scenarios.SCENARIOS["raises-on-route"].alter(workspace, requests)
    module: dict[str, Any] = {}
    exec((workspace.folder / "src/a.py").read_text(), module)
    for handler in ("one", "three"):
        with pytest.raises(RuntimeError, match="on purpose"):
            module[handler]({"httpMethod": "GET", "path": "/a%20b"}, None)
        with pytest.raises(RuntimeError, match="on purpose"):
            module[handler]({"httpMethod": "GET", "path": "/a b"}, None)
        assert module[handler]({"httpMethod": "POST", "path": "/a b"}, None) == handler
        assert module[handler]({"httpMethod": "GET", "path": "/a"}, None) == handler
    settings = yaml.safe_load((workspace.folder / "serverless.yml").read_text())["custom"]["hitless"]["stages"]["dev"]
    assert settings == {"alarms": {"error_rate_percent": 1, "minimum_requests": 20}, "smoke": []}
    workspace.reset()
    assert "hitless" not in (workspace.folder / "serverless.yml").read_text()
    workspace.remove()


def test_the_slow_release_takes_ten_times_as_long_and_returns_the_same(tmp_path: Path) -> None:
    folder = service(tmp_path / "s")
    (folder / "src" / "a.py").write_text(
        "from time import sleep\n\ntime, os, signal, unquote = 1, 2, 3, 4\n\n"
        "def one(event, context):\n    sleep(0.02)\n    return time, os, signal, unquote\n"
    )
    workspace = copied(folder, "src/a.one")
    scenarios.SCENARIOS["slow"].alter(workspace, [DrillRequest("GET", "/")])
    module: dict[str, Any] = {}
    exec((workspace.folder / "src/a.py").read_text(), module)
    began = time.monotonic()
    assert module["one"]({}, None) == (1, 2, 3, 4)
    assert time.monotonic() - began >= 0.2
    assert "p99_relative_percent: 300" in (workspace.folder / "serverless.yml").read_text()
    workspace.remove()


def test_the_broken_release_breaks_a_safe_route_if_there_is_one() -> None:
    get, post, put = (DrillRequest(method, f"/{method}") for method in ("GET", "POST", "PUT"))
    assert scenarios.route_to_break([get, post, put]) is get
    assert scenarios.route_to_break([post, put]) is put


def test_changing_a_linked_handler_never_changes_the_links_target(tmp_path: Path) -> None:
    folder = service(tmp_path / "s")
    outside = tmp_path / "outside.py"
    outside.write_text("C = 1\n")
    os.symlink(outside, folder / "src" / "link.py")
    workspace = copied(folder, "src/link.one")
    workspace.append("broken")
    assert outside.read_text() == "C = 1\n"
    assert "broken" in (workspace.folder / "src/link.py").read_text()
    workspace.remove()


def test_a_folder_that_is_a_link_to_the_outside_is_an_error(tmp_path: Path) -> None:
    folder = service(tmp_path / "s")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mod.py").write_text("")
    os.symlink(tmp_path / "outside", folder / "linked")
    with pytest.raises(UsageError, match="link points outside"):
        copied(folder, "linked/mod.one")


def test_a_read_only_module_can_be_changed_in_the_copy(tmp_path: Path) -> None:
    folder = service(tmp_path / "s")
    (folder / "src" / "a.py").chmod(0o444)
    workspace = copied(folder, "src/a.one")
    workspace.append("broken")
    assert "broken" in (workspace.folder / "src/a.py").read_text()
    workspace.remove()


def test_a_handler_without_a_module_is_an_error_and_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UsageError, match=r"src/gone\.one"):
        copied(service(tmp_path / "s"), "src/gone.one")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@contextmanager
def runtime_api(paths: list[str]) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """A double of Lambda's Runtime API: its address, and what was posted for which path, and whether it was large."""
    posted: list[tuple[str, bool]] = []
    ended = threading.Event()

    class Api(BaseHTTPRequestHandler):
        protocol_version, wbufsize = "HTTP/1.1", -1

        def respond(self, document: object, *headers: tuple[str, str]) -> None:
            body = json.dumps(document).encode()
            self.send_response_only(200)
            for name, text in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if not paths:
                ended.wait()
                return
            path = paths.pop(0)
            event = {"httpMethod": "GET", "path": path, "pathParameters": {"how": path[1:]}}
            named = {"Aws-Request-Id": path[1:], "Deadline-Ms": "9999999999999", "Invoked-Function-Arn": "arn"}
            self.respond(event, *((f"Lambda-Runtime-{name}", text) for name, text in named.items()))

        def do_POST(self) -> None:
            size = len(self.rfile.read(int(self.headers["Content-Length"])))
            posted.append((self.path.partition("/invocation/")[2], size > 6_291_556))
            self.respond({})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", posted
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


OTHER = ("other/response", False)


@pytest.mark.skipif(sys.platform != "linux", reason="programs are Linux's")
@pytest.mark.parametrize(
    ("act", "posted", "status"),
    [
        ("good", [("broken/response", False), OTHER], None),
        ("slow", [("broken/response", False), OTHER], None),
        ("raises-on-route", [("broken/error", False), OTHER], None),
        ("too-large", [("broken/response", True), OTHER], None),
        ("leaks", [("broken/response", False)] * 12, -signal.SIGKILL),
        ("exits", [], 1),
    ],
)
def test_a_wrapped_program_fails_as_its_scenario_says(
    tmp_path: Path, act: str, posted: list[tuple[str, bool]], status: int | None
) -> None:
    shutil.copytree(SERVICES / "program", tmp_path / "program")
    workspace = Workspace(Source(tmp_path / "program", "serverless.yml", "dev", ()), data_dir=tmp_path / "data")
    scenarios.SCENARIOS[act].alter(workspace, [DrillRequest("GET", "/broken?a=1")])
    workspace.mark("7")
    events = ["/broken"] * 20 if act == "leaks" else ["/broken", "/other"]
    with runtime_api(events) as (address, found):
        program = subprocess.Popen(
            [str(workspace.program)],
            env={"PATH": os.defpath, "AWS_LAMBDA_RUNTIME_API": address},
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: found == posted and program.poll() == status, what="the posts of the program")
        program.kill()
        program.wait()
    workspace.remove()
