"""The daemon's API and its client: responses that are cut off, errors of any form, followed events."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from hitless.api.app import Api, application
from hitless.api.client import EngineClient, RemoteError
from hitless.errors import EngineError
from tests.component.engine_bench import Bench, run

pytestmark = pytest.mark.component

LINE = b'{"step": 1}\n'
CHUNK = b"%x\r\n%s\r\n" % (len(LINE), LINE)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@contextmanager
def engine_that_answers(folder: Path, answer: bytes) -> Iterator[EngineClient]:
    """One connection, one answer in these bytes, then the end of the connection."""
    path = folder / "api.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                received = b""
                while not received.endswith(b"{}" if received.startswith(b"POST") else b"\r\n\r\n"):
                    received += connection.recv(65536)  # whole: a close with unread bytes is a reset, not an end
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield EngineClient(path)
        thread.join()


@pytest.mark.parametrize("rest", [b"", b"5\r\n{", b"\r\n"])
def test_a_stream_that_is_cut_off_is_an_error(tmp_path: Path, rest: bytes) -> None:
    with engine_that_answers(tmp_path, HEAD + CHUNK + rest) as client:
        lines = client.stream("POST", "/stages/dev/deploy", {})
        assert next(lines) == {"step": 1}
        with pytest.raises(EngineError, match="the connection to the engine broke"):
            list(lines)


def test_a_complete_stream_yields_every_line_and_ends_without_an_error(tmp_path: Path) -> None:
    with engine_that_answers(tmp_path, HEAD + CHUNK + CHUNK + b"0\r\n\r\n") as client:
        assert list(client.stream("POST", "/stages/dev/deploy", {})) == [{"step": 1}, {"step": 1}]


@pytest.mark.parametrize("verb", ["call", "stream"])
def test_an_error_response_of_the_web_server_becomes_an_error_with_a_hint(tmp_path: Path, verb: str) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\nNot Found"
    with engine_that_answers(tmp_path, answer) as client, pytest.raises(RemoteError, match="404 Not Found") as caught:
        list(getattr(client, verb)("GET", "/stages/a/b/releases"))
    assert "engine.log" in caught.value.hint


def test_following_events_loses_none_that_occur_while_others_are_sent(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        followed = Api(bench.engine, cast(Any, None), cast(Any, None))._follow_events(0, 2, None)
        for sentence in ("past", "first"):
            bench.engine.say(sentence)
        assert (await anext(followed))["sentence"] == "past"
        for sentence in ("second", "third", "fourth"):
            bench.engine.say(sentence)
        await bench.engine.wait_until_idle()  # everybody who waited has been told
        async with asyncio.timeout(2):
            seen = [(await anext(followed))["sentence"] for _ in range(4)]
        assert seen == ["first", "second", "third", "fourth"]

    run(tmp_path, story)


def test_an_error_of_the_state_file_has_the_same_form_as_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.store.close()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": []}
    asyncio.run(application(Api(bench.engine, cast(Any, None), cast(Any, None)))(scope, receive, send))
    error = json.loads(sent[1]["body"])["error"]
    assert (error["code"], error["exit_code"]) == ("machine", 1)
    assert "the state file cannot be used: Cannot operate on a closed database" in error["message"]
    assert error["hint"]
