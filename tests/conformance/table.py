"""The table of cases: how AWS behaves in front of and around a Lambda handler, each case with its source and a quote.

The files are cases/*.yaml, one a topic. Expected values are typed from AWS's documentation, from AWS's own runtime code
or from a public capture of the real service. They are never recorded from hitless.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

FOLDER: Final = Path(__file__).parent
CASES: Final = FOLDER / "cases"
SERVICES: Final = FOLDER / "services"
HANDLERS: Final = FOLDER / "handlers.py"
"""The handlers of all services: copied into a service's folder before it is used."""
MOST_CASES_OF_A_PAGE: Final = 30


class Flavour(StrEnum):
    """Which of AWS's interfaces a case is about."""

    REST = "rest"
    HTTP_2 = "http-2.0"
    HTTP_1 = "http-1.0"
    FUNCTION_URL = "function-url"
    RUNTIME = "runtime"


class Kind(StrEnum):
    """Why hitless does not behave as a case says."""

    NOT_IMPLEMENTED = "not implemented"
    DEFECT = "defect"
    DESIGN = "by design"


class Deviation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A known difference of hitless, with its reason."""

    kind: Kind
    reason: str


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One HTTP request. Path and headers are sent as written: case, order and repetition are kept."""

    path: str
    method: str = "GET"
    headers: tuple[str, ...] = ()
    body: str | None = None
    json: Any = msgspec.UNSET
    """A body that is sent as JSON, without a Content-Type of its own."""
    base64: str | None = None
    size: int | None = None
    """A body of that many letters x."""


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What AWS does. Each field that is not given is not looked at; objects may have more keys than expected.

    Instead of a value stands {$regex: pattern}, {$absent: true}, {$any: true} or {$not: value}.
    """

    status: Any = None
    headers: dict[str, Any] = {}
    """Response headers by name, without regard to case: the value, or a list of the values."""
    spelt: tuple[str, ...] = ()
    """Names of response headers in the case in which they are sent."""
    body: Any = msgspec.UNSET
    """The response's body as text."""
    json: Any = msgspec.UNSET
    """The response's body as JSON; of an echo it is the event."""
    result: Any = msgspec.UNSET
    """What Lambda's Invoke gives, for an invocation outside HTTP."""
    log: tuple[str, ...] = ()
    """Regular expressions, each of which one line of the invocation's log matches."""
    no_log: tuple[str, ...] = ()
    """Regular expressions that no line of it matches."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the table."""

    id: str
    title: str
    topic: str
    flavour: Flavour
    service: str
    function: str
    source: str
    quote: str
    expect: Expected
    route: str | None = None
    request: Request | None = None
    event: Any = msgspec.UNSET
    """The event of an invocation outside HTTP."""
    slow: bool = False
    """It takes longer than a second."""
    deviation: Deviation | None = None

    @property
    def invoked(self) -> bool:
        """Whether the function is invoked outside HTTP."""
        return self.request is None


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something of AWS that hitless does not have, and the services of the table that need it."""

    reason: str
    services: tuple[str, ...]


NOT_IMPLEMENTED: Final = (
    Feature("IAM authorization is not implemented", ("iam", "function_url_iam")),
    Feature("API keys and usage plans are not implemented", ("api_keys",)),
    Feature("request validation is not implemented", ("validation",)),
    Feature("compression is not implemented", ("compression",)),
    Feature("customized gateway responses are not implemented", ("gateway_responses",)),
    Feature("custom mapping templates are not implemented", ("lambda_template",)),
    Feature("the JSON log format is not implemented", ("json_logs",)),
)
"""The one place that says what is left out. Once a feature exists its line goes, and its cases are run."""


def missing_feature(service: str) -> Deviation | None:
    """Why that service cannot be started by hitless, or None."""
    for feature in NOT_IMPLEMENTED:
        if service in feature.services:
            return Deviation(Kind.NOT_IMPLEMENTED, feature.reason)
    return None


@cache
def load_cases(folder: Path = CASES) -> tuple[Case, ...]:
    """All cases, in the order of the files. Raises ValueError, which names file and case, for a malformed one."""
    return tuple(case for path in sorted(folder.glob("*.yaml")) for case in _cases_of(path))


def _cases_of(path: Path) -> Iterator[Case]:
    """A file has a topic, `sources` (short names for URLs), `defaults` and `cases`."""
    document = yaml.safe_load(path.read_text("utf-8"))
    for fields in document["cases"]:
        merged = {"topic": document["topic"], **document.get("defaults", {}), **fields}
        try:
            merged["source"] = document["sources"][merged["source"]]
            case = msgspec.convert(merged, Case)
        except (KeyError, msgspec.ValidationError) as error:
            raise ValueError(f"{path.name}: {fields.get('id')}: {error!r}") from error
        if deviation := missing_feature(case.service):
            case = msgspec.structs.replace(case, deviation=deviation)
        yield case
