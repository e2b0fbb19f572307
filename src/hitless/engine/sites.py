"""The stages of several services on one engine, at its shared listeners: each claims a host and base path.

Such an engine has no service of its own. A stage is made by its first deploy and removed with its service. Its name at
the engine has the service's, so two services may both have a stage `prod`. The claims are the gateway's stages; after a
reboot they are read from the live releases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hitless.engine.certificates import read_certificate
from hitless.engine.engine import Engine
from hitless.engine.folders import site_name
from hitless.errors import ConflictError, UsageError
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import SHARED_TLS, StageState, TlsListener
from hitless.release.document import ReleaseDocument
from hitless.service.model import StageSettings, TlsSettings

MOVE = "`hitless down` removes the service's stages, and `hitless up` adds them with their new addresses"


class Sites:
    """All stages at the shared listeners. `claim` is called before each deploy."""

    def __init__(self, engine: Engine, gateway: Gateway) -> None:
        self._engine, self._gateway = engine, gateway
        self._tls: dict[str, TlsSettings] = {}
        self._lock = asyncio.Lock()
        engine.admit = self.claim

    @property
    def listeners(self) -> tuple[TlsListener, ...]:
        """The stages with TLS, for the certificates' watch."""
        port = self._gateway.addresses.get(SHARED_TLS, ("", 0))[1]
        hosts = {stage.stage: stage.host for stage in self._gateway.state.stages}
        return tuple(TlsListener(stage, port, hosts[stage], tls, shared=True) for stage, tls in self._tls.items())

    async def claim(self, stage: str, document: ReleaseDocument) -> None:
        """Add the stage to the engine, or change its TLS. Raises HitlessError before anything changes."""
        settings = document.settings
        if stage != site_name(document.service, settings.name):
            message = f"{stage} is no stage of this engine, which several services share; it has no pipeline"
            raise UsageError(message, hint="`hitless deploy` in the service's folder ships to it")
        async with self._lock:
            host, base, hsts_s = _address(stage, settings)
            known = {one.stage: one for one in self._gateway.state.stages}
            self._check(stage, document, known)
            if settings.tls and settings.tls != self._tls.get(stage):
                listener = TlsListener(stage, 443, host, settings.tls, shared=True)
                certificate = await asyncio.to_thread(read_certificate, listener)
                if fault := certificate.fault(self._engine.clock.now()):
                    raise UsageError(fault, hint="no stage starts with an expired certificate")
                await self._gateway.certify(host, certificate.pem)
            if stage not in known:
                self._add(stage)
                try:
                    change = self._engine.pools.change_gateway
                    await change(lambda state: state.with_new_stage(stage, host, base, hsts_s))
                except BaseException:
                    self._engine.remove_stage(stage)
                    raise
                self._engine.say(f"added {stage} at {host}{base or '/'}", stage)
            elif known[stage].hsts_s != hsts_s:
                await self._engine.pools.change_gateway(lambda state: state.with_hsts(stage, hsts_s))
            await self._set_tls(stage, host, settings.tls)

    async def leave(self, stage: str) -> None:
        """Remove a stage: it responds with 404, finishes its requests and stops. Releases and logs stay."""
        async with self._lock:
            host = self._engine.pools.gateway_stage(stage).host
            await self._engine.withdraw(stage)
            self._engine.store.forget_live(stage)
            await self._set_tls(stage, host or "", None)
            self._engine.remove_stage(stage)
            self._engine.say(f"removed {stage}", stage)

    async def restore(self) -> None:
        """Add the stages that the running gateway or the state file has, before recovery."""
        for entry in self._gateway.state.stages:
            self._add(entry.stage)
        for stage, settings in self._live():  # a stage without an underscore is of a time before
            if stage not in self._engine.stages:
                host, base, hsts_s = _address(stage, settings)
                self._add(stage)
                await self._gateway.apply(self._gateway.state.with_new_stage(stage, host, base, hsts_s))
            if settings.tls:
                self._tls[stage] = settings.tls

    def urls(self) -> Iterator[tuple[str, str]]:
        """Stage → the URL that its clients use."""
        ports = {name: address[1] for name, address in self._gateway.addresses.items()}
        for entry in self._gateway.state.stages:
            scheme, listener = ("http", "by_host") if entry.hsts_s is None else ("https", SHARED_TLS)
            port = "" if ports.get(listener) in (None, 80, 443) else f":{ports[listener]}"
            yield entry.stage, f"{scheme}://{entry.host}{port}{entry.base}"

    def _check(self, stage: str, document: ReleaseDocument, known: dict[str, StageState]) -> None:
        host, base, hsts_s = _address(stage, document.settings)
        if hsts_s is not None and self._gateway.state.secure is None:
            hint = "start the engine with one: `hitless down --engine`, then `hitless up --shared-tls HOST:PORT`"
            raise ConflictError(f"{stage} has tls, and the engine has no HTTPS address", hint=hint)
        for other in known.values():
            at = f"{host}{base or '/'}"
            if other.stage == stage and (other.host, other.base) != (host, base):
                raise ConflictError(f"{stage} is at {other.host}{other.base or '/'}, not at {at}", hint=MOVE)
            if other.stage != stage and (other.host, other.base) == (host, base):
                hint = "choose another domain or basePath, or remove that service with `hitless down` in its folder"
                raise ConflictError(f"{at} belongs to {other.stage} already", hint=hint)
            if other.stage != stage and other.host == host and self._tls.get(other.stage) != document.settings.tls:
                hint = "give all stages of a domain the same tls"
                raise ConflictError(f"{stage} has other tls for {host} than {other.stage}", hint=hint)

    async def _set_tls(self, stage: str, host: str, tls: TlsSettings | None) -> None:
        """Record the stage's TLS, and remove the host's certificate with its last stage."""
        self._tls.pop(stage, None)
        if tls is not None:
            self._tls[stage] = tls
        elif all(one.domain != host for one in self.listeners):
            await self._gateway.certify(host, None)

    def _add(self, stage: str) -> None:
        self._engine.add_stage(stage)
        if stage not in self._engine.stages:
            self._engine.stages += (stage,)

    def _live(self) -> Iterator[tuple[str, StageSettings]]:
        for stage in self._engine.store.live_stages():
            if "_" in stage and (release := self._engine.live_release(stage)) is not None:
                yield stage, release.document.settings


def _address(stage: str, settings: StageSettings) -> tuple[str, str, int | None]:
    """Host, base path, and seconds of HSTS if it has TLS."""
    hint = "set it at custom.hitless.stages in serverless.yml"
    if settings.domain is None:
        raise UsageError(f"{stage} has no domain: a shared engine tells services apart by it", hint=hint)
    if settings.sticky is not None:
        raise UsageError(f"{stage} is sticky, which a shared engine does not support", hint="remove sticky")
    if settings.tls is not None and (settings.tls.redirect or settings.tls.challenges):
        hint = "remove redirect and challenges: the engine's HTTP address redirects"
        raise UsageError(f"{stage} has a redirect of its own on a shared engine", hint=hint)
    return settings.domain, settings.base_path, settings.tls.hsts_s if settings.tls else None
