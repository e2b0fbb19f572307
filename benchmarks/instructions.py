"""Counts the instructions of one request by callgrind: in a worker, or in HAProxy with the gateway's configuration.

    python -m benchmarks.instructions worker [--profile]
    python -m benchmarks.instructions gateway [--weight 10000] [--profile] [--costs]

Unlike times, these counts are the same on a busy machine. They include no work of the kernel; for that, count system
calls with `strace -c`. Requests go one after another over one kept connection, after a warm-up that is not counted.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hitless.gateway.render import Layout, Tuning, render
from hitless.gateway.state import Access, GatewayState, RouteState, ServerState

WARM_UP, COUNTED = 300, 1000
HELLO = b"GET /hello HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"
SENT_BY_GATEWAY = b"x-hl-id: %08d-9c1e-4f6e-8a43-1f0e7a520000\r\nx-hl-port: 8080\r\nx-forwarded-for: 127.0.0.1\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-amzn-requestid: 1f0e7a52-9c1e-4f6e-8a43-000000000000\r\n"
    b"x-hitless-release: 1\r\ndate: Mon, 30 Nov 2026 12:00:00 GMT\r\ncontent-length: 2\r\n\r\n{}"
)


@dataclass(frozen=True)
class Count:
    """Instructions of one request, and callgrind's file."""

    each: float
    file: Path

    @property
    def rules(self) -> float:
        """Without copies of memory, because their count depends on how buffers are aligned."""
        copies = [int(line.split()[0].replace(",", "")) for line in annotated(self.file) if "__memcpy_" in line]
        return self.each - sum(copies) / COUNTED


@contextmanager
def counted(command: list[str], folder: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """The process under callgrind, which counts nothing yet."""
    out = f"--callgrind-out-file={folder}/callgrind.out"
    tool = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--trace-children=no", out]
    process = subprocess.Popen([*tool, *command], stderr=(folder / "stderr").open("wb"), **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def count(process: subprocess.Popen[bytes], where: str | tuple[str, int], folder: Path, last: bytes) -> Count:
    """Send the requests and stop the process."""
    with connected(where) as sock:
        ask(sock, WARM_UP, last)
        control("--instr=on", process)
        ask(sock, COUNTED, last)
        control("--dump", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    file = max(folder.glob("callgrind.out*"), key=total)
    return Count(total(file) / COUNTED, file)


def total(file: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", file.read_text(errors="replace"), re.MULTILINE)
    return int(found[1]) if found else 0


def annotated(file: Path) -> list[str]:
    """A line for each function, the most costly first."""
    command = ["callgrind_annotate", "--threshold=100", "--auto=no", str(file)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line for line in text.splitlines() if "%" in line]


def control(order: str, process: subprocess.Popen[bytes]) -> None:
    subprocess.run(["callgrind_control", order, str(process.pid)], check=True, capture_output=True, timeout=120)


def connected(where: str | tuple[str, int]) -> socket.socket:
    """A connection, as soon as there is a listener."""
    end = time.monotonic() + 120
    while True:
        sock = socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET)
        try:
            sock.connect(where)
        except OSError:
            sock.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            sock.settimeout(120)
            return sock


def ask(sock: socket.socket, times: int, last: bytes) -> None:
    for number in range(times):
        sock.sendall(HELLO + (last % number if b"%" in last else last))
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer


def worker(folder: Path) -> Count:
    """A worker alone, without the gateway."""
    path = f"{folder}/w0.sock"
    serve = [sys.executable, "-m", "benchmarks.bare_worker", path]
    with counted(serve, folder, stdout=subprocess.DEVNULL) as process:
        return count(process, path, folder, SENT_BY_GATEWAY)


def gateway(folder: Path, weight: int = 0, without: int | None = None) -> Count:
    """HAProxy with a stage whose pools answer at once. `without`: leave out this line of the configuration."""
    state = GatewayState.initial(["dev"], pools=8)
    pools = list(state.pools)
    with ExitStack() as stack:
        for index in range(4):
            path = f"{folder}/w{index}.sock"
            answer_all(stack, path)
            name = f"p0{index // 2}"
            pools[index // 2] = state.pool(name)
            servers = (*pools[index // 2].servers, ServerState(f"w{index}", path, 16, checked=False))
            pools[index // 2] = replace(pools[index // 2], servers=servers)
        routes = tuple(
            RouteState(f"dev.{number + 1}", method, "/hello", f"p0{number}")
            for number in range(2)
            for method in ("GET", "POST")
        )
        stage = replace(state.stages[0], live=1, candidate=2 if weight else None, weight=weight, shield=True)
        state = replace(state, pools=tuple(pools), routes=routes, stages=(stage,))
        state = state.with_access("dev", Access(0, query=False))  # sampled, and no request is chosen
        layout = Layout(folder, folder / "logs")
        layout.boot.mkdir(exist_ok=True)
        (folder / "hop").mkdir(exist_ok=True)
        files = render(state, layout, Tuning(1, 500))
        for name, text in files.items():
            (layout.boot / name).write_text(text)
        if without is not None:
            lines = layout.configuration.read_text().split("\n")
            lines[without] = ""
            layout.configuration.write_text("\n".join(lines))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        haproxy = ["haproxy", "-db", "-q", "-f", str(layout.configuration)]
        log = stack.enter_context((folder / "access").open("wb")).fileno()
        descriptors = {"HITLESS_FD_0": str(listener.fileno()), "HITLESS_ACCESS_0": str(log)}
        options = {"pass_fds": [listener.fileno(), log], "env": {**os.environ, **descriptors}}
        with counted(haproxy, folder, **options) as process:
            return count(process, listener.getsockname(), folder, b"\r\n")


def answer_all(stack: ExitStack, path: str) -> None:
    """A worker that sends the same response to each request."""
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(path)
    listener.listen()

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(sock,), daemon=True).start()

    def answer(sock: socket.socket) -> None:
        with sock:
            while sock.recv(65536):
                sock.sendall(RESPONSE)

    threading.Thread(target=accept, daemon=True).start()


def costs(weight: int) -> None:
    """Print each rule's instructions: those of the whole configuration less those without its line, without copies."""
    with tempfile.TemporaryDirectory() as place:
        whole = gateway(Path(place), weight).rules
        lines = (Path(place) / "boot" / "haproxy.cfg").read_text().split("\n")
    print(f"{whole:10,.0f} all")
    section = ""
    for number, line in enumerate(lines):
        section = line if line[:1].isalpha() else section
        if section not in SECTIONS or not re.match(" +(http-request|http-after|use_backend|option forw)", line):
            continue
        with tempfile.TemporaryDirectory() as place:
            try:
                cost = f"{whole - gateway(Path(place), weight, number).rules:10,.0f}"
            except (AssertionError, OSError, subprocess.SubprocessError):
                cost = "    needed"
        print(cost, line.strip()[:150], flush=True)


SECTIONS = ("defaults base", "defaults pool from base", "frontend stage_dev from front")
"""What a request without a candidate passes."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("subject", choices=("worker", "gateway"))
    parser.add_argument("--weight", type=int, default=0, help="ten-thousandths of the requests to a candidate")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="print the N most costly functions")
    parser.add_argument("--costs", action="store_true", help="count the gateway without each of its rules in turn")
    options = parser.parse_args()
    if options.costs:
        return costs(options.weight)
    with tempfile.TemporaryDirectory() as place:
        found = worker(Path(place)) if options.subject == "worker" else gateway(Path(place), options.weight)
        print(f"{found.each:,.0f} instructions a request")
        if options.profile:
            print("\n".join(annotated(found.file)[: options.profile]))
    return None


if __name__ == "__main__":
    main()
