"""Loads serverless.yml as a `Service`: reads it, resolves variables, checks keys, makes the model.

Nothing is run or written. This is the only module that knows YAML. PyYAML's nodes become `Value`s with positions.
Scalars are read as Serverless Framework's parser (YAML 1.2, JavaScript) reads them, so that `yes` and `08:30` stay
strings. Limits: 1 MiB a file, 64 levels, 100,000 values after aliases are expanded. Every error that leaves this module
is a `ServiceFileError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from msgspec.structs import replace

from hitless.errors import HitlessError, ServiceFileError
from hitless.service.dotenv import with_dotenv
from hitless.service.files import MAX_FILE_BYTES, Files, repository_root
from hitless.service.model import DEFAULT_STAGE, Service
from hitless.service.resolve import Resolver, VariableContext
from hitless.service.serverless import make_service
from hitless.service.value import FilePlace, Notices, Scalar, Value, child_path

NAMES = ("serverless.yml", "serverless.yaml")
OTHER_NAMES = ("serverless.json", "serverless.js", "serverless.cjs", "serverless.mjs", "serverless.ts")

MAX_LEVELS = 64
MAX_NODES = 100_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PREFIX = "tag:yaml.org,2002:"
_CLOUDFORMATION = re.compile(
    "!(And|Base64|Cidr|Condition|Equals|FindInMap|GetAZs|GetAtt|If|ImportValue|Join|Length|Not|Or|Ref|Select|Split|Sub"
    "|ToJsonString|Transform)"
)
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9_]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def load_service(
    folder: Path,
    *,
    stage: str,
    options: Mapping[str, str] | None = None,
    environ: Mapping[str, str],
    params: Mapping[str, str] | None = None,
    on_aws: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> Service:
    """The service of `folder`, read for `stage`. `options` are `${opt:}`'s, `environ` is `${env:}`'s (with `useDotenv`
    those of the .env file besides), `params` are `${param:}`'s from the command line. `on_aws`: osls resolves what only
    AWS knows, so it needs no value here. `secrets` are the stage's, encrypted.

    ServiceFileError, `serverless.yml:12: key.path: …` with a hint, for every mistake.
    """
    folder = folder.absolute()
    file = _find(folder)
    notices = Notices()
    try:
        raw = read_yaml(file, file.name)
        context = VariableContext(
            stage, options or {}, environ, Files(folder, read_yaml), params or {}, on_aws, secrets=secrets or {}
        )
        asked = Resolver(raw, context, Notices()).resolve("useDotenv")
        if asked.data is not None and asked.flag():
            environ = with_dotenv(stage, environ, context.files, asked)
            context = replace(context, environ=environ, dotenv=True)
        root = Resolver(raw, context, notices).resolve()
        return make_service(root, file, context, notices)
    except RecursionError as error:
        raise ServiceFileError(
            f"{file.name}: values or variables are nested too deeply", hint="flatten the file"
        ) from error


def default_stage(folder: Path, environ: Mapping[str, str]) -> str:
    """The stage without `--stage`: `provider.stage`, else `dev`, also if no file can be read."""
    return peek(folder, environ, "provider.stage") or DEFAULT_STAGE


def peek(folder: Path, environ: Mapping[str, str], path: str) -> str | None:
    """The text at that path of the folder's file; None if it has none or cannot be read."""
    try:
        raw = read_yaml(_find(folder := folder.absolute()), NAMES[0])
        files = Files(folder, read_yaml)
        found = Resolver(raw, VariableContext(DEFAULT_STAGE, {}, environ, files), Notices()).resolve(path)
        return None if found.data is None else found.text()
    except (HitlessError, RecursionError):
        return None


def _find(folder: Path) -> Path:
    for name in NAMES:
        if (folder / name).is_file():
            if not Path(os.path.realpath(folder / name)).is_relative_to(root := repository_root(folder)):
                raise ServiceFileError(f"{name} is a link to a file outside {root}", hint="put the file itself there")
            return folder / name
    for name in OTHER_NAMES:
        if (folder / name).is_file():
            raise ServiceFileError(f"{name} is not read here", hint="write the service as serverless.yml")
    raise ServiceFileError(
        f"there is no serverless.yml in {folder}",
        hint="name its folder with --service-dir, or make one with `hitless init`",
    )


def read_yaml(path: Path, name: str) -> Value:
    """The tree of a YAML file that messages call `name`; ServiceFileError unless it is one valid document."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError as error:
        raise ServiceFileError(f"{name} cannot be read: {error.strerror}", hint="check its permissions") from error
    if size > MAX_FILE_BYTES:
        raise ServiceFileError(f"{name} is larger than {MAX_FILE_BYTES} bytes", hint="move parts of it into ${file()}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ServiceFileError(f"{name}:{line}: is not UTF-8", hint="save the file as UTF-8") from error
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> Value:
    """As `read_yaml`, of text."""
    try:
        _check_levels(text, name)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _yaml_fault(error, text, name) from error
    if node is None:
        raise ServiceFileError(f"{name} is empty", hint="`hitless init` makes one to start from")
    return _Tree(name).value(node, "", FilePlace(name, 1))


def _check_levels(text: str, name: str) -> None:
    """Check the depth without recursion, on the parser's events."""
    level = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            level += 1
            if level > MAX_LEVELS:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ServiceFileError(f"{name}:{line}: is nested deeper than {MAX_LEVELS} levels", hint="flatten it")
        elif isinstance(event, yaml.CollectionEndEvent):
            level -= 1


class _Tree:
    """Converts nodes to values. Aliases are expanded and counted, so that a small file cannot become a huge one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes = 0
        self._implicit = yaml.resolver.Resolver()

    def value(self, node: yaml.Node, path: str, place: FilePlace, level: int = 0) -> Value:
        self._nodes += 1
        if self._nodes > MAX_NODES or level > MAX_LEVELS:
            message = f"with its aliases written out the file has more than {MAX_NODES} values or {MAX_LEVELS} levels"
            raise self._fault(node, message, "look for an *alias of what holds aliases")
        tag = node.tag if node.tag.startswith("!") and node.tag != "!" else ""
        if tag and not _CLOUDFORMATION.fullmatch(tag):
            raise self._fault(node, f"{tag} is an unknown tag", "quote the value, or use one of CloudFormation's tags")
        if isinstance(node, yaml.MappingNode):
            return Value(self._entries(node, path, level), place, path, tag=tag)
        if isinstance(node, yaml.SequenceNode):
            items = (
                self.value(item, f"{path}[{i}]", self._place(item), level + 1) for i, item in enumerate(node.value)
            )
            return Value(tuple(items), place, path, tag=tag)
        assert isinstance(node, yaml.ScalarNode)
        return Value(self._scalar(node), place, path, tag=tag, raw="" if node.style else node.value)

    def _entries(self, node: yaml.MappingNode, path: str, level: int) -> dict[str, Value]:
        entries: dict[str, Value] = {}
        merged: dict[str, Value] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._fault(key, "a key must be a string", "quote it")
            place = self._place(key)
            if key.value == "<<" and not key.style:
                for name, value in self._merged(child, path, level):
                    merged.setdefault(name, value)
                continue
            if key.value in entries:
                first = entries[key.value].place.line
                message = f"the key {key.value} appears twice, first in line {first}"
                raise self._fault(key, message, "remove one of them", path)
            entries[key.value] = self.value(child, child_path(path, key.value), place, level + 1)
        return merged | entries if merged else entries

    def _merged(self, node: yaml.Node, path: str, level: int) -> list[tuple[str, Value]]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        pairs: list[tuple[str, Value]] = []
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise self._fault(source, "<< merges maps only", "write <<: *alias of a map", path)
            pairs += self.value(source, path, self._place(source), level + 1).mapping().items()
        return pairs

    def _scalar(self, node: yaml.ScalarNode) -> Scalar:
        plain = not node.style
        implied = self._implicit.resolve(  # type: ignore[no-untyped-call]
            yaml.ScalarNode, node.value, (plain, not plain)
        )
        if node.tag.startswith("!") or (node.tag == f"{_PREFIX}str" and (not plain or implied != node.tag)):
            return str(node.value)
        if node.tag != implied and node.tag.removeprefix(_PREFIX) not in ("int", "float", "bool", "null"):
            raise self._fault(node, f"the type {node.tag} is not used in a service file", "remove the !!")
        return _plain_scalar(node.value)

    def _place(self, node: yaml.Node) -> FilePlace:
        return FilePlace(self._name, node.start_mark.line + 1, node.start_mark.column + 1)

    def _fault(self, node: yaml.Node, message: str, hint: str, path: str = "") -> ServiceFileError:
        return Value(None, self._place(node), path).fault(message, hint)


def _plain_scalar(text: str) -> Scalar:
    """YAML 1.2's core schema as js-yaml reads it: no sexagesimals, no yes or no, and 0123 is 123."""
    word = text if text in ("True", "TRUE", "False", "FALSE", "Null", "NULL") else ""
    if (known := word.lower() or text) in _WORDS:
        return _WORDS[known]
    if len(text) > 100:
        return text
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        sign, digits = (-1 if digits[0] == "-" else 1), digits.lstrip("+-")
        base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2], 10)
        return sign * int(digits[2:] if base != 10 else digits, base)
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _yaml_fault(error: yaml.YAMLError, text: str, name: str) -> ServiceFileError:
    if isinstance(error, yaml.MarkedYAMLError):
        problem = error.problem or error.context or "unreadable"
        in_brackets = "',' or" in problem or "<stream end>" in problem
        mark = (error.context_mark if in_brackets else error.problem_mark) or error.problem_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    else:
        position = getattr(error, "position", 0)
        problem = "a control character is not allowed" if isinstance(error, yaml.reader.ReaderError) else str(error)
        line, column = text.count("\n", 0, position), 0
    if "nesting depth" in problem:  # newer parsers have a limit of their own, which may be lower than ours
        problem = f"nested deeper than {MAX_LEVELS} levels"
        return Value(None, FilePlace(name, line + 1)).fault(f"is {problem}", "flatten it")
    lines = text.split("\n")
    written = lines[line] if line < len(lines) else ""
    hint = "look at the indentation, quotes and brackets of this line and the previous one"
    if "\t" in written[: len(written) - len(written.lstrip())]:
        problem, hint = "a tab indents this line", "indent with spaces; YAML does not allow tabs"
    elif "mapping values" in problem:
        hint = "a value with a colon and a blank in it needs quotes"
    elif "',' or" in problem:
        hint = "inside of [ ] and { }, quote what has braces, commas or colons in it: 'GET /zones/{zone}'"
    elif "single document" in problem or "another document" in problem:
        hint = "a file is one document: remove the ---"
    return Value(None, FilePlace(name, line + 1, column + 1)).fault(f"is not YAML: {problem}", hint)
