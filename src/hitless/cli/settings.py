"""The settings of an engine, in its data folder: the service and the addresses of its stages."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from hitless.documents import decode, replace_file, to_text
from hitless.engine.folders import Folders
from hitless.errors import EngineError
from hitless.gateway.state import SHARED, SHARED_TLS, TlsListener, redirect_of
from hitless.service.listen import ALL_INTERFACES, DEFAULT_HOST, FIRST_PORT
from hitless.service.model import CHECKS, Home, PreviewSettings, Service, TlsSettings, with_pools

SPARE_POOLS, SHARED_POOLS = 64, 256
DEFAULT_PREVIEW_DOMAIN = "preview.localhost"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a stage. If its port is taken, a `movable` one takes a free port: it is only a default."""

    stage: str
    host: str
    port: int
    movable: bool = False
    tls: TlsSettings | None = None
    domain: str | None = None

    @property
    def purpose(self) -> str:
        return "the shared address" if self.stage in (SHARED, SHARED_TLS) else f"stage {self.stage}"


def _with_redirect(tls: TlsSettings | None) -> TlsSettings | None:
    """ACME validates a domain at port 80, where by default a stage with ACME redirects."""
    return replace(tls, redirect=tls.redirect or (ALL_INTERFACES, 80)) if tls and tls.acme else tls


@dataclass(frozen=True, slots=True)
class SharedAddresses:
    """The addresses of an engine of several services and of the ACME client, and the number of pools for all."""

    http: tuple[str, int]
    https: tuple[str, int] | None = None
    challenges: tuple[str, int] | None = None
    pools: int = SHARED_POOLS


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """`addresses` are in the file's order. An engine with `shared` has no service and no addresses of its own."""

    service: str
    addresses: tuple[Address, ...]
    functions: int
    previews: PreviewSettings | None = None
    shared: SharedAddresses | None = None

    @classmethod
    def of(cls, service: Service) -> EngineSettings:
        """Default ports of stages that are not the one asked for are movable. A stage on AWS has no address here."""
        addresses = tuple(
            Address(
                stage.name,
                stage.host,
                stage.port,
                movable=stage.name != service.stage and (stage.host, stage.port) == (DEFAULT_HOST, FIRST_PORT + index),
                tls=_with_redirect(stage.tls),
                domain=stage.domain,
            )
            for index, stage in enumerate(service.stages)
            if stage.home is Home.ENGINE
        )
        pools = len(service.functions) + (CHECKS in with_pools(service.functions))
        previews = service.previews
        named = previews and replace(previews, domain=previews.domain or DEFAULT_PREVIEW_DOMAIN)
        return cls(service.name, addresses, pools, named)

    @classmethod
    def read(cls, folders: Folders) -> EngineSettings:
        """Read the settings. Raises EngineError if the file is missing or damaged."""
        try:
            return decode(folders.settings_file.read_bytes(), cls, str(folders.settings_file))
        except OSError as error:
            raise EngineError(
                f"{folders.settings_file} cannot be read: {error}", hint="run `hitless up` in the service's folder"
            ) from error

    def write(self, folders: Folders) -> None:
        replace_file(folders.settings_file, to_text(self))

    @property
    def bound(self) -> tuple[Address, ...]:
        """The addresses of the stages and of their redirects, or those that services share."""
        shared = [(SHARED, self.shared.http), (SHARED_TLS, self.shared.https)] if self.shared else []
        redirects = [(one.stage, one.settings.redirect) for one in self.tls if one.settings.redirect]
        named = [(redirect_of(stage), address) for stage, address in redirects] + shared
        return *self.addresses, *(Address(name, *address) for name, address in named if address)

    @property
    def tls(self) -> tuple[TlsListener, ...]:
        """The stages with TLS."""
        return tuple(TlsListener(one.stage, one.port, one.domain, one.tls) for one in self.addresses if one.tls)

    @property
    def stage_pools(self) -> int:
        """Backends for the live, the candidate and the draining release of each stage."""
        return 3 * self.functions * len(self.addresses)

    @property
    def pools(self) -> int:
        """Backends that the gateway declares: also two releases of each preview, and spare ones."""
        if self.shared is not None:
            return self.shared.pools
        previews = 2 * self.functions * self.previews.most if self.previews else 0
        return SPARE_POOLS + self.stage_pools + previews
