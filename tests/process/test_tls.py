"""A stage with TLS on a real engine: what the handler is told, files that are renewed, and files that cannot serve."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography import x509

from hitless.drill.target import fault_of
from hitless.service.model import SmokeRequest
from tests.certificates import write_certificate
from tests.process.conftest import Site
from tests.process.gateway_support import UNVERIFIED, ask
from tests.support import eventually

pytestmark = pytest.mark.process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serial_at(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as raw, UNVERIFIED.wrap_socket(raw) as secure:
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return int(x509.load_der_x509_certificate(found).serial_number)


def test_a_stage_serves_https_and_takes_renewed_files(site: Site, tmp_path: Path) -> None:
    port, domain = free_port(), "api.example.org"
    write_certificate(tmp_path, "www.example.org")
    file, handlers = site.folder / "serverless.yml", site.folder / "handlers.py"
    files = f"certificate: {tmp_path}/chain.pem, key: {tmp_path}/key.pem, redirect: '127.0.0.1:{free_port()}'"
    stage = f"smoke: [GET /fast], alarms: {{guard_s: 0}}, domain: {domain}, tls: {{{files}}}"
    file.write_text(
        file.read_text().partition("    stages:")[0] + f"    stages: {{dev: {{listen: '127.0.0.1:{port}', {stage}}}}}\n"
    )
    forwarded = """"at": "{X-Forwarded-Proto}{X-Forwarded-Port}".format(**event["headers"]), "function_version\""""
    handlers.write_text(handlers.read_text().replace('"function_version"', forwarded))
    refused = site.hitless("up", "--detach", exit_code=1).document["error"]
    assert "is for www.example.org, not for api.example.org" in refused["message"]
    assert not site.folders.remains()

    serial = write_certificate(tmp_path, domain)
    assert site.up()["stages"][0]["url"] == f"https://127.0.0.1:{port}"
    assert (serial_at(port), told(port)) == (serial, f"https{port}")
    text = file.read_text()
    file.write_text(text.replace("tls: {", "tls: {hsts_s: 60, "))
    assert "`tls` has changed; `hitless down`, then `hitless up` uses it" in site.hitless("up", "--detach").stderr
    file.write_text(text)
    smoke = SmokeRequest("GET", "/fast")
    assert fault_of(f"https://127.0.0.1:{port}", smoke, release=1) is None, "as the pipeline verifies a release"
    assert "certificate" in str(fault_of(f"https://localhost:{port}", smoke)), "a name is verified"
    serial = write_certificate(tmp_path, domain)
    eventually(lambda: serial_at(port) == serial, deadline_s=30, what="the renewed certificate")
    private = (tmp_path / "key.pem").read_bytes().splitlines()[1]
    kept = [path for path in site.folders.data.rglob("*") if path.is_file() and private in path.read_bytes()]
    assert kept == [], "the data folder has no copy of the key"


def told(port: int) -> str:
    return str(ask(("127.0.0.1", port), "/fast", tls=True).json["at"])
