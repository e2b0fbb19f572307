"""What the file asks for and this home does not do, said once a cause, by name and place."""

from __future__ import annotations

from dataclasses import dataclass, field

from hitless.service.value import Value


@dataclass(slots=True)
class Notices:
    """Collects while a file is read. Equal causes share a line, so that thirty routes with `cors` are one sentence."""

    values: dict[str, dict[str, Value]] = field(default_factory=dict)
    """By cause, then by place. A noticed key's cause is its path in `hitless.service.keys`."""
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, cause: str, value: Value, sentence: str) -> None:
        """`sentence` says what is different here; it never repeats the value, which may be a secret."""
        where = f"{value.place}: {value.path}"
        self._first.setdefault(cause, f"{where}: {sentence}")
        self.values.setdefault(cause, {})[where] = value

    def sentences(self) -> tuple[str, ...]:
        """`serverless.yml:12: functions.api.layers: …`, in the order of discovery."""
        return tuple(line + _more(len(self.values[cause]) - 1) for cause, line in self._first.items())


def _more(count: int) -> str:
    return "" if count == 0 else " (and in one more place)" if count == 1 else f" (and in {count} more places)"
