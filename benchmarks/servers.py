"""The Python servers among the peers. Each runs a copy of `apps/` of its own, which a release changes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import PEERS, BenchmarkError, tool
from benchmarks.running import (
    Running,
    end,
    free_port,
    renewed_by_hup,
    start,
    started,
    wait_for_answer,
    wait_for_release,
)

APPS = Path(__file__).with_name("apps")


def granian() -> AbstractContextManager[Running]:
    """granian: its own HTTP server in Rust, ASGI, two workers."""
    return _asgi("granian", "--interface", "asgi")


def uvicorn() -> AbstractContextManager[Running]:
    """uvicorn with uvloop and httptools, two workers, no access log."""
    return _asgi("uvicorn", "--no-access-log")


@contextmanager
def _asgi(program: str, *options: str) -> Iterator[Running]:
    port = free_port()
    words = [*options, "--workers", "2", "--log-level", "error", "--host", "127.0.0.1", "--port", str(port), "asgi:app"]
    with _copy() as folder, _serving(program, words, folder, port) as running:
        yield running


@contextmanager
def gunicorn_behind_nginx() -> Iterator[Running]:
    """gunicorn's default workers on a Unix socket behind nginx, as in gunicorn's own example."""
    port = free_port()
    with _copy() as folder:
        folder.chmod(0o755)  # nginx's workers are another user's
        config = folder / "nginx.conf"
        config.write_text(config.read_text().replace("@FOLDER@", str(folder)).replace("@PORT@", str(port)))
        nginx = [tool("nginx"), "-c", str(config), "-e", "stderr"]
        bind = f"unix:{folder}/gunicorn.sock"
        words = ["--workers", "2", "--log-level", "error", "--no-control-socket", "--bind", bind, "wsgi:app"]
        with started(nginx, folder=folder) as proxy, _serving("gunicorn", words, folder, port) as running:
            yield Running(running.url, lambda: (*running.roots(), proxy.pid), running.release)


def nginx_granian() -> AbstractContextManager[Running]:
    """granian behind nginx."""
    return _behind(granian, "nginx.conf", _nginx)


def haproxy_granian() -> AbstractContextManager[Running]:
    """granian behind HAProxy."""
    return _behind(granian, "haproxy.cfg", _haproxy)


def haproxy_uvicorn() -> AbstractContextManager[Running]:
    """uvicorn behind HAProxy."""
    return _behind(uvicorn, "haproxy.cfg", _haproxy)


def caddy_granian() -> AbstractContextManager[Running]:
    """granian behind Caddy."""
    return _behind(
        granian, "Caddyfile", lambda file: [tool("caddy"), "run", "--config", file, "--adapter", "caddyfile"]
    )


@contextmanager
def blue_green() -> Iterator[Running]:
    """gunicorn with uvicorn's workers behind nginx, on two ports in turn.

    A release starts the new instance, waits until it responds, points nginx to it, reloads nginx and stops the old one.
    """
    with _copy() as folder:
        write_next = releases_in(folder)
        first = free_port()
        serving = [_uvicorn_workers(folder, first)]
        try:
            with _gateway(folder, "nginx.conf", _nginx, first) as (nginx, running):

                def release() -> None:
                    number = write_next()
                    port = free_port()
                    serving.insert(0, _uvicorn_workers(folder, port))
                    _configure(folder, "nginx.conf", running, port)
                    nginx.send_signal(signal.SIGHUP)  # what `nginx -s reload` sends
                    wait_for_release(running.url, number)
                    end(serving.pop())

                yield replace(running, roots=lambda: (*(one.pid for one in serving), nginx.pid), release=release)
        finally:
            for one in serving:
                end(one)


def _uvicorn_workers(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """gunicorn, when it responds."""
    words = ["--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker", "--log-level", "error"]
    command = [str(PEERS / "gunicorn"), *words, "--no-control-socket", "--bind", f"127.0.0.1:{port}", "asgi:app"]
    process = start(command, folder=folder, environ={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        wait_for_answer(f"http://127.0.0.1:{port}", "gunicorn")
    except BaseException:
        end(process)
        raise
    return process


def _nginx(file: str) -> list[str]:
    return [tool("nginx"), "-c", file, "-e", "stderr"]


def _haproxy(file: str) -> list[str]:
    return [tool("haproxy"), "-db", "-q", "-f", file]


@contextmanager
def _behind(
    server: Callable[[], AbstractContextManager[Running]], name: str, command: Callable[[str], list[str]]
) -> Iterator[Running]:
    """The server's own way to take a release; the gateway stays."""
    with (
        server() as inner,
        _copy() as folder,
        _gateway(folder, name, command, port_of(inner.url)) as (proxy, running),
    ):
        yield replace(running, roots=lambda: (*inner.roots(), proxy.pid), release=inner.release)


@contextmanager
def _gateway(
    folder: Path, name: str, command: Callable[[str], list[str]], server: int
) -> Iterator[tuple[subprocess.Popen[bytes], Running]]:
    """A gateway in front of the port `server`, by HTTP and HTTPS; it takes no release by itself."""
    certificate(folder)
    url, secure_url = f"http://127.0.0.1:{free_port()}", f"https://localhost:{free_port()}"
    running = Running(url, lambda: (), lambda: None, secure_url)
    file = _configure(folder, name, running, server)
    environ = {**os.environ, "HOME": str(folder)}  # where Caddy writes
    with started(command(file), folder=folder, environ=environ) as proxy:
        wait_for_answer(url, name)
        yield proxy, running


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def _configure(folder: Path, name: str, running: Running, server: int) -> str:
    """Write the gateway's configuration; returns its path."""
    text, file = (APPS / "gateways" / name).read_text(), folder / "gateways" / name
    ports = {"@PORT@": str(port_of(running.url)), "@TLS_PORT@": str(port_of(running.secure_url))}
    for mark, value in {**ports, "@FOLDER@": str(folder), "@SERVER@": str(server)}.items():
        text = text.replace(mark, value)
    file.write_text(text)
    return str(file)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost and its key, and both in one file. Raises BenchmarkError."""
    chain, key = folder / "certificate.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [tool("openssl"), *words, *names, "-keyout", str(key), "-out", str(chain)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"openssl made no certificate: {done.stderr}")
    (folder / "both.pem").write_text(chain.read_text() + key.read_text())
    return chain, key


@contextmanager
def _serving(program: str, words: list[str], folder: Path, port: int) -> Iterator[Running]:
    url = f"http://127.0.0.1:{port}"
    # what is installed is compiled already; the copies are too short-lived to be worth it
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with started([str(PEERS / program), *words], folder=folder, environ=environ) as process:
        wait_for_answer(url, program)
        write_next = releases_in(folder)
        yield Running(url, lambda: (process.pid,), lambda: renewed_by_hup(process, url, write_next()))


def releases_in(folder: Path) -> Callable[[], str]:
    """Each call writes the next release's number where the application reads its own, and returns it."""
    numbers = itertools.count(2)

    def write_next() -> str:
        number = str(next(numbers))
        (folder / "RELEASE").write_text(number)
        return number

    return write_next


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as name:
        folder = Path(name) / "app"
        Path(name).chmod(0o755)
        shutil.copytree(APPS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder
