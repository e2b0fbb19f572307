"""Previews of services that share an engine, with fakes for workers and gateway: hosts, certificates, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from hitless.engine.acme import Acme
from hitless.engine.previews import Previews
from hitless.engine.recovery import recover
from hitless.errors import HitlessError
from hitless.release.who import NOBODY
from hitless.service.model import AcmeSettings, PreviewSettings, StageSettings, TlsSettings
from hitless.store.previews import PreviewRecords
from tests.certificates import DOMAIN, no_authority
from tests.component.engine_bench import until
from tests.component.test_engine_sites import SitesBench, _empty, files
from tests.fakes import release_document

pytestmark = pytest.mark.component

HOST = f"fix.preview.{DOMAIN}"
PREVIEW = "shop_preview_fix"


class SharedBench(SitesBench):
    """An engine whose services have previews by `settings`; `again()` is a daemon after the first has died."""

    def __init__(self, folder: Path, *, world: SitesBench | None = None, secure: bool = True) -> None:
        super().__init__(folder, world=world, secure=secure)
        self.settings: dict[str, PreviewSettings] = {
            name: PreviewSettings("dev") for name in ("shop", "users", "s" * 64)
        }
        self.all = Previews(self.engine, cast(Any, self.gateway), lambda one: self.settings.get(one), sites=self.sites)

    def again(self) -> SharedBench:
        self.store.close()
        successor = SharedBench(self.folder, world=self)
        successor.engine.pools.living.update(cast(Any, self.workers.running))
        return successor

    async def begin(self) -> None:
        await self.all.restore()
        await self.sites.restore()
        await recover(self.engine)

    async def show(
        self, service: str = "shop", branch: str = "fix", *, domain: str | None = DOMAIN, digest: str = "sha256:1",
        tls: TlsSettings | None = None,
    ) -> str:  # fmt: skip
        """Ship a branch's preview; its URL."""
        previews = self.all.of(service)
        base = StageSettings("dev", "dev", domain=domain, tls=tls)
        assert previews.refusal(branch, 1, base) is None
        document = release_document(service=service, digest=digest)
        ended = await self.end(await previews.ship(branch, document, who=NOBODY, base=base))
        assert ended["outcome"] in ("live", "unchanged")
        return str(previews.url(branch))

    async def close(self, service: str = "shop", branch: str = "fix") -> None:
        previews = self.all.of(service)
        assert previews.close(branch, "its branch was deleted")
        await until(lambda: PreviewRecords(self.store, service).of_branch(branch) is None and not previews._ending)

    def refusal(self, base: StageSettings, functions: int = 1) -> str | None:
        return self.all.of("shop").refusal("fix", functions, base)


def tell(
    folder: Path, story: Callable[[SharedBench], Coroutine[Any, Any, None]], *, bench: SharedBench | None = None
) -> SharedBench:
    told_of = bench or SharedBench(folder)

    async def told() -> None:
        async with asyncio.timeout(20):
            await told_of.begin()
            await story(told_of)

    asyncio.run(told())
    return told_of


def test_previews_of_one_branch_in_two_services_have_hosts_of_their_own(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        await bench.ship("shop")
        await bench.ship("users", base_path="/users")
        before = bench.at()
        first, second = await bench.show("shop"), await bench.show("users")
        assert first == f"http://{HOST}"
        assert second.startswith("http://fix-")
        assert second.endswith(f".preview.{DOMAIN}")
        assert bench.at() == before | {HOST: PREVIEW, second.removeprefix("http://"): "users_preview_" + second[7:17]}
        assert bench.engine.stages == ("shop_dev", "users_dev"), "no stage is listed for a preview"
        assert await bench.show("shop", digest="sha256:2") == first
        assert bench.store.live(PREVIEW)[0] == 2  # type: ignore[index]
        await bench.close("shop")
        assert bench.at() == before | {second.removeprefix("http://"): "users_preview_" + second[7:17]}
        await bench.close("users")
        assert bench.at() == before
        assert bench.shares.groups == {"shop", "users"}, "of their stages"
        assert {row.stage for row in bench.store.pools()} == {"shop_dev", "users_dev"}

    tell(tmp_path, story)


def test_a_stage_and_a_preview_never_have_one_host(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        await bench.ship("users", domain=HOST)
        url = await bench.show("shop")
        assert url.startswith("http://fix-")
        with pytest.raises(HitlessError, match="belongs to shop_preview_fix"):
            await bench.ship("other", domain=url.removeprefix("http://"))

    tell(tmp_path, story)


def test_the_longest_service_and_branch_have_a_valid_host(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        url = await bench.show("s" * 64, "b" * 80)
        label = url.removeprefix("http://").partition(".")[0]
        assert len(label) <= 63
        (stage,) = bench.gateway.state.stages
        assert (stage.stage, len(stage.stage)) == (f"{'s' * 64}_preview_{label}", 128)

    tell(tmp_path, story)


def test_a_preview_has_https_by_a_certificate_that_covers_its_host(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        tls = files(tmp_path / "tls", DOMAIN, f"*.preview.{DOMAIN}", hsts_s=60)
        await bench.ship("shop", tls=tls)
        assert await bench.show(tls=tls) == f"https://{HOST}"
        assert bench.gateway.certificates == {DOMAIN: True, HOST: True}
        assert bench.all.of("shop").without_certificate("fix") is None
        assert {one.name for one in bench.sites.listeners} == {DOMAIN, HOST}
        await bench.close()
        assert bench.gateway.certificates == {DOMAIN: True}
        assert {one.name for one in bench.sites.listeners} == {DOMAIN}

    tell(tmp_path, story)


def test_a_preview_whose_host_no_certificate_covers_says_so_and_is_served_by_http(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        tls = files(tmp_path / "tls", DOMAIN)
        await bench.ship("shop", tls=tls)
        assert await bench.show(tls=tls) == f"http://{HOST}"
        why = bench.all.of("shop").without_certificate("fix") or ""
        assert why.startswith("no certificate, so it is served by HTTP: the certificate of stage shop_preview_fix")
        assert f"is for {DOMAIN}, not for {HOST}; add *.preview.{DOMAIN} to the certificate, or use acme" in why
        assert f"the preview has {why}" in [event.sentence for event in bench.store.events()]
        assert set(bench.sites.bare) == {PREVIEW}
        files(tmp_path / "tls", DOMAIN, f"*.preview.{DOMAIN}")
        assert await bench.show(tls=tls, digest="sha256:2") == f"https://{HOST}"
        assert bench.sites.bare == {}
        files(tmp_path / "tls", DOMAIN)
        await bench.show(tls=tls, digest="sha256:3")
        await bench.close()
        assert (bench.sites.bare, bench.gateway.certificates) == ({}, {DOMAIN: True})

    tell(tmp_path, story)


def test_a_preview_by_acme_orders_a_certificate_which_goes_with_it(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        bench.gateway.state = replace(bench.gateway.state, thumbprint="t")
        tls = TlsSettings(acme=AcmeSettings())
        await bench.ship("shop", tls=tls)
        assert await bench.show(tls=tls) == f"https://{HOST}"
        acme = Acme(tmp_path / "acme", bench.clock, no_authority)
        for listener in bench.sites.listeners:
            await acme._ask(listener)
        records = {file.name for file in (tmp_path / "acme").rglob("*.json")}
        assert records == {f"{DOMAIN}.json", f"{HOST}.json"}
        await bench.close()
        assert [one.name for one in bench.sites.listeners] == [DOMAIN]
        assert [file.name for file in (tmp_path / "acme").rglob("*.json")] == [f"{DOMAIN}.json"]

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("domain", "base", "said"),
    [
        ("", None, "dev has no domain, so previews need one: custom.hitless.previews.domain"),
        ("", "d" * 60 + ("." + "d" * 58) * 2, "has more than 180 characters: set custom.hitless.previews.domain"),
        ("pre.users.example.org", DOMAIN, "the previews' domain pre.users.example.org belongs to users_dev: change"),
        ("users.example.org", DOMAIN, "the previews' domain users.example.org belongs to users_dev: change"),
        ("pre.other.example.org", DOMAIN, None),
        ("", "users.example.org", "the previews' domain preview.users.example.org belongs to users_dev: change"),
    ],
)
def test_a_domain_of_another_service_is_refused(
    domain: str, base: str | None, said: str | None, tmp_path: Path
) -> None:
    async def story(bench: SharedBench) -> None:
        await bench.ship("users", domain="users.example.org")
        bench.settings["shop"] = PreviewSettings("dev", domain=domain)
        why = bench.refusal(StageSettings("dev", "dev", domain=base))
        assert why == said or (why and said and said in why)
        await bench.ship("shop", domain="users.example.org", base_path="/shop")
        bench.settings["shop"] = PreviewSettings("dev", domain="pre.users.example.org")
        assert bench.refusal(StageSettings("dev", "dev", domain=DOMAIN)) is None, "the service has this domain, too"

    tell(tmp_path, story)


def test_the_limit_is_each_services_own_and_pools_stay_free_for_all_stages(tmp_path: Path) -> None:
    base = StageSettings("dev", "dev", domain=DOMAIN)

    async def story(bench: SharedBench) -> None:
        bench.settings["shop"] = PreviewSettings("dev", most=1)
        await bench.ship("shop")
        await bench.show("users", domain="users.example.org")
        assert bench.refusal(base, 5) is None
        assert bench.refusal(base, 6) == (
            "the gateway has 7 free pools, 2 of them reserved for other stages, and the preview needs 6: "
            "delete a branch to make room"
        )
        await bench.show("shop", "one")
        why = bench.refusal(base)
        assert why
        assert why.startswith("1 previews are already running (max: 1); the next to expire is that of one")

    tell(tmp_path, story)


def test_a_refused_first_release_leaves_neither_a_preview_nor_a_share(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        with pytest.raises(HitlessError, match="does not answer its challenges"):
            await bench.show(tls=TlsSettings(acme=AcmeSettings()))
        await until(lambda: not bench.all.rows() and not bench.all._ending)
        assert (bench.gateway.state.stages, bench.engine.turns, bench.shares.groups) == ((), {}, set())

    tell(tmp_path, story)


def test_a_removed_service_and_one_without_previews_any_more_lose_them(tmp_path: Path) -> None:
    async def story(bench: SharedBench) -> None:
        await bench.show("shop")
        await bench.show("users")
        await bench.all.of("shop").end_all("the service was removed")
        assert [row.service for row in bench.all.rows()] == ["users"]
        assert bench.shares.groups == {"users"}
        del bench.settings["users"]
        watch = asyncio.create_task(bench.all.watch())
        await until(lambda: not bench.all.rows())
        watch.cancel()
        assert bench.at() == {}
        said = [event.sentence for event in bench.store.events()]
        assert "removing the preview of fix: its service has no previews any more" in said

    tell(tmp_path, story)


@pytest.mark.parametrize("gateway_died", [False, True])
def test_the_next_daemon_serves_the_same_previews(gateway_died: bool, tmp_path: Path) -> None:
    tls = files(tmp_path / "tls", DOMAIN, f"*.preview.{DOMAIN}")

    async def story(bench: SharedBench) -> None:
        await bench.ship("shop", tls=tls)
        await bench.show(tls=tls)

    async def later(bench: SharedBench) -> None:
        assert bench.at() == {DOMAIN: "shop_dev", HOST: PREVIEW}
        assert bench.engine.stages == ("shop_dev",)
        assert [stage.live for stage in bench.gateway.state.stages] == [1, 1]
        assert {one.name for one in bench.sites.listeners} == {DOMAIN, HOST}
        assert bench.all.of("shop").url("fix") == f"https://{HOST}"
        await bench.show(tls=tls, digest="sha256:2")
        assert bench.store.live(PREVIEW)[0] == 2  # type: ignore[index]
        await bench.close()
        assert bench.at() == {DOMAIN: "shop_dev"}

    second = tell(tmp_path, story).again()
    if gateway_died:
        second.gateway.state = _empty(secure=True)
        second.workers.running.clear()
        second.engine.pools.living.clear()
    tell(tmp_path, later, bench=second)


def test_a_stage_may_take_the_host_of_a_preview_that_is_being_removed(tmp_path: Path) -> None:
    """The daemon dies before the record is deleted; the next one starts nevertheless."""

    async def story(bench: SharedBench) -> None:
        await bench.show()
        bench.store.write("UPDATE previews SET ending = 'gone'")
        bench.store.write("DELETE FROM stages")
        await bench.engine.withdraw(PREVIEW)
        await bench.ship("users", domain=HOST)

    async def later(bench: SharedBench) -> None:
        assert bench.at() == {HOST: "users_dev"}
        watch = asyncio.create_task(bench.all.watch())
        await until(lambda: not bench.all.rows() and not bench.all._ending)
        watch.cancel()
        assert bench.at() == {HOST: "users_dev"}

    tell(tmp_path, later, bench=tell(tmp_path, story).again())
