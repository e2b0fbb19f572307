"""A home that is only remembered, for tests of the verbs that pick one: `HOME`, as each module of a home has it."""

from __future__ import annotations

from typing import Any

from hitless.cli.common import Context
from hitless.cli.homes import DeployOrder, Drilled, LogQuery
from hitless.service.model import Service


class FakeHome:
    """Its stage `prod` answers at `url`, and has never shipped anything."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.asked = 0

    def deploy(self, ctx: Context, service: Service, order: DeployOrder) -> None: ...
    def rollback(self, ctx: Context, release: int | None, message: str | None) -> None: ...
    def abort(self, ctx: Context) -> None: ...
    def logs(self, ctx: Context, query: LogQuery) -> None: ...

    def releases(self, ctx: Context) -> list[dict[str, Any]]:
        return []

    def release(self, ctx: Context, number: int) -> dict[str, Any]:
        return {"release": number, "rollouts": []}

    def drilled(self, ctx: Context) -> Drilled:
        return Drilled(self.status, lambda number: self.release(ctx, number), on_engine=False)

    def status(self) -> dict[str, Any]:
        self.asked += 1
        live = {"release": 5, "artifacts": {}}
        return {"stages": [{"stage": "prod", "url": self.url, "live": live, "functions": []}]}


HOME = FakeHome()
