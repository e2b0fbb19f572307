"""The peers: each serves the same JSON with two workers, without an access log, on a port of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.machine import PEERS, ROOT, BenchmarkError, free_port, tool

_START_LIMIT_S = 15.0
_NGINX = Path(__file__).with_name("apps") / "nginx.conf"


@contextmanager
def granian() -> Iterator[str]:
    """granian + starlette; the URL."""
    port = free_port()
    words = [
        "--interface",
        "asgi",
        "--workers",
        "2",
        "--log-level",
        "error",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    with _serving("granian", [*words, "benchmarks.apps.asgi:app"], port) as url:
        yield url


@contextmanager
def uvicorn() -> Iterator[str]:
    """uvicorn (uvloop, httptools) + starlette; the URL."""
    port = free_port()
    words = ["--workers", "2", "--no-access-log", "--log-level", "error", "--host", "127.0.0.1", "--port", str(port)]
    with _serving("uvicorn", [*words, "benchmarks.apps.asgi:app"], port) as url:
        yield url


@contextmanager
def gunicorn() -> Iterator[str]:
    """gunicorn (sync workers) + flask, on TCP; the URL. Sync workers know no keep-alive."""
    port = free_port()
    with _serving("gunicorn", _gunicorn(f"127.0.0.1:{port}"), port) as url:
        yield url


@contextmanager
def gunicorn_behind_nginx(folder: Path) -> Iterator[str]:
    """The same behind nginx, which keeps the clients' connections; the URL."""
    port = free_port()
    folder.mkdir(mode=0o755)
    folder.parent.chmod(0o755)  # nginx's workers are another user's
    config = folder / "nginx.conf"
    config.write_text(_NGINX.read_text().replace("@FOLDER@", str(folder)).replace("@PORT@", str(port)))
    with ExitStack() as stack:
        stack.enter_context(_started([str(PEERS / "gunicorn"), *_gunicorn(f"unix:{folder}/gunicorn.sock")]))
        stack.enter_context(_started([tool("nginx"), "-c", str(config), "-e", "stderr"]))
        _await(port, "nginx")
        _await_socket(folder / "gunicorn.sock")
        yield f"http://127.0.0.1:{port}"


def _gunicorn(bind: str) -> list[str]:
    return ["--workers", "2", "--log-level", "error", "--no-control-socket", "--bind", bind, "benchmarks.apps.wsgi:app"]


@contextmanager
def _serving(program: str, words: Sequence[str], port: int) -> Iterator[str]:
    with _started([str(PEERS / program), *words]):
        _await(port, program)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _started(command: Sequence[str]) -> Iterator[None]:
    """The program runs; afterwards it has ended, by SIGTERM or at last by SIGKILL."""
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise BenchmarkError(f"{command[0]} is missing; scripts/bench installs it") from error
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(port: int, program: str) -> None:
    _connect(socket.AF_INET, ("127.0.0.1", port), program)


def _await_socket(path: Path) -> None:
    _connect(socket.AF_UNIX, str(path), "gunicorn")


def _connect(family: socket.AddressFamily, address: tuple[str, int] | str, program: str) -> None:
    end = time.monotonic() + _START_LIMIT_S
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(address)
            except OSError as error:
                if time.monotonic() > end:
                    raise BenchmarkError(f"{program} did not start within {_START_LIMIT_S:g} s") from error
            else:
                return
        time.sleep(0.05)
