"""Hostile HTTP/1.1, by others and by RFC 9112: a worker runs exactly the requests that the client gets responses to.

Each case has a source address of its own, which the gateway tells the worker. A request that a worker sees and the
gateway does not, or one that it sees twice, has no response, or the response of another.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.process.conftest import Site
from tests.process.test_fuzz import worker_pids

pytestmark = pytest.mark.process

HANDLERS = """
import json

def record(event, context):
    client = event["requestContext"]["identity"]["sourceIp"]
    line = json.dumps([client, context.aws_request_id, event["path"], event["headers"].get("Host")]) + "\\n"
    with open(LOG, "a") as log:
        log.write(line)
    return {"statusCode": 200, "headers": {"x-run": context.aws_request_id}, "body": event["path"]}
"""
SERVICE = """
service: hostile
provider: {name: aws, runtime: python3.11}
functions:
  api: {handler: handlers.record, events: [{http: 'ANY /'}, {http: 'ANY /{proxy+}'}]}
custom:
  hitless: {workers: 2, stages: {dev: {%s, alarms: {guard_s: 0}}}}
"""
ORDINARY = "127.8.0.1"
SECOND = "GET /second HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*fields: str, body: str = "hello", line: str = "POST /first HTTP/1.1") -> str:
    return "\r\n".join([line, "Host: x", *fields, "", ""]) + body + SECOND


def chunks(body: str) -> str:
    return post("Transfer-Encoding: chunked", body=body)


REFUSED = {
    # RFC 9112 2.2: a CR that no LF follows is invalid; no whitespace between the request line and the first field
    "2.2 bare CR in a field": post("X: a\rContent-Length: 5"),
    "2.2 bare CR ends a line": post("X: a\rTransfer-Encoding: chunked\r\rY: b", body=""),
    "2.2 space before the first field": f"POST /first HTTP/1.1\r\n Host: x\r\n\r\n{SECOND}",
    "2.2 text before the request": f"\x00\x01\x02\r\n{SECOND}",
    # 2.3: HTTP-name is case-sensitive, one digit, a dot, one digit
    "2.3 lower case": post(line="GET /first http/1.1", body=""),
    "2.3 two digits": post(line="GET /first HTTP/1.10", body=""),
    "2.3 no dot": post(line="GET /first HTTP/11", body=""),
    "2.3 another protocol": post(line="GET /first ICAP/1.1", body=""),
    # 3: method SP request-target SP version
    "3 a space in the target": post(line="GET /first /second HTTP/1.1", body=""),
    "3 a method with a colon": post(line="GET: /first HTTP/1.1", body=""),
    "3 a target of no form": post(line="GET first HTTP/1.1", body=""),
    # 3.2: exactly one Host
    "3.2 two hosts": post("Host: y", body=""),
    # 5: field-line = field-name ":" OWS field-value OWS
    "5 no colon": post("X", body=""),
    "5 no name": post(": x", body=""),
    "5.1 space before the colon": post("Content-Length : 5"),
    "5.1 tab before the colon": post("Transfer-Encoding\t: chunked", body="0\r\n\r\n"),
    "5.5 NUL in a value": post("X: a\x00b", body="").removesuffix(SECOND),
    "5.5 NUL in a name": post("Transfer-Encoding\x00: chunked", body="0\r\n\r\n"),
    # 6.1: a transfer coding that is not known, or chunked not as the last or twice
    "6.1 unknown coding": post("Transfer-Encoding: xchunked", body="0\r\n\r\n"),
    "6.1 vertical tab": post("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n"),
    "6.1 quoted": post('Transfer-Encoding: "chunked"', body="0\r\n\r\n"),
    "6.1 with a parameter": post("Transfer-Encoding: chunked;x=1", body="0\r\n\r\n"),
    "6.1 chunked twice": post("Transfer-Encoding: chunked, chunked", body="0\r\n\r\n"),
    "6.1 chunked in two fields": post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
    "6.1 chunked not last": post("Transfer-Encoding: chunked, identity", body="0\r\n\r\n"),
    "6.1 not chunked": post("Transfer-Encoding: identity", "Content-Length: 5"),
    "6.1 empty": post("Transfer-Encoding:", "Content-Length: 5"),
    # 6.3: an invalid Content-Length, or two that differ
    "6.3 plus": post("Content-Length: +5"),
    "6.3 minus": post("Content-Length: -5"),
    "6.3 hexadecimal": post("Content-Length: 0x5"),
    "6.3 a fraction": post("Content-Length: 5.0"),
    "6.3 an underscore": post("Content-Length: 5_0"),
    "6.3 two numbers": post("Content-Length: 5 5"),
    "6.3 a list that differs": post("Content-Length: 5, 6"),
    "6.3 two that differ": post("Content-Length: 5", "Content-Length: 0"),
    "6.3 a list's empty end": post("Content-Length: 5,"),
    "6.3 none": post("Content-Length:"),
    "6.3 beyond 64 bits": post("Content-Length: 18446744073709551621"),
    # 7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
    "7.1 prefix": chunks("0x5\r\nhello\r\n0\r\n\r\n"),
    "7.1 minus": chunks("-5\r\nhello\r\n0\r\n\r\n"),
    "7.1 plus": chunks("+5\r\nhello\r\n0\r\n\r\n"),
    "7.1 underscore": chunks("0_5\r\nhello\r\n0\r\n\r\n"),
    "7.1 beyond 64 bits": chunks("10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "7.1 no size": chunks("\r\nhello\r\n0\r\n\r\n"),
    "7.1 a letter": chunks("G\r\nhello\r\n0\r\n\r\n"),
    "7.1 CR and text": chunks("5\rX\nhello\r\n0\r\n\r\n"),
    "7.1 data too long": chunks("5\r\nhello!\r\n0\r\n\r\n"),
    "7.1 no end of data": chunks("5\r\nhello0\r\n\r\n"),
}
"""What a server must or ought to refuse; the second request of each must not run."""

ONE = {
    # RFC 9112 6.1: the server ought to refuse both, or process the chunks alone and then close
    "6.1 both": post("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
    "6.1 both, in the other order": post("Transfer-Encoding: chunked", "Content-Length: 40", body="0\r\n\r\n"),
    "6.1 chunked in HTTP/1.0": post("Transfer-Encoding: chunked", body="0\r\n\r\n", line="POST /first HTTP/1.0"),
    # 7.1.2: trailers must not frame or route
    "7.1.2 a length as trailer": chunks("0\r\nContent-Length: 33\r\nX-Hl-Id: x\r\n\r\n").removesuffix(SECOND),
    # 6.3: without a length there is no body; the next bytes are the next request
    "6.3 a request as the body": post(f"Content-Length: {len(SECOND)}", body="", line="GET /first HTTP/1.1"),
    # RFC 9110 10.1.1
    "Expect": post("Expect: 100-continue", f"Content-Length: {len(SECOND)}", body=""),
    # RFC 9110 7.8
    "Upgrade": post("Connection: upgrade, close", "Upgrade: h2c", body=""),
}
"""What may run once, as /first."""


@dataclass
class Client(asyncio.Protocol):
    """Sends one case, half-closes when told to, and keeps what it gets."""

    sent: str
    got: bytearray = field(default_factory=bytearray)
    transport: asyncio.Transport | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.sent.encode("latin-1"))

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def runs(self) -> list[str]:
        """The ids of the runs that it got responses of."""
        return re.findall(r"\r\nx-run: (\S+)\r\n", self.got.decode("latin-1"))

    async def finish(self) -> None:
        assert self.transport is not None
        if not self.transport.is_closing():
            self.transport.write_eof()
        await asyncio.wait_for(self.ended.wait(), 40)


async def replay(address: tuple[str, int], cases: Mapping[str, str]) -> dict[str, Client]:
    """Every case at once, by its source address; ordinary requests while they are open, and after they have ended."""
    loop = asyncio.get_running_loop()
    clients: dict[str, Client] = {}
    for number, text in enumerate(cases.values()):
        source = (f"127.9.{number // 200}.{number % 200 + 1}", 0)
        _, clients[source[0]] = await loop.create_connection(partial(Client, text), *address, local_addr=source)
    await asyncio.gather(*(ordinary(address, f"open-{number}") for number in range(20)))
    await asyncio.gather(*(one.finish() for one in clients.values()))
    await asyncio.gather(*(ordinary(address, f"after-{number}") for number in range(20)))
    return clients


async def ordinary(address: tuple[str, int], name: str, tls: ssl.SSLContext | None = None) -> None:
    """Three requests on one connection: each gets its own response."""
    reader, writer = await asyncio.open_connection(*address, local_addr=(ORDINARY, 0), ssl=tls)
    for number in range(3):
        path = f"/{name}-{number}"
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: (\d+)", head)
        assert head.startswith(b"http/1.1 200 "), (path, head)
        assert length
        assert (await reader.readexactly(int(length[1]))).decode() == path
    writer.transport.abort()
    await writer.wait_closed()


def start_recording(site: Site, log: Path, stage: str = "listen: '127.0.0.1:0'") -> None:
    """Starts a service whose handler writes each run to the log."""
    site.allow(log.parent)
    (site.folder / "handlers.py").write_text(f"LOG = {str(log)!r}\n{HANDLERS}")
    (site.folder / "serverless.yml").write_text(SERVICE % stage)
    site.up()


def recorded(log: Path, clients: Mapping[str, object]) -> dict[str, list[tuple[str, str, str]]]:
    """The runs of each client, by its address: id, path and Host. All ordinary requests have run; they are left out."""
    ran: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for line in log.read_text("utf-8").splitlines():
        source, *run = json.loads(line)
        ran[source].append(tuple(run))
    ran.pop("127.0.0.1", None)  # the engine's own smoke request
    assert set(ran) <= {*clients, ORDINARY}, "a worker saw a request that no client sent"
    assert len(ran.pop(ORDINARY)) == 120
    return ran


def test_hostile_requests_never_reach_a_worker_as_another_request(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "written" / "runs"
    start_recording(site, log)
    workers = worker_pids(site)
    url = urlsplit(site.url)
    published = json.loads((Path(__file__).parent / "corpora/gunicorn.json").read_text("utf-8"))
    cases = {**REFUSED, **ONE}
    cases |= {
        f"gunicorn {kind} {name}": text for kind in ("invalid", "valid") for name, text in published[kind].items()
    }
    clients = asyncio.run(replay((url.hostname or "", url.port or 0), cases))
    ran = recorded(log, clients)
    for name, (source, client) in zip(cases, clients.items(), strict=True):
        told = (name, client.sent, bytes(client.got), ran[source])
        assert [run for run, _, _ in ran[source]] == client.runs(), told
        if name in REFUSED or name in ONE:
            assert "/second" not in [path for _, path, _ in ran[source]], told
            assert len(ran[source]) <= (name in ONE), told
        if name in REFUSED:
            assert re.match(rb"HTTP/1\.[01] (4\d\d|50[15]) |$", client.got), told
    assert sum(map(len, ran.values())) > 40, "the valid requests reach the workers"
    assert worker_pids(site) == workers
