"""Several services on one engine, with fakes for workers and gateway: claims, refusals, removal and a reboot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from hitless.engine.acme import Acme
from hitless.engine.recovery import recover
from hitless.engine.sites import Sites
from hitless.errors import HitlessError, MachineError
from hitless.gateway.state import SHARED, SHARED_TLS, GatewayState, SharedTls
from hitless.service.model import AcmeSettings, TlsSettings
from tests.certificates import DOMAIN, no_authority, write_certificate
from tests.component.engine_bench import Bench
from tests.fakes import release_document

pytestmark = pytest.mark.component


class FakeShares:
    """The shares of a machine; `trouble`: why a weight has no effect on it."""

    def __init__(self) -> None:
        self.trouble = ""
        self.weights: dict[str, int | None] = {}
        self.groups: set[str] = set()

    def admit(self, service: str, weight: int | None, functions: int) -> None:
        if weight is not None and self.trouble:
            raise MachineError(f"cpu_weight of {service} would have no effect: {self.trouble}", hint="remove it")
        self.groups.add(service)

    def apply(self, weights: Mapping[str, int | None]) -> str:
        self.weights = dict(weights)
        return self.trouble if any(weights.values()) else ""

    def remove(self, service: str) -> None:
        self.weights.pop(service, None)
        self.groups.discard(service)


class SitesBench(Bench):
    """An engine that services share; `again()` is one that starts after the first has died."""

    def __init__(self, folder: Path, *, world: Bench | None = None, secure: bool = True) -> None:
        super().__init__(folder, world=world)
        self.engine.stages, self.engine.turns = (), {}
        if world is None:
            self.gateway.state = _empty(secure)
            self.gateway.addresses |= {SHARED: ("127.0.0.1", 80), SHARED_TLS: ("127.0.0.1", 443)}
        self.shares = FakeShares()
        self.sites = Sites(
            self.engine,
            cast(Any, self.gateway),
            cast(Any, self.shares),
            Acme(folder / "acme", self.clock, no_authority),
        )

    def again(self) -> SitesBench:
        self.store.close()
        successor = SitesBench(self.folder, world=self)
        successor.engine.pools.living.update(cast(Any, self.workers.running))
        return successor

    async def begin(self) -> None:
        await self.sites.restore()
        await recover(self.engine)

    async def ship(
        self, service: str = "shop", domain: str | None = DOMAIN, digest: str = "sha256:1", **settings: Any
    ) -> str:
        document = release_document(service=service, digest=digest)
        weight = settings.pop("cpu_weight", None)
        document = structs.replace(document, cpu_weight=weight)
        document = structs.replace(document, settings=structs.replace(document.settings, domain=domain, **settings))
        started = await self.engine.deploy(f"{service}_dev", document, strategy=None, force=False)
        return str((await self.end(started))["outcome"])

    def at(self) -> dict[str, str]:
        return {f"{stage.host}{stage.base}": stage.stage for stage in self.gateway.state.stages}


def _empty(secure: bool) -> GatewayState:
    return replace(GatewayState.initial((), 9, shared=True), secure=SharedTls(443) if secure else None)


def tell(folder: Path, story: Callable[[SitesBench], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def told() -> None:
        async with asyncio.timeout(20):
            await story(SitesBench(folder, **options))

    asyncio.run(told())


def files(folder: Path, *names: str, **settings: Any) -> TlsSettings:
    folder.mkdir(exist_ok=True)
    write_certificate(folder, *names)
    return TlsSettings(str(folder / "chain.pem"), str(folder / "key.pem"), **settings)


def test_services_with_stages_of_one_name_have_releases_of_their_own(tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        assert await bench.ship("shop") == "live"
        assert await bench.ship("users", base_path="/users") == "live"
        assert await bench.ship("users", base_path="/users", digest="sha256:2") == "live"
        assert bench.at() == {DOMAIN: "shop_dev", f"{DOMAIN}/users": "users_dev"}
        assert [bench.store.live(stage)[0] for stage in bench.engine.stages] == [1, 2]  # type: ignore[index]
        assert dict(bench.sites.urls())["users_dev"] == f"http://{DOMAIN}/users"
        await bench.sites.leave("users_dev")
        assert (bench.at(), bench.engine.stages) == ({DOMAIN: "shop_dev"}, ("shop_dev",))
        assert [row.stage for row in bench.store.pools()] == ["shop_dev"]
        assert await bench.ship("users", base_path="/users") == "live"
        assert bench.store.live("users_dev")[0] == 3  # type: ignore[index]

    tell(tmp_path, story)


def test_a_service_has_the_processor_share_of_its_newest_live_release(tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        await bench.ship("shop", cpu_weight=400)
        await bench.ship("users", base_path="/users")
        bench.sites.share_out()
        assert bench.shares.weights == {"shop": 400, "users": None}
        await bench.ship("shop", digest="sha256:2", cpu_weight=50)
        bench.shares.trouble = "no kernel"
        with pytest.raises(HitlessError, match="cpu_weight of shop would have no effect: no kernel"):
            await bench.ship("shop", digest="sha256:3", cpu_weight=20)
        second = bench.again()  # after a reboot that changed the kernel
        second.shares.trouble = "no kernel"
        await second.begin()
        assert second.shares.weights == {"shop": 50, "users": None}
        second.sites.share_out()
        said = second.store.read("SELECT count(*) FROM events WHERE sentence = 'cpu_weight has no effect: no kernel'")
        assert said[0][0] == 1
        await second.sites.leave("shop_dev")
        assert second.shares.weights == {"users": None}

    tell(tmp_path, story)


def test_stages_that_ship_at_once_take_different_pools(tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        outcomes = await asyncio.gather(*(bench.ship(name, f"{name}.example.org") for name in ("one", "two", "three")))
        assert outcomes == ["live"] * 3
        assert len({row.gateway_pool for row in bench.store.pools()}) == 3

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, f"{DOMAIN}/ belongs to shop_dev already"),
        ({"base_path": "/x"}, f"{DOMAIN}/x belongs to other_dev already"),
        ({"domain": None}, "users_dev has no domain"),
        (
            {"tls": TlsSettings("/c", "/k"), "base_path": "/y"},
            f"users_dev has a different certificate for {DOMAIN} than shop_dev",
        ),
        ({"tls": TlsSettings("/c", "/k"), "domain": "b.example.org"}, "/c cannot be read"),
        ({"tls": TlsSettings("/c", "/k", (":", 80)), "domain": "b.example.org"}, "has a redirect of its own"),
        ({"tls": TlsSettings(acme=AcmeSettings()), "domain": "b.example.org"}, "does not answer its challenges"),
    ],
)
def test_a_claim_that_cannot_be_granted_changes_nothing(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        await bench.ship("shop")
        await bench.ship("other", base_path="/x")
        before, rows = bench.gateway.state, len(bench.store.read("SELECT * FROM releases"))
        with pytest.raises(HitlessError) as refused:
            await bench.ship("users", **settings)
        assert said in refused.value.message
        assert refused.value.hint
        assert (bench.gateway.state, bench.engine.stages) == (before, ("shop_dev", "other_dev"))
        assert bench.shares.groups == {"shop", "other"}
        assert len(bench.store.read("SELECT * FROM releases")) == rows
        with pytest.raises(HitlessError, match=f"shop_dev is at {DOMAIN}/, not at {DOMAIN}/moved"):
            await bench.ship("shop", base_path="/moved", digest="sha256:2")
        with pytest.raises(HitlessError, match="is no stage of this engine"):
            await bench.deploy(stage="dev")

    tell(tmp_path, story)


def test_a_domains_certificate_is_served_as_long_as_a_stage_has_it(tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        tls = files(tmp_path / "tls", DOMAIN, hsts_s=60)
        assert await bench.ship("shop", tls=tls) == "live"
        assert await bench.ship("users", base_path="/users", tls=tls) == "live"
        assert bench.gateway.certificates == {DOMAIN: True}
        assert {stage.hsts_s for stage in bench.gateway.state.stages} == {60}
        assert {one.name for one in bench.sites.listeners} == {DOMAIN}
        await bench.sites.leave("shop_dev")
        assert bench.gateway.certificates == {DOMAIN: True}
        await bench.sites.leave("users_dev")
        assert bench.gateway.certificates == {}
        bench.clock.elapsed_s += 86_400 * 365
        with pytest.raises(HitlessError, match="expired on"):
            await bench.ship("shop", tls=tls)
        assert bench.engine.stages == ()

    tell(tmp_path, story)


def test_tls_needs_an_https_address(tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        with pytest.raises(HitlessError, match="the engine has no HTTPS address"):
            await bench.ship(tls=files(tmp_path / "tls", DOMAIN))

    tell(tmp_path, story, secure=False)


@pytest.mark.parametrize("gateway_died", [False, True])
def test_the_next_daemon_serves_the_same_stages(gateway_died: bool, tmp_path: Path) -> None:
    async def story(bench: SitesBench) -> None:
        tls = files(tmp_path / "tls", DOMAIN)
        await bench.ship("shop", tls=tls)
        await bench.ship("users", domain="users.example.org")
        at = bench.at()
        if gateway_died:
            bench.gateway.state = _empty(secure=True)
        bench = bench.again()
        await bench.begin()
        assert (bench.at(), set(bench.engine.stages)) == (at, {"shop_dev", "users_dev"})
        assert [stage.live for stage in bench.gateway.state.stages] == [1, 1]
        assert [one.name for one in bench.sites.listeners] == [DOMAIN]
        with pytest.raises(HitlessError, match="belongs to shop_dev"):
            await bench.ship("other", tls=tls)

    tell(tmp_path, story)
