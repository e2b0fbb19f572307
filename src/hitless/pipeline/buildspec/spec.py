"""A buildspec 0.2. Keys that CodeBuild refuses are refused, and so are those that cannot be done here; none is ignored.

By docs.aws.amazon.com/codebuild/latest/userguide/build-spec-ref.html. Not done here: `batch`, `proxy`, `run-as`,
`git-credential-helper`, `secondary-artifacts`, `on-failure: RETRY…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml

MAX_BYTES: Final = 256 * 1024
COVERAGE_FORMAT: Final = "COBERTURAXML"

VariableName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)")]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    pass


class _Env(_Strict, frozen=True):
    shell: Literal["sh", "bash", "/bin/sh", "/bin/bash"] = "sh"
    variables: Mapping[VariableName, Any] = {}
    exported_variables: tuple[VariableName, ...] = ()
    parameter_store: Mapping[VariableName, Any] = {}
    secrets_manager: Mapping[VariableName, Any] = {}


class BuildPhase(_Strict, frozen=True):
    """Commands in order; `last` run even if one of them failed."""

    commands: tuple[str, ...] = ()
    last: tuple[str, ...] = msgspec.field(default=(), name="finally")
    on_failure: Literal["ABORT", "CONTINUE"] = "ABORT"
    runtime_versions: Mapping[str, Any] = {}

    @property
    def continues_on_failure(self) -> bool:
        """Whether the build continues, and may succeed, if this phase fails."""
        return self.on_failure == "CONTINUE"


class _Phases(_Strict, frozen=True, rename=None):
    """In their order."""

    install: BuildPhase | None = None
    pre_build: BuildPhase | None = None
    build: BuildPhase | None = None
    post_build: BuildPhase | None = None


class Report(_Strict, frozen=True):
    """A group of report files: patterns below `base`."""

    files: tuple[str, ...] = ()
    base: str = msgspec.field(default=".", name="base-directory")
    discard_paths: bool | str = False
    format: Literal["JUNITXML", "COBERTURAXML"] = msgspec.field(default="JUNITXML", name="file-format")


class ArtifactPatterns(_Strict, frozen=True):
    """Files to keep: patterns below `base`, less the excluded ones."""

    files: tuple[str, ...] = ()
    excluded: tuple[str, ...] = msgspec.field(default=(), name="exclude-paths")
    base: str = msgspec.field(default=".", name="base-directory")
    discard_paths: bool | str = False
    name: Any = None

    @property
    def flat(self) -> bool:
        """Whether only the names of files are kept."""
        return self.discard_paths in (True, "yes", "true")


class _Cache(_Strict, frozen=True):
    paths: tuple[str, ...] = ()


class Buildspec(_Strict, frozen=True):
    """A whole buildspec."""

    version: Annotated[Any, msgspec.Meta(extra_json_schema={"enum": ["0.2", 0.2]})]
    env: _Env = _Env()
    phases: _Phases = _Phases()
    artifacts: ArtifactPatterns = ArtifactPatterns()
    reports: Mapping[str, Report] = {}
    cache: _Cache = _Cache()

    @classmethod
    def read(cls, text: str) -> Buildspec:
        """Raises ValueError, for the author, if CodeBuild refuses it or it cannot be run here."""
        document = _load(text)
        try:
            spec = msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            colon = "; a text with a colon needs quotes" if "Expected `str`, got `object`" in str(error) else ""
            raise ValueError(f"it cannot be run here: {error}{colon}") from error
        if not spec.ordered:
            raise ValueError("there are no phases")
        for name, value in (*spec.env.variables.items(), *spec.env.parameter_store.items()):
            if isinstance(value, dict | list):
                raise ValueError(f"env: the variable {name} is not a string")  # noqa: TRY004 - as for all that is wrong
        return spec

    @property
    def ordered(self) -> tuple[tuple[str, BuildPhase], ...]:
        """The phases that it has, by name, in their order."""
        found = ((name, getattr(self.phases, name)) for name in self.phases.__struct_fields__)
        return tuple((name, phase) for name, phase in found if phase is not None)

    @property
    def variables(self) -> dict[str, str]:
        return _texts(self.env.variables)

    @property
    def parameters(self) -> dict[str, str]:
        """Variable → name in the parameter store."""
        return _texts(self.env.parameter_store)

    @property
    def secrets(self) -> dict[str, str]:
        """Variable → reference in the secrets manager."""
        return _texts(self.env.secrets_manager)

    @property
    def runtimes(self) -> dict[str, str]:
        """The runtimes of all phases together: `{"python": "3.11"}`."""
        return {name: str(version) for _, phase in self.ordered for name, version in phase.runtime_versions.items()}


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
        raise ValueError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise ValueError("it is not a map of version, phases, …")  # noqa: TRY004 - as for all that is wrong
    if str(document.get("version")) != "0.2":
        raise ValueError(f"version is {document.get('version')}, not 0.2")
    document = _filled(document, "env", "phases", "artifacts", "cache")
    if isinstance(phases := document.get("phases"), dict):
        document["phases"] = _filled(phases, *_Phases.__struct_fields__)
    return document


def _filled(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Without keys that have no value, as YAML allows them, here and in the maps at `keys`. No deeper: aliases may
    take up more than memory holds.
    """
    full = {key: value for key, value in document.items() if value is not None}
    maps = {key: full[key] for key in keys if isinstance(full.get(key), dict)}
    return full | {key: {name: value for name, value in one.items() if value is not None} for key, one in maps.items()}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        for name, value in values.items()
    }
