"""What the file asks for and this home does not do, said once a cause, by name and place."""

from __future__ import annotations

from dataclasses import dataclass, field

from hitless.service.value import Value


@dataclass(slots=True)
class Notices:
    """Collects while a file is read. Equal causes share a line, so that thirty routes with `cors` are one sentence."""

    _first: dict[str, str] = field(default_factory=dict)
    _more: dict[str, int] = field(default_factory=dict)

    def add(self, cause: str, value: Value, sentence: str) -> None:
        """`sentence` says what is different here; it never repeats the value, which may be a secret."""
        if cause in self._first:
            self._more[cause] = self._more.get(cause, 0) + 1
        else:
            self._first[cause] = f"{value.place}: {value.path}: {sentence}"

    def sentences(self) -> tuple[str, ...]:
        """`serverless.yml:12: functions.api.layers: …`, in the order of discovery."""
        return tuple(
            f"{line} (and in {more} more places)" if (more := self._more.get(cause, 0)) > 1
            else f"{line} (and in one more place)" if more
            else line
            for cause, line in self._first.items()
        )  # fmt: skip
