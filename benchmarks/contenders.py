"""Who is compared: hitless and its peers, each in the form that its own documentation recommends for production.

All answer the same small JSON from two workers, on the same two cores. A contender that runs can take a release in its
own documented way; `way` says which, `page` where that is documented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks import offline, servers
from benchmarks.running import Running
from benchmarks.site import change_code, plain_service

PATH: Final = "/hello"


@dataclass(frozen=True, slots=True)
class Contender:
    """`start` runs it until the context ends."""

    key: str
    title: str
    way: str
    page: str
    start: Callable[[], AbstractContextManager[Running]]


@contextmanager
def _hitless() -> Iterator[Running]:
    with plain_service() as site:

        def release() -> None:
            change_code(site.handler)
            site.hitless("deploy")

        yield Running(site.url(), site.roots, release)


HITLESS: Final = Contender("hitless", "hitless", "`hitless deploy`", "docs/command-line.md", _hitless)
GRANIAN: Final = Contender(
    "granian",
    "granian + starlette",
    "SIGHUP, at the default --respawn-interval of 3.5 s (quick: 1 s)",
    "https://github.com/emmett-framework/granian#readme",
    servers.granian,
)
UVICORN: Final = Contender(
    "uvicorn",
    "uvicorn + starlette",
    "SIGHUP to the supervisor of --workers 2",
    "https://www.uvicorn.org/deployment/#built-in",
    servers.uvicorn,
)
NGINX: Final = Contender(
    "nginx",
    "nginx + gunicorn + flask",
    "SIGHUP to gunicorn's master, nginx stays",
    "https://docs.gunicorn.org/en/latest/faq.html#how-do-i-reload-my-application-in-gunicorn",
    servers.gunicorn_behind_nginx,
)
OFFLINE: Final = Contender(
    "offline",
    "serverless-offline",
    "stopped by SIGTERM and started again",
    "https://github.com/dherault/serverless-offline#readme",
    offline.serverless_offline,
)
_GRANIAN_WAY: Final = "SIGHUP to granian, the gateway stays"
NGINX_GRANIAN: Final = Contender("nginx_granian", "nginx → granian", _GRANIAN_WAY, GRANIAN.page, servers.nginx_granian)
HAPROXY_GRANIAN: Final = Contender(
    "haproxy_granian", "HAProxy → granian", _GRANIAN_WAY, GRANIAN.page, servers.haproxy_granian
)
CADDY_GRANIAN: Final = Contender("caddy_granian", "Caddy → granian", _GRANIAN_WAY, GRANIAN.page, servers.caddy_granian)
HAPROXY_UVICORN: Final = Contender(
    "haproxy_uvicorn", "HAProxy → uvicorn", "SIGHUP to uvicorn, HAProxy stays", UVICORN.page, servers.haproxy_uvicorn
)
BLUE_GREEN: Final = Contender(
    "blue_green",
    "nginx → gunicorn, blue/green",
    "a second gunicorn with uvicorn's workers on another port, nginx reloaded, the first one stopped",
    "https://nginx.org/en/docs/control.html#reconfiguration",
    servers.blue_green,
)
GATEWAYS: Final = (NGINX_GRANIAN, HAPROXY_GRANIAN, CADDY_GRANIAN)
"""A server behind a gateway, as hitless is. They are compared by throughput with kept connections alone."""
PEERS: Final = (GRANIAN, UVICORN, NGINX, OFFLINE)
ALL: Final = (HITLESS, *PEERS)
BEHIND: Final = (NGINX_GRANIAN, CADDY_GRANIAN, HAPROXY_UVICORN, BLUE_GREEN)
"""Peers as they are run for releases without a pause, each behind a gateway."""
