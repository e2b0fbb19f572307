"""The secrets of a service's stages: encrypted in the data folder, with a key in a file outside of it.

A secret is in a release's environment as `{hitless-secret:NAME:TOKEN}`, so no document, log or copy of the state has
its value. The value appears when a worker's environment is made. Equal values keep their token, so that an unchanged
service is unchanged. `cryptography` takes 70 ms and 9 MiB, so it is imported when a value is needed.
"""

from __future__ import annotations

import os
import pkgutil
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from hitless.documents import decode, replace_file, sync_folder, to_text
from hitless.errors import MachineError, UsageError
from hitless.release.document import ReleaseDocument
from hitless.service.value import SEALED

KEY_VARIABLE = "HITLESS_SECRETS_KEY_FILE"
MOST_BYTES = 8192
"""AWS Systems Manager's limit for an advanced parameter."""

_NAME = re.compile(r"/?[\w.-]+(/[\w.-]+){0,14}", re.ASCII)


class Secret(msgspec.Struct, frozen=True):
    """An encrypted value, and when it was set."""

    token: str
    set_at: str


class SecretKey:
    """The key file. Nothing is read before it is needed."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> SecretKey:
        """$HITLESS_SECRETS_KEY_FILE, else ~/.config/hitless/secrets.key."""
        # Not `Path.home()`, which raises for a user without a home.
        return cls(Path(environ.get(KEY_VARIABLE) or os.path.expanduser("~/.config/hitless/secrets.key")))

    def make(self) -> None:
        """Create the file, mode 0600, unless it exists. Raises OSError."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        replace_file(fresh, _fernet().Fernet.generate_key(), mode=0o600, durable=True)
        with suppress(FileExistsError):
            os.link(fresh, self.file)
        fresh.unlink()
        sync_folder(self.file.parent)

    def encrypted(self, value: str) -> str:
        return str(self._read().encrypt(value.encode()).decode())

    def value(self, name: str, token: str) -> str:
        """The value of a secret. MachineError if the key file is missing, open to others, or another key."""
        try:
            return str(self._read().decrypt(token.encode()).decode())
        except _fernet().InvalidToken as error:
            hint = "put the right key file back; without it, delete secrets.json and set each secret again"
            raise MachineError(f"{self.file} is not the key that encrypted the secret {name}", hint=hint) from error

    def environment(self, environment: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The environment with the values of its secrets. Raises MachineError as `value` does."""
        return {one: SEALED.sub(lambda secret: self.value(secret[1], secret[2]), text) for one, text in environment}

    def _read(self) -> Any:
        subject, hint = f"{self.file}, the key of the secrets,", "put the file back from its copy"
        try:
            mode, key = stat.S_IMODE(self.file.stat().st_mode), self.file.read_bytes()
            fernet = _fernet().Fernet(key.strip())
        except OSError as error:
            hint += f", or name another one in {KEY_VARIABLE}"
            raise MachineError(f"{subject} cannot be read: {error.strerror}", hint=hint) from error
        except ValueError as error:
            raise MachineError(f"{subject} is not 32 bytes in URL-safe base64", hint=hint) from error
        if mode & 0o077:
            raise MachineError(f"{subject} can be read by other users", hint=f"`chmod 600 {self.file}`")
        return fernet


class SecretStore:
    """The secrets in a data folder. Writers take turns by a lock of theirs."""

    def __init__(self, data: Path) -> None:
        self.file = data / "secrets.json"

    def of(self, stage: str) -> dict[str, Secret]:
        """The stage's secrets by name. EngineError if the file is damaged."""
        return self._read().get(stage, {})

    def sealed(self, stage: str) -> dict[str, str]:
        """The stage's secrets by name, as they are in a release's environment."""
        return {name: f"{{hitless-secret:{name}:{secret.token}}}" for name, secret in self.of(stage).items()}

    def set(self, stage: str, name: str, value: str, key: SecretKey, set_at: str) -> bool:
        """Store a value. Returns False if it has it already. UsageError for a name or value that cannot be stored."""
        _check(name, value)
        known = [(one, secret) for each in self._read().values() for one, secret in each.items()]
        if not known:
            key.make()
        else:
            key.value(known[0][0], known[0][1].token)  # all secrets have one key
        before = self.of(stage).get(name)
        if before is not None and key.value(name, before.token) == value:
            return False
        self._write(stage, {**self.of(stage), name: Secret(key.encrypted(value), set_at)})
        return True

    def unset(self, stage: str, name: str) -> None:
        """Forget a secret. UsageError if there is none of that name."""
        known = self.of(stage)
        if name not in known:
            hint = f"{stage} has {', '.join(known)}" if known else f"{stage} has no secrets"
            raise UsageError(f"stage {stage} has no secret {name}", hint=hint)
        self._write(stage, {one: secret for one, secret in known.items() if one != name})

    def _read(self) -> dict[str, dict[str, Secret]]:
        try:
            return decode(self.file.read_bytes(), dict[str, dict[str, Secret]], str(self.file))
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def _write(self, stage: str, secrets: dict[str, Secret]) -> None:
        replace_file(self.file, to_text({**self._read(), stage: secrets}), mode=0o600, durable=True)


def outdated(document: ReleaseDocument, sealed: Mapping[str, str]) -> set[str]:
    """The secrets of which the release has another value than the present one."""
    present = used_secrets(with_current(document, sealed))
    return {name for name, tokens in used_secrets(document).items() if tokens != present[name]}


def used_secrets(document: ReleaseDocument) -> dict[str, dict[str, str]]:
    """Secret → function that uses it → the token of its value."""
    used: dict[str, dict[str, str]] = {}
    for function in document.functions:
        for _, text in function.environment:
            for secret in SEALED.finditer(text):
                used.setdefault(secret[1], {})[function.name] = secret[2]
    return used


def with_current(document: ReleaseDocument, sealed: Mapping[str, str]) -> ReleaseDocument:
    """The release with the present values of its secrets; one that is not in `sealed` keeps its value."""

    def renewed(text: str) -> str:
        return SEALED.sub(lambda secret: sealed.get(secret[1], secret[0]), text)

    environments = (tuple((name, renewed(text)) for name, text in one.environment) for one in document.functions)
    functions = (replace(one, environment=new) for one, new in zip(document.functions, environments, strict=True))
    return replace(document, functions=tuple(functions))


def _fernet() -> Any:
    return pkgutil.resolve_name("cryptography.fernet")


def _check(name: str, value: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > 1011 or name.lower().lstrip("/").startswith(("aws", "ssm")):
        hint = "write the name of `${ssm:NAME}` as in serverless.yml, such as /clock/database-url"
        raise UsageError(f"{name!r} is not a secret's name", hint=hint)
    if not value or "\0" in value or len(value.encode(errors="replace")) > MOST_BYTES:
        message = f"the value of {name} is empty, has a NUL or is longer than {MOST_BYTES} bytes"
        raise UsageError(message, hint="write the value to standard input")
