"""A fake home for tests of commands that pick one; `home` makes it, like the function of each home's module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hitless.homes.home import DeployOrder, LogQuery, NothingLive, RolloutNews, StageHome, Workplace
from hitless.release.document import ReleaseDocument
from hitless.service.model import Service


class FakeHome:
    """A home whose stage `prod` responds at `url` and has no releases."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.asked = 0
        self.shipped: list[int] = []
        """Its releases in the order in which they were live."""

    def dry_run(self, service: Service, order: DeployOrder) -> dict[str, Any]:
        return {}

    def deploy(self, service: Service, order: DeployOrder) -> Iterator[RolloutNews]:
        return iter(())

    def rollback(self, release: int | None, message: str | None) -> Iterator[RolloutNews]:
        self.shipped.append(release or self.shipped[-2])
        result = {"stage": "prod", "release": self.shipped[-1], "outcome": "live", "strategy": "AllAtOnce"}
        return iter([RolloutNews(result=result)])

    def abort(self) -> Iterator[RolloutNews]:
        return iter(())

    def logs(self, query: LogQuery) -> Iterator[str]:
        return iter(())

    def releases(self, limit: int | None = None) -> list[dict[str, Any]]:
        return [{"release": one, "live": one == self.shipped[-1]} for one in sorted({*self.shipped}, reverse=True)]

    def release(self, number: int) -> dict[str, Any]:
        return {"release": number, "rollouts": []}

    def status(self) -> dict[str, Any]:
        self.asked += 1
        live = {"release": 5, "artifacts": {}}
        return {"stages": [{"stage": "prod", "url": self.url, "live": live, "functions": []}]}

    def live(self) -> ReleaseDocument:
        raise NothingLive("prod has no release", hint="ship one")


HOME = FakeHome()


def home(place: Workplace) -> StageHome:
    """The same one for every stage."""
    return HOME
