"""The bootstrap of Node.js functions, run by the machine's Node.js against a Runtime API of the test.

What Lambda's own runtime does is from github.com/aws/aws-lambda-nodejs-runtime-interface-client (src/UserFunction.js,
Runtime.js, CallbackContext.js, Errors.js), and from docs.aws.amazon.com/lambda/latest/dg/nodejs-handler.html.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import hitless.worker.runtime_api as runtime_api
from hitless.artifact.node import find_node

NODE = find_node("nodejs20.x")
pytestmark = [pytest.mark.component, pytest.mark.skipif(NODE is None, reason="Node.js is not installed")]

BOOTSTRAP = Path(runtime_api.__file__).with_name("bootstrap.mjs")
API = "/2018-06-01/runtime"

CASES = """
const cases = {
  async: async (event, context) => ({ id: context.awsRequestId, left: context.getRemainingTimeInMillis() > 1000,
    arn: context.invokedFunctionArn, memory: context.memoryLimitInMB, version: context.functionVersion,
    trace: process.env._X_AMZN_TRACE_ID, env: process.env.AWS_EXECUTION_ENV }),
  logs: async () => { console.log("hello %s", "world", { a: 1 }); console.warn("two\\nlines"); return 1; },
  callback: (event, context, callback) => { setTimeout(() => global.order.push("later"), 20); callback(null, order); },
  atOnce: (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    setTimeout(() => {}, 60000).unref; callback(null, "now"); },
  callbackError: (event, context, callback) => callback(new RangeError("far")),
  done: (event, context) => { context.done(null, 5); context.done(null, 6); },
  succeed: (event, context) => context.succeed("well"),
  failNothing: (event, context) => context.fail(),
  both: async (event, context, callback) => { callback(null, "of the callback"); return "of the promise"; },
  nothing: () => {},
  undefinedResult: async () => undefined,
  thrown: () => { throw new TypeError("no"); },
  thrownText: async () => { throw "only text"; },
  rejected: () => Promise.reject(Object.assign(new Error("coded"), { code: "E_1" })),
  circular: async () => { const a = {}; a.a = a; return a; },
  bigint: async () => ({ n: 1n }),
  never: () => new Promise(() => {}),
  later: async () => { await new Promise((done) => setTimeout(done, 5)); return "later"; },
};
global.order = ["first"];
exports.handler = (event, context, callback) => cases[event.case](event, context, callback);
exports.nested = { deep: { handler: async () => "deep" } };
exports.text = "text";
"""


class Ran(NamedTuple):
    """`posts`: (what of the Runtime API, the document). `said`: the lines that the process printed."""

    posts: list[tuple[str, Any]]
    said: str
    status: int


@contextmanager
def served(events: Sequence[object]) -> Iterator[tuple[str, queue.Queue[tuple[str, Any]]]]:
    """A Runtime API with these events. When they are used up, the next one is waited for in vain."""
    waiting = list(enumerate(events))
    posts: queue.Queue[tuple[str, Any]] = queue.Queue()
    ended = threading.Event()

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if not waiting:
                posts.put(("idle", None))
                ended.wait()
                return
            number, event = waiting.pop(0)
            self.answer(200, json.dumps(event), **{
                "Lambda-Runtime-Aws-Request-Id": f"id-{number}", "Lambda-Runtime-Deadline-Ms": "99999999999999",
                "Lambda-Runtime-Invoked-Function-Arn": "arn:x", "Lambda-Runtime-Trace-Id": "Root=1-2",
            })  # fmt: skip

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.put((self.path.removeprefix(API), json.loads(body)))
            self.answer(202, '{"status": "OK"}')

        def answer(self, status: int, body: str, **headers: str) -> None:
            self.send_response(status)
            for name, text in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", posts
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def run(
    folder: Path, files: Mapping[str, str], events: Sequence[object] = (), handler: str = "api.handler", major: int = 20
) -> Ran:
    """What the bootstrap posts and prints until it waits for one more event, or ends."""
    assert NODE is not None
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with served(events) as (address, posts):
        environment = {
            "PATH": os.environ["PATH"], "AWS_LAMBDA_RUNTIME_API": address, "LAMBDA_TASK_ROOT": str(folder),
            "_HANDLER": handler, "AWS_EXECUTION_ENV": f"AWS_Lambda_nodejs{major}.x", "NODE_PATH": str(folder),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_FUNCTION_VERSION": "7",
        }  # fmt: skip
        process = subprocess.Popen(
            [NODE.path, str(BOOTSTRAP)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

        def tell_end() -> None:
            process.wait()
            posts.put(("end", None))

        threading.Thread(target=tell_end).start()
        found = []
        while (post := posts.get(timeout=20))[0] not in ("idle", "end"):
            found.append(post)
        process.kill()
        said = process.communicate()[0]
    return Ran(found, said, process.returncode)


def test_a_handler_answers_in_every_style_of_node_20(tmp_path: Path) -> None:
    names = ["async", "logs", "callback", "done", "succeed", "both", "nothing", "undefinedResult", "later"]
    ran = run(tmp_path, {"api.js": CASES}, [{"case": name} for name in names])
    assert [path for path, _ in ran.posts] == [f"/invocation/id-{number}/response" for number in range(len(names))]
    results = dict(zip(names, (document for _, document in ran.posts), strict=True))
    assert results.pop("async") == {
        "id": "id-0", "left": True, "arn": "arn:x", "memory": "128", "version": "7", "trace": "Root=1-2",
        "env": "AWS_Lambda_nodejs20.x",
    }  # fmt: skip
    assert results == {
        "logs": 1, "callback": ["first", "later"], "done": 5, "succeed": "well", "both": "of the callback",
        "nothing": None, "undefinedResult": None, "later": "later",
    }  # fmt: skip
    assert "\tid-1\tINFO\thello world { a: 1 }\n" in ran.said
    assert "\tid-1\tWARN\ttwo\nlines\n" in ran.said


def test_a_callback_need_not_wait_for_the_event_loop(tmp_path: Path) -> None:
    assert run(tmp_path, {"api.js": CASES}, [{"case": "atOnce"}]).posts == [("/invocation/id-0/response", "now")]


def test_errors_have_type_message_and_trace_and_the_process_goes_on(tmp_path: Path) -> None:
    expected = {
        "thrown": ("TypeError", "no"),
        "thrownText": ("string", "only text"),
        "rejected": ("Error", "coded"),
        "callbackError": ("RangeError", "far"),
        "failNothing": ("string", "handled"),
        "circular": ("Error", "Unable to stringify response body"),
        "bigint": ("Error", "Unable to stringify response body"),
        "never": ("Runtime.NodeJsExit", "never settled"),
    }
    ran = run(tmp_path, {"api.js": CASES}, [*({"case": name} for name in expected), {"case": "later"}])
    assert ran.posts.pop() == (f"/invocation/id-{len(expected)}/response", "later")
    for (path, error), (name, (kind, message)) in zip(ran.posts, expected.items(), strict=True):
        assert path.endswith("/error")
        assert (error["errorType"], message in error["errorMessage"]) == (kind, True), name
        assert set(error) == {"errorType", "errorMessage", "trace"}
    assert ran.posts[0][1]["trace"][0] == "TypeError: no"
    assert '\tid-0\tERROR\tInvoke Error \t{"errorType":"TypeError","errorMessage":"no","stack":["TypeErr' in ran.said
    assert '"code":"E_1"' in ran.said


@pytest.mark.parametrize(
    ("code", "kind", "message", "status"),
    [
        ("Promise.reject(new Error('lost'))", "Runtime.UnhandledPromiseRejection", "Error: lost", 128),
        ("setTimeout(() => { throw new Error('loose') }, 1)", "Error", "loose", 129),
        ("process.exit(3)", "", "", 3),
    ],
)
def test_what_no_handler_catches_ends_the_process(
    tmp_path: Path, code: str, kind: str, message: str, status: int
) -> None:
    source = f"export const handler = async () => {{ {code}; await new Promise((done) => setTimeout(done, 9999)); }}"
    ran = run(tmp_path, {"api.mjs": source}, [{}])
    told = [(path, error["errorType"], error["errorMessage"]) for path, error in ran.posts]
    assert told == ([("/invocation/id-0/error", kind, message)] if kind else [])
    assert ran.status == status


ESM = "import { seven } from './seven.js'; export const handler = async () => seven;"


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"src/api.mjs": "export const handler = async () => 7"}, "src/api.handler"),
        ({"src/api.js": ESM, "src/seven.js": "export const seven = 7", "package.json": '{"type": "module"}'},
         "src/api.handler"),
        ({"api.cjs": "exports.handler = async () => 7"}, "api.handler"),
        ({"api.js": "exports.a = {b: {c: async () => 7}}"}, "api.a.b.c"),
        ({"api.js": "module.exports.handler = async () => require('lib/seven')", "lib/seven.js": "module.exports = 7"},
         "api.handler"),
        ({"api/index.js": "exports.handler = async () => 7"}, "api.handler"),
        ({"node_modules/api/index.js": "exports.handler = async () => 7"}, "api.handler"),
    ],
)  # fmt: skip
def test_a_handler_is_found_as_on_lambda(tmp_path: Path, files: Mapping[str, str], handler: str) -> None:
    assert run(tmp_path, files, [{}], handler).posts == [("/invocation/id-0/response", 7)]


@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        ({}, "api.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'api'"),
        ({"api.js": "require('absent')"}, "api.handler", "Runtime.ImportModuleError", "Cannot find module 'absent'"),
        ({"api.mjs": "import 'absent'"}, "api.handler", "Error", "Cannot find package 'absent'"),
        ({"api.js": CASES}, "api.wrong", "Runtime.HandlerNotFound", "api.wrong is undefined or not exported"),
        ({"api.js": CASES}, "api.text", "Runtime.HandlerNotFound", "api.text is not a function"),
        ({"api.js": "exports.handler = ;"}, "api.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected"),
        ({"api.mjs": "export const x = ;"}, "api.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: Unexpected"),
        ({"api.js": "throw new Error('at import')"}, "api.handler", "Error", "at import"),
        ({"api.js": CASES}, "../api.handler", "Runtime.MalformedHandlerName", "is not a valid handler name"),
        ({"api.js": CASES}, "api", "Runtime.MalformedHandlerName", "is not a valid handler name"),
        ({"api.js": "exports.handler = awslambda.streamifyResponse(() => 1)"}, "api.handler", "Error", "streaming"),
    ],
)
def test_what_cannot_be_loaded_is_an_init_error(
    tmp_path: Path, files: Mapping[str, str], handler: str, kind: str, message: str
) -> None:
    ran = run(tmp_path, files, [{}], handler)
    assert [(path, error["errorType"]) for path, error in ran.posts] == [("/init/error", kind)]
    assert message in ran.posts[0][1]["errorMessage"]
    assert ran.status == 129
    if "api.js" in files and "Syntax" in kind:  # Node.js keeps the place in a module of ESM to itself
        assert any("api.js:1" in line for line in ran.posts[0][1]["trace"])


def test_node_24_has_no_callbacks_and_takes_plain_results(tmp_path: Path) -> None:
    source = """exports.handler = (event, context) => Object.keys(context).filter((key) => /done|fail|Waits/.test(key));
    exports.old = async (event, context, callback) => 1;"""
    assert run(tmp_path, {"api.js": source}, [{}], major=24).posts == [("/invocation/id-0/response", [])]
    refused = run(tmp_path, {}, [{}], "api.old", major=24).posts
    assert [(path, error["errorType"]) for path, error in refused] == [
        ("/init/error", "Runtime.CallbackHandlerDeprecated")
    ]
