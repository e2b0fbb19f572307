"""A stand-in for a worker: a threaded HTTP server on a Unix socket that reports what it received. Arguments: socket
path, release, milliseconds a request takes. `/die` ends the process without a response, `/drop` the connection;
`/slow/MS` takes that long;
`/ANY/RELEASE/STATUS` gets that status from that release alone, `/ANY/RELEASE/slow` a 500 after a second.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    release = ""
    delay_s = 0.0

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.startswith("/die"):
            os._exit(3)
        if self.path == "/drop":
            self.close_connection = True
            return
        if self.path.startswith("/slow/"):
            time.sleep(int(self.path.rsplit("/", 1)[1]) / 1000)
        elif self.delay_s:
            time.sleep(self.delay_s)
        status = self.broken()
        told: dict[str, Any] = {
            "release": self.release,
            "pid": os.getpid(),
            "method": self.command,
            "path": self.path,
            "headers": [[name, value] for name, value in self.headers.items()],
            "body_bytes": len(body),
        }
        answer = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.send_header("x-release", self.release)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)
        self.wfile.flush()

    def broken(self) -> int:
        match self.path.split("/")[1:]:
            case [_, self.release, "slow"]:
                time.sleep(1)
                return 500
            case [_, self.release, status]:
                return int(status)
        return 200

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        return


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main(path: str, release: str, delay_ms: str) -> None:
    Handler.release, Handler.delay_s = release, int(delay_ms) / 1000
    with Server(path, Handler) as server:
        server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
