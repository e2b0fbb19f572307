"""Candidates that cannot start, and handlers that cannot be forked."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from hitless.clock import SystemClock
from hitless.errors import CandidateFailedError, ConflictError, EngineError
from hitless.release.smoke import ANY_STATUS
from hitless.rollout.smoke import smoke_workers
from hitless.service.event_sources import Route
from hitless.service.model import Function, SmokeRequest
from hitless.workers.fleet import Fleet
from hitless.workers.invoke import invoke_once
from tests.process.workers_support import Nest, alive, ask, in_a_nest, kill, processes_below
from tests.support import eventually

pytestmark = pytest.mark.process

FINE = "def main(event, context): return {'statusCode': 200}\n"


async def failure_of(nest: Nest, source: str, timeout_s: float = 20, **changes: Any) -> CandidateFailedError:
    """Start a pool that must fail, and check that nothing of it is left."""
    before = set(processes_below(nest.folder))
    with pytest.raises(CandidateFailedError) as caught:
        await nest.fleet.start_pool(nest.spec(source, **changes), ready_timeout_s=timeout_s)
    await asyncio.to_thread(eventually, lambda: set(processes_below(nest.folder)) <= before)
    assert [path.name for path in (nest.run / "w").iterdir() if path.is_dir()] == []
    assert nest.fleet.pools == {}
    return caught.value


@pytest.mark.parametrize(
    ("source", "changes", "message", "line"),
    [
        ("import nowhere_to_be_found\n", {}, "Runtime.ImportModuleError: Unable to import module 'app': "
         "No module named 'nowhere_to_be_found'", "import nowhere_to_be_found"),
        ("def main(event, context)\n    pass\n", {}, "Runtime.UserCodeSyntaxError: Syntax error in module 'app'",
         "def main(event, context)"),
        ("from collections import Mapping\n", {"runtime": "python3.10"}, "cannot import name 'Mapping'", "Mapping"),
        ("OTHER = 1\n", {}, "Runtime.HandlerNotFound: Handler 'main' missing on module 'app'", ""),
        (FINE, {"handler": "gone.main"}, "Unable to import module 'gone': No module named 'gone'", ""),
        (FINE, {"handler": "nodot"}, "Runtime.MalformedHandlerName: Bad handler 'nodot'", ""),
        ("import os\nTABLE = os.environ['TABLE']\n", {}, "KeyError: 'TABLE'", "TABLE = os.environ['TABLE']"),
        ("raise SystemExit(3)\n", {}, "Runtime.ExitError: Runtime exited with error: exit status 3",
         "raise SystemExit(3)"),
        ("import os\nprint('about to end')\nos._exit(9)\n", {}, "its process exited with status 9 while the "
         "handler was imported", "about to end"),
        ("import os\nos.abort()\n", {}, "its process was killed by SIGABRT while the handler was imported", "app.py"),
        (FINE, {"task_root": "/nowhere/at/all"}, "its process exited with status 1", "/nowhere/at/all"),
    ],
    ids=["import", "syntax", "old_name", "attribute", "module", "name", "raises", "exits", "_exit", "aborts", "root"],
)  # fmt: skip
def test_a_candidate_that_cannot_start_is_reported_with_the_reason(
    source: str, changes: dict[str, Any], message: str, line: str
) -> None:
    async def scenario(nest: Nest) -> None:
        error = await failure_of(nest, source, **changes)
        assert error.message.startswith("worldclock/dev r3 api cannot start: ")
        assert message in error.message
        assert "\n" not in error.message
        assert any(line in shown for shown in error.details["lines"])

    in_a_nest(scenario)


@pytest.mark.parametrize("runtime", ["python2.7", "python3.9"])
def test_a_function_for_an_old_python_finds_abstract_classes_in_collections(runtime: str) -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool("from collections import Callable, Mapping, deque\n" + FINE, runtime=runtime)
        assert pool.spec.runtime == runtime

    in_a_nest(scenario)


def test_an_endless_import_is_reported_with_its_position() -> None:
    async def scenario(nest: Nest) -> None:
        error = await failure_of(nest, "import time\nprint('fetching')\ntime.sleep(300)\n", timeout_s=3)
        assert error.message.startswith("worldclock/dev r3 api was not ready within 3 s; it was at /")
        assert "app.py line 3, after it wrote `" in error.message
        assert "fetching`; " in error.message
        assert any('app.py", line 3' in line for line in error.details["lines"])

    in_a_nest(scenario)


def test_a_worker_that_reports_ready_and_does_not_serve_fails_its_probe() -> None:
    source = """
import select, time
class Deaf:
    def register(self, *any): pass
    def poll(self, *any): time.sleep(300)
select.poll = Deaf
def main(event, context): return {"statusCode": 200}
"""

    async def scenario(nest: Nest) -> None:
        error = await failure_of(nest, source, timeout_s=1.5)
        assert "worker 0 of worldclock/dev r3 api reported ready, but a probe failed: no response" in error.message

    in_a_nest(scenario)


def test_a_cancelled_start_of_a_pool_leaves_nothing_running() -> None:
    async def scenario(nest: Nest) -> None:
        spec = nest.spec("import time\ntime.sleep(300)\n")
        for wait_s in (0.0, 0.01, 0.3):
            start = asyncio.create_task(nest.fleet.start_pool(spec, ready_timeout_s=20))
            await asyncio.sleep(wait_s)  # the moments at which it is called off
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
            assert [path.name for path in (nest.run / "w").iterdir() if path.is_dir()] == []
        pids = {nest.fleet.root_pid}
        await asyncio.to_thread(eventually, lambda: set(processes_below(nest.folder)) <= pids)

    in_a_nest(scenario)


THREAD = """
import threading, time, os, json
threading.Thread(target=time.sleep, args=(3600,), daemon=True, name="beat").start()
def main(event, context):
    names = [thread.name for thread in threading.enumerate()]
    return {"statusCode": 200, "body": json.dumps({"pid": os.getpid(), "threads": names})}
"""
SOCKET = """
import os, json, socket
LISTENER = socket.socket(); LISTENER.bind(("127.0.0.1", 0)); LISTENER.listen()
CLIENT = socket.create_connection(LISTENER.getsockname())
def main(event, context):
    return {"statusCode": 200, "body": json.dumps({"pid": os.getpid(), "port": CLIENT.getsockname()[1]})}
"""


def test_a_handler_that_starts_a_thread_at_import_gets_workers_that_each_import_it() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(THREAD)
        assert pool.fresh
        answers = [(await asyncio.to_thread(ask, worker.socket)).json for worker in pool.workers]
        assert all("beat" in answer["threads"] for answer in answers)
        assert "1 thread(s) run after the import of the handler (beat)" in nest.log("zygote")
        kill(answers[0]["pid"])
        again = (await asyncio.to_thread(ask, pool.workers[0].socket)).json
        assert again["pid"] != answers[0]["pid"]
        assert "beat" in again["threads"]
        kill(pool.zygote_pid)
        await asyncio.to_thread(eventually, lambda: not alive(pool.zygote_pid))
        assert (await nest.fleet.replace_zygote(pool.key)).fresh

    in_a_nest(scenario)


def test_a_handler_that_connects_at_import_gets_workers_that_each_connect() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(SOCKET)
        assert pool.fresh
        ports = [(await asyncio.to_thread(ask, worker.socket)).json["port"] for worker in pool.workers]
        assert len(set(ports)) == 2
        assert "connected socket(s) after the import" in nest.log("zygote")

    in_a_nest(scenario)


def test_a_handler_without_threads_and_sockets_is_forked() -> None:
    async def scenario(nest: Nest) -> None:
        listener = "import socket\nL = socket.socket()\nL.bind(('127.0.0.1', 0))\nL.listen()\n"
        assert not (await nest.pool(listener + FINE)).fresh

    in_a_nest(scenario)


def test_an_import_failure_in_a_separately_started_worker_is_reported() -> None:
    async def scenario(nest: Nest) -> None:
        once = (
            "import os, threading, time\nmark = os.environ['LAMBDA_TASK_ROOT'] + '/once'\n"
            "if os.path.exists(mark): raise RuntimeError('second time')\nopen(mark, 'w').close()\n"
            "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        )
        error = await failure_of(nest, once + FINE)
        assert "RuntimeError: second time" in error.message

    in_a_nest(scenario)


def test_a_hang_in_a_fresh_worker_is_reported_with_its_output() -> None:
    async def scenario(nest: Nest) -> None:
        once = (
            "import os, threading, time\nmark = os.environ['LAMBDA_TASK_ROOT'] + '/once'\n"
            "if os.path.exists(mark): print('waiting for the other'); time.sleep(300)\nopen(mark, 'w').close()\n"
            "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        )
        error = await failure_of(nest, once + FINE, timeout_s=8)
        assert "was not ready within 8 s; it wrote `" in error.message
        assert "waiting for the other`; " in error.message
        assert "w0.log" in error.hint

    in_a_nest(scenario)


def test_a_pool_that_runs_is_not_started_twice() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FINE)
        with pytest.raises(ConflictError, match="is already running"):
            await nest.fleet.start_pool(pool.spec, ready_timeout_s=5)
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).status == 200

    in_a_nest(scenario)


def test_a_runtime_folder_with_too_long_socket_paths_is_refused() -> None:
    async def scenario(nest: Nest) -> None:
        deep = nest.folder / ("d" * 60)
        fleet = Fleet(deep, clock=SystemClock())
        await fleet.start()
        try:
            with pytest.raises(EngineError, match="longer than 97 bytes"):
                await fleet.start_pool(nest.spec(FINE), ready_timeout_s=5)
        finally:
            await fleet.stop()

    in_a_nest(scenario)


def test_thirty_two_workers_start_together() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FINE, workers=32)
        assert len({worker.pid for worker in pool.stats().workers}) == 32

    in_a_nest(scenario)


@pytest.mark.parametrize(
    ("source", "expected", "logged"),
    [
        ("def main(e, c):\n print('seen', e['a'])\n return {'got': e}\n", ({"got": {"a": 1}}, None), "\tseen 1\n"),
        ("def main(e, c): raise ValueError('boom')\n", (None, "ValueError: boom"), "[ERROR] ValueError: boom"),
        ("def main(e, c): return object()\n", (None, "Runtime.MarshalError: Unable to marshal response: Object of type "
         "object is not JSON serializable"), "[ERROR] Runtime.MarshalError"),
        ("import nowhere_at_all\n", (None, "Runtime.ImportModuleError: Unable to import module 'app': No module named "
         "'nowhere_at_all'"), "[ERROR] Runtime.ImportModuleError"),
        ("import os\ndef main(e, c): os._exit(4)\n", (None, "Runtime.ExitError: RequestId: ID Error: Runtime exited "
         "with error: exit status 4"), "Status: error\tError Type: Runtime.ExitError"),
        ("import time\nheld = []\ndef main(event, context): held.append(b'x' * (150 << 20)); time.sleep(60)",
         (None, "Runtime.ExitError: RequestId: ID Error: Runtime exited with error: signal: killed"),
         "Max Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory"),
    ],
)  # fmt: skip
def test_an_invocation_returns_result_or_error_and_log(
    source: str, expected: tuple[Any, str | None], logged: str
) -> None:
    async def scenario(nest: Nest) -> None:
        result = await invoke_once(nest.spec(source), {"a": 1})
        payload, error = expected
        assert (result.error and re.sub("[0-9a-f-]{36}", "ID", result.error)) == error
        assert result.failed == (error is not None)
        if error is None:
            assert result.payload == payload
            assert "START RequestId" in result.log
            assert "Init Duration" in result.log
        assert logged in result.log

    in_a_nest(scenario)


def test_the_import_does_not_count_against_an_invocations_timeout() -> None:
    async def scenario(nest: Nest) -> None:
        source = "import time\ntime.sleep(1.2)\ndef main(e, c): return c.get_remaining_time_in_millis() > 500\n"
        result = await invoke_once(nest.spec(source, timeout_s=1), {})
        assert (result.error, result.payload) == (None, True)

    in_a_nest(scenario)


def test_an_invocation_that_times_out_is_ended_with_its_child_processes() -> None:
    async def scenario(nest: Nest) -> None:
        source = (
            "import os, subprocess, time\ndef main(e, c):\n child = subprocess.Popen(['sleep', '300'])\n"
            " open(os.environ['LAMBDA_TASK_ROOT'] + '/child', 'w').write(str(child.pid))\n time.sleep(300)\n"
        )
        spec = nest.spec(source, timeout_s=1)
        result = await invoke_once(spec, {})
        assert re.fullmatch(r"Sandbox\.Timedout: RequestId: [0-9a-f-]{36} Error: Task timed out after 1\.00 seconds",
                            result.error or "")  # fmt: skip
        assert re.search(r"START .*\n.* Task timed out after 1\.00 seconds\n.*END .*\n.*Status: timeout\n", result.log)
        child = int(nest.read(f"{spec.task_root}/child"))
        await asyncio.to_thread(eventually, lambda: not alive(child))

    in_a_nest(scenario)


KINDS = """
import os, time
def main(event, context):
    return {
        "none": lambda: None,
        "text": lambda: "hello",
        "object": lambda: {"message": "hello", "input": {}},
        "bare": lambda: {"body": {"message": "hello"}},
        "well": lambda: {"statusCode": 200, "body": "{}"},
        "default": lambda: {"body": "API Gateway takes it for 200"},
        "missing": lambda: {"statusCode": 404},
        "number": lambda: {"statusCode": 200, "body": 5},
        "raises": lambda: {}["x"],
        "exits": lambda: os._exit(3),
        "hangs": lambda: time.sleep(60),
    }[event["queryStringParameters"]["kind"]]()
"""


def test_the_first_request_fails_a_candidate_only_without_a_status_code() -> None:
    functions = (Function("hello", "src/app.main", timeout_s=1, routes=(Route("ANY", "/x"),)),)

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(KINDS, timeout_s=1)

        async def sent(kind: str, status: int = ANY_STATUS) -> str | None:
            request = SmokeRequest("GET", f"/x?kind={kind}", status=status)
            return await smoke_workers([request], functions, {"hello": pool.workers[0].socket})

        for kind, returned in (
            ("none", "NoneType"),
            ("text", "str"),
            ("object", "'message'"),
            ("bare", "body is dict"),
        ):
            for status in (ANY_STATUS, 200):
                with pytest.raises(CandidateFailedError) as caught:
                    await sent(kind, status)
                assert caught.value.message.startswith(
                    "src/app.py: main (function hello) returned no statusCode to GET /x"
                )
                assert returned in caught.value.message
        assert [await sent(kind) for kind in ("well", "default")] == [None, None]
        for kind, told in (
            ("missing", "404"),
            ("number", "502"),
            ("raises", "502"),
            ("exits", "no "),
            ("hangs", "no "),
        ):
            assert str(await sent(kind)).startswith(f"GET /x?kind={kind}: {told}")
        assert (await asyncio.to_thread(ask, pool.workers[0].socket, "/x?kind=object")).json == {
            "message": "Internal server error"
        }

    in_a_nest(scenario)
