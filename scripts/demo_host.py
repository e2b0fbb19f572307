"""The host's demo: three services on one HTTPS port with certificates by ACME, under load; then the sum.

pebble issues the certificates, which live a minute, so each is renewed during the load. Clients verify them. Then a
release of each service ships, `hitless upgrade` replaces all processes, and HAProxy is killed: only requests on its
connections may be lost. At last a machine of systemd-nspawn restores the engine's backup, is booted, and is upgraded
under load.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.pebble import MISSING, Pebble, pebble
from tests.process import test_host_boot as machine
from tests.support import eventually, free_port

HITLESS = Path(sys.executable).with_name("hitless")
DOMAINS = {name: f"{name}.example.org" for name in ("orders", "users", "items")}
CLIENTS, LIFETIME_S, LEAST_REQUESTS = 4, 75, 300

SERVICE = """
service: {name}
provider: {{name: aws, runtime: python3.11, stage: prod}}
functions: {{main: {{handler: h.main, events: [{{http: GET /}}]}}}}
custom:
  hitless:
    workers: 2
    stages:
      prod:
        alarms: {{guard_s: 0}}
        domain: {domain}
        tls: {{acme: {{directory: '{directory}', email: ops@example.org}}}}
"""
HANDLER = "def main(event, context):\n    return {{'statusCode': 200, 'body': '{name} {version}'}}\n"
DATA = "/var/lib/hitless/main"
AWAIT = f"until hitless status --json --data-dir {DATA} >/out/status.json 2>/dev/null; do sleep 0.2; done"
INSTALL = f"""
hitless host install main
hitless restore - --data-dir {DATA} </out/backup
{AWAIT}
echo done >/out/first
"""
BOOTED = f"""
{AWAIT}
ask() {{
  set +x
  key=$(openssl x509 -noout -pubkey -in {DATA}/acme/*/$1.pem | openssl pkey -pubin -outform der |
    openssl dgst -sha256 -binary | base64)
  for _ in $(seq $2); do
    [ ! -e /out/enough ] || break
    curl --silent --max-time 10 --insecure --pinnedpubkey sha256//$key --resolve $1:$PORT:127.0.0.1 \\
      https://$1:$PORT/ || echo -n "failed with $?"
    echo
  done >>/out/$3-$1
}}
for name in $NAMES; do ask $name $EACH booted; done
clients=
for name in $NAMES; do
  ask $name 100000 upgraded &
  clients="$clients $!"
done
hitless upgrade --force --data-dir {DATA}
touch /out/enough
wait $clients
{AWAIT}
systemctl is-active hitless@main
grep -q "\\"pid\\": $(systemctl show --property=MainPID --value hitless@main)," /out/status.json
echo done >/out/second
"""
"""By then a certificate that lives a minute may have expired, so the client compares keys. At the end the unit's main
process is the new daemon.
"""
EACH = 20


@dataclass
class Load:
    """Clients of one domain that verify its certificate, half of them with a new connection for each request."""

    domain: str
    port: int
    context: ssl.SSLContext
    sent: int = 0
    serials: set[str] = field(default_factory=set)
    failures: list[tuple[float, float, str]] = field(default_factory=list)
    """Of each failed request, when its connection was opened, when it ended, and the error."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._client, args=(index % 2 == 0,)) for index in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, keeps: bool) -> None:
        connection, opened = None, 0.0
        while not self._stop.is_set():
            serial = error = ""
            try:
                if connection is None:
                    opened, connection = time.monotonic(), self._connect()
                connection.request("GET", "/", headers={"host": self.domain})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200 or not body.startswith(self.domain.partition(".")[0].encode()):
                    error = f"{response.status} {body[:80]!r}"
                serial = str((connection.sock.getpeercert() or {}).get("serialNumber")) if connection.sock else ""
            except (OSError, http.client.HTTPException) as failure:
                error = f"{type(failure).__name__}: {failure}"
            with self._lock:
                self.sent += 1
                self.serials |= {serial} - {""}
                if error:
                    self.failures.append((opened, time.monotonic(), error))
            if connection is not None and (error or not keeps):
                connection.close()
                connection = None
            time.sleep(0.02)

    def _connect(self) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self.domain, self.port, timeout=15, context=self.context)
        at = ("127.0.0.1", self.port)
        connection._create_connection = lambda _, *more: socket.create_connection(at, *more)  # type: ignore[attr-defined]
        connection.connect()
        return connection


def hitless(*words: str, environ: dict[str, str], check: bool = True) -> Any:
    """Run a verb, shown as a user would type it; its document."""
    print(f"$ hitless {' '.join(words)}", flush=True)
    command = [str(HITLESS), *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environ)
    if check and done.returncode:
        raise SystemExit(f"hitless {words[0]} ended with {done.returncode}: {done.stdout}")
    return json.loads(done.stdout or "{}")


def certificate_at(domain: str, port: int, context: ssl.SSLContext) -> str:
    """The serial number of the domain's certificate; OSError if it cannot be verified."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=domain) as secure,
    ):
        return str((secure.getpeercert() or {})["serialNumber"])


def all_certificates(loads: list[Load]) -> dict[str, str]:
    return {load.domain: certificate_at(load.domain, load.port, load.context) for load in loads}


def write_service(folder: Path, name: str, version: int) -> None:
    (folder / "h.py").write_text(HANDLER.format(name=name, version=version))


def run(folder: Path, authority: Pebble, http_port: int, port: int) -> int:
    """The whole story; the exit status."""
    environ = os.environ | {"HITLESS_DATA_DIR": str(folder / "main"), "REQUESTS_CA_BUNDLE": str(authority.trust)}
    (folder / "root.pem").write_bytes(authority.root())
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    loads = [Load(domain, port, context) for domain in DOMAINS.values()]
    addresses = f"--shared=127.0.0.1:{http_port}", f"--shared-tls=127.0.0.1:{port}"
    killed_at = 0.0
    try:
        for name, domain in DOMAINS.items():
            authority.resolve(domain, "127.0.0.1")
            (folder / name).mkdir()
            text = SERVICE.format(name=name, domain=domain, directory=authority.directory)
            (folder / name / "serverless.yml").write_text(text)
            write_service(folder / name, name, 1)
            hitless("up", "--detach", *addresses, f"--service-dir={folder / name}", environ=environ)
        first = eventually(partial(all_certificates, loads), deadline_s=60, what="three certificates")
        print(f"three services answer at port {port}, with certificates by ACME; now load", flush=True)
        for load in loads:
            load.start()
        for name in DOMAINS:
            write_service(folder / name, name, 2)
            hitless("deploy", f"--service-dir={folder / name}", environ=environ)
        hitless("upgrade", "--force", f"--service-dir={folder / 'orders'}", environ=environ)
        pid = hitless("status", f"--service-dir={folder / 'orders'}", environ=environ)["engine"]["gateway_pid"]
        print(f"$ kill -KILL {pid}    # HAProxy", flush=True)
        killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        eventually(partial(all_certificates, loads), what="HAProxy is back")
        print("HAProxy is back; now the renewals", flush=True)
        eventually(
            lambda: all(serial != first[domain] for domain, serial in all_certificates(loads).items()),
            deadline_s=LIFETIME_S,
            what="three renewed certificates",
        )
        for load in loads:
            load.stop()
        hitless("backup", str(folder / "backup"), environ=environ)
    finally:
        for load in loads:
            load.stop()
        hitless("down", "--engine", f"--service-dir={folder / 'orders'}", environ=environ, check=False)
    return account(loads, killed_at) | booted(folder, port)


def account(loads: list[Load], killed_at: float) -> int:
    """Print each request's end; 0 if only those were lost that were open on the killed HAProxy."""
    print()
    failed = [(load.domain, *one) for load in loads for one in load.failures]
    excused = [one for one in failed if one[1] <= killed_at <= one[2] and not one[3][0].isdigit()]
    for load in loads:
        counts = f"{load.sent} requests, {len(load.failures)} failed, {len(load.serials)} certificates"
        print(f"  {load.domain:<20} {counts}")
    for domain, _, _, error in [one for one in failed if one not in excused][:10]:
        print(f"  NOT {domain}: {error}")
    sent = sum(load.sent for load in loads)
    print(
        f"\n{sent} requests, {len(failed)} failed, {len(excused)} of them on connections of the killed HAProxy",
        flush=True,
    )
    return int(len(failed) > len(excused) or sent < LEAST_REQUESTS)


def booted(folder: Path, port: int) -> int:
    """Boot a machine with the backup and upgrade it; 0 if each service serves with the certificate that it had."""
    if shutil.which("systemd-nspawn") is None or os.getuid() != 0:
        print("boot: skipped, because systemd-nspawn is not installed or this user is not root")
        return 0
    root = folder / "root"
    machine.make_root(root)
    shutil.copy(folder / "backup", root / "out/backup")
    log = machine.boot(root, INSTALL)
    if log == "systemd did not start":
        print("boot: skipped, because systemd does not start in systemd-nspawn here")
        return 0
    log += machine.boot(root, f"NAMES='{' '.join(DOMAINS.values())}' PORT={port} EACH={EACH}\n{BOOTED}")
    served, wanted = answered(root / "out", "booted")
    print(f"boot: a machine restored the backup and was booted; {served} of {wanted} requests served with its keys")
    during, sent = answered(root / "out", "upgraded")
    print(f"boot: systemd's unit was upgraded under load; {sent} requests, {sent - during} failed")
    bad = served < EACH * len(DOMAINS) or during < sent or not sent or not (root / "out/second").exists()
    if bad:
        print(log[-3000:])
    return int(bad)


def answered(out: Path, when: str) -> tuple[int, int]:
    """How many requests of the machine's clients had the right response, and how many there were."""
    files = {name: out / f"{when}-{domain}" for name, domain in DOMAINS.items()}
    bodies = {name: file.read_text().splitlines() if file.exists() else [] for name, file in files.items()}
    return sum(each.count(f"{name} 2") for name, each in bodies.items()), sum(map(len, bodies.values()))


def main() -> int:
    if MISSING:
        raise SystemExit(MISSING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="hitless-demo-") as name:
        http_port, port = free_port(), free_port()
        with pebble(Path(name) / "pebble", http_port=http_port, lifetime_s=LIFETIME_S) as authority:
            return run(Path(name), authority, http_port, port)


if __name__ == "__main__":
    sys.exit(main())
