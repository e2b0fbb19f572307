"""Debian's pebble, a certificate authority for tests that really validates domains, and its DNS server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import certificate
from tests.support import eventually, free_port

UNVERIFIED = ssl._create_unverified_context()
MISSING = "" if shutil.which("pebble") else "pebble is not installed: `apt-get install pebble`"


@dataclass(frozen=True)
class Pebble:
    """A running authority. `trust`: the file of the certificate that its directory has."""

    directory: str
    trust: Path
    names: int
    management: int

    def resolve(self, name: str, *addresses: str) -> None:
        """Let the name have these IPv4 addresses; without one it has none."""
        self._names("clear-a", host=name)
        if addresses:
            self._names("add-a", host=name, addresses=addresses)

    def fail(self, name: str) -> None:
        """Let queries for the name fail."""
        self._names("set-servfail", host=name)

    def root(self) -> bytes:
        """The root that its certificates have."""
        at = f"https://127.0.0.1:{self.management}/roots/0"
        with urllib.request.urlopen(at, context=UNVERIFIED, timeout=5) as answer:
            found: bytes = answer.read()
        return found

    def _names(self, verb: str, **document: Any) -> None:
        at = f"http://127.0.0.1:{self.names}/{verb}"
        urllib.request.urlopen(at, json.dumps(document).encode(), timeout=5).close()


@contextmanager
def pebble(folder: Path, *, http_port: int, lifetime_s: int = 90 * 86_400) -> Iterator[Pebble]:
    """Pebble, which validates at this port. No name has an address at first. It rejects a third of the nonces."""
    folder.mkdir(exist_ok=True)
    listen, management, names, dns = (free_port() for _ in range(4))
    chain, key, _ = certificate("localhost")
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    settings = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "chain.pem"),
        "privateKey": str(folder / "key.pem"),
        "httpPort": http_port,
        "tlsPort": 1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "certificateValidityPeriod": lifetime_s,
        "domainBlocklist": ["blocked.example.org"],
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    off = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", ""]
    resolver = ["pebble-challtestsrv", "-management", f"127.0.0.1:{names}", "-dns01", f"127.0.0.1:{dns}", *off]
    authority = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}", "-strict"]
    options = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "33"}
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "pebble.log").open("ab") as log:
            for words in (resolver, authority):
                started.append(subprocess.Popen(words, env=os.environ | options, stdout=log, stderr=log))
        running = Pebble(f"https://localhost:{listen}/dir", folder / "chain.pem", names, management)
        eventually(lambda: _responds(running), what="pebble responds")
        yield running
    finally:
        for one in started:
            one.send_signal(signal.SIGTERM)
            one.wait(10)


def _responds(running: Pebble) -> bool:
    with suppress(OSError):
        running.root()
        running.resolve("started.example.org")
        return True
    return False
