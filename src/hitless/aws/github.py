"""The connection through which AWS reads GitHub: found, looked at, awaited. A person authorises it in the console."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PENDING, AVAILABLE = "PENDING", "AVAILABLE"

_CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


@dataclass(frozen=True, slots=True)
class Connection:
    """`status` is PENDING until a person authorises it, then AVAILABLE; ERROR where GitHub took it back."""

    arn: str
    name: str
    status: str

    @property
    def available(self) -> bool:
        return self.status == AVAILABLE


class Connections:
    """Connections to GitHub of one account and region, through botocore's `codeconnections` client."""

    def __init__(self, codeconnections: Any) -> None:
        self._client = codeconnections

    def get(self, arn: str) -> Connection:
        return _connection(self._client.get_connection(ConnectionArn=arn)["Connection"])

    def named(self, name: str) -> Connection | None:
        """The connection to GitHub of that name, or None; names are unique in an account and region."""
        token: dict[str, str] = {}
        while True:
            page = self._client.list_connections(ProviderTypeFilter="GitHub", **token)
            for each in page.get("Connections", ()):
                if each["ConnectionName"] == name:
                    return _connection(each)
            if not page.get("NextToken"):
                return None
            token = {"NextToken": page["NextToken"]}


def console_url(arn: str) -> str:
    """Where a person authorises the connection (Developer Tools → Settings → Connections)."""
    _, partition, _, region, account, rest = arn.split(":", 5)
    host = _CONSOLES.get(partition, "console.aws.amazon.com")
    identifier = rest.partition("/")[2]
    return f"https://{region}.{host}/codesuite/settings/{account}/{region}/codeconnections/connections/{identifier}"


def _connection(found: dict[str, Any]) -> Connection:
    return Connection(found["ConnectionArn"], found["ConnectionName"], found["ConnectionStatus"])
