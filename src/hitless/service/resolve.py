"""Serverless Framework's variables, resolved before anything else looks at the file.

Every string of the tree is resolved, each once; a reference to a map brings the map, resolved. What only AWS or a
plugin knows becomes `Unresolved`: an error where this home reads it, a notice elsewhere. Text from the environment and
from options is never itself read as a variable. Bounded: depth of references, characters and values made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from hitless.errors import ServiceFileError
from hitless.service.grammar import Literal, Source, Template, Variable, VariableSyntaxError, parse
from hitless.service.model import DEFAULT_REGION
from hitless.service.notices import Notices
from hitless.service.value import Unresolved, Value, did_you_mean, scalar_text

ACCOUNT_ID = "123456789012"
INSTANCE_ID = "hitless"
"""Serverless Framework makes one up each time; here it stays, so that an unchanged service is unchanged."""

MAX_DEPTH = 40
MAX_CHARACTERS = 8 * 1024 * 1024
MAX_VALUES = 200_000

_ELSEWHERE = {
    "ssm": "AWS Systems Manager",
    "s3": "an S3 object",
    "cf": "a CloudFormation output",
    "output": "another service's output",
    "git": "a plugin (git)",
    "doppler": "Doppler",
    "vault": "Vault",
    "terraform": "Terraform's state",
}


class FileReader(Protocol):
    """What `${file()}` asks for."""

    def read(self, written: str, at: Value) -> Value | None:
        """The file's tree, or None where there is no such file."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What variables may ask for: the stage, the command's options, the environment, files."""

    stage: str
    options: Mapping[str, str]
    environ: Mapping[str, str]
    files: FileReader


class Resolver:
    """Resolves one tree. Not to be used twice, nor by two threads."""

    def __init__(self, root: Value, context: Context, notices: Notices) -> None:
        self._root = _for_stage(root, context.stage)
        self._context = context
        self._notices = notices
        self._done: dict[int, tuple[Value, Value]] = {}
        self._underway: list[Value] = []
        self._characters = 0
        self._values = 0
        self._sources: dict[str, Callable[[Source, Value], Value | None]] = {
            "self": self._self,
            "opt": self._opt,
            "env": self._env,
            "file": self._file,
            "param": self._param,
            "sls": self._sls,
            "aws": self._aws,
            "strToBool": self._str_to_bool,
        }

    def resolve(self) -> Value:
        """The whole tree without variables; ServiceFileError on a cycle, a bad reference or one without a value."""
        return self._deep(self._root)

    def _deep(self, value: Value) -> Value:
        match value.data:
            case Mapping() as entries:
                return replace(value, data={key: self._deep(entry) for key, entry in entries.items()})
            case tuple() as items:
                return replace(value, data=tuple(self._deep(item) for item in items))
            case _:
                return self._leaf(value)

    def _leaf(self, value: Value) -> Value:
        if not isinstance(value.data, str) or "${" not in value.data:
            return value
        if id(value) not in self._done:
            self._enter(value)
            try:
                self._done[id(value)] = (value, self._resolved(value, value.data))
            finally:
                self._underway.pop()
        return self._done[id(value)][1]

    def _enter(self, value: Value) -> None:
        if any(value is other for other in self._underway):
            start = next(index for index, other in enumerate(self._underway) if other is value)
            cycle = " → ".join(step.path or str(step.place) for step in [*self._underway[start:], value])
            raise value.fault(f"refers to itself: {cycle}", "break the circle: one of these needs a value of its own")
        if len(self._underway) >= MAX_DEPTH:
            raise value.fault(f"is at the end of more than {MAX_DEPTH} references, one in the other")
        self._underway.append(value)

    def _resolved(self, value: Value, text: str) -> Value:
        try:
            template = parse(text)
        except VariableSyntaxError as error:
            raise value.fault(f"has a malformed variable: {error}", "write ${source:address, 'default'}") from error
        if "$${" in text:
            self._notices.add("$${", value, "$${ is read as ${ here, and Serverless Framework does not; write \\${")
        return self._filled(template, value)

    def _filled(self, template: Template, at: Value) -> Value:
        """The template's value as that of `at`: of any type if it is one variable, else a string."""
        if template.whole is not None:
            return self._variable(template.whole, at)
        texts: list[str] = []
        for part in template.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            found = self._variable(part, at)
            if isinstance(found.data, Unresolved):
                return found
            if isinstance(found.data, Mapping | tuple) or found.tag:
                raise at.fault(f"{part.text} is not a string, and stands inside of one")
            texts.append(scalar_text(found.data))
        text = "".join(texts)
        self._spend(at, characters=len(text))
        made = any(isinstance(part, Variable) for part in template.parts)
        return replace(at, data=text, raw="", origin=at.place if made and at.origin is None else at.origin)

    def _variable(self, variable: Variable, at: Value) -> Value:
        found = self._first(variable, at)
        if found is None:
            raise self._unresolved(variable, at)
        return found

    def _first(self, variable: Variable, at: Value) -> Value | None:
        """The value of the first source that has one; else `Unresolved` if one is elsewhere; else None."""
        elsewhere: Value | None = None
        for source in variable.sources:
            found = self._source(source, at)
            if found is not None and isinstance(found.data, Unresolved):
                elsewhere = elsewhere or found
            elif found is not None:
                if elsewhere is not None:
                    assert isinstance(elsewhere.data, Unresolved)
                    reference = elsewhere.data.reference
                    sentence = f"{reference} is not within reach here, so its default is taken"
                    self._notices.add(f"default for {reference}", at, sentence)
                return found
        return elsewhere

    def _source(self, source: Source | Template | Literal, at: Value) -> Value | None:
        match source:
            case Literal(value):
                return replace(at, data=value, raw="")
            case Template():
                return self._filled(source, at) if source.whole is None else self._first(source.whole, at)
            case Source():
                pass
        if (look_up := self._sources.get(source.kind)) is not None:
            found = look_up(source, at)
            return None if found is None or (found.data is None and not found.tag) else found
        family = source.kind.partition(".")[0]
        if family not in _ELSEWHERE and (hint := did_you_mean(family, [*self._sources, *_ELSEWHERE])):
            raise at.fault(f"{source.kind} is not a source of variables", hint)
        kind = _ELSEWHERE.get(family, f"the source {source.kind}")
        return replace(at, data=Unresolved(f"${{{source.text}}}", kind), raw="")

    def _unresolved(self, variable: Variable, at: Value) -> ServiceFileError:
        last = variable.sources[-1]
        hint = f"give it a default: {variable.text[:-1]}, 'value'}}"
        if isinstance(last, Source) and last.kind == "env":
            hint = f"set {self._address(last, at)} in the environment, or {hint}"
        elif isinstance(last, Source) and last.kind == "file":
            hint = f"look whether the file and the key are there, or {hint}"
        return at.fault(f"{variable.text} has no value", hint)

    def _address(self, source: Source, at: Value) -> str:
        return "" if source.address is None else self._filled(source.address, at).text()

    # -- the sources, each: the value, or None where there is none

    def _self(self, source: Source, at: Value) -> Value | None:
        address = self._address(source, at)
        if not address:
            raise at.fault("${self:} is the whole file, and so refers to itself", "name a key: ${self:custom.key}")
        return self._at_address(self._root, address, at)

    def _opt(self, source: Source, at: Value) -> Value | None:
        address = self._address(source, at)
        text = self._context.options.get(address, self._context.stage if address == "stage" else None)
        return None if text is None else self._outside(text, at)

    def _env(self, source: Source, at: Value) -> Value | None:
        address = self._address(source, at)
        if not address:
            raise at.fault("${env:} names no variable of the environment", "write ${env:NAME}")
        text = self._context.environ.get(address)
        return None if text is None else self._outside(text, at)

    def _file(self, source: Source, at: Value) -> Value | None:
        if len(source.params) != 1:
            raise at.fault(f"${{{source.text}}} names no file", "write ${file(path.yml):key}")
        content = self._context.files.read(self._filled(source.params[0], at).text(), at)
        if content is None:
            return None
        address = self._address(source, at)
        return self._at_address(content, address, at) if address else self._brought(self._deep(content), at)

    def _param(self, source: Source, at: Value) -> Value | None:
        name = self._address(source, at)
        stage = self._context.stage
        for address in (f"params.{stage}", f"stages.{stage}.params", "params.default", "stages.default.params"):
            if (found := self._at_address(self._root, f"{address}.{name}", at)) is not None and found.data is not None:
                return found
        return None

    def _sls(self, source: Source, at: Value) -> Value | None:
        return self._constant({"stage": self._context.stage, "instanceId": INSTANCE_ID}, source, at)

    def _aws(self, source: Source, at: Value) -> Value | None:
        address = self._address(source, at)
        if address == "accountId":
            sentence = f"${{aws:accountId}} is {ACCOUNT_ID} here: there is no AWS account"
            self._notices.add("${aws:accountId}", at, sentence)
        if address == "region" and "region" not in self._context.options:
            declared = self._at_address(self._root, "provider.region", at)
            if declared is not None and declared.data is not None:
                return declared
        known = {"accountId": ACCOUNT_ID, "region": self._context.options.get("region", DEFAULT_REGION)}
        return self._constant(known, source, at)

    def _str_to_bool(self, source: Source, at: Value) -> Value | None:
        text = self._filled(source.params[0], at).text().strip().lower() if source.params else ""
        if text not in {"true", "1", "false", "0"}:
            raise at.fault("${strToBool()} takes true, false, 1 or 0")
        return replace(at, data=text in {"true", "1"}, raw="")

    def _constant(self, known: Mapping[str, str], source: Source, at: Value) -> Value:
        if (address := self._address(source, at)) not in known:
            hint = did_you_mean(address, known) or f"{source.kind} knows {', '.join(known)}"
            raise at.fault(f"${{{source.kind}:{address}}} does not exist", hint)
        return self._outside(known[address], at)

    # -- how a value comes to the place of its reference

    def _at_address(self, start: Value, address: str, at: Value) -> Value | None:
        current, resolved = start, False
        for key in address.split("."):
            leaf = current if resolved else self._leaf(current)
            current, resolved = leaf, resolved or leaf is not current
            match current.data:
                case Unresolved():
                    return replace(current, place=at.place, path=at.path)
                case Mapping() as entries if key in entries:
                    current = entries[key]
                case tuple() as items if key.isdecimal() and int(key) < len(items):
                    current = items[int(key)]
                case _:
                    return None
        return self._brought(current if resolved else self._deep(current), at)

    def _brought(self, value: Value, at: Value) -> Value:
        self._spend(at, values=_count(value))
        return value.moved(at)

    def _outside(self, text: str, at: Value) -> Value:
        return replace(at, data=text, raw="", origin=at.origin or at.place)

    def _spend(self, at: Value, *, characters: int = 0, values: int = 0) -> None:
        self._characters += characters
        self._values += values
        if self._characters > MAX_CHARACTERS or self._values > MAX_VALUES:
            raise at.fault(
                "the variables of this file multiply beyond all bounds", "look for maps that bring each other"
            )


def _for_stage(root: Value, stage: str) -> Value:
    """Without the parameters of other stages, whose variables need no value now."""
    if not isinstance(root.data, Mapping):
        return root
    entries = dict(root.data)
    for key in ("params", "stages"):
        if (value := entries.get(key)) is not None and isinstance(value.data, Mapping):
            kept = {name: entry for name, entry in value.data.items() if name in (stage, "default")}
            entries[key] = replace(value, data=kept)
    return replace(root, data=entries)


def _count(value: Value) -> int:
    match value.data:
        case Mapping() as entries:
            return 1 + sum(map(_count, entries.values()))
        case tuple() as items:
            return 1 + sum(map(_count, items))
        case _:
            return 1
