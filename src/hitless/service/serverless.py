"""The top of serverless.yml: the resolved tree as a `Service`. Each part is read by the module of its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hitless.service.closed import another_python, why_refused
from hitless.service.functions import FunctionReader, read_artifact, read_patterns, read_wsgi
from hitless.service.keys import check_keys
from hitless.service.model import DEFAULT_REGION, Service
from hitless.service.resolve import VariableContext
from hitless.service.rollouts import check_references, named_routes
from hitless.service.settings import read_settings
from hitless.service.value import Notices, Unresolved, Value

_SERVICE_NAME = re.compile(r"[A-Za-z][0-9A-Za-z-]{1,63}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")


def make_service(root: Value, file: Path, context: VariableContext, notices: Notices) -> Service:
    """The service that a tree without variables describes; ServiceFileError on whatever cannot be accepted."""
    check_keys(root, notices)
    name = _name(root)
    provider = _provider(root, context.stage, notices)
    settings = read_settings(root, context.stage)
    stages = root.get("custom", "hitless", "stages")
    if stages is not None and context.stage not in stages.mapping():
        notices.add("stage", stages, f"{context.stage} is not listed, so it takes the defaults")
    patterns = root.optional("package", read_patterns, ())
    own = root.get("package", "individually")
    individually = own is not None and own.flag()
    wsgi, prefix = read_wsgi(root, file.parent), f"{name}-{context.stage}-"
    opened = frozenset(route for _, route in named_routes(root, "open"))
    artifact = root.optional("package", read_artifact, "")
    reader = FunctionReader(
        file.parent, provider, individually, settings, prefix, notices, wsgi, artifact, opened=opened
    )
    functions = root.get("functions")
    if functions is None:
        raise root.fault("functions is missing", "add functions: {api: {handler: handlers.api, events: [http: GET /]}}")
    read = reader.read(functions)
    check_references(root, read)
    # stores of values that are not referred to are left out
    parts = (part for name, part in root.mapping().items() if name not in ("custom", "params", "stages"))
    for value in (value for part in parts for value in part.walk() if isinstance(value.data, Unresolved)):
        assert isinstance(value.data, Unresolved)
        why = "is not available here" if value.data.error is None else "has no value; nothing here reads it"
        notices.add(f"elsewhere {value.data.kind}", value, f"{value.data.reference} {why}")
    return Service(
        name=name,
        folder=file.parent,
        file=file,
        stage=context.stage,
        region=_region(provider, context.options),
        stages=settings.stages,
        functions=read,
        package_patterns=patterns,
        memory_mb=settings.memory_mb,
        total_workers=settings.total_workers,
        cpu_weight=settings.cpu_weight,
        previews=settings.previews,
        builds=settings.builds,
        wsgi=wsgi,
        refusal=why_refused(root, reader.routes, notices)  # may add a notice
        or next(map(another_python, reader.other_pythons if settings.exact_runtime else ()), None),
        notices=notices.sentences(),
    )


def _name(root: Value) -> str:
    service = root.get("service")
    if service is not None and isinstance(service.data, Mapping):
        service = service.get("name")
    if service is None:
        raise root.fault("service is missing", "add service: NAME at the top")
    if not _SERVICE_NAME.fullmatch(service.text()):
        raise service.fault(f"{service.shown()} is not a service's name: a letter, then 1 to 63 letters, digits and -")
    return service.text()


def _provider(root: Value, stage: str, notices: Notices) -> Value:
    """The provider as a map; `provider: aws` is short for its name."""
    provider = root.get("provider")
    if provider is None:
        raise root.fault("provider is missing", "add provider: {name: aws, runtime: python3.11}")
    named = provider if isinstance(provider.data, str) else provider.get("name")
    if named is None:
        raise provider.fault("has no name", "add provider.name: aws")
    named.choice(["aws"])
    if named is provider:
        return Value({}, provider.place, provider.path)
    declared = provider.get("stage")
    if declared is not None and declared.text() != stage:
        notices.add("provider.stage", declared, f"the stage is {stage} here, as the command says")
    return provider


def _region(provider: Value, options: Mapping[str, str]) -> str:
    if "region" in options:
        return options["region"]
    region = provider.get("region")
    if region is None:
        return DEFAULT_REGION
    if not _REGION.fullmatch(region.text()):
        raise region.fault(f"{region.shown()} is not the name of an AWS region", "write one such as eu-central-1")
    return region.text()
