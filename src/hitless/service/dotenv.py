"""`.env` files as Serverless Framework reads them with `useDotenv: true` (dotenv and dotenv-expand for JavaScript).

`.env.STAGE` is read if it exists, else `.env`. A variable that is already set and not empty wins. The variables are
only for `${env:}`: they do not become part of the functions' environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from hitless.service.files import Files
from hitless.service.value import Value

_LINE = re.compile(
    r"""^[^\S\n]*(?:export\s+)?([\w.-]+)(?:\s*=\s*?|:\s+?)"""
    r"""(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\n]+)?[^\S\n]*(?:#.*)?$""",
    re.MULTILINE | re.ASCII,
)
_REFERENCE = re.compile(r"(?<!\\)\$\{([^{}]+)\}|(?<!\\)\$([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_OPERATOR = re.compile(r":\+|\+|:-|-")
_MAX_EXPANSIONS = 1000
_MAX_CHARACTERS = 1 << 20


def with_dotenv(stage: str, environ: Mapping[str, str], files: Files, at: Value) -> dict[str, str]:
    """The environment with the variables of the stage's file, if there is one; ServiceFileError if it is unreadable."""
    found = files.read(f".env.{stage}", at) or files.read(".env", at)
    given = parse_dotenv(found.text()) if found is not None else {}
    known = {**given, **environ}
    read = {name: environ.get(name) or _expanded(value, known, at).replace("\\$", "$") for name, value in given.items()}
    return {**environ, **read}


def parse_dotenv(text: str) -> dict[str, str]:
    """Names and values as written, without quotes."""
    read: dict[str, str] = {}
    for name, written in _LINE.findall(text.replace("\r\n", "\n").replace("\r", "\n")):
        value = written.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"`":
            inner = value[1:-1]
            value = inner.replace("\\n", "\n").replace("\\r", "\r") if value[0] == '"' else inner
        read[name] = value
    return read


def _expanded(value: str, known: Mapping[str, str], at: Value) -> str:
    """The value with `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+instead}` replaced, recursively."""
    seen: set[str] = set()
    for _ in range(_MAX_EXPANSIONS):
        found = _REFERENCE.search(value)
        if found is None:
            return value
        seen.add(value)
        expression = found[1] or found[2]
        operator = _OPERATOR.search(expression)
        name, default = (expression[: operator.start()], expression[operator.end() :]) if operator else (expression, "")
        new = known.get(name, "")
        if operator and operator[0].endswith("+"):
            new = default if new else ""
        elif not new or new in seen:
            new = default
        value = value[: found.start()] + new + value[found.end() :]
        if len(value) > _MAX_CHARACTERS:
            break
    raise at.fault("the variables of the .env file expand without end", "look for a variable that refers to itself")
