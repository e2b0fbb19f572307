"""The stages of several services on one engine, at its shared listeners: each claims a host and base path.

Such an engine has no service of its own. A stage is made by its first deploy and removed with its service. Its name at
the engine has the service's, so two services may both have a stage `prod`. The claims are the gateway's stages; after a
reboot they are read from the live releases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from hitless.engine.acme import Acme
from hitless.engine.certificates import Certificate, read_certificate
from hitless.engine.engine import Engine
from hitless.engine.folders import service_of, site_name
from hitless.engine.memory import newest_live
from hitless.errors import ConflictError, HitlessError, MachineError, UsageError
from hitless.gateway.gateway import Gateway
from hitless.gateway.state import SHARED, SHARED_TLS, StageState, TlsListener
from hitless.release.document import ReleaseDocument
from hitless.service.model import StageSettings, TlsSettings, with_pools
from hitless.workers.shares import Shares

SHARE_OUT_EVERY_S = 1.0


class Sites:
    """All stages at the shared listeners. The engine calls `claim` before each deploy."""

    def __init__(self, engine: Engine, gateway: Gateway, shares: Shares, acme: Acme) -> None:
        self._engine, self._gateway, self._shares, self._acme = engine, gateway, shares, acme
        self._tls: dict[str, TlsSettings | None] = {}
        self.bare: dict[str, tuple[str, str]] = {}
        """Preview → why it has no certificate although its stage has one, and how to fix it."""
        self._lock, self._trouble = asyncio.Lock(), ""
        engine.admit = self.claim

    @property
    def listeners(self) -> tuple[TlsListener, ...]:
        """The stages with TLS, for the certificates' watch."""
        there = [(one.stage, one.host, self._tls.get(one.stage)) for one in self._gateway.state.stages]
        return tuple(TlsListener(stage, 443, host, tls, shared=True) for stage, host, tls in there if tls)

    async def claim(self, stage: str, document: ReleaseDocument) -> None:
        """Add the stage to the engine, or change its TLS. Raises HitlessError before anything changes."""
        is_preview = stage in self._engine.turns and stage not in self._engine.stages
        if not is_preview and stage != site_name(document.service, document.settings.name):
            message = f"{stage} is no stage of this engine, which several services share"
            raise UsageError(message, hint="`hitless deploy` in the service's folder ships to its stages")
        host, base, hsts_s = _address(stage, document.settings)
        async with self._lock:
            present = self._present(stage, host, base, document.settings.tls)
            served = len(with_pools(document.functions))
            await asyncio.to_thread(self._shares.admit, document.service, document.cpu_weight, served)
            try:
                await self._take(stage, host, base, hsts_s, document.settings.tls, present)
            except HitlessError:
                if stage not in self._engine.turns:
                    self._remove_share(stage)
                raise

    async def _take(
        self, stage: str, host: str, base: str, hsts_s: int | None, tls: TlsSettings | None, present: StageState | None
    ) -> None:
        change = self._engine.pools.change_gateway
        if tls is not None and tls.acme is None and tls != self._tls.get(stage):
            await self._gateway.certify(host, (await self._certificate(stage, host, tls)).pem)
        if present is None:
            await change(lambda state: state.with_new_stage(stage, host, base, hsts_s))
            self._engine.add_stage(stage, listed=True)
            self._engine.say(f"added {stage} at {host}{base or '/'}", stage)
        elif present.hsts_s != hsts_s:
            await change(lambda state: state.with_hsts(stage, hsts_s))
        self._tls[stage] = tls
        await self._forget_certificate(host)

    async def _certificate(self, stage: str, host: str, tls: TlsSettings) -> Certificate:
        """The certificate of the files. MachineError; UsageError if it has expired."""
        certificate = await asyncio.to_thread(read_certificate, TlsListener(stage, 443, host, tls, shared=True))
        if (now := self._engine.clock.now()) >= certificate.ends:
            raise UsageError(certificate.trouble(now), hint="no stage starts with an expired certificate")
        return certificate

    async def tls_of_preview(self, stage: str, host: str, tls: TlsSettings | None) -> TlsSettings | None:
        """Its stage's TLS, if it can have a certificate by it. Otherwise None, and an event says why."""
        self.bare.pop(stage, None)
        if tls is not None and tls.acme is None:
            try:
                await self._certificate(stage, host, tls)
            except (MachineError, UsageError) as error:
                fix = f"add *.{host.partition('.')[2]} to the certificate, or use acme, then push the branch again"
                self.bare[stage] = f"no certificate, so it is served by HTTP: {error.message}", fix
                self._engine.say(f"the preview has {self.bare[stage][0]}; {fix}", stage)
                return None
        return tls

    def holder_of(self, domain: str, service: str) -> str | None:
        """Another service's stage that has this domain or the nearest one above it; None if the service has it, too."""
        stages = [one for one in self._gateway.state.stages if one.stage in self._engine.stages]
        above = {one.host for one in stages if one.host and f".{domain}".endswith(f".{one.host}")}
        holders = [one.stage for one in stages if above and one.host == max(above, key=len)]
        return holders[0] if holders and service not in map(service_of, holders) else None

    async def leave(self, stage: str) -> None:
        """Remove a stage: it responds with 404, finishes its requests and stops. Releases and logs stay."""
        async with self._lock:
            host = self._engine.pools.gateway_stage(stage).host or ""
            await self._engine.withdraw(stage)
            self._engine.store.write("DELETE FROM stages WHERE stage = ?", (stage,))
            await self._release(stage, host)
            self._engine.remove_stage(stage)
            self._engine.say(f"removed {stage}", stage)

    async def forget_preview(self, stage: str, host: str) -> None:
        """Drop what a withdrawn preview had: its certificate, the order of it, and its part of the share."""
        async with self._lock:
            await self._release(stage, host)
            self._acme.forget(host)

    async def _release(self, stage: str, host: str) -> None:
        self._tls.pop(stage, None)
        self.bare.pop(stage, None)
        await self._forget_certificate(host)
        self._remove_share(stage)

    def _remove_share(self, stage: str) -> None:
        """Remove the share of the stage's service, unless it has other stages or previews."""
        if all(service_of(one) != service_of(stage) for one in self._engine.turns if one != stage):
            self._shares.remove(service_of(stage))

    async def restore(self) -> None:
        """Add the stages that the running gateway or the state file has, before recovery. Previews are there."""
        for entry in self._gateway.state.stages:
            if entry.stage not in self._engine.turns:
                self._engine.add_stage(entry.stage, listed=True)
        for (stage,) in self._engine.store.read("SELECT stage FROM stages WHERE live_release IS NOT NULL"):
            release = self._engine.live_release(stage)
            if release is None or "_" not in stage:  # it is of a time before services shared the engine
                continue
            host, base, hsts_s = _address(stage, release.document.settings)
            if stage not in self._engine.turns:
                self._engine.add_stage(stage, listed=True)
                await self._gateway.apply(self._gateway.state.with_new_stage(stage, host, base, hsts_s))
            elif self._gateway.state.stage(stage).hsts_s != hsts_s:
                await self._gateway.apply(self._gateway.state.with_hsts(stage, hsts_s))
            self._tls[stage] = release.document.settings.tls
        self.share_out()

    async def watch(self) -> None:
        """Give each service the processor share of the live release that it shipped last. Does not end."""
        known: list[int | None] | None = None
        while True:
            live = [self._engine.pools.gateway_stage(stage).live for stage in self._engine.stages]
            if live != known:
                known = live
                self.share_out()
            await self._engine.clock.sleep(SHARE_OUT_EVERY_S)

    def share_out(self) -> None:
        services = dict.fromkeys(map(service_of, self._engine.stages))
        newest = {service: newest_live(self._engine, service) for service in services}
        trouble = self._shares.apply({service: one.cpu_weight if one else None for service, one in newest.items()})
        if trouble and trouble != self._trouble:
            self._engine.say(f"cpu_weight has no effect: {trouble}")
        self._trouble = trouble

    def urls(self) -> Iterator[tuple[str, str]]:
        """Stage → the URL that its clients use."""
        for entry in self._gateway.state.stages:
            yield entry.stage, url_of(self._gateway, entry)

    def reach(self, stage: str) -> tuple[str, int] | None:
        """The listener that serves the stage."""
        secure = self._engine.pools.gateway_stage(stage).hsts_s is not None
        return self._gateway.addresses.get(SHARED_TLS if secure else SHARED)

    def _present(self, stage: str, host: str, base: str, tls: TlsSettings | None) -> StageState | None:
        """The stage at the gateway, if it is there. Raises ConflictError if its address is another's."""
        at = f"{host}{base or '/'}"
        if tls is not None and self._gateway.state.secure is None:
            hint = "start the engine with one: `hitless down --engine`, then `hitless up --shared-tls HOST:PORT`"
            raise ConflictError(f"{stage} has tls, and the engine has no HTTPS address", hint=hint)
        if tls is not None and tls.acme is not None and not self._gateway.state.thumbprint:
            hint = "`hitless down --engine`, then `hitless up` without --challenges, starts one that does"
            raise ConflictError(f"{stage} has acme, and the running gateway does not answer its challenges", hint=hint)
        present = next((one for one in self._gateway.state.stages if one.stage == stage), None)
        if present is not None and (present.host, present.base) != (host, base):
            hint = "`hitless down` removes the service's stages, and `hitless up` adds them with their new addresses"
            raise ConflictError(f"{stage} is at {present.host}{present.base or '/'}, not at {at}", hint=hint)
        files = {one.stage: (one.settings.certificate, one.settings.acme) for one in self.listeners}
        others = [one for one in self._gateway.state.stages if one.stage != stage and one.host == host]
        if holder := next((one.stage for one in others if one.base == base), None):
            hint = "choose another domain or basePath, or remove that service with `hitless down` in its folder"
            raise ConflictError(f"{at} belongs to {holder} already", hint=hint)
        if other := next(
            (one.stage for one in others if files.get(one.stage) != (tls and (tls.certificate, tls.acme))), None
        ):
            hint = "name the same certificate or acme for all stages of a domain; a changed file is used within 5 s"
            raise ConflictError(f"{stage} has a different certificate for {host} than {other}", hint=hint)
        return present

    async def _forget_certificate(self, host: str) -> None:
        if all(one.domain != host for one in self.listeners):
            await self._gateway.certify(host, None)


def url_of(gateway: Gateway, entry: StageState) -> str:
    """The URL of a stage with a host."""
    scheme, listener = ("http", SHARED) if entry.hsts_s is None else ("https", SHARED_TLS)
    port = gateway.addresses[listener][1] if listener in gateway.addresses else 80
    return f"{scheme}://{entry.host}{'' if port in (80, 443) else f':{port}'}{entry.base}"


def _address(stage: str, settings: StageSettings) -> tuple[str, str, int | None]:
    """Host, base path, and seconds of HSTS if it has TLS. UsageError."""
    if settings.domain is None:
        hint = "set it at custom.hitless.stages in serverless.yml"
        raise UsageError(f"{stage} has no domain: a shared engine tells services apart by it", hint=hint)
    if settings.tls is not None and (settings.tls.redirect or settings.tls.challenges):
        hint = "remove redirect and challenges: the engine's HTTP address redirects"
        raise UsageError(f"{stage} has a redirect of its own on a shared engine", hint=hint)
    return settings.domain, settings.base_path, settings.tls.hsts_s if settings.tls else None
