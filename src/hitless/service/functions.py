"""Reads `functions`, with the defaults of `provider`, into the model's functions."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from hitless.errors import ServiceFileError
from hitless.service.authorizers import AuthorizerReader
from hitless.service.cors import http_api_cors, rest_cors
from hitless.service.event_sources import URL_PAYLOAD, Cors, HttpApi, Preflight, Route
from hitless.service.events import RouteEvent, check_conflicts, read_events, read_payload, with_url, without_doubles
from hitless.service.handlers import check_handler
from hitless.service.integrations import mapped_routes
from hitless.service.keys import plugins_of
from hitless.service.model import (
    CHECKS,
    DEFAULT_MEMORY_MB,
    DEFAULT_TARGET_PERCENT,
    DEFAULT_TIMEOUT_S,
    ENDED_RUNTIMES,
    NODE_RUNTIMES,
    PROGRAM_RUNTIMES,
    Function,
    WsgiApp,
)
from hitless.service.schedules import read_schedules
from hitless.service.settings import Provisioned, ServiceSettings
from hitless.service.value import Notices, Unresolved, Value, did_you_mean

PYTHON_HERE = f"python3.{sys.version_info.minor}"
"""The runtime of this process, in which the engine runs all handlers in Python."""
RUNTIMES = (*(f"python3.{minor}" for minor in range(9, 15)), *NODE_RUNTIMES, *PROGRAM_RUNTIMES)
ARCHITECTURES = ("x86_64", "arm64")

GATEWAY_TIMEOUT_S = 29
"""API Gateway responds 504 to requests that take longer (its default quota)."""
HTTP_API_TIMEOUT_S = 30
"""An HTTP API answers 503 for what takes longer."""

LAMBDA_NAME_LENGTH = 64

WSGI_HANDLERS = ("wsgi_handler.handler", "wsgi.handler")
"""The handler of the plugin serverless-wsgi, under its name of today and of before."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEDIA_TYPE = re.compile(r"[^\s/;,]+/[^\s/;,]+")
_UNUSUAL = re.compile(r"[,~()]|\+(?!})")

_RESERVED = re.compile(
    "_HANDLER|_X_AMZN_TRACE_ID|AWS_(DEFAULT_)?REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_(FUNCTION_(NAME|MEMORY_SIZE|VERSION)"
    "|INITIALIZATION_TYPE|LOG_(GROUP|STREAM)_NAME|RUNTIME_API)|AWS_ACCESS_KEY(_ID)?|AWS_SECRET_ACCESS_KEY"
    "|AWS_SESSION_TOKEN|LAMBDA_TASK_ROOT|LAMBDA_RUNTIME_DIR"
)
"""Lambda sets these itself and rejects them in a function's configuration."""


class FunctionReader(msgspec.Struct, frozen=True):
    """Reads functions one by one. `prefix` is `service-stage-`, which precedes a function's name on AWS."""

    folder: Path
    provider: Value
    individually: bool
    settings: ServiceSettings
    prefix: str
    notices: Notices
    wsgi: WsgiApp | None = None
    artifact: str = ""
    """The zip of `package.artifact`, for functions without their own."""
    routes: list[RouteEvent] = msgspec.field(default_factory=list)
    """Every route that was read."""
    other_pythons: list[Value] = msgspec.field(default_factory=list)
    """Declared runtimes of Python that are not this process's."""
    opened: frozenset[Route] = frozenset()
    """The routes of `custom.hitless.open`."""
    authorizers: set[str] = msgspec.field(default_factory=set)
    cors: dict[str, Cors] = msgspec.field(default_factory=dict)
    """Path of the REST API → what its preflight responses say, until a function has taken it."""

    def read(self, functions: Value) -> tuple[Function, ...]:
        """All functions, in the file's order; ServiceFileError if AWS would refuse one or this home cannot run it."""
        entries = _entries(functions)
        if not entries:
            raise functions.fault("has no function", "add functions: {api: {handler: app.api, events: [http: GET /]}}")
        events = with_url({name: read_events(entry) for name, entry in entries.items()}, entries, self.notices)
        events = AuthorizerReader(entries, self.provider, self.opened, self.settings.jwks, self.notices).read(events)
        every = [event for each in events.values() for event in each]
        self.authorizers.update(event.authorizer.function for event in every if event.authorizer is not None)
        check_conflicts(every)
        rest = [event.route for event in every if not event.http_api]
        own = {route.path for route in rest if route.method == "OPTIONS"}
        self.cors.update({path: cors for path, cors in rest_cors(every).items() if path not in own})
        cors = self.provider.get("httpApi", "cors")
        if (url := next((event.at for event in every if event.url), None)) is not None:
            cors = url.get("cors") if isinstance(url.data, Mapping) else None
        http_cors = http_api_cors(cors, every)
        read = tuple(
            self._function(name, entry, without_doubles(events[name], rest, self.notices), http_cors)
            for name, entry in entries.items()
        )
        for event in self.routes:
            if _UNUSUAL.search(event.route.path):
                self.notices.add("path", event.at, f"API Gateway may refuse the path {event.route.path}")
            if "/:" in event.route.path:
                self.notices.add("colon", event.at, f"{event.route.path} has no parameter; one is written {{name}}")
        for name, one in self.settings.provisioned.items():
            if name not in entries:
                raise one.at.fault("is not a function", did_you_mean(name, entries) or f"known: {', '.join(entries)}")
        return read

    def _function(self, name: str, entry: Value, events: tuple[RouteEvent, ...], http_cors: Cors | None) -> Function:
        if not _NAME.fullmatch(name) or name == CHECKS.name:
            raise entry.fault(f"a function's name is letters, digits, - and _, at most 64, and not {CHECKS.name}")
        if len(self.prefix + name) > LAMBDA_NAME_LENGTH:
            self.notices.add("long name", entry, f"Lambda refuses {self.prefix + name}: more than 64 characters")
        handler = entry.get("handler")
        if handler is None:
            raise entry.fault("has no handler", "add handler: path/to/module.function")
        module, runtime = self._module(entry), self._runtime(entry)
        artifact = entry.optional("package", read_artifact, "") or self.artifact
        in_folder = runtime.startswith("python") and not artifact
        self.routes.extend(events)
        limit_s = min((HTTP_API_TIMEOUT_S if one.http_api else GATEWAY_TIMEOUT_S for one in events), default=0)
        architecture, memory = self._setting(entry, "architecture"), self._setting(entry, "memorySize")
        ready = self._concurrency(entry, "provisionedConcurrency") or 0
        scaled = self._scaled(name, ready)
        http_routes = tuple(event.route for event in events if event.http_api)
        payload = URL_PAYLOAD if any(event.url for event in events) else read_payload(self.provider, entry)
        return Function(
            name=name,
            handler=self._handler(handler, module) if in_folder else handler.text(),
            module=module,
            runtime=runtime,
            architecture=architecture.choice(ARCHITECTURES) if architecture else ARCHITECTURES[0],
            memory_mb=memory.integer(128, 10240) if memory else DEFAULT_MEMORY_MB,
            storage_mb=entry.optional("ephemeralStorageSize", lambda size: size.integer(512, 10240), None),
            timeout_s=self._timeout(entry, limit_s),
            environment=self._environment(entry),
            routes=tuple(event.route for event in events),
            http_api=HttpApi(http_routes, payload, http_cors) if http_routes else None,
            preflights=self._preflights(events),
            guarded=tuple((event.route, event.authorizer) for event in events if event.authorizer is not None),
            authorizer=name in self.authorizers,
            binary_media_types=self._binary_media_types(events),
            mapped=mapped_routes(events),
            package_patterns=self._patterns(entry),
            artifact=artifact,
            workers=self.settings.workers.least,
            max_workers=self.settings.workers.most,
            target_percent=self.settings.workers.target_percent,
            reserved_concurrency=self._concurrency(entry, "reservedConcurrency"),
            provisioned_concurrency=ready,
            max_provisioned=scaled.most if scaled else None,
            provisioned_target_percent=scaled.target_percent if scaled else DEFAULT_TARGET_PERCENT,
            description=entry.optional("description", Value.text, ""),
            import_per_worker=self.settings.import_per_worker,
            schedules=tuple(read_schedules(entry, self.notices)),
        )

    def _handler(self, handler: Value, module: str) -> str:
        if self.wsgi is not None and handler.text() in WSGI_HANDLERS:
            return WSGI_HANDLERS[0]
        return check_handler(handler, self.folder / module)

    def _module(self, entry: Value) -> str:
        """`module` of the plugin serverless-python-requirements, which acts on packages of single functions only."""
        value = entry.get("module")
        if value is None or not self.individually:
            return ""
        module = value.text().strip("/")
        folder = os.path.realpath(self.folder / module)
        if not os.path.isdir(folder) or not Path(folder).is_relative_to(os.path.realpath(self.folder)):
            raise value.fault(f"{value.shown()} is not a folder of the service", "name a folder beside serverless.yml")
        return "" if module == "." else module.removeprefix("./")

    def _binary_media_types(self, events: tuple[RouteEvent, ...]) -> tuple[str, ...]:
        value = self.provider.get("apiGateway", "binaryMediaTypes")
        if value is None or value.data is None or all(event.http_api for event in events):
            return ()
        for item in value.items():
            if not _MEDIA_TYPE.fullmatch(item.text()):
                raise item.fault(f"{item.shown()} is not a media type", "write image/png, image/* or '*/*'")
        return tuple(item.text() for item in value.items())

    def _preflights(self, events: tuple[RouteEvent, ...]) -> tuple[Preflight, ...]:
        """Those of the paths that no function before it has; a route for OPTIONS is the handler's to answer."""
        paths = dict.fromkeys(event.route.path for event in events if not event.http_api)
        return tuple(Preflight(path, self.cors.pop(path)) for path in paths if path in self.cors)

    def _scaled(self, name: str, ready: int) -> Provisioned | None:
        scaled = self.settings.provisioned.get(name)
        if scaled is not None and not ready:
            raise scaled.at.fault(
                "the function has no provisionedConcurrency to scale",
                f"set functions.{name}.provisionedConcurrency, which is the minimum",
            )
        if scaled is not None and scaled.most < ready:
            raise scaled.at.fault(
                f"max {scaled.most} is less than provisionedConcurrency {ready}", f"set max to {ready} or more"
            )
        return scaled

    def _concurrency(self, entry: Value, key: str) -> int | None:
        """A number that Lambda accepts; None for a CloudFormation reference, which only AWS resolves."""
        value = entry.get(key)
        return None if value is None or value.intrinsic() is not None else value.integer(0, 100_000)

    def _setting(self, entry: Value, key: str) -> Value | None:
        return entry.get(key) or self.provider.get(key)

    def _runtime(self, entry: Value) -> str:
        value = self._setting(entry, "runtime")
        if value is None:
            raise entry.fault("has no runtime", "add provider.runtime: python3.11")
        runtime = value.text()
        if runtime in ENDED_RUNTIMES:
            version = ".".join(platform.python_version_tuple()[:2])
            here = "this machine's Node.js" if runtime.startswith("nodejs") else f"Python {version}"
            self.notices.add("runtime", value, f"Lambda no longer supports {runtime}; it runs here on {here}")
        elif runtime not in RUNTIMES:
            hint = (
                did_you_mean(runtime if runtime[:1].isalpha() else f"python{runtime}", RUNTIMES, likeness=0.88)
                or "hitless runs Python, Node.js, and programs as provided.al2023"
            )
            raise value.fault(f"{value.shown()} is an unknown runtime; known: {', '.join(RUNTIMES)}", hint)
        if runtime.startswith("python") and runtime != PYTHON_HERE:
            self.other_pythons.append(value)
        return runtime

    def _timeout(self, entry: Value, limit_s: int) -> int:
        value = self._setting(entry, "timeout")
        if value is None:
            return DEFAULT_TIMEOUT_S
        timeout_s = value.integer(1, 900)
        if limit_s and timeout_s > limit_s:
            status = 503 if limit_s == HTTP_API_TIMEOUT_S else 504
            self.notices.add("timeout", value, f"over {limit_s} s, API Gateway's limit: clients then get {status}")
        return timeout_s

    def _environment(self, entry: Value) -> tuple[tuple[str, str], ...]:
        chosen: dict[str, Value] = {}
        for owner in (self.provider, entry):
            chosen |= owner.optional("environment", Value.mapping, {})
        _check_resolved(chosen.values())
        read = ((name, self._variable(name, value)) for name, value in sorted(chosen.items()))
        return tuple((name, text) for name, text in read if text is not None)

    def _variable(self, name: str, value: Value) -> str | None:
        if not _VARIABLE.fullmatch(name):
            raise value.fault("is not the name of a variable: letters, digits and _, no digit first")
        if _RESERVED.fullmatch(name):
            raise value.fault(f"{name} is reserved: Lambda sets it itself", "remove it, or choose another name")
        if (intrinsic := value.intrinsic()) is not None:
            sentence = f"{intrinsic} is resolved by CloudFormation, so {name} is not set here"
            self.notices.add(value.path, value, sentence)
            return None
        if value.data is None:
            raise value.fault("has no value", "write '' for an empty one")
        text = value.sealed_text()
        if value.raw and value.raw != text and not isinstance(value.data, bool):
            self.notices.add(value.path, value, "YAML would change how the number is written: quote it")
        return text

    def _patterns(self, entry: Value) -> tuple[str, ...]:
        package = entry.get("package")
        patterns = read_patterns(package) if package is not None else ()
        if patterns and package is not None and not self.individually:
            sentence = "a function's own patterns need package.individually: true, and are not used without it"
            self.notices.add("own patterns", package, sentence)
            return ()
        return patterns


def _check_resolved(values: Iterable[Value]) -> None:
    """ServiceFileError if any has no value here. It names all of them, so that they can be set at once."""
    missing = [value for value in values if isinstance(value.data, Unresolved)]
    if len(missing) < 2:
        return  # the reader of the one value says why
    try:
        missing[0].sealed_text()
    except ServiceFileError as error:
        others = ", ".join(value.path.rpartition(".")[2] for value in missing[1:])
        message = f"{error.message}; the same applies to {others}"
        raise ServiceFileError(message, hint=error.hint, details=error.details) from error


def read_wsgi(root: Value, folder: Path) -> WsgiApp | None:
    """The WSGI application that serverless-wsgi would pack, or None. ServiceFileError if it is not defined."""
    settings = root.get("custom", "wsgi")
    app = settings.get("app") if settings is not None else None
    if settings is None or app is None or "serverless-wsgi" not in [plugin.text() for plugin in plugins_of(root)]:
        return None
    types = settings.optional("textMimeTypes", Value.items, ())
    return WsgiApp(check_handler(app, folder), tuple(one.text() for one in types))


def read_artifact(package: Value) -> str:
    """`artifact` of a `package`: the path of a zip in the service's folder; "" if there is none."""
    value = package.get("artifact")
    if value is None:
        return ""
    path = value.text()
    if path.startswith(("/", "~")) or "://" in path or ".." in Path(path).parts:
        raise value.fault(f"{value.shown()} is not a path in the service's folder", "write build/function.zip")
    return Path(path).as_posix()


def read_patterns(package: Value) -> tuple[str, ...]:
    """Patterns in Serverless Framework's order: the deprecated `exclude` and `include` first, then `patterns`."""
    texts = {key: package.optional(key, _texts, ()) for key in ("exclude", "include", "patterns")}
    excluded = (text[1:] if text.startswith("!") else f"!{text}" for text in texts["exclude"])
    return (*excluded, *texts["include"], *texts["patterns"])


def _texts(value: Value) -> tuple[str, ...]:
    return tuple(item.text() for item in value.items())


def _entries(functions: Value) -> Mapping[str, Value]:
    """Functions as one map; the file may give a list of maps, one a file."""
    if not isinstance(functions.data, tuple):
        return functions.mapping()
    merged: dict[str, Value] = {}
    for item in functions.data:
        for name, entry in item.mapping().items():
            if name in merged:
                raise entry.fault(f"{name} is defined twice, first in {merged[name].place}")
            merged[name] = entry
    return merged
