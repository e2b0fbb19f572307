"""What handlers see and what their clients get, through real worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from hitless import checks
from hitless.release.document import ReleaseDocument
from hitless.rollout.release import Release, pool_spec
from hitless.service.model import CHECKS, StageSettings
from hitless.worker.request import INVOKE
from tests.process.workers_support import Nest, UnixConnection, ask, in_a_nest
from tests.support import eventually

pytestmark = pytest.mark.process

ECHO = """
import json, os, sys, random, time
def main(event, context):
    return {"statusCode": 200, "body": json.dumps({
        "event": event, "env": dict(os.environ), "path": sys.path, "cwd": os.getcwd(), "pid": os.getpid(),
        "context": {n: str(getattr(context, n)) for n in dir(context) if n[0] != "_"},
        "remaining": context.get_remaining_time_in_millis(), "random": random.random(), "tz": time.tzname[0],
        "modules": sorted(m for m in sys.modules if m.split(".")[0] in ("hitless", "httptools", "setproctitle"))})}
"""


def test_a_handler_sees_lambdas_environment_and_nothing_of_hitless() -> None:
    async def scenario(nest: Nest) -> None:
        os.environ["HITLESS_TEST_SECRET"] = "of the daemon"
        pool = await nest.pool(ECHO)
        seen = (await asyncio.to_thread(ask, pool.workers[0].socket, request_id="id-1")).json
        assert seen["event"]["requestContext"]["requestId"] == seen["context"]["aws_request_id"] == "id-1"
        assert seen["env"]["AWS_LAMBDA_FUNCTION_NAME"] == "worldclock-dev-api" == seen["context"]["function_name"]
        assert seen["env"]["GREETING"] == "hello"
        assert seen["env"]["AWS_LAMBDA_LOG_STREAM_NAME"] == seen["context"]["log_stream_name"]
        assert seen["env"]["_X_AMZN_TRACE_ID"] == seen["event"]["headers"]["X-Amzn-Trace-Id"]
        assert "HITLESS_TEST_SECRET" not in seen["env"]
        assert (seen["context"]["memory_limit_in_mb"], seen["context"]["function_version"]) == ("128", "3")
        assert 4000 < seen["remaining"] <= 5000
        assert seen["cwd"] == seen["path"][0] == pool.spec.task_root
        assert seen["tz"] == "UTC"
        assert seen["modules"] == []
        assert not [entry for entry in seen["path"] if "site-packages" in entry or entry.endswith("/src")]

    in_a_nest(scenario)


def test_a_handler_can_import_boto3_but_not_hitless_own_dependencies() -> None:
    source = """
import importlib, importlib.metadata, json
def main(event, context):
    found = {}
    for name in ("boto3", "botocore", "dateutil", "hitless", "httptools", "starlette", "setproctitle", "pytest"):
        try:
            importlib.import_module(name); found[name] = True
        except ImportError:
            found[name] = False
    return {"statusCode": 200, "body": json.dumps([found, importlib.metadata.version("boto3")])}
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source, timeout_s=20)
        found, version = (await asyncio.to_thread(ask, pool.workers[0].socket)).json
        assert [name for name, there in found.items() if there] == ["boto3", "botocore", "dateutil"]
        assert version

    in_a_nest(scenario)


def test_responses_carry_release_and_request_id_and_connections_are_kept() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(ECHO, workers=1)
        connection = UnixConnection(pool.workers[0].socket)
        for number in range(3):
            connection.request("GET", "/x", headers={"x-hl-id": f"id-{number}"})
            response = connection.getresponse()
            assert (response.status, response.getheader("x-hitless-release")) == (200, "3")
            assert response.getheader("x-amzn-requestid") == f"id-{number}"
            assert response.getheader("content-type") == "application/json"
            response.read()
        connection.close()
        stats = pool.stats()
        assert (stats.requests, stats.errors, stats.latency.count) == (3, 0, 3)
        eventually(lambda: not pool.stats().workers[0].busy)

    in_a_nest(scenario)


BROKEN = """
import sys
def main(event, context):
    match event["path"]:
        case "/raise": raise ValueError("boom")
        case "/none": return None
        case "/exit": sys.exit(3)
        case "/object": return {"statusCode": 200, "body": {"a": 1}}
        case "/split": return {"statusCode": 200, "headers": {"location": "/a\\r\\nset-cookie: b=c"}}
        case "/large": return {"statusCode": 200, "body": "x" * (6 * 1024 * 1024 + 100)}
        case "/interrupt": raise KeyboardInterrupt
    return {"statusCode": 200, "body": "fine"}
"""


def test_a_failing_handler_causes_a_502_at_once_and_its_worker_keeps_serving() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(BROKEN, workers=1)
        path = pool.workers[0].socket
        pid = pool.stats().workers[0].pid
        for target in ("/raise", "/none", "/exit", "/object", "/split", "/large", "/interrupt"):
            answer = await asyncio.to_thread(ask, path, target)
            assert (target, answer.status, answer.json) == (target, 502, {"message": "Internal server error"})
            assert "set-cookie" not in answer.headers
        assert (await asyncio.to_thread(ask, path)).body == b"fine"
        stats = pool.stats()
        assert (stats.errors, stats.by_class[5], stats.failed, stats.workers[0].pid) == (7, 7, 7, pid)
        log = nest.log()
        assert re.search(r"Z\t\[ERROR\] ValueError: boom\n[^\n]*Traceback \(most recent call last\):\n", log)
        assert 'app.py", line 5, in main' in log
        assert "hitless/worker" not in log
        assert "Malformed Lambda proxy response: header location has a line break" in log

    in_a_nest(scenario)


def test_bodies_of_all_kinds_arrive_and_large_responses_are_sent() -> None:
    source = """
import base64
def main(event, context):
    body = event["body"] or ""
    data = base64.b64decode(body) if event["isBase64Encoded"] else body.encode()
    if event["path"] == "/large": return {"statusCode": 200, "body": "y" * 5_000_000}
    return {"statusCode": 200, "body": base64.b64encode(data).decode(), "isBase64Encoded": True}
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source, workers=1)
        path = pool.workers[0].socket
        for body in (b"", b"text", os.urandom(100_000), b"z" * 9_000_000):
            answer = await asyncio.to_thread(ask, path, method="POST", body=body)
            if len(body) < 5_000_000:
                assert answer.body == body
            else:
                assert answer.status == 502  # the echo is over Lambda's limit
        too_large = await asyncio.to_thread(ask, path, method="POST", body=b"z" * (10 * 1024 * 1024 + 1))
        assert (too_large.status, too_large.json) == (413, {"message": "Request Too Long"})
        large = await asyncio.to_thread(ask, path, "/large")
        assert len(large.body) == 5_000_000
        head = await asyncio.to_thread(ask, path, "/large", method="HEAD")
        assert (head.body, head.headers["content-length"]) == (b"", "5000000")

    in_a_nest(scenario)


def test_an_unknown_route_gets_api_gateways_response() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(ECHO, routes=())
        answer = await asyncio.to_thread(ask, pool.workers[0].socket)
        assert (answer.status, answer.json) == (403, {"message": "Missing Authentication Token"})

    in_a_nest(scenario)


def test_the_log_has_lambdas_lines_and_the_handlers_output() -> None:
    source = """
import logging, os, subprocess, sys
print("imported")
logging.getLogger().setLevel(logging.INFO)
def main(event, context):
    if event["path"] == "/quiet": return {"statusCode": 200}
    print("printed"); print("to stderr", file=sys.stderr)
    logging.getLogger("mine").info("logged")
    sys.stdout.write("no end")
    subprocess.run(["echo", "from a subprocess"], check=True)
    os.write(2, b"at descriptor level\\n")
    return {"statusCode": 200}
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source, workers=1)
        path = pool.workers[0].socket
        await asyncio.to_thread(ask, path, request_id="id-1")
        await asyncio.to_thread(ask, path, "/quiet", request_id="id-2")
        eventually(lambda: "REPORT RequestId: id-2" in nest.log())
        lines = nest.log().splitlines()
        stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\t"
        said = [re.sub(f"^{stamp}", "", line) for line in lines]
        assert said[0] == "START RequestId: id-1 Version: 3"
        assert said[1:3] == ["printed", "to stderr"]
        assert re.fullmatch(r"\[INFO\]\t[^\t]+Z\tid-1\tlogged", said[3])
        assert said[4:8] == ["from a subprocess", "at descriptor level", "no end", "END RequestId: id-1"]
        report = r"REPORT RequestId: id-1\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\t"
        assert re.fullmatch(report + r"Max Memory Used: \d+ MB\tInit Duration: [\d.]+ ms\t", said[8])
        assert said[9:11] == ["START RequestId: id-2 Version: 3", "END RequestId: id-2"]
        assert "Init Duration" not in said[11]
        assert all(re.match(stamp, line) for line in lines if "subprocess" not in line and "descriptor" not in line)
        assert re.search(f"{stamp}imported\n", nest.log("zygote"))

    in_a_nest(scenario)


def test_each_process_has_a_descriptive_title() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(ECHO)
        pids = nest.fleet.root_pid, pool.zygote_pid, pool.stats().workers[1].pid
        assert [nest.read(f"/proc/{pid}/cmdline").rstrip("\0") for pid in pids] == [
            f"hitless: root zygote {nest.run}/w",
            "hitless: zygote worldclock/dev r3 api",
            "hitless: worker worldclock/dev r3 api #1",
        ]

    in_a_nest(scenario)


DRAWS = """
import json, os, random, sys, types, uuid
class Numpy(types.ModuleType):
    # numpy's global generator, which nothing seeds again in a fork
    state = random.Random()
    def seed(self): self.state.seed()
sys.modules["numpy.random"] = Numpy("numpy.random")
OWN = random.Random()
AT_IMPORT = str(uuid.uuid4())
def main(event, context):
    drawn = {"random": random.random(), "numpy": sys.modules["numpy.random"].state.random(), "uuid": str(uuid.uuid4()),
             "new": random.Random().random(), "own": OWN.random(), "at_import": AT_IMPORT}
    return {"statusCode": 200, "body": json.dumps(drawn)}
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_workers_share_no_global_random_state(fresh: bool) -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(DRAWS, workers=2, fresh=fresh)
        one, two = [(await asyncio.to_thread(ask, worker.socket)).json for worker in pool.workers]
        shared = {name for name in one if one[name] == two[name]}
        assert shared == (set() if fresh else {"own", "at_import"}), "what the import made is shared, if it is shared"

    in_a_nest(scenario)


def test_hitless_own_function_verifies_tokens_with_libraries_that_no_worker_has() -> None:
    """The whole way of a verification but the gateway. tests/unit/test_checks_tokens.py has the rules."""

    async def scenario(nest: Nest) -> None:
        document = ReleaseDocument("worldclock", "eu-west-1", (), {}, StageSettings("dev", "dev"))
        folders = {"task_root": str(Path(checks.__file__).parent), "log_dir": str(nest.logs / "c")}
        spec = pool_spec(Release("dev", 3, document), CHECKS, key="dev-r3-checks-1", **folders)
        pool = await nest.fleet.start_pool(spec, size=1, ready_timeout_s=20)
        key = RSAKey.generate_key(2048, {"kid": "k"})
        claims = {"iss": "https://i", "exp": int(time.time()) + 60}
        event = {"issuer": "https://i", "audience": [], "scopes": [], "payload": "1.0"}
        event |= {"token": jwt.encode({"alg": "RS256", "kid": "k"}, claims, key)}
        event |= {"keys": json.dumps({"keys": [key.as_dict(private=False)]})}
        body = json.dumps(event).encode()
        answer = await asyncio.to_thread(ask, pool.workers[0].socket, "/hitless-checks", INVOKE, body=body)
        assert answer.json["result"]["context"]["claims"]["iss"] == "https://i"

    in_a_nest(scenario)


def test_sockets_folders_and_the_stats_page_are_private_to_their_owner() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(ECHO)
        folder = pool.workers[0].socket.parent
        for path in (
            pool.workers[0].socket,
            folder / "ctl.sock",
            folder.parent / "page",
            folder.parent.parent / "root.sock",
        ):
            assert path.stat().st_mode & 0o077 == 0, path
        assert folder.parent.stat().st_mode & 0o077 == 0
        assert nest.logs.joinpath("dev-r3-api-1", "w0.log").stat().st_mode & 0o077 == 0

    in_a_nest(scenario)


def test_a_stopping_worker_answers_all_received_requests() -> None:
    source = """
import time
def main(event, context):
    time.sleep(0.3)
    return {"statusCode": 200, "body": event["path"]}
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source, workers=1)
        path = pool.workers[0].socket
        running, waiting, half = (socket.socket(socket.AF_UNIX) for _ in range(3))
        for sock in (running, waiting, half):
            sock.settimeout(10)
            sock.connect(str(path))
        half.sendall(b"POST /half HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nab")
        running.sendall(b"GET /running HTTP/1.1\r\nhost: h\r\n\r\n")
        eventually(lambda: pool.stats().workers[0].busy)
        waiting.sendall(b"GET /waiting HTTP/1.1\r\nhost: h\r\n\r\n")
        stopping = asyncio.create_task(nest.fleet.stop_pool(pool.key, grace_s=10))
        answers = [await asyncio.to_thread(read_all, sock) for sock in (running, waiting)]
        assert b"200 OK" in answers[0]
        assert answers[0].endswith(b"/running")
        assert b"200 OK" in answers[1]
        assert answers[1].endswith(b"/waiting")
        half.sendall(b"cd")
        assert (await asyncio.to_thread(read_all, half)).endswith(b"/half")
        await stopping
        for sock in (running, waiting, half):
            sock.close()

    in_a_nest(scenario)


def test_a_forced_stop_does_not_wait_for_requests() -> None:
    source = """
import time
def main(event, context):
    time.sleep(20)
    return {"statusCode": 200}
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source, workers=1, timeout_s=30)
        with socket.socket(socket.AF_UNIX) as running:
            running.settimeout(30)
            running.connect(str(pool.workers[0].socket))
            running.sendall(b"GET /running HTTP/1.1\r\nhost: h\r\n\r\n")
            eventually(lambda: pool.stats().workers[0].busy)
            await nest.fleet.stop(force=True)
            assert await asyncio.to_thread(read_all, running) == b""
        await nest.fleet.start()

    in_a_nest(scenario)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def test_an_idle_connection_is_never_closed_by_the_worker() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(ECHO, workers=1)
        idle = UnixConnection(pool.workers[0].socket)
        idle.connect()
        for _ in range(50):
            await asyncio.to_thread(ask, pool.workers[0].socket)
        idle.request("GET", "/x")
        assert idle.getresponse().status == 200
        idle.close()

    in_a_nest(scenario)


def test_pools_of_one_root_zygote_do_not_see_each_other() -> None:
    async def scenario(nest: Nest) -> None:
        first = await nest.pool('import json, os\nos.environ["LEAK"] = "1"\ndef main(e, c): return {"statusCode": 200}')
        second = await nest.pool(ECHO, key="dev-r4-api-2")
        assert "LEAK" not in (await asyncio.to_thread(ask, second.workers[0].socket)).json["env"]
        assert first.zygote_pid != second.zygote_pid
        assert json.loads((second.workers[0].socket.parent / "zygote.json").read_text())["pid"] == second.zygote_pid

    in_a_nest(scenario)
