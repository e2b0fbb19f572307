"""Installs pinned requirements by calling uv, and turns uv's messages into errors.

uv runs in the service's folder with the user's environment, so that its own settings (UV_*, uv.toml) apply, and pip's
if uv has none. Messages quote uv without passwords. The texts that `_hint` looks for are uv's; if they change,
only the hint gets more general.
"""

from __future__ import annotations

import pkgutil
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from uv import find_uv_bin

from hitless.artifact.locks import normalised
from hitless.artifact.model import Platform
from hitless.artifact.requirements import REQUIREMENTS_FILE, Requirements
from hitless.errors import BuildError, HitlessError, MachineError

RESOLUTION_VARIABLES = (
    *("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"),
    *("UV_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_RESOLUTION", "UV_PRERELEASE", "UV_EXCLUDE_NEWER"),
    *("UV_CONFIG_FILE", "UV_NO_CONFIG"),
)
"""Variables that may change what is installed: the cache of dependencies depends on their values."""

_OVERRULED = frozenset(
    {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PYTHON", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES"}
    | {"UV_COMPILE_BYTECODE", "UV_LINK_MODE", "UV_NO_BUILD_ISOLATION", "UV_PROJECT", "UV_WORKING_DIR"}
)
_PIP_NAMES = (
    ("PIP_INDEX_URL", ("UV_DEFAULT_INDEX", "UV_INDEX_URL"), "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", ("UV_INDEX", "UV_EXTRA_INDEX_URL"), "UV_EXTRA_INDEX_URL"),
    ("PIP_FIND_LINKS", ("UV_FIND_LINKS",), "UV_FIND_LINKS"),
    ("PIP_CERT", ("SSL_CERT_FILE",), "SSL_CERT_FILE"),
)
_DISK = ("No space left on device", "Disk quota exceeded", "Read-only file system", "File too large")
_NETWORK = (
    "error sending request",
    "dns error",
    "tcp connect error",
    "Connection refused",
    "network was disabled",
    "timed out",
)
_WITHOUT_WHEEL = re.compile(r"Wheels are required for `([^`]+)` because building from source is disabled")
_NOT_BUILT = re.compile(r"Failed to build `([^`=@\s]+)==([^`\s]+)`")
_NATIVE = (".so", ".pyd", ".dylib")
_WHEELS = (
    "only wheels and pure Python sources are installed: pin a version with a wheel for {}, or build one and add"
    " --find-links FOLDER"
)
_NO_WHEEL = ("Failed to build", "no usable wheels", "building from source is disabled", "no wheels with a matching")
_REASON_CHARACTERS = 700


class Installed(NamedTuple):
    """The names of the packages that were built from source, and `NAME VERSION instead of VERSION` of the raised."""

    built: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()


@dataclass(frozen=True)
class Uv:
    """Installs with uv. `environ` is the environment that its settings come from."""

    environ: Mapping[str, str]

    def settings(self) -> dict[str, str]:
        """The environment's settings that may change what gets installed. May hold passwords: for hashing only."""
        environ = self._environment()
        return {name: environ[name] for name in RESOLUTION_VARIABLES if name in environ}

    def install(
        self, folder: Path, requirements: Requirements, platform: Platform, into: Path, *, keep_open: Sequence[int] = ()
    ) -> Installed:
        """Install the requirements of the service in `folder` below `into`.

        Only packages without a wheel are built, and without a compiler: native code would fit only this machine.
        For this machine instead of the declared platform, a pinned version that has no wheel and cannot be built is
        raised within its major version: pins of older Pythons often have no wheel for this one.
        uv keeps the descriptors in `keep_open` open while it runs (the store's lock). Raises BuildError that names the
        wrong requirements, MachineError if the disk is full.
        """
        listed = "-" if requirements.generated else REQUIREMENTS_FILE
        command = ["pip", "install", "--requirements", listed, "--target", str(into)]
        command += ["--python", sys.executable, *platform.uv_options()]
        command += ["--only-binary", ":all:", "--link-mode", "copy", "--no-compile-bytecode"]
        command += [
            "--no-progress",
            "--color",
            "never",
            *(["--require-hashes"] if requirements.checked_by_hash else []),
        ]
        overrides = into.with_name("overrides.txt")
        may_raise = bool(platform.host) and not requirements.hashed and "UV_OVERRIDE" not in self.environ
        built: list[str] = []
        pinned: dict[str, str] = {}
        first = ""
        while said := self._run(
            [
                *command,
                *(f"--no-binary={name}" for name in built),
                *(("--override", str(overrides)) if pinned else ()),
            ],
            folder, keep_open, requirements.generated,
        ):  # fmt: skip
            fresh = set(_WITHOUT_WHEEL.findall(said)) - set(built)
            failed = {name: version for name, version in _NOT_BUILT.findall(said) if may_raise and name not in pinned}
            if not fresh and not failed:
                raise refusal(first or said, requirements, platform, self.environ)
            first = first or (said if failed else "")
            pinned |= failed
            read = pkgutil.resolve_name("packaging.version:Version")
            overrides.write_text("".join(f"{name}>={v},=={read(v).major}.*\n" for name, v in pinned.items()), "utf-8")
            built = [name for name in (*built, *sorted(fresh)) if name not in failed]
        overrides.unlink(missing_ok=True)
        if native := _native(into, built):
            raise BuildError(f"{native} is native code that was built from source", hint=_WHEELS.format(platform))
        return Installed(tuple(built), tuple(_raised(into, pinned)))

    def _run(self, command: Sequence[str], folder: Path, keep_open: Sequence[int], given: str) -> str:
        """uv's stderr if it failed, else an empty string."""
        try:
            done = subprocess.run(
                [find_uv_bin(), *command], cwd=folder, env={**self._environment(), "CC": "false", "CXX": "false"},
                input=given.encode(), capture_output=True, pass_fds=keep_open, check=False,
            )  # fmt: skip
        except OSError as error:
            raise MachineError(f"uv cannot be started: {error}", hint="reinstall hitless") from error
        if done.returncode < 0:
            raise MachineError(
                f"uv was killed by {signal.Signals(-done.returncode).name}", hint="check memory and disk space"
            )
        return done.stderr.decode("utf-8", "replace") or "error: uv gave no reason" if done.returncode else ""

    def _environment(self) -> dict[str, str]:
        environ = {name: value for name, value in self.environ.items() if name not in _OVERRULED}
        for pip_name, uv_names, uv_name in _PIP_NAMES:
            if (value := environ.get(pip_name)) and not any(name in environ for name in uv_names):
                environ[uv_name] = value.replace(" ", ",") if uv_name == "UV_FIND_LINKS" else value
        return environ


def _native(into: Path, built: Sequence[str]) -> str | None:
    """The first native library that one of these packages installed."""
    for record in into.glob("*.dist-info/RECORD"):
        if normalised(record.parent.name.split("-")[0]) in built:
            names = (line.partition(",")[0] for line in record.read_text("utf-8").splitlines())
            if found := next((name for name in names if name.endswith(_NATIVE)), None):
                return found
    return None


def _raised(into: Path, pinned: Mapping[str, str]) -> Iterator[str]:
    """`NAME VERSION instead of VERSION` of each package that was not installed in its pinned version."""
    for info in sorted(into.glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        if (asked := pinned.get(normalised(name))) is not None:
            yield f"{normalised(name)} {version} instead of {asked}"


def refusal(stderr: str, requirements: Requirements, platform: Platform, environ: Mapping[str, str]) -> HitlessError:
    """The error for uv's stderr: the requirements that it names, the reason, and the fix."""
    text = without_secrets(stderr, environ)
    said = [line.strip() for line in text.splitlines() if line.strip()]
    first = next((n for n, line in enumerate(said) if line.startswith("error:")), max(0, len(said) - 6))
    words = [re.sub(r"^(error|cause|hint):\s*", "", line) for line in said[first:]]
    reason = "; ".join(words)[:_REASON_CHARACTERS] or "uv gave no reason"
    details = {"uv": said[-20:]}
    if any(sign in text for sign in _DISK):
        return MachineError(
            f"installing the requirements failed: {reason}",
            hint="free space on the disk of the data folder and of uv's cache",
            details=details,
        )
    named = [one for one in requirements.required if re.search(rf"(?<![\w.-]){re.escape(one.name)}(?![\w-])", reason)]
    where = ", ".join(f"{one.at} ({one.name})" for one in named) or REQUIREMENTS_FILE
    if any(sign in text for sign in _NETWORK):
        return BuildError(
            f"{where}: the package index cannot be reached: {reason}",
            hint="check the network, or set UV_DEFAULT_INDEX to a reachable index",
            details=details,
        )
    return BuildError(
        f"{where}: cannot be installed for {platform}: {reason}", hint=_hint(text, platform), details=details
    )


def without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """The text with the user part of URLs, and the values of uv's password variables, replaced by ***."""
    text = re.sub(r"://[^\s`'\"<>]*@", "://***@", text)
    for name, value in environ.items():
        if value and name.startswith("UV_") and name.endswith(("_PASSWORD", "_TOKEN")):
            text = text.replace(value, "***")
    return text


def _hint(text: str, platform: Platform) -> str:
    if any(sign in text for sign in _NO_WHEEL):
        return _WHEELS.format(platform)
    if "was not found in the package registry" in text:
        return "check the spelling of the name, and the index"
    if "there is no version of" in text:
        return "pin a version that exists"
    if "Hash mismatch" in text:
        return (
            "the download differs from the locked file; if intended, lock again with uv pip compile --generate-hashes"
        )
    return "fix requirements.txt; uv pip compile creates a consistent one"
