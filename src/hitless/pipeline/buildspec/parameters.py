"""The values of a buildspec's parameter-store and secrets-manager variables, from a local file instead of AWS.

    parameter-store: {/clock/token: abc}
    secrets-manager: {clock/database: {user: clock, password: xyz}}

The file is the operator's (`pipeline/parameters.yml` in the data folder), read again for each build, and must be
readable by its owner only. Values reach the build's environment and nothing else; they are masked in its log.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hitless.pipeline.buildspec.spec import Buildspec
from hitless.pipeline.runs import StepFailed

MAX_FILE_BYTES = 1024 * 1024


def resolve(spec: Buildspec, file: Path) -> dict[str, str]:
    """Variable → value. Raises StepFailed, which names what is missing and never a value."""
    if not spec.parameters and not spec.secrets:
        return {}
    document = _read(file)
    found = {name: str(_value(document, "parameter-store", key, file)) for name, key in spec.parameters.items()}
    return found | {name: _secret(document, wanted, file) for name, wanted in spec.secrets.items()}


def _read(file: Path) -> Mapping[str, Any]:
    try:
        status = file.stat()
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StepFailed(f"{file} can be read by others: chmod 600 it")
        if status.st_size > MAX_FILE_BYTES:
            raise StepFailed(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        document = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise StepFailed(f"the buildspec asks for parameters, and there is no {file}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StepFailed(f"{file} cannot be read: {type(error).__name__}") from error  # whose text may hold a value
    if not isinstance(document, dict):
        raise StepFailed(f"{file} is not a map of parameter-store and secrets-manager")
    return document


def _value(document: Mapping[str, Any], kind: str, name: str, file: Path) -> Any:
    values = document.get(kind) or {}
    if name not in values:
        raise StepFailed(f"{file} has no {kind} value {name}")
    return values[name]


def _secret(document: Mapping[str, Any], reference: str, file: Path) -> str:
    """`secret-id[:json-key[:version-stage[:version-id]]]`, where the id may be an ARN; the version is ignored."""
    parts = reference.split(":")[6:] if reference.startswith("arn:") else reference.split(":")
    secret, key = [*parts, "", ""][:2]
    value = _value(document, "secrets-manager", secret, file)
    if not key:
        return value if isinstance(value, str) else json.dumps(value)
    try:
        fields = json.loads(value) if isinstance(value, str) else value
        return str(fields[key])
    except (ValueError, KeyError, TypeError) as error:
        raise StepFailed(f"{file}: the secrets-manager value {secret} has no key {key}") from error
