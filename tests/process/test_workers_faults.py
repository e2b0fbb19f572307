"""Workers, zygotes and root zygotes that die, hang or loop, and the effect on requests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from http.client import HTTPException
from pathlib import Path

import pytest

from hitless.errors import CandidateFailedError
from hitless.worker.layout import WorkerState
from hitless.workers.pool import Pool
from tests.process.workers_support import Answer, Nest, UnixConnection, alive, ask, in_a_nest, kill
from tests.support import eventually, have_ended

pytestmark = pytest.mark.process

FATAL = """
import ctypes, json, os, time
def main(event, context):
    with open(os.environ["LAMBDA_TASK_ROOT"] + "/begun", "a") as file:
        file.write(context.aws_request_id + " " + event["httpMethod"] + chr(10))
    match event["path"]:
        case "/exit": os._exit(7)
        case "/abort": os.abort()
        case "/kill": os.kill(os.getpid(), 9)
        case "/sleep": time.sleep(60)
        case "/sleep-exit": time.sleep(0.5); os._exit(7)
    return {"statusCode": 200, "body": json.dumps({"pid": os.getpid()})}
"""


def begun(pool: Pool) -> list[str]:
    """The requests that the handler has begun, from its own record."""
    return (Path(pool.spec.task_root) / "begun").read_text().split("\n")[:-1]


def dies_without_response(path: Path, target: str, method: str = "GET", request_id: str = "") -> None:
    """Send a request that ends its worker: its connection must end, and not stay open until the timeout."""
    with pytest.raises((OSError, HTTPException)) as ended:
        ask(path, target, method, request_id=request_id)
    assert not isinstance(ended.value, TimeoutError)


async def quietly(path: Path, target: str, method: str = "GET", request_id: str = "") -> None:
    await asyncio.to_thread(dies_without_response, path, target, method, request_id)


async def busy_pid(pool: Pool, other_than: int = 0) -> int:
    """Wait until worker 0, and not one that is dying, is running a request."""

    def probe() -> int:
        worker = pool.stats().workers[0]
        return worker.pid if worker.busy and worker.pid != other_than and alive(worker.pid) else 0

    return await asyncio.to_thread(eventually, probe)


def test_a_killed_worker_is_replaced_at_once_on_the_same_socket() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        for _ in range(5):
            pid = pool.stats().workers[0].pid
            kill(pid)
            answer = await asyncio.to_thread(ask, pool.workers[0].socket)
            assert answer.json["pid"] != pid
        died = await nest.event("was killed by SIGKILL")
        assert died.sentence == "worldclock/dev r3 api: worker 0 was killed by SIGKILL"
        await nest.event("worker 0 was replaced at once")
        assert pool.stats().restarts == 5

    in_a_nest(scenario)


def test_a_request_whose_worker_died_runs_again_if_it_is_safe_and_is_refused_if_it_is_not() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        first, second = (worker.socket for worker in pool.workers)
        pid = 0
        for method, request_id in (("GET", "get-1"), ("POST", "post-1"), ("DELETE", "delete-1")):
            waiting = asyncio.create_task(quietly(first, "/sleep", method, request_id))
            pid = await busy_pid(pool, pid)
            await asyncio.to_thread(eventually, lambda line=f"{request_id} {method}": line in begun(pool))
            kill(pid)
            await waiting
            again = await asyncio.to_thread(ask, second, "/x", method, request_id=request_id)
            expected = 200 if method == "GET" else 502
            assert (method, again.status) == (method, expected)
            if expected == 502:
                assert again.json == {"message": "Internal server error"}
        assert begun(pool) == ["get-1 GET", "get-1 GET", "post-1 POST", "delete-1 DELETE"]
        assert pool.stats().refused == 2
        never_begun = await asyncio.to_thread(ask, second, "/x", "POST", request_id="post-2")
        assert never_begun.status == 200
        eventually(lambda: "RequestId: post-1 Error: Runtime exited with error: signal: killed" in nest.log())

    in_a_nest(scenario)


def test_a_lost_requests_id_is_remembered_after_the_next_worker_served_others() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        first, second = (worker.socket for worker in pool.workers)
        await quietly(first, "/kill", "POST", "post-1")
        for number in range(3):
            assert (await asyncio.to_thread(ask, first, "/x", "POST", request_id=f"other-{number}")).status == 200
        for path in (first, second):
            assert (await asyncio.to_thread(ask, path, "/x", "POST", request_id="post-1")).status == 502

    in_a_nest(scenario)


def test_a_request_marked_idempotent_may_run_again() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        await quietly(pool.workers[0].socket, "/kill", "POST", "post-1")
        again = await asyncio.to_thread(
            ask, pool.workers[1].socket, "/x", "POST", request_id="post-1", idempotency_key="k"
        )
        assert again.status == 200

    in_a_nest(scenario)


def test_a_request_that_another_worker_runs_is_not_run_again() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        waiting = asyncio.create_task(quietly(pool.workers[0].socket, "/sleep", "POST", "post-1"))
        pid = await busy_pid(pool)
        again = await asyncio.to_thread(ask, pool.workers[1].socket, "/x", "POST", request_id="post-1")
        assert again.status == 502
        kill(pid)
        await waiting

    in_a_nest(scenario)


def test_a_function_that_times_out_causes_a_502_and_its_worker_is_replaced() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL, timeout_s=1)
        pid = pool.stats().workers[0].pid
        began = time.monotonic()
        await quietly(pool.workers[0].socket, "/sleep", request_id="get-1")  # the handler would sleep for a minute
        assert time.monotonic() - began > 0.9, "not before its time is out"
        for worker in pool.workers:
            again = await asyncio.to_thread(ask, worker.socket, "/x", request_id="get-1")
            assert (again.status, again.json) == (502, {"message": "Internal server error"})
        assert begun(pool) == ["get-1 GET"]
        await nest.event("worker 0 timed out")
        stats = pool.stats()
        assert stats.timeouts == 1
        assert stats.workers[0].pid != pid
        eventually(lambda: "get-1 Task timed out after 1.00 seconds" in nest.log())
        log = nest.log()
        assert log.index("START RequestId: get-1") < log.index("Task timed out") < log.index("END RequestId: get-1")
        assert "Status: timeout" in log
        assert log.count("START RequestId: get-1") == 1

    in_a_nest(scenario)


GREEDY = """
import json, os, subprocess, sys, threading, time
kept = []
def hold(): kept.append(b"x" * (150 << 20))
def main(event, context):
    match event["path"]:
        case "/later": threading.Timer(0.3, hold).start()
        case "/hold": hold(); time.sleep(60)
        case "/child": subprocess.run([sys.executable, "-c", "import time; kept = b'x' * (150 << 20); time.sleep(60)"])
        case "/leave-behind":
            if not os.fork():
                if os.fork(): os._exit(0)
                hold(); time.sleep(60)
            os.wait()
        case "/small": kept.append(b"x" * (60 << 20)); time.sleep(0.4)
    return {"statusCode": 200, "body": json.dumps({"pid": os.getpid()})}
"""


@pytest.mark.parametrize("way", ["/hold", "/child"])
def test_a_request_that_needs_more_than_memory_size_is_ended_in_lambdas_words(way: str) -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(GREEDY, timeout_s=30)
        socket = pool.workers[0].socket
        assert (await asyncio.to_thread(ask, socket, "/small")).status == 200
        await quietly(socket, way, request_id="get-1")
        event = await nest.event("more than its memorySize of 128 MB, and was killed in request get-1")
        used_mb = re.search(r"worker 0 used (\d+) MB", event.sentence)
        assert used_mb, event.sentence
        assert 128 < int(used_mb[1]) < 320, "60 MB and 150 MB of the handler, and Python's own, at most"
        again = await asyncio.to_thread(ask, pool.workers[1].socket, "/small", request_id="get-1")
        assert (again.status, again.json) == (502, {"message": "Internal server error"}), "it would end the next one"
        eventually(lambda: "RequestId: get-1 Error: Runtime exited with error: signal: killed" in nest.log())
        assert "Max Memory Used: 128 MB\tStatus: error\tError Type: Runtime.OutOfMemory" in nest.log()
        assert (await asyncio.to_thread(ask, socket)).status == 200

    in_a_nest(scenario)


def test_an_idle_worker_that_holds_too_much_finishes_its_requests_first() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(GREEDY, workers=1)
        socket = pool.workers[0].socket
        first = await asyncio.to_thread(ask, socket, "/later")
        await nest.event("more than its memorySize of 128 MB, and was ended")
        second = await asyncio.to_thread(ask, socket)
        assert (first.status, second.status) == (200, 200)
        assert first.json["pid"] != second.json["pid"]
        await asyncio.to_thread(ask, socket, "/leave-behind")
        await nest.event("a process that a handler left behind used")

    in_a_nest(scenario)


def test_a_candidate_whose_import_needs_more_than_memory_size_is_refused() -> None:
    async def scenario(nest: Nest) -> None:
        with pytest.raises(
            CandidateFailedError, match="more than its memorySize of 128 MB, and was ended before it was"
        ):
            await nest.pool(GREEDY + "hold()")

    in_a_nest(scenario)


@pytest.mark.parametrize("way", ["/time-out", "/exit"])
def test_processes_of_a_handler_end_with_its_worker(way: str) -> None:
    source = """
import os, subprocess, time
def main(event, context):
    child = subprocess.Popen(["sleep", "300"])
    with open(os.environ["LAMBDA_TASK_ROOT"] + "/child", "w") as file:
        file.write(str(child.pid))
    if event["path"] == "/exit": os._exit(1)
    time.sleep(60)
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source, timeout_s=1)
        await quietly(pool.workers[0].socket, way)
        child = int((Path(pool.spec.task_root) / "child").read_text())
        await asyncio.to_thread(eventually, lambda: not alive(child))

    in_a_nest(scenario)


def refused(path: Path) -> bool:
    """Whether a connection is refused at once."""
    connection = UnixConnection(path)
    try:
        connection.connect()
    except OSError:
        return True
    finally:
        connection.close()
    return False


@pytest.mark.parametrize("way", ["exit", "abort"])
def test_a_worker_that_dies_by_its_own_fault_backs_off_without_a_socket(way: str) -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        path = pool.workers[0].socket
        await quietly(path, f"/{way}")
        await nest.event("worker 0 was replaced at once")  # once is no loop
        for delay in ("0.1", "0.2", "0.4", "0.8"):  # the last is long enough to look at it
            await asyncio.to_thread(eventually, lambda: pool.stats().workers[0].state is WorkerState.READY)
            await quietly(path, f"/{way}")
            backing = await nest.event("worker 0 backs off")
            assert backing.sentence == f"worldclock/dev r3 api: worker 0 backs off for {delay} s"
        assert refused(path)
        assert pool.stats().workers[0].state is WorkerState.BACKING_OFF
        assert (await asyncio.to_thread(ask, pool.workers[1].socket)).status == 200
        await nest.event("worker 0 runs again after its back-off")
        assert (await asyncio.to_thread(ask, path)).status == 200

    in_a_nest(scenario)


def any_worker_responds(pool: Pool) -> bool:
    """Whether one of the workers responds; tries each once, the one that died last first."""
    for worker in reversed(pool.workers):
        try:
            return ask(worker.socket).status == 200
        except (OSError, HTTPException):
            continue
    return False


def test_requests_that_kill_their_worker_do_not_stop_the_pool() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        for _ in range(6):
            for worker in pool.workers:  # as the gateway tries them
                await quietly(worker.socket, "/exit")
            assert await asyncio.to_thread(any_worker_responds, pool)

    in_a_nest(scenario)


def test_connections_waiting_for_a_worker_in_back_off_are_closed() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        path = pool.workers[0].socket
        await quietly(path, "/exit")
        await nest.event("worker 0 was replaced at once")
        dying = asyncio.create_task(quietly(path, "/sleep-exit"))
        await busy_pid(pool)
        await quietly(path, "/x", request_id="waiting")  # connected, and never accepted
        await dying
        assert not [line for line in begun(pool) if line.startswith("waiting")]

    in_a_nest(scenario)


def test_a_crash_loop_of_sigkills_backs_off_too() -> None:
    source = """
import os
def end_if_told():
    if os.path.exists(os.environ["LAMBDA_TASK_ROOT"] + "/doom"): os.kill(os.getpid(), 9)
os.register_at_fork(after_in_child=end_if_told)
def main(event, context): return {"statusCode": 200}
"""

    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(source)
        doom = Path(pool.spec.task_root) / "doom"
        doom.touch()
        kill(pool.stats().workers[0].pid)
        await nest.event("worker 0 backs off")
        assert refused(pool.workers[0].socket)
        doom.unlink()
        await nest.event("worker 0 runs again after its back-off")
        await asyncio.to_thread(eventually, lambda: ask(pool.workers[0].socket).status == 200)

    in_a_nest(scenario)


def test_a_worker_ended_by_sigterm_is_replaced_at_once() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL, workers=1)
        pid = pool.stats().workers[0].pid
        os.kill(pid, signal.SIGTERM)
        assert (await nest.event("ended on SIGTERM")).sentence.endswith("worker 0 ended on SIGTERM")
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).json["pid"] != pid

    in_a_nest(scenario)


def test_workers_serve_without_their_zygote_until_a_new_one_replaces_them() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        await asyncio.to_thread(ask, pool.workers[0].socket, "/x", "POST", request_id="old-1")
        kill(pool.zygote_pid)
        died = await nest.event("died; its workers keep serving")
        assert (died.key, died.zygote_died) == (pool.key, True)
        assert f"(pid {pool.zygote_pid})" in died.sentence
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).status == 200
        new = await nest.fleet.replace_zygote(pool.key)
        assert (new.generation, new.old_generations) == (2, (1,))
        assert [worker.name for worker in new.workers] == ["w0g2", "w1g2"]
        for worker in (*pool.workers, *new.workers):
            assert (await asyncio.to_thread(ask, worker.socket)).status == 200
        lost = await asyncio.to_thread(ask, new.workers[0].socket, "/x", "POST", request_id="old-1")
        assert lost.status == 200  # another request has taken the slot's place since: that one was answered
        old_pids = [worker.pid for worker in pool.stats().workers]
        await nest.fleet.stop_old_generation(pool.key, 1, grace_s=5)
        assert not [pid for pid in old_pids if alive(pid)]
        assert not pool.workers[0].socket.parent.exists()
        assert nest.fleet.pools[pool.key].old_generations == ()
        assert nest.fleet.pools[pool.key].stats().requests == 7

    in_a_nest(scenario)


def test_a_request_lost_by_a_worker_without_a_zygote_is_known_to_the_next_generation() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        kill(pool.zygote_pid)
        await nest.event("died; its workers keep serving")
        new = await nest.fleet.replace_zygote(pool.key)
        await quietly(pool.workers[0].socket, "/kill", "POST", "post-1")
        again = await asyncio.to_thread(ask, new.workers[0].socket, "/x", "POST", request_id="post-1")
        assert again.status == 502
        assert begun(pool) == ["post-1 POST"]

    in_a_nest(scenario)


def test_a_dead_root_zygote_is_restarted_without_affecting_pools() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        old = nest.fleet.root_pid
        kill(old)
        await nest.event("the root zygote died and was restarted")
        assert nest.fleet.root_pid not in (0, old)
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).status == 200
        kill(pool.stats().workers[0].pid)
        await nest.event("worker 0 was replaced at once")
        second = await nest.pool(FATAL, key="dev-r4-api-2")
        assert (await asyncio.to_thread(ask, second.workers[0].socket)).status == 200

    in_a_nest(scenario)


def test_a_pool_starts_even_if_the_root_zygote_dies_meanwhile() -> None:
    async def scenario(nest: Nest) -> None:
        kill(nest.fleet.root_pid)
        pool = await nest.pool(FATAL)
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).status == 200

    in_a_nest(scenario)


def test_a_new_daemon_adopts_pools_and_keeps_their_counts() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        await asyncio.to_thread(ask, pool.workers[0].socket)
        pids = [worker.pid for worker in pool.stats().workers]
        root = nest.fleet.root_pid
        adopted = await nest.restart_daemon()
        assert nest.fleet.root_pid == root
        assert list(adopted) == [pool.key]
        found = adopted[pool.key]
        assert (found.spec, found.workers, found.zygote_pid) == (pool.spec, pool.workers, pool.zygote_pid)
        assert [worker.pid for worker in found.stats().workers] == pids
        assert found.stats().requests == 1
        kill(pids[0])
        await nest.event("worker 0 was killed by SIGKILL")

    in_a_nest(scenario)


def test_adoption_finds_living_pools_by_their_locks_and_ends_partly_started_ones() -> None:
    async def scenario(nest: Nest) -> None:
        dead = await nest.pool(FATAL, key="dead")
        headless = await nest.pool(FATAL, key="headless")
        half = await nest.pool(FATAL, key="half")
        (half.workers[0].socket.parent / "accepted").unlink()
        half_pids = [half.zygote_pid, *(worker.pid for worker in half.stats().workers)]
        await nest.fleet.detach()
        workers = [worker.pid for worker in dead.stats().workers]
        kill(dead.zygote_pid)
        await asyncio.to_thread(eventually, lambda: not alive(dead.zygote_pid))
        for pid in workers:
            kill(pid)
        kill(headless.zygote_pid)
        await asyncio.to_thread(have_ended, [headless.zygote_pid, *workers])
        adopted = await nest.restart_daemon()
        assert list(adopted) == ["headless"]
        assert (await nest.event("died; its workers keep serving")).key == "headless"
        await asyncio.to_thread(have_ended, half_pids)
        assert sorted(path.name for path in (nest.run / "w").iterdir() if path.is_dir()) == ["headless"]
        assert (await nest.fleet.replace_zygote("headless")).generation == 2

    in_a_nest(scenario)


def test_an_interrupted_replacement_is_removed_and_the_old_workers_stay() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        kill(pool.zygote_pid)
        await nest.event("died; its workers keep serving")
        new = await nest.fleet.replace_zygote(pool.key)
        (new.workers[0].socket.parent / "accepted").unlink()
        adopted = await nest.restart_daemon()
        assert adopted[pool.key].generation == 1
        assert not alive(new.zygote_pid)
        assert (await asyncio.to_thread(ask, pool.workers[0].socket)).status == 200

    in_a_nest(scenario)


def test_stopping_twice_or_without_a_zygote_leaves_nothing() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)
        pids = [worker.pid for worker in pool.stats().workers]
        kill(pool.zygote_pid)
        await nest.event("died; its workers keep serving")
        await nest.fleet.stop_pool(pool.key, grace_s=2)
        await nest.fleet.stop_pool(pool.key, grace_s=2)
        await asyncio.to_thread(have_ended, pids)
        assert not pool.workers[0].socket.parent.parent.exists()

    in_a_nest(scenario)


def test_a_worker_that_exceeds_its_grace_is_killed() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL, timeout_s=60)
        waiting = asyncio.create_task(quietly(pool.workers[0].socket, "/sleep"))
        pid = await busy_pid(pool)
        await nest.fleet.stop_pool(pool.key, grace_s=0.3)
        await waiting
        await asyncio.to_thread(have_ended, [pid])

    in_a_nest(scenario)


def test_a_process_that_reuses_a_pid_is_not_signalled() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL)  # the second worker lives: there is something to end
        ready = time.monotonic()  # start times are told in hundredths of a second: the sleeper's must differ
        await asyncio.to_thread(eventually, lambda: time.monotonic() - ready > 0.05)
        sleeper = await asyncio.create_subprocess_exec("sleep", "300")
        kill(pool.zygote_pid)
        await nest.event("died; its workers keep serving")
        worker = pool.stats().workers[0]
        page = (nest.run / "w" / pool.key / "page").read_bytes()
        old, new = worker.pid.to_bytes(8, "little"), sleeper.pid.to_bytes(8, "little")
        assert page.count(old) == 1
        with (nest.run / "w" / pool.key / "page").open("r+b") as file:
            file.seek(page.index(old))
            file.write(new)
        kill(worker.pid)
        await asyncio.to_thread(eventually, lambda: not alive(worker.pid))
        await nest.fleet.stop_pool(pool.key, grace_s=0)
        assert alive(sleeper.pid)
        sleeper.kill()
        await sleeper.wait()

    in_a_nest(scenario)


def test_no_post_runs_twice_while_workers_are_killed() -> None:
    async def scenario(nest: Nest) -> None:
        pool = await nest.pool(FATAL, timeout_s=20)
        answers: list[int] = []

        async def client(place: int) -> None:
            for number in range(200):
                request_id = f"{place}-{number}"
                for worker in (pool.workers[place], pool.workers[1 - place], pool.workers[place]):
                    try:
                        answer: Answer = await asyncio.to_thread(
                            ask, worker.socket, "/x", "POST", body=b"{}", request_id=request_id
                        )
                    except (OSError, HTTPException):
                        continue
                    answers.append(answer.status)
                    break

        async def killer() -> None:
            for number in range(80):
                pid = pool.stats().workers[number % 2].pid
                if pid and alive(pid):
                    kill(pid)
                await asyncio.sleep(0.03)  # the pace of the kills

        await asyncio.gather(client(0), client(1), killer())
        assert set(answers) <= {200, 502}
        assert len(answers) > 350
        ran = begun(pool)
        assert len(ran) == len(set(ran))

    in_a_nest(scenario)
