"""The grammar of Serverless Framework's variables: `${self:custom.${sls:stage}.x, env:X, 'default'}` as a tree.

Text in, tree out; nothing is looked up here. Text that only looks like a variable stays text: `${AWS::Region}` and
`${!Literal}` of CloudFormation's Fn::Sub, `${shell}`, and what is escaped, `\\${self:x}` or `$${self:x}`.
"""

from __future__ import annotations

import json
import re

import msgspec

_KIND = re.compile(r"[a-z][A-Za-z0-9.\-]*(?=[:(])")
_FOREIGN_ADDRESS = re.compile(r": *:")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)([eE]-?\d+)?", re.ASCII)
_BASED = re.compile(r"0([xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_WORDS = {"true": True, "false": False, "null": None}


class VariableSyntaxError(ValueError):
    """A variable is malformed; the message is a sentence about it."""


class Literal(msgspec.Struct, frozen=True):
    """A literal default: a number, true, false or null (strings are templates)."""

    value: int | float | bool | None


class Template(msgspec.Struct, frozen=True):
    """Text with variables in it."""

    parts: tuple[str | Variable, ...]

    @property
    def whole(self) -> Variable | None:
        """The variable that is the entire text, so that its value keeps its type."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], Variable) else None


class VariableSource(msgspec.Struct, frozen=True):
    """`kind(params):address`, and how it was written."""

    kind: str
    params: tuple[Template, ...]
    address: Template | None
    text: str


class Variable(msgspec.Struct, frozen=True):
    """Sources in order of preference, and how the whole was written."""

    sources: tuple[VariableSource | Template | Literal, ...]
    text: str


def parse(text: str) -> Template:
    """The template that `text` is; VariableSyntaxError on a malformed variable."""
    return _Parser(text).template("")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def template(self, stops: str) -> Template:
        parts: list[str | Variable] = []
        written: list[str] = []
        while self._at < len(self._text) and self._text[self._at] not in stops:
            if (escape := self._escape()) is not None:
                written.append(escape)
            elif (variable := self._variable(nested=bool(stops))) is not None:
                parts += ["".join(written), variable]
                written.clear()
            else:
                written.append(self._text[self._at])
                self._at += 1
        parts.append("".join(written))
        return Template(tuple(part for part in parts if part != "") or ("",))

    def _escape(self) -> str | None:
        """`\\${` and `$${` mean `${`; before a variable two backslashes mean one."""
        if self._text.startswith("$${", self._at):
            self._at += 3
            return "${"
        end = self._at
        while end < len(self._text) and self._text[end] == "\\":
            end += 1
        if end == self._at or not self._text.startswith("${", end):
            return None
        pairs, odd = divmod(end - self._at, 2)
        self._at = end + (2 if odd else 0)
        return "\\" * pairs + ("${" if odd else "")

    def _variable(self, *, nested: bool) -> Variable | None:
        start = self._at
        if not self._text.startswith("${", start):
            return None
        kind = _KIND.match(self._text, start + 2)
        if kind is None or _FOREIGN_ADDRESS.match(self._text, kind.end()):
            if nested:
                raise VariableSyntaxError(f"{self._rest(start)} is inside a variable, but is not one")
            return None
        self._at = start + 2
        sources = [self._source()]
        while self._next() == ",":
            self._at += 1
            sources.append(self._source())
        if self._next() != "}":
            raise VariableSyntaxError(f"{self._rest(start)} is not closed by a brace")
        self._at += 1
        return Variable(tuple(sources), self._text[start : self._at])

    def _source(self) -> VariableSource | Template | Literal:
        opening = self._next()
        if opening in ("'", '"'):
            return self._quoted()
        if opening == "$" and (variable := self._variable(nested=True)):
            return Template((variable,))
        kind = _KIND.match(self._text, self._at)
        return self._literal() if kind is None else self._typed(kind[0])

    def _typed(self, kind: str) -> VariableSource:
        start = self._at
        self._at += len(kind)
        params: list[Template] = []
        if self._text[self._at] == "(":
            self._at += 1
            while self._next() not in (")", ""):
                params.append(self._argument(",)"))
                if self._next() == ",":
                    self._at += 1
            if self._next() != ")":
                raise VariableSyntaxError(f"{self._rest(start)} is not closed by a parenthesis")
            self._at += 1
        address = None
        if self._next() == ":":
            self._at += 1
            address = self._argument(",}") if self._next() not in (",", "}", "") else None
        return VariableSource(kind, tuple(params), address, self._text[start : self._at].strip())

    def _argument(self, stops: str) -> Template:
        if self._next() in ("'", '"'):
            return self._quoted()
        parts = self.template(stops).parts
        last = parts[-1]
        return Template((*parts[:-1], last.rstrip() if isinstance(last, str) else last))

    def _quoted(self) -> Template:
        start, quote = self._at, self._text[self._at]
        pattern = r"'([^']*)'" if quote == "'" else r'"(?:[^"\\]|\\.)*"'
        found = re.compile(pattern, re.DOTALL).match(self._text, start)
        if found is None:
            raise VariableSyntaxError(f"the closing quote of {self._rest(start)} is missing")
        self._at = found.end()
        try:
            inner = found[1] if quote == "'" else str(json.loads(found[0]))
        except ValueError:
            raise VariableSyntaxError(f"{found[0]} is not a JSON string") from None
        return parse(inner)

    def _literal(self) -> Literal:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in ",}":
            self._at += 1
        word = self._text[start : self._at].strip()
        if word in _WORDS:
            return Literal(_WORDS[word])
        if _NUMBER.fullmatch(word):
            return Literal(float(word) if set(word) & set(".eE") else int(word))
        if _BASED.fullmatch(word):
            return Literal(int(word, 0))
        raise VariableSyntaxError(f"{word or 'nothing'!r} is not a default; a string needs quotes")

    def _next(self) -> str:
        while self._at < len(self._text) and self._text[self._at] == " ":
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _rest(self, start: int) -> str:
        rest = self._text[start : start + 40]
        return f"{rest}…" if len(self._text) > start + 40 else rest
