"""Checks in public DNS that ACM can validate a domain's certificate, before anything is created.

A certificate that cannot be validated holds the core stack for up to 72 hours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dns.resolver
from dns.exception import DNSException

from hitless.aws.session import Ignoring
from hitless.errors import UsageError

AUTHORITIES = frozenset({"amazon.com", "amazontrust.com", "awstrust.com", "amazonaws.com"})
"""The names in CAA records that allow ACM (ACM user guide, troubleshooting-caa)."""
SERVER_VARIABLE = "HITLESS_DNS_SERVER"

LookUp = Callable[[str, str], list[str]]
"""(name, type) → the texts of its records; empty if there are none. Raises DNSException if no server responds."""


def public_dns(server: str | None, *, lifetime_s: float = 5.0) -> LookUp:
    """Looks up by that server (ADDRESS or ADDRESS:PORT), else by the machine's own."""

    def look_up(name: str, kind: str) -> list[str]:
        resolver = dns.resolver.Resolver(configure=not server)
        if server:
            address, _, port = server.partition(":")
            resolver.nameservers, resolver.port = [address], int(port or 53)
        try:
            return [record.to_text() for record in resolver.resolve(f"{name}.", kind, lifetime=lifetime_s)]
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []

    return look_up


def check_domain(route53: Any, domain: str, zone_id: str, look_up: LookUp, say: Callable[[str], None]) -> None:
    """Raise UsageError if the zone is not delegated, or if CAA records forbid Amazon's certificates.

    If public DNS cannot be reached from here, a note says that the check was left out.
    """
    found: dict[str, Any] = {}
    with Ignoring("NoSuchHostedZone"):
        found = route53.get_hosted_zone(Id=zone_id)
    zone = found.get("HostedZone", {"Name": "."})["Name"].rstrip(".")
    if "DelegationSet" not in found or not f".{domain}".endswith(f".{zone}"):  # a private zone has none
        hint = "`aws route53 list-hosted-zones` shows the zones"
        raise UsageError(f"--zone-id: {zone_id} is not a public hosted zone of this account for {domain}", hint=hint)
    ours = _names(found["DelegationSet"]["NameServers"])
    labels = domain.split(".")
    parents = (".".join(labels[start:]) for start in range(len(labels)))
    try:
        if not look_up(labels[-1], "NS"):
            raise ValueError(f"it does not know {labels[-1]}")
        delegated = _names(look_up(zone, "NS"))
        records = next(filter(None, (look_up(parent, "CAA") for parent in parents)), [])
    except (DNSException, ValueError) as error:
        say(f"note: delegation and CAA records of {zone} were not checked: public DNS cannot be reached: {error}")
        return
    if not delegated & ours:
        servers = ", ".join(sorted(delegated)) or "no name server"
        raise UsageError(
            f"{zone} is delegated to {servers}, not to its hosted zone {zone_id}",
            hint=f"enter these name servers at the registrar, or in the parent zone: {', '.join(sorted(ours))}",
        )
    issuers = {record.split()[2].strip('"').partition(";")[0] for record in records if " issue " in record}
    if issuers and not AUTHORITIES & issuers:
        allowed = ", ".join(sorted(filter(None, issuers))) or "nobody"
        hint = 'ACM needs a further record: 0 issue "amazon.com"'
        raise UsageError(f"a CAA record of {domain} or of a parent allows only {allowed}", hint=hint)


def _names(servers: list[str]) -> set[str]:
    return {server.rstrip(".").lower() for server in servers}
