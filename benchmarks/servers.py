"""The Python servers among the peers. Each runs a copy of `apps/` of its own, which a release changes."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.machine import PEERS, tool
from benchmarks.running import Running, free_port, renewed_by_hup, started, wait_for_answer

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
    return _granian_behind("nginx.conf", lambda file: [tool("nginx"), "-c", file, "-e", "stderr"])


def haproxy_granian() -> AbstractContextManager[Running]:
    """granian behind HAProxy."""
    return _granian_behind("haproxy.cfg", lambda file: [tool("haproxy"), "-db", "-q", "-f", file])


def caddy_granian() -> AbstractContextManager[Running]:
    """granian behind Caddy."""
    return _granian_behind("Caddyfile", lambda file: [tool("caddy"), "run", "--config", file, "--adapter", "caddyfile"])


@contextmanager
def _granian_behind(name: str, command: Callable[[str], list[str]]) -> Iterator[Running]:
    port = free_port()
    with granian() as server, _copy() as folder:
        config = folder / "gateways" / name
        text = config.read_text().replace("@FOLDER@", str(folder)).replace("@PORT@", str(port))
        config.write_text(text.replace("@SERVER@", server.url.rpartition(":")[2]))
        environ = {**os.environ, "HOME": str(folder)}  # where Caddy writes
        with started(command(str(config)), folder=folder, environ=environ) as proxy:
            url = f"http://127.0.0.1:{port}"
            wait_for_answer(url, name)
            yield Running(url, lambda: (*server.roots(), proxy.pid), server.release)


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
