"""A buildspec 0.2 as read: what CodeBuild would refuse is refused, and so is what cannot be done here; never ignored.

By docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html. Not done here, and refused by name: `batch`,
`proxy`, `run-as` of another user, `git-credential-helper`, `secondary-artifacts`, `on-failure: RETRY…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

PHASES: Final = ("install", "pre_build", "build", "post_build")
MAX_BYTES: Final = 256 * 1024

_KEYS: Final = frozenset({"version", "env", "phases", "artifacts", "reports", "cache"})
_ENV_KEYS: Final = frozenset({"shell", "variables", "exported-variables", "parameter-store", "secrets-manager"})
_PHASE_KEYS: Final = frozenset({"commands", "finally", "on-failure", "runtime-versions"})
_ARTIFACT_KEYS: Final = frozenset({"files", "base-directory", "name", "discard-paths", "exclude-paths"})
_REPORT_KEYS: Final = frozenset({"files", "base-directory", "discard-paths", "file-format"})
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELLS: Final = ("sh", "bash", "/bin/sh", "/bin/bash")
TEST_FORMATS: Final = ("JUNITXML",)
COVERAGE_FORMATS: Final = ("COBERTURAXML",)


@dataclass(frozen=True, slots=True)
class Phase:
    """Commands in order; `last` run whatever came of them. `goes_on`: a failure does not fail the build."""

    name: str
    commands: tuple[str, ...]
    last: tuple[str, ...]
    goes_on: bool
    runtimes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Report:
    """A group of report files: patterns below `base`, in one of CodeBuild's formats."""

    name: str
    files: tuple[str, ...]
    base: str
    format: str


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Files to keep: patterns below `base` less the excluded; flat where paths are discarded."""

    files: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    base: str = "."
    flat: bool = False


@dataclass(frozen=True, slots=True)
class Buildspec:
    """A whole buildspec. `parameters` and `secrets` are variable → name in the parameter store or secrets manager."""

    shell: str
    variables: Mapping[str, str]
    exported: tuple[str, ...]
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]
    phases: tuple[Phase, ...]
    artifacts: Artifacts
    reports: tuple[Report, ...]
    cached: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Buildspec:
        """Raises ValueError, in words for the author, for what CodeBuild refuses and for what is not run here."""
        document = _load(text)
        _only(document, _KEYS, "the buildspec")
        env = _map(document, "env", "env")
        _only(env, _ENV_KEYS, "env")
        shell = str(env.get("shell", "sh"))
        if shell not in _SHELLS:
            raise ValueError(f"env.shell: {shell} is none of {', '.join(_SHELLS[:2])}")
        phases = _map(document, "phases", "phases")
        if not phases:
            raise ValueError("there are no phases")
        _only(phases, frozenset(PHASES), "phases")
        return cls(
            shell=shell,
            variables=_texts(env, "variables"),
            exported=_names(env.get("exported-variables")),
            parameters=_texts(env, "parameter-store"),
            secrets=_texts(env, "secrets-manager"),
            phases=tuple(_phase(name, _map(phases, name, f"phases.{name}")) for name in PHASES if name in phases),
            artifacts=_artifacts(_map(document, "artifacts", "artifacts")),
            reports=tuple(_report(name, one) for name, one in _map(document, "reports", "reports").items()),
            cached=_cached(_map(document, "cache", "cache")),
        )

    @property
    def runtimes(self) -> Mapping[str, str]:
        """Of all phases together: `{"python": "3.11"}`."""
        return {name: version for phase in self.phases for name, version in phase.runtimes.items()}


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"it is not YAML{where}: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a map of version, phases, …")  # noqa: TRY004 - one error for all that is wrong
    if str(document.get("version")) != "0.2":
        raise ValueError(f"version is {document.get('version')}, not 0.2")
    return document


def _only(document: Mapping[str, Any], keys: frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in set(document) - keys)
    if unknown:
        raise ValueError(f"{where}: {', '.join(unknown)} is not run here")


def _map(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a map")  # noqa: TRY004
    return value


def _texts(document: Mapping[str, Any], key: str) -> dict[str, str]:
    values = _map(document, key, f"env.{key}")
    for name, value in values.items():
        if not _VARIABLE.fullmatch(str(name)):
            raise ValueError(f"env.{key}: {name!r} is not a variable's name")
        if isinstance(value, dict | list):
            raise ValueError(f"env.{key}.{name} is not a text")  # noqa: TRY004
    return {name: _scalar(value) for name, value in values.items()}


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _strings(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{where} is not a list of texts; a colon in one needs quotes")
    return tuple(value)


def _names(value: object) -> tuple[str, ...]:
    names = _strings(value, "env.exported-variables")
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"env.exported-variables: {name!r} is not a variable's name")
    return names


def _phase(name: str, document: Mapping[str, Any]) -> Phase:
    _only(document, _PHASE_KEYS, f"phases.{name}")
    failure = document.get("on-failure", "ABORT")
    if failure not in ("ABORT", "CONTINUE"):
        raise ValueError(f"phases.{name}.on-failure: {failure} is not run here, only ABORT and CONTINUE")
    runtimes = _map(document, "runtime-versions", f"phases.{name}.runtime-versions")
    return Phase(
        name,
        _strings(document.get("commands"), f"phases.{name}.commands"),
        _strings(document.get("finally"), f"phases.{name}.finally"),
        failure == "CONTINUE",
        {key: str(value) for key, value in runtimes.items()},
    )


def _artifacts(document: Mapping[str, Any]) -> Artifacts:
    _only(document, _ARTIFACT_KEYS, "artifacts")
    flat = _scalar(document.get("discard-paths", "no")) in ("yes", "true")
    return Artifacts(
        _strings(document.get("files"), "artifacts.files"),
        _strings(document.get("exclude-paths"), "artifacts.exclude-paths"),
        str(document.get("base-directory", ".")),
        flat,
    )


def _report(name: str, document: object) -> Report:
    if not isinstance(document, dict):
        raise ValueError(f"reports.{name} is not a map")  # noqa: TRY004
    _only(document, _REPORT_KEYS, f"reports.{name}")
    kind = str(document.get("file-format", "JUNITXML"))
    if kind not in (*TEST_FORMATS, *COVERAGE_FORMATS):
        raise ValueError(f"reports.{name}.file-format: {kind} is not read here, only JUNITXML and COBERTURAXML")
    base = str(document.get("base-directory", "."))
    return Report(name, _strings(document.get("files"), f"reports.{name}.files"), base, kind)


def _cached(document: Mapping[str, Any]) -> tuple[str, ...]:
    _only(document, frozenset({"paths"}), "cache")
    return _strings(document.get("paths"), "cache.paths")
