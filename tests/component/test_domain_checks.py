"""A domain's delegation and CAA records, checked before its certificate is requested, on a real DNS server."""

from __future__ import annotations

from typing import Any

import pytest

from hitless.cloud.setup.domain import check_domain, public_dns
from hitless.errors import UsageError
from tests.dns_server import Records, dns_server
from tests.support import free_port

pytestmark = pytest.mark.component

DELEGATED: Records = {
    ("com", "NS"): ["a.gtld-servers.net."],
    ("example.com", "NS"): ["NS-1.awsdns-01.org.", "ns-2.awsdns-02.net."],
}


class FakeRoute53:
    def get_hosted_zone(self, *, Id: str) -> dict[str, Any]:  # noqa: N803 - botocore's name
        servers = ["ns-1.awsdns-01.org", "ns-2.awsdns-02.net"]
        return {"HostedZone": {"Id": Id, "Name": "example.com."}, "DelegationSet": {"NameServers": servers}}


def check(records: Records) -> list[str]:
    """The notes of a check of api.example.com."""
    said: list[str] = []
    with dns_server(records) as server:
        check_domain(FakeRoute53(), "api.example.com", "Z1", public_dns(server), said.append)
    return said


def test_a_delegated_zone_without_caa_records_is_accepted() -> None:
    assert check(DELEGATED) == []


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (
            {("example.com", "NS"): ["ns.parking.example."]},
            r"to ns\.parking\.example, not to its hosted zone Z1",
        ),
        ({("example.com", "NS"): None}, "delegated to no name server"),
    ],
)
def test_a_zone_that_is_not_delegated_is_refused_with_its_name_servers(records: Any, words: str) -> None:
    """ACM user guide, troubleshooting-DNS-validation: a certificate stays in pending validation until its record is
    found in public DNS; after 72 hours it fails.
    """
    known = {key: value for key, value in {**DELEGATED, **records}.items() if value}
    with pytest.raises(UsageError, match=words) as refused:
        check(known)
    assert "ns-1.awsdns-01.org, ns-2.awsdns-02.net" in refused.value.hint


@pytest.mark.parametrize(
    ("where", "caa", "accepted"),
    [
        ("api.example.com", ['0 issue "letsencrypt.org"'], False),
        ("example.com", ['0 issue ";"'], False),
        ("com", ['0 issue "letsencrypt.org"'], False),
        ("example.com", ['0 issue "letsencrypt.org"', '0 issue "amazontrust.com; policy=ev"'], True),
        ("example.com", ['0 issuewild ";"', '0 iodef "mailto:a@example.com"'], True),
    ],
)
def test_a_caa_record_must_allow_amazon(where: str, caa: list[str], accepted: bool) -> None:
    """ACM user guide, troubleshooting-caa: the value must contain one of amazon.com, amazontrust.com, awstrust.com,
    amazonaws.com. RFC 8659, section 3: the records of the closest name that has any count.
    """
    if accepted:
        assert check({**DELEGATED, (where, "CAA"): caa}) == []
        return
    with pytest.raises(UsageError, match=r"a CAA record of api\.example\.com or of a parent"):
        check({**DELEGATED, (where, "CAA"): caa})


def test_the_closest_caa_record_counts() -> None:
    own, parents = ['0 issue "amazon.com"'], ['0 issue "letsencrypt.org"']
    assert check({**DELEGATED, ("api.example.com", "CAA"): own, ("example.com", "CAA"): parents}) == []


def test_a_resolver_that_knows_no_public_name_gives_a_note() -> None:
    (note,) = check({("intranet", "NS"): ["ns.intranet."]})
    assert note.startswith("note: delegation and CAA records of example.com were not checked")
    assert note.endswith("it does not know com")


@pytest.mark.parametrize("server", ["127.0.0.1:{}", "not an address"])
def test_dns_that_cannot_be_reached_gives_a_note(server: str) -> None:
    said: list[str] = []
    look_up = public_dns(server.format(free_port()), lifetime_s=0.2)
    check_domain(FakeRoute53(), "api.example.com", "Z1", look_up, said.append)
    assert said[0].startswith("note: delegation and CAA records of example.com were not checked")
