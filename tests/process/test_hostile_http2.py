"""Hostile HTTP/2, with prior knowledge and over TLS: a worker runs exactly the requests that the gateway responded to.

As in test_hostile_http.py, each case has a source address of its own, which the gateway tells the worker, and ordinary
requests are served at the same time. The cases follow published lists:

- RFC 9113 (HTTP/2) and RFC 7541 (HPACK), whose sections name the cases, as h2spec does (github.com/summerwind/h2spec)
- http2smugl (github.com/neex/http2smugl, smuggle.go): line ends in a value, a name, `:path` and `:method`, and seven
  kinds of space behind a name, each to hide a Content-Length or a Transfer-Encoding
- J. Kettle, "HTTP/2: The Sequel is Always Worse" (Black Hat USA 2021): `:scheme`, `:authority` and `host` that differ
- Netflix's security bulletin 2019-002: CVE-2019-9511 to CVE-2019-9518
- CVE-2023-44487 (rapid reset), CVE-2024-27316 and VU#421644 (CONTINUATION), CVE-2025-8671 and VU#767506 (MadeYouReset)
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hpack import Decoder

from tests.certificates import DOMAIN, write_certificate
from tests.process.conftest import Site
from tests.process.gateway_support import UNVERIFIED
from tests.process.test_fuzz import worker_pids
from tests.process.test_hostile_http import ordinary, recorded, start_recording
from tests.process.test_tls import free_port

pytestmark = pytest.mark.process

DATA, HEADERS, PRIORITY, RST, SETTINGS, PROMISE, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WAIT_S = 40
MARK = b"the end!"
Fields = list[tuple[bytes, bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(fields: Fields) -> bytes:
    """The fields as literals that are not indexed and have no Huffman code (RFC 7541 6.2.2)."""
    return b"".join(b"\x00" + _counted(name) + _counted(value) for name, value in fields)


def _counted(text: bytes) -> bytes:
    left = len(text) - 127
    if left < 0:
        return bytes([len(text)]) + text
    digits = b"\x7f"
    while left > 127:
        digits, left = digits + bytes([left % 128 + 128]), left // 128
    return digits + bytes([left]) + text


POST: Fields = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", b"/first")]
GET: Fields = [(b":method", b"GET"), *POST[1:]]
START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"


def request(fields: Fields, body: bytes | None = b"hello", trailers: Fields | None = None, stream: int = 1) -> bytes:
    """HEADERS, DATA and trailers of one request, as they are given."""
    sent = frame(HEADERS, END_HEADERS | (END_STREAM if body is None else 0), stream, block(fields))
    if body is not None:
        sent += frame(DATA, 0 if trailers else END_STREAM, stream, body)
    return sent + (frame(HEADERS, END_HEADERS | END_STREAM, stream, block(trailers)) if trailers else b"")


def post(*fields: tuple[bytes, bytes], body: bytes | None = b"hello", trailers: Fields | None = None) -> bytes:
    return request([*POST, *fields], body, trailers)


def other(name: bytes, value: bytes) -> bytes:
    """The request with another value of a pseudo-header."""
    return request([(one, value if one == name else text) for one, text in POST])


LINE_ENDS = {"CRLF": b"\r\n", "CR": b"\r", "LF": b"\n"}
SPACES = (b"\x00", b" ", b"\t", b"\x0b", b"\xc2\x85", b"\xc2\xa0", b"\xf0\x93\x82\xba")
HIDDEN = {"content-length": b"content-length: 0", "transfer-encoding": b"transfer-encoding: chunked"}
REFUSED = {
    # RFC 9113 8.2.1: a field name must not contain 0x00-0x20, A-Z, 0x7f-0xff or a colon, a value no NUL, LF or CR
    "8.2.1 upper case": post((b"X-Upper", b"a")),
    "8.2.1 colon in a name": post((b"x:y", b"a")),
    "8.2.1 no name": post((b"", b"a")),
    "8.2.1 NUL in a value": post((b"x", b"a\x00b")),
    "8.2.1 DEL in a name": post((b"x\x7f", b"a")),
    # 8.2.2: connection-specific fields; `te` other than "trailers"
    "8.2.2 connection": post((b"connection", b"keep-alive")),
    "8.2.2 keep-alive": post((b"keep-alive", b"5")),
    "8.2.2 proxy-connection": post((b"proxy-connection", b"keep-alive")),
    "8.2.2 upgrade": post((b"upgrade", b"h2c")),
    "8.2.2 transfer-encoding": post((b"transfer-encoding", b"chunked"), body=b"0\r\n\r\n" + SECOND),
    "8.2.2 te": post((b"te", b"trailers, deflate;q=0.5")),
    # 8.3: pseudo-headers that are unknown, of a response, late, in trailers, or twice
    "8.3 unknown": post((b":unknown", b"a")),
    "8.3 of a response": post((b":status", b"200")),
    "8.3 late": request([(b"x", b"a"), *POST]),
    "8.3 in trailers": post(trailers=[(b":path", b"/second")]),
    **{f"8.3 {name.decode()} twice": request([(name, text), *POST]) for name, text in POST},
    # 8.3.1: exactly one :method, :scheme and :path
    "8.3.1 no method": request(POST[1:]),
    "8.3.1 no scheme": request([POST[0], *POST[2:]]),
    "8.3.1 no path": request(POST[:3]),
    "8.3.1 empty path": other(b":path", b""),
    "8.3.1 a path of no form": other(b":path", b"second"),
    # 8.1.1: a content-length that is not the sum of the DATA frames
    "8.1.1 too long": post((b"content-length", b"50")),
    "8.1.1 too short": post((b"content-length", b"2"), body=b"he" + SECOND),
    "8.1.1 zero": post((b"content-length", b"0"), body=SECOND),
    "8.1.1 two that differ": post((b"content-length", b"5"), (b"content-length", b"0")),
    "8.1.1 a list that differs": post((b"content-length", b"5, 0")),
    "8.1.1 plus": post((b"content-length", b"+5")),
    "8.1.1 minus": post((b"content-length", b"-5")),
    "8.1.1 hexadecimal": post((b"content-length", b"0x5")),
    # 8.5: CONNECT has no :scheme and no :path
    "8.5 CONNECT with a path": request([(b":method", b"CONNECT"), *POST[1:]], body=None),
    "path with a space": other(b":path", b"/first HTTP/1.1\r\nx: y"),
    "path with NUL": other(b":path", b"/first\x00"),
    "path with a request": other(b":path", b"/first HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND[:-4]),
    "method with a request": other(b":method", SECOND + b"POST"),
    "method with a space": other(b":method", b"GET /second HTTP/1.1 "),
    "scheme with a request": other(b":scheme", b"http://x/second HTTP/1.1\r\nHost: x\r\n\r\n"),
    "authority with a line end": other(b":authority", b"x\r\n\r\n" + SECOND),
    "authority with NUL": other(b":authority", b"x\x00"),
}
for hidden, line in HIDDEN.items():
    for end, text in LINE_ENDS.items():
        REFUSED |= {
            f"{hidden} behind a {end} in a value": post((b"x", b"a" + text + line)),
            f"{hidden} behind a {end} in a name": post((b"x" + text + hidden.encode(), line.partition(b": ")[2])),
            f"{hidden} behind a {end} in a name with a colon": post((b"x: x" + text + hidden.encode(), b"0")),
            f"{hidden} behind a {end} in the path": other(b":path", b"/first HTTP/1.1" + text + line + text + b"x: "),
            f"{hidden} behind a {end} in the method": other(b":method", b"GET / HTTP/1.1" + text + line + text + b"x:"),
        }
    for space in SPACES:
        REFUSED[f"{hidden} and the space {space!r}"] = post((hidden.encode() + space, line.partition(b": ")[2]))
"""What a server must refuse as malformed; no part of it may run."""

ONE = {
    "a POST": post((b"content-length", b"5")),
    "a POST without a length": post(),
    "a GET": request(GET, None),
    # RFC 9113 8.1.1: malformed; HAProxy 2.6 drops the length, so the worker does not wait for a body
    "8.1.1 a length without a body": post((b"content-length", b"5"), body=None),
    # RFC 9113 8.3.1: the host of a request is its :authority; one that differs from it should be refused
    "8.3.1 another host": post((b"host", b"other.example")),
    "8.3.1 no authority": request([*POST[:2], POST[3], (b"host", b"x")]),
    "8.3.1 user in the authority": other(b":authority", b"user@x"),
    "8.1 a length in trailers": post(trailers=[(b"content-length", b"0"), (b"x-hl-id", b"y")]),
    "8.1 a coding in trailers": post(trailers=[(b"transfer-encoding", b"chunked")]),
    "8.2.1 spaces around a value": post((b"content-length", b" 5 ")),
    "8.2.3 cookies in pieces": post((b"cookie", b"a=1"), (b"cookie", b"b=2")),
    "an underscore": post((b"content_length", b"0"), (b"transfer_encoding", b"chunked")),
    "a path with a fragment": other(b":path", b"/first#/second"),
    "a body that is a request": post((b"content-length", b"%d" % len(SECOND)), body=SECOND),
    "a body of chunks": post(body=b"0\r\n\r\n" + SECOND),
    "RFC 8441 websocket": request([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *POST[1:]], None),
    "Expect": post((b"expect", b"100-continue"), body=SECOND),
}
"""What may run once, as /first."""

_OPEN = frame(HEADERS, END_HEADERS, 1, block(POST))
BROKEN = {
    "3.4 no preface": SECOND[:0] + b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + frame(SETTINGS, 0, 0),
    "3.4 no settings first": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(PING, 0, 0, bytes(8)),
    "4.2 a frame beyond the limit": START + (2**24 - 1).to_bytes(3, "big") + bytes([DATA, 0]) + bytes(4),
    "4.3 a broken block": START + frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
    "5.1 DATA on an idle stream": START + frame(DATA, END_STREAM, 1, b"hello"),
    "5.1 RST on an idle stream": START + frame(RST, 0, 1, bytes(4)),
    "5.1 WINDOW_UPDATE on an idle stream": START + frame(WINDOW, 0, 1, b"\0\0\0\1"),
    "5.1.1 an even stream": START + frame(HEADERS, 5, 2, block(GET)),
    "6.1 DATA on stream 0": START + frame(DATA, 0, 0, b"hello"),
    "6.1 padding beyond the frame": START + _OPEN + frame(DATA, 9, 1, b"\xffhello"),
    "6.2 HEADERS on stream 0": START + frame(HEADERS, 5, 0, block(GET)),
    "6.2 padding beyond the frame": START + frame(HEADERS, 13, 1, b"\xff" + block(GET)),
    "6.4 RST of a wrong size": START + _OPEN + frame(RST, 0, 1, bytes(3)),
    "6.5 SETTINGS of a wrong size": START + frame(SETTINGS, 0, 0, bytes(5)),
    "6.5 SETTINGS on a stream": START + frame(SETTINGS, 0, 1),
    "6.5 an ACK with content": START + frame(SETTINGS, ACK, 0, bytes(6)),
    "6.5.2 a window beyond 2^31": START + frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
    "6.5.2 a frame size below 2^14": START + frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
    "6.6 PUSH_PROMISE by a client": START + _OPEN + frame(PROMISE, 4, 1, b"\0\0\0\2" + block(GET)),
    "6.7 PING of a wrong size": START + frame(PING, 0, 0, bytes(7)),
    "6.7 PING on a stream": START + frame(PING, 0, 1, bytes(8)),
    "6.9 an increment of 0": START + frame(WINDOW, 0, 0, bytes(4)),
    "6.9.1 a window beyond 2^31": START + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "6.10 CONTINUATION alone": START + frame(CONTINUATION, END_HEADERS, 1, block(GET)),
    "6.10 a frame within a block": START + frame(HEADERS, 1, 1, block(GET[:2])) + frame(PING, 0, 0, bytes(8)),
    "6.10 another stream's block": START + frame(HEADERS, 1, 1, block(GET[:2])) + frame(CONTINUATION, 4, 3, block(GET)),
    "RFC 7541 2.3.3 index 0": START + frame(HEADERS, 5, 1, block(GET) + b"\x80"),
    "RFC 7541 2.3.3 an index beyond the table": START + frame(HEADERS, 5, 1, block(GET) + b"\xff\x7f"),
    "RFC 7541 5.2 an end-of-string symbol": START + frame(HEADERS, 5, 1, block(GET) + b"\0\1x\x84\xff\xff\xff\xff"),
    "RFC 7541 6.3 a table beyond the limit": START + frame(HEADERS, 5, 1, b"\x3f\xff\xff\x03" + block(GET)),
}
"""Errors of the connection: the gateway must end it, and nothing may run."""

_FLOOD: Fields = [*GET[:3], (b":path", b"/flood")]
_OPEN_FLOOD = block([*POST[:3], (b":path", b"/flood")])
STREAMS = range(1, 2001, 2)


def _each(*frames: tuple[int, int, bytes], streams: range = STREAMS) -> bytes:
    return START + b"".join(frame(kind, flags, one, text) for one in streams for kind, flags, text in frames)


_REFERENCE = b"\x40" + _counted(b"x") + _counted(b"y" * 3000)
FLOODS = {
    "CVE-2023-44487 rapid reset": _each((HEADERS, 5, block(_FLOOD)), (RST, 0, b"\0\0\0\x08")),
    "CVE-2025-8671 by an increment of 0": _each((HEADERS, 5, block(_FLOOD)), (WINDOW, 0, bytes(4))),
    "CVE-2025-8671 by a window beyond 2^31": _each((HEADERS, 5, block(_FLOOD)), (WINDOW, 0, b"\x7f\xff\xff\xff")),
    "CVE-2025-8671 by DATA after the end": _each((HEADERS, 5, block(_FLOOD)), (DATA, 0, b"more")),
    "CVE-2025-8671 by a stream that depends on itself": START
    + b"".join(frame(HEADERS, 37, one, one.to_bytes(4, "big") + b"\x10" + block(_FLOOD)) for one in STREAMS),
    "CVE-2024-27316 CONTINUATION": START
    + frame(HEADERS, 1, 1, block(_FLOOD))
    + b"".join(frame(CONTINUATION, 0, 1, block([(b"x-%d" % one, b"y" * 1000)])) for one in range(10_000)),
    "CVE-2024-27316 empty CONTINUATION": START + frame(HEADERS, 1, 1) + frame(CONTINUATION, 0, 1) * 100_000,
    "HPACK bomb (RFC 7541 7.3)": START + frame(HEADERS, 5, 1, block(_FLOOD) + _REFERENCE + b"\xbe" * 5000),
    "CVE-2019-9511 one byte at a time": START
    + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\1")
    + _each((HEADERS, 5, block(_FLOOD)), streams=range(1, 200, 2)).removeprefix(START)
    + b"".join(frame(WINDOW, 0, one, b"\0\0\0\1") for _ in range(4) for one in range(1, 200, 2)),
    "CVE-2019-9512 PING": START + frame(PING, 0, 0, bytes(8)) * 100_000,
    "CVE-2019-9513 PRIORITY": START + b"".join(frame(PRIORITY, 0, one, b"\0\0\0\1\x10") for one in range(3, 50_000, 2)),
    "CVE-2019-9514 resets by malformed requests": _each((HEADERS, 5, block([*_FLOOD, (b"X", b"y")]))),
    "CVE-2019-9515 SETTINGS": START + frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 50_000,
    "CVE-2019-9516 empty names": _each((HEADERS, 5, block([*_FLOOD, *[(b"", b"")] * 100]))),
    "CVE-2019-9517 a window of 0": START
    + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0")
    + _each((HEADERS, 5, block(_FLOOD)), streams=range(1, 200, 2)).removeprefix(START),
    "CVE-2019-9518 empty DATA": START + frame(HEADERS, 4, 1, _OPEN_FLOOD) + frame(DATA, 0, 1) * 100_000,
    "100 streams without an end": _each((HEADERS, 4, _OPEN_FLOOD), streams=range(1, 200, 2)),
}
"""Valid or not, each at once and without waiting; the gateway may respond or end the connection."""


@dataclass
class Client:
    """One case's connection: what it got, by stream."""

    sent: bytes = field(repr=False)
    runs: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    whole: bool = False
    """Wait for the connection's end, not for stream 1's."""
    aborted: bool = False
    went_away: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Stream 1 or the connection has ended, or the gateway has read a flood to its mark."""

    async def talk(
        self, address: tuple[str, int], source: str, tls: ssl.SSLContext | None, hold: asyncio.Event
    ) -> None:
        reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0), ssl=tls)
        reading = asyncio.create_task(self._read(reader))
        with suppress(OSError):
            for start in range(0, len(self.sent), 65536):
                writer.write(self.sent[start : start + 65536])
                if reading.done():
                    break
                await asyncio.wait([asyncio.create_task(writer.drain()), reading], return_when="FIRST_COMPLETED")
            await hold.wait()
        self.aborted = True
        writer.transport.abort()
        await asyncio.wait_for(reading, WAIT_S)
        with suppress(OSError):
            await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(9)
                payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == HEADERS:
                    fields = dict(decoder.decode(payload, raw=True))
                    self.statuses.append(fields[b":status"].decode())
                    self.runs += [fields[b"x-run"].decode()] if b"x-run" in fields else []
                self.went_away |= kind == GOAWAY
                ends = stream == 1 and (kind == RST or (kind in (HEADERS, DATA) and bool(flags & END_STREAM)))
                if payload == MARK or (ends and not self.whole and not self.sent.endswith(MARK)):
                    self.over.set()
        self.went_away |= not self.aborted
        self.over.set()


async def replay(address: tuple[str, int], cases: Mapping[str, bytes], tls: ssl.SSLContext | None) -> dict[str, Client]:
    """Every case at once, by its source address; ordinary requests while they are open, and after they have ended."""
    clients, hold, http2 = {}, asyncio.Event(), tls and ssl._create_unverified_context()
    if http2:
        http2.set_alpn_protocols(["h2"])
    for number, (name, sent) in enumerate(cases.items()):
        clients[f"127.9.{number // 200}.{number % 200 + 1}"] = Client(sent, whole=name in BROKEN)
    talks = [asyncio.create_task(one.talk(address, source, http2, hold)) for source, one in clients.items()]
    await asyncio.gather(*(ordinary(address, f"open-{number}", tls) for number in range(20)))
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*(one.over.wait() for one in clients.values()))
    hold.set()
    await asyncio.gather(*talks)
    await asyncio.gather(*(ordinary(address, f"after-{number}", tls) for number in range(20)))
    return clients


def may_flood(_: str, client: Client, ran: list[tuple[str, str, str]]) -> bool:
    """Whether each run of a flood is one of its streams."""
    runs = {run for run, _, _ in ran}
    return set(client.runs) <= runs and len(runs) == len(ran) <= len(STREAMS) and {at for _, at, _ in ran} <= {"/flood"}


def is_as_promised(name: str, client: Client, ran: list[tuple[str, str, str]]) -> bool:
    """Whether the case ran as often as it may, and the client got the response of each run."""
    return (
        [run for run, _, _ in ran] == client.runs
        and len(ran) <= (name in ONE)
        and {(path, host) for _, path, host in ran} <= {("/first", "x"), ("/first", "user@x")}
        and (name in ONE or all(status[0] in "45" for status in client.statuses))
        and (client.went_away or name not in BROKEN)
    )


def memory_kb(pid: int) -> int:
    """The most memory that the process has had."""
    return next(int(one.split()[1]) for one in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in one)


@pytest.mark.parametrize("secure", [False, True], ids=["prior knowledge", "TLS"])
def test_hostile_http2_never_reaches_a_worker_as_another_request(site: Site, tmp_path: Path, secure: bool) -> None:
    log = tmp_path / "written" / "runs"
    write_certificate(tmp_path, DOMAIN)
    tls = f", domain: {DOMAIN}, tls: {{certificate: {tmp_path}/chain.pem, key: {tmp_path}/key.pem}}" if secure else ""
    start_recording(site, log, f"listen: '127.0.0.1:{free_port() if secure else 0}'{tls}")
    workers, gateway = worker_pids(site), site.status()["engine"]["gateway_pid"]
    before_kb = memory_kb(gateway)
    url = urlsplit(site.url)
    address = (url.hostname or "", url.port or 0)
    requests = {name: START + sent for name, sent in (REFUSED | ONE).items()}
    floods = {name: sent + frame(PING, 0, 0, MARK) for name, sent in FLOODS.items()}
    for cases in (requests | BROKEN, floods):
        clients = asyncio.run(replay(address, cases, UNVERIFIED if secure else None))
        ran = recorded(log, clients)
        log.unlink()
        wrong = {
            name: (client, ran[source])
            for name, (source, client) in zip(cases, clients.items(), strict=True)
            if not (may_flood if name in FLOODS else is_as_promised)(name, client, ran[source])
        }
        assert not wrong
        assert sum(map(len, ran.values())) > 8, "the valid requests reach the workers"
    assert worker_pids(site) == workers
    assert site.status()["engine"]["gateway_pid"] == gateway
    assert memory_kb(gateway) < before_kb + 100_000, "a flood costs no memory without bound"
