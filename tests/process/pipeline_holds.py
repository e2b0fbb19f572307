"""Holds each step of a run where it stands, on real parts, until a file or a door is opened.

Whoever records a push, and the source step, ask git: a stand-in on the path waits, then hands on to the real one. The
test step's buildspec waits; the build step's installer waits for an index that takes its request and does not answer;
the smoke request of the verify step, and a request that the old release has in hand, wait in the handler.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WHEEL = "held-1.0-py3-none-any.whl"
HANDLER = """
    if query.get("hold"):
        held = {folder!r} + "/" + query["hold"]
        behind_the_gateway = event["headers"].get("X-Forwarded-Port") != "80"
        if behind_the_gateway and os.path.exists({folder!r} + "/fail"):
            return answer(dict(), 500)
        if behind_the_gateway and os.path.exists(held):
            open(held + ".reached", "w").close()
            while os.path.exists(held):
                time.sleep(0.02)
"""
GIT = """#!/bin/sh
case "$*" in *" log -1 "*) step=push;; *" cat-file -e "*) step=source;; *) step=none;; esac
if [ -e {folder}/$step ]; then
    : >{folder}/$step.reached
    while [ -e {folder}/$step ] && kill -0 $PPID && ! grep -qs "^State:.Z" /proc/$PPID/status; do sleep 0.02; done
fi
exec {git} "$@"
"""


@dataclass(frozen=True, slots=True)
class Holds:
    """A folder that the build's user can read; a file in it holds the step of that name."""

    folder: Path

    def close(self, step: str) -> None:
        """Hold the step from now on."""
        (self.folder / step).touch()

    def open(self, step: str) -> None:
        (self.folder / step).unlink()

    def reached(self, step: str) -> bool:
        return (self.folder / f"{step}.reached").exists()

    @property
    def path(self) -> str:
        """A PATH with the stand-in for git."""
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    @property
    def command(self) -> str:
        """The command for a buildspec."""
        return f"touch $HOME/begun; echo begun; while [ -e {self.folder / 'test'} ]; do sleep 0.02; done"


@contextmanager
def holds() -> Iterator[Holds]:
    folder = Path(tempfile.mkdtemp(prefix="hitless-holds-"))
    folder.chmod(0o755)
    try:
        git = folder / "bin" / "git"
        git.parent.mkdir()
        git.write_text(GIT.format(folder=folder, git=shutil.which("git")))
        git.chmod(0o755)
        yield Holds(folder)
    finally:
        shutil.rmtree(folder)


@contextmanager
def index(held: Holds) -> Iterator[str]:
    """A package index with one package, `held`, that does not answer as long as the step `build` is held; its URL."""
    wheel = _wheel(held.folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (held.folder / "build.reached").touch()
            while (held.folder / "build").exists() and not ended.wait(0.02):
                pass
            body = wheel
            if not self.path.endswith(".whl"):
                body = f'<a href="/{WHEEL}#sha256={hashlib.sha256(wheel).hexdigest()}">{WHEEL}</a>'.encode()
            with suppress(OSError):
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

        def log_message(self, *_: object) -> None:
            pass

    ended = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def _wheel(folder: Path) -> bytes:
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("held.py", "")
        packed.writestr("held-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: held\nVersion: 1.0\n")
        packed.writestr("held-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("held-1.0.dist-info/RECORD", "")
    return path.read_bytes()
