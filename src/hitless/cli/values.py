"""Takes values of options that need no conversion as they are.

typer converts every value by pydantic, and importing that is a sixth of a command's processor time. Values of other
types are left to typer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer import core


class AsGiven:
    """Stands for typer's converter of one parameter, which it makes only if it is needed."""

    def __init__(self, descriptor: Any) -> None:
        self._descriptor = descriptor

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value for the command's function; typer's exceptions if it is not valid."""
        kind = self._descriptor.annotation
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if kind is str and isinstance(value, str):
            return value
        if kind is Path and isinstance(value, str | Path):
            return Path(value)
        if kind == list[str] and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return list(value)
        return _CONVERTER(self._descriptor).coerce(value, param=param, ctx=ctx)


_CONVERTER: Any = getattr(core, "build_runtime_param", None)


def take_values_as_given() -> None:
    """Make typer use this module. Without effect on a typer that does not convert by pydantic."""
    if _CONVERTER is not None:
        core.build_runtime_param = AsGiven  # type: ignore[attr-defined, assignment]
