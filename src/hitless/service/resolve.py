"""Serverless Framework's variables, resolved before anything else looks at the file.

Every string of the tree is resolved once; a reference to a map becomes the resolved map. A value that is missing, or
that only AWS or a plugin knows, becomes `Unresolved`: an error if this home reads it, else a notice. Text from the
environment and from options is never read as a variable. Depth of references, characters and values are
limited; exceeding a limit is always an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from hitless.errors import ServiceFileError
from hitless.service.files import Files
from hitless.service.grammar import Literal, Template, Variable, VariableSource, VariableSyntaxError, parse
from hitless.service.model import DEFAULT_REGION
from hitless.service.value import Notices, Unresolved, Value, did_you_mean, scalar_text

ACCOUNT_ID = "123456789012"
INSTANCE_ID = "hitless"
"""Serverless Framework generates one each time; here it is constant, so that an unchanged service is unchanged."""

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
_BY_OSLS = ("ssm", "s3", "cf")


class VariableContext(msgspec.Struct, frozen=True):
    """The sources of variables: the stage, the command's options and `--param`s, the environment, files."""

    stage: str
    options: Mapping[str, str]
    environ: Mapping[str, str]
    files: Files
    params: Mapping[str, str] = msgspec.field(default_factory=dict)
    on_aws: bool = False
    """Whether osls resolves the same file with AWS's credentials, so that its sources need no value here."""
    dotenv: bool = False
    """Whether `environ` has the variables of a `.env` file, if there is one."""
    secrets: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Name → encrypted value of the stage's secrets, for `${ssm:}`. They precede the file's own parameters."""


_Done = dict[int, tuple[Value, Value]]
"""Id of a value → that value, which keeps its id, and its result."""


class Resolver:
    """Resolves one tree. Use it once, in one thread."""

    def __init__(self, root: Value, context: VariableContext, notices: Notices) -> None:
        self._root = _for_stage(root, context.stage)
        self._context = context
        self._notices = notices
        self._heads: _Done = {}
        self._whole: _Done = {}
        self._looked_up: list[Value] = []
        self._brought: list[Value] = []
        self._out_of_bounds = False
        self._characters = 0
        self._values = 0
        self._sources: dict[str, Callable[[VariableSource, Value], Value | None]] = {
            "self": self._self,
            "opt": self._opt,
            "env": self._env,
            "file": self._file,
            "param": self._param,
            "sls": self._sls,
            "aws": self._aws,
            "strToBool": self._str_to_bool,
        }

    def resolve(self, address: str = "") -> Value:
        """The tree, or the value at `address`, without variables. ServiceFileError if it exceeds the limits."""
        value = self._root if not address else self._at_address(self._root, address, self._root)
        return self._deep(value) if value is not None else replace(self._root, data=None)

    def _deep(self, value: Value) -> Value:
        """The value with all that is in it resolved, as the value of `value` if it came by a reference."""
        head = self._head(value)
        if head is value or not isinstance(head.data, Mapping | tuple):
            return self._inside(head)
        return self._once(self._whole, self._brought, value, lambda: self._brought_in(value, head))

    def _brought_in(self, value: Value, head: Value) -> Value:
        found = self._inside(head)
        self._spend(value, values=sum(1 for _ in found.walk()))
        return found.moved(value)

    def _once(self, done: _Done, underway: list[Value], value: Value, work: Callable[[], Value]) -> Value:
        """The result of the work, which is done once a value; an error becomes `Unresolved`."""
        if id(value) not in done:
            self._enter(underway, value)
            try:
                found = work()
            except ServiceFileError as error:
                found = self._failed(value, error)
            finally:
                underway.pop()
            done[id(value)] = (value, found)
        return done[id(value)][1]

    def _inside(self, value: Value) -> Value:
        match value.data:
            case Mapping() as entries:
                return replace(value, data={key: self._deep(entry) for key, entry in entries.items()})
            case tuple() as items:
                return replace(value, data=tuple(self._deep(item) for item in items))
            case _:
                return value

    def _head(self, value: Value) -> Value:
        """The value of its own variables: a final scalar, or an unresolved map or list of the file."""
        if not isinstance(value.data, str) or "${" not in value.data:
            return value
        text = value.data
        found = self._once(self._heads, self._looked_up, value, lambda: self._resolved(replace(value, tag=""), text))
        return replace(found, tag=value.tag) if value.tag and not isinstance(found.data, Unresolved) else found

    def _failed(self, value: Value, error: ServiceFileError) -> Value:
        if self._out_of_bounds:
            raise error
        return replace(value, data=Unresolved("a variable", "", error), raw="", tag="")

    def _enter(self, underway: list[Value], value: Value) -> None:
        if any(value is other for other in underway):
            start = next(index for index, other in enumerate(underway) if other is value)
            cycle = " → ".join(step.path or str(step.place) for step in [*underway[start:], value])
            raise value.fault(f"refers to itself: {cycle}", "give one of these a value of its own")
        if len(underway) >= MAX_DEPTH:
            self._out_of_bounds = True
            raise value.fault(f"is reached through more than {MAX_DEPTH} nested references")
        underway.append(value)

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
                raise at.fault(f"{part.text} is not a string, but is part of one")
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
        """The value of the first source that has one; else `Unresolved` if one is elsewhere; else None.

        A source that refers to a missing value does not fall back to the next one, as in Serverless Framework.
        """
        elsewhere: Value | None = None
        for source in variable.sources:
            found = self._source(source, at)
            if found is not None and isinstance(found.data, Unresolved):
                if found.data.error is not None:
                    return found
                elsewhere = elsewhere or found
            elif found is not None:
                if elsewhere is not None:
                    assert isinstance(elsewhere.data, Unresolved)
                    reference = elsewhere.data.reference
                    sentence = f"{reference} is not available here, so its default is used"
                    self._notices.add(f"default for {reference}", at, sentence)
                return found
        stage = any(
            isinstance(one, VariableSource) and one.text.replace(" ", "") == "opt:stage" for one in variable.sources
        )
        return self._outside(self._context.stage, at) if stage and elsewhere is None else elsewhere

    def _source(self, source: VariableSource | Template | Literal, at: Value) -> Value | None:
        match source:
            case Literal(value):
                return replace(at, data=value, raw="")
            case Template():
                return self._filled(source, at) if source.whole is None else self._first(source.whole, at)
            case VariableSource():
                pass
        if (look_up := self._sources.get(source.kind)) is not None:
            found = look_up(source, at)
            return None if found is None or (found.data is None and not found.tag) else found
        family = source.kind.partition(".")[0]
        if family not in _ELSEWHERE and (hint := did_you_mean(family, [*self._sources, *_ELSEWHERE])):
            raise at.fault(f"{source.kind} is not a source of variables", hint)
        if self._context.on_aws and family in _BY_OSLS:
            return replace(at, data=f"${{{source.text}}}", raw="")
        address = self._address(source, at).removesuffix("~true")  # of Serverless Framework 2: decrypt
        name = f"{source.kind}:{address}"
        if source.kind == "ssm" and address in self._context.secrets and name not in self._context.params:
            return self._outside(self._context.secrets[address], at)
        if (given := self._given(name, at)) is not None:
            return given
        kind = _ELSEWHERE.get(family, f"the source {source.kind}")
        return replace(at, data=Unresolved(f"${{{source.text}}}", kind), raw="")

    def _unresolved(self, variable: Variable, at: Value) -> ServiceFileError:
        last, why, hint = variable.sources[-1], "", ""
        if isinstance(last, VariableSource) and last.kind == "env":
            hint = self._where_to_set(self._address(last, at), at)
        elif isinstance(last, VariableSource) and last.kind == "file" and last.params:
            file, key = self._text(last.params[0], at), self._address(last, at)
            why, hint = self._context.files.why_missing(file, at)
            why, hint = why or f"{file} has no key {key}", hint or ("create it" if why else f"add {key} to {file}")
        elif isinstance(last, VariableSource) and last.kind == "param":
            name = self._address(last, at)
            hint = f"pass --param {name}=VALUE, add {name} to params of the file"
        if variable.text == "${self:provider.stage}":
            hint = "write ${sls:stage} or set provider.stage"
        default = f"give it a default: {variable.text[:-1]}, 'value'}}"
        message = f"{variable.text} has no value" + (f": {why}" if why else "")
        return at.fault(message, f"{hint}, or {default}" if hint else default)

    def _where_to_set(self, name: str, at: Value) -> str:
        """How to give a variable of the environment a value, also by a `.env` file."""
        missing, copy = self._context.files.why_missing(".env", at)
        if self._context.dotenv:
            return f"set {name} in the environment or in .env" + (f" ({copy})" if copy else "")
        return f"set {name} in the environment" + ("" if missing else " (.env is read with useDotenv: true)")

    def _address(self, source: VariableSource, at: Value) -> str:
        return "" if source.address is None else self._text(source.address, at)

    def _text(self, template: Template, at: Value) -> str:
        return replace(self._filled(template, at), place=at.place, path=at.path).text()

    # -- the sources; each returns the value, or None if there is none

    def _self(self, source: VariableSource, at: Value) -> Value | None:
        address = self._address(source, at)
        if not address:
            raise at.fault("${self:} is the whole file, and so refers to itself", "name a key: ${self:custom.key}")
        return self._at_address(self._root, address, at)

    def _opt(self, source: VariableSource, at: Value) -> Value | None:
        address = self._address(source, at)
        text = self._context.options.get(address)
        return None if text is None else self._outside(text, at)

    def _env(self, source: VariableSource, at: Value) -> Value | None:
        address = self._address(source, at)
        if not address:
            raise at.fault("${env:} names no variable of the environment", "write ${env:NAME}")
        text = self._context.environ.get(address)
        return None if text is None else self._outside(text, at)

    def _file(self, source: VariableSource, at: Value) -> Value | None:
        if not source.params:
            raise at.fault(f"${{{source.text}}} names no file", "write ${file(path.yml):key}")
        content = self._context.files.read(self._text(source.params[0], at), at)
        if content is None:
            return None
        address = self._address(source, at)
        return self._at_address(content, address, at) if address else self._placed(self._head(content), at)

    def _param(self, source: VariableSource, at: Value) -> Value | None:
        return self._given(self._address(source, at), at)

    def _given(self, name: str, at: Value) -> Value | None:
        """A parameter's value. Names of parameters may have dots in them: they are keys, not addresses."""
        stage = self._context.stage
        if name in self._context.params:
            return self._outside(self._context.params[name], at)
        for address in (f"params.{stage}", f"stages.{stage}.params", "params.default", "stages.default.params"):
            given = self._at_address(self._root, address, at)
            if given is not None and isinstance(given.data, Unresolved):
                return given
            if given is not None and isinstance(given.data, Mapping) and name in given.data:
                found = self._head(given.data[name])
                if found.data is not None:
                    return self._placed(found, at)
        return None

    def _sls(self, source: VariableSource, at: Value) -> Value | None:
        return self._constant({"stage": self._context.stage, "instanceId": INSTANCE_ID}, source, at)

    def _aws(self, source: VariableSource, at: Value) -> Value | None:
        address = self._address(source, at)
        if address == "accountId" and self._context.on_aws:
            return replace(at, data="${aws:accountId}", raw="")
        if address == "accountId":
            sentence = f"${{aws:accountId}} is {ACCOUNT_ID} here: there is no AWS account"
            self._notices.add("${aws:accountId}", at, sentence)
        if address == "region" and "region" not in self._context.options:
            declared = self._at_address(self._root, "provider.region", at)
            if declared is not None and declared.data is not None:
                return declared
        known = {"accountId": ACCOUNT_ID, "region": self._context.options.get("region", DEFAULT_REGION)}
        return self._constant(known, source, at)

    def _str_to_bool(self, source: VariableSource, at: Value) -> Value | None:
        text = self._text(source.params[0], at).strip().lower() if source.params else ""
        if text not in {"true", "1", "false", "0"}:
            raise at.fault("${strToBool()} takes true, false, 1 or 0")
        return replace(at, data=text in {"true", "1"}, raw="")

    def _constant(self, known: Mapping[str, str], source: VariableSource, at: Value) -> Value:
        if (address := self._address(source, at)) not in known:
            hint = did_you_mean(address, known) or f"{source.kind} has only {', '.join(known)}"
            raise at.fault(f"${{{source.kind}:{address}}} does not exist", hint)
        return self._outside(known[address], at)

    # -- moving a value to the place of its reference

    def _at_address(self, start: Value, address: str, at: Value) -> Value | None:
        current = start
        for key in address.split("."):
            current = self._head(current)
            match current.data:
                case Unresolved():
                    return self._placed(current, at)
                case Mapping() as entries if key in entries:
                    current = entries[key]
                case tuple() as items if key.isdecimal() and int(key) < len(items):
                    current = items[int(key)]
                case _:
                    return None
        return self._placed(self._head(current), at)

    def _placed(self, value: Value, at: Value) -> Value:
        """Move a scalar to the place of its reference; maps and lists move when all of them is resolved."""
        if isinstance(value.data, Mapping | tuple):
            return value
        if isinstance(value.data, Unresolved):
            return replace(value, place=at.place, path=at.path)
        self._spend(at, values=1)
        return value.moved(at)

    def _outside(self, text: str, at: Value) -> Value:
        return replace(at, data=text, raw="", origin=at.origin or at.place)

    def _spend(self, at: Value, *, characters: int = 0, values: int = 0) -> None:
        self._characters += characters
        self._values += values
        if self._characters > MAX_CHARACTERS or self._values > MAX_VALUES:
            self._out_of_bounds = True
            raise at.fault("the variables of this file expand without end", "look for maps that include each other")


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
