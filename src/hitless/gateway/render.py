"""Renders HAProxy's configuration and maps. Pure except for reading the template and this machine's limits."""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from hitless.gateway.logfiles import ACCESS_LOG, EACH_STAGE, LIVE_SERVER
from hitless.gateway.spooler import UPLOADS
from hitless.gateway.state import (
    EVERY,
    QUEUE_TIMEOUT_S,
    SHARED,
    SHARED_TLS,
    GatewayState,
    PoolState,
    ServerMode,
    ServerState,
    redirect_of,
    shield_of,
    trial_of,
)
from hitless.gateway.view import ServerView, server_line, view_of
from hitless.service.listen import format_listen
from hitless.worker.paths import HOP

CONFIGURATION, POOL = "haproxy.cfg", "pool.cfg"

_DESCRIPTORS_APART = 512
_MOST_DESCRIPTORS = 131_072
_LEAST_CONNECTIONS = 64
_TEMPLATES = Environment(
    loader=PackageLoader("hitless.gateway", "."),
    undefined=StrictUndefined,
    autoescape=False,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one gateway. `boot` is a link to the folder of the current generation."""

    folder: Path
    logs: Path | None = None
    """The folder that has one folder per stage for its access log; None without access logs."""

    def access_log(self, listener: str) -> Path | None:
        """The listener's access log; None if it has none. A shared listener's are by stage."""
        folder = EACH_STAGE if listener in (SHARED, SHARED_TLS) else listener
        return None if self.logs is None or "_" in folder else self.logs / folder / ACCESS_LOG

    def certificate(self, stage: str) -> Path:
        """The stage's certificates and key, as HAProxy reads them when it starts."""
        return self.folder / f"{stage}.pem"

    @property
    def certificate_list(self) -> Path:
        """The certificates of the shared HTTPS listener: lines of a file and the host that it is for."""
        return self.folder / "certificates.list"

    @property
    def boot(self) -> Path:
        return self.folder / "boot"

    @property
    def configuration(self) -> Path:
        return self.boot / CONFIGURATION

    @property
    def runtime_socket(self) -> Path:
        return self.folder / "adm.sock"

    @property
    def hop_socket(self) -> Path:
        return self.folder / HOP

    @property
    def spool_socket(self) -> Path:
        return self.folder / UPLOADS

    def try_socket(self, pool: str) -> Path:
        """The socket by which a pool gets shielded requests."""
        return self.folder / f"{pool}.sock"

    @property
    def live_socket(self) -> Path:
        """The socket by which the live release gets requests that the pool failed."""
        return self.folder / "live.sock"

    @property
    def sockets(self) -> tuple[Path, ...]:
        """The sockets that HAProxy binds by path; pools have names of up to four characters."""
        return self.runtime_socket, self.hop_socket, self.spool_socket, self.live_socket, self.try_socket("p000")

    def map(self, name: str) -> str:
        """The map's name in HAProxy: its path through the link, the same in every generation."""
        return f"{self.boot}/{name}"


@dataclass(frozen=True, slots=True)
class Tuning:
    """HAProxy's share of the machine."""

    nbthread: int
    maxconn: int
    longest_queue: int = 5000
    """Requests that may wait for the workers of one pool."""

    @property
    def frontend_maxconn(self) -> int:
        """A tenth is kept for the inner hop, so that clients cannot starve it."""
        return max(1, self.maxconn * 9 // 10)


def tuning_for(cores: int, descriptors: int) -> Tuning:
    """One thread up to 4 cores (queueing across threads costs more than a second thread gains), then a quarter of the
    cores, at most 8. Two descriptors per client connection; HAProxy does not start with more than its limit allows.
    """
    usable = min(descriptors, _MOST_DESCRIPTORS) - _DESCRIPTORS_APART
    return Tuning(nbthread=1 if cores <= 4 else min(8, cores // 4), maxconn=max(_LEAST_CONNECTIONS, usable // 2))


def tuning_here() -> Tuning:
    """The tuning for this machine's cores and this process's limit of descriptors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return tuning_for(cores, 1 << 30 if hard == resource.RLIM_INFINITY else hard)


@functools.cache
def template(name: str) -> Template:
    """The template of a file, which is read once: another version's may replace the file while a daemon runs."""
    return _TEMPLATES.get_template(f"{name}.j2")


def render(state: GatewayState, layout: Layout, tuning: Tuning) -> Mapping[str, str]:
    """File name → content, for a HAProxy that starts with this state."""
    # HAProxy counts a descriptor for each pool's own listener and for each server, besides those of clients.
    held = len(state.pools) + sum(len(pool.servers) for pool in state.pools)
    tuning = replace(tuning, maxconn=max(_LEAST_CONNECTIONS, tuning.maxconn - held // 2))
    return {
        CONFIGURATION: template(CONFIGURATION).render(
            state=state,
            layout=layout,
            tuning=tuning,
            backends=_backends,
            live_server=LIVE_SERVER,
            shared=(SHARED, SHARED_TLS),
            every=EVERY,
            tls={one.stage: one for one in state.tls},
            format_listen=format_listen,
            redirects={redirect_of(one.stage): one for one in state.tls},
            queue_timeout_s=QUEUE_TIMEOUT_S,
        ),
        **{
            name: "".join(f"{key} {value}\n" for key, value in entries)
            for name, entries in view_of(state).maps().items()
        },
    }


@functools.lru_cache(maxsize=256)
def _backends(layout: Layout, pool: PoolState) -> str:
    """The pool's part of the configuration. A change concerns one or two of some seventy pools."""
    return template(POOL).render(
        layout=layout, pool=pool, line=_boot_line, shield=shield_of, trial=trial_of, live_server=LIVE_SERVER
    )


def _boot_line(server: ServerState) -> str:
    # The file has no `drain`: after a restart there is nothing to finish, so such a server is disabled.
    line = server_line(ServerView(server.maxconn, server.mode, server.socket, server.checked))
    return line if server.mode is ServerMode.READY else f"{line} disabled"
