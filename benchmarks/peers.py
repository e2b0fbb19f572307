"""The peers: each serves the same JSON with two workers, without an access log, on a port of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import PEERS, ROOT, BenchmarkError, free_port, tool

_START_LIMIT_S = 15.0
_NGINX = Path(__file__).with_name("apps") / "nginx.conf"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that runs: its URL, and the processes that all others of it descend from."""

    url: str
    roots: tuple[int, ...]


@contextmanager
def granian() -> Iterator[Peer]:
    """granian + starlette."""
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
    with _serving("granian", [*words, "benchmarks.apps.asgi:app"], port) as peer:
        yield peer


@contextmanager
def uvicorn() -> Iterator[Peer]:
    """uvicorn (uvloop, httptools) + starlette."""
    port = free_port()
    words = ["--workers", "2", "--no-access-log", "--log-level", "error", "--host", "127.0.0.1", "--port", str(port)]
    with _serving("uvicorn", [*words, "benchmarks.apps.asgi:app"], port) as peer:
        yield peer


@contextmanager
def gunicorn() -> Iterator[Peer]:
    """gunicorn (sync workers) + flask, on TCP; the URL. Sync workers know no keep-alive."""
    port = free_port()
    with _serving("gunicorn", _gunicorn(f"127.0.0.1:{port}"), port) as peer:
        yield peer


@contextmanager
def gunicorn_behind_nginx(folder: Path) -> Iterator[Peer]:
    """The same behind nginx, which keeps the clients' connections."""
    port = free_port()
    folder.mkdir(mode=0o755)
    folder.parent.chmod(0o755)  # nginx's workers are another user's
    config = folder / "nginx.conf"
    config.write_text(_NGINX.read_text().replace("@FOLDER@", str(folder)).replace("@PORT@", str(port)))
    with ExitStack() as stack:
        commands = (
            [str(PEERS / "gunicorn"), *_gunicorn(f"unix:{folder}/gunicorn.sock")],
            [tool("nginx"), "-c", str(config), "-e", "stderr"],
        )
        roots = tuple(stack.enter_context(_started(command)) for command in commands)
        _await(port, "nginx")
        _await_socket(folder / "gunicorn.sock")
        yield Peer(f"http://127.0.0.1:{port}", roots)


def _gunicorn(bind: str) -> list[str]:
    return ["--workers", "2", "--log-level", "error", "--no-control-socket", "--bind", bind, "benchmarks.apps.wsgi:app"]


@contextmanager
def _serving(program: str, words: Sequence[str], port: int) -> Iterator[Peer]:
    with _started([str(PEERS / program), *words]) as pid:
        _await(port, program)
        yield Peer(f"http://127.0.0.1:{port}", (pid,))


@contextmanager
def _started(command: Sequence[str]) -> Iterator[int]:
    """The program runs, its pid; afterwards it has ended, by SIGTERM or at last by SIGKILL."""
    try:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise BenchmarkError(f"{command[0]} is missing; scripts/bench installs it") from error
    try:
        yield process.pid
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
