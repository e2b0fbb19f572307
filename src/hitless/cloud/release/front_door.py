"""Asks the live API as clients do, over HTTPS at its own URL and at its domains, before and after the Stage moves.

A wrong permission, mapping, authorizer or resource policy shows only there. After the move must pass what passed before
it, and requests to new routes at an address where others passed. What failed before says nothing: this machine may not
reach the API. Each request is sent several times, so only those that change nothing are sent.
"""

from __future__ import annotations

from hitless.cloud.stage.stage import Cloud, Observed
from hitless.cloud.transform import api
from hitless.cloud.transform.model import API_ID, STAGE_ID, Template, of_type
from hitless.release.smoke import find_route
from hitless.service.model import Service, SmokeRequest

WATCHED_S = 30.0
"""How long requests are sent after the move: the Stage still serves the earlier Deployment for some seconds."""
_CHANGE_NOTHING = ("GET", "HEAD", "OPTIONS")


class FrontDoor:
    """The API before and after one move. `served` is the Deployment (id) that the Stage serves before it."""

    def __init__(self, cloud: Cloud, before: Observed, wanted: Template, service: Service) -> None:
        self._ask = cloud.ask
        self.served = cloud.api.deployment(before.stage) if before.stage is not None else None
        known = api.routes(before.live.resources)
        sent = [one for one in service.settings.smoke if one.method in _CHANGE_NOTHING]
        new = [one for one in sent if _route(service, one) not in known]
        self.must_pass: list[tuple[str, SmokeRequest]] = []
        for url in _urls(cloud, before, wanted):
            if passed := [one for one in sent if one not in new and self._ask(url, one) is None]:
                self.must_pass += [(url, one) for one in (*passed, *new)]
        self._failed: set[str] = set()

    def failing(self) -> list[str]:
        """A sentence for each request that must pass, and failed now and the last time."""
        faults = ((url, self._ask(url, request)) for url, request in self.must_pass)
        seen = [f"{url}: {fault}" for url, fault in faults if fault]
        again = [one for one in seen if one in self._failed]
        self._failed = set(seen)
        return again


def _route(service: Service, request: SmokeRequest) -> str:
    found = find_route(service.functions, request.method, request.path.partition("?")[0])
    return f"{found[1].method} {found[1].path}" if found else ""


def _urls(cloud: Cloud, before: Observed, wanted: Template) -> list[str]:
    """The addresses that both releases have."""
    resources = wanted["Resources"]
    if before.stage is None or STAGE_ID not in resources or (own := cloud.api.url(before.stage)) is None:
        return []
    closed = str(resources[API_ID]["Properties"].get("DisableExecuteApiEndpoint")).lower() == "true"
    mapped = [one["Properties"] for one in of_type(resources, "AWS::ApiGateway::BasePathMapping").values()]
    domains = [f"https://{one['DomainName']}/{one.get('BasePath', '')}" for one in mapped]
    return [*([] if closed else [own]), *(url.rstrip("/") for url in domains if "{" not in url)]
