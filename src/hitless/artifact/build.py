"""Builds artifacts from a service's folder: select the code, install or fetch the dependencies, zip, store.

A file of the service replaces a dependency's file of the same name, as if the service were copied over it; each is
named in a warning. An artifact has its dependencies first, then its code, each sorted, so that the cached zip of the
dependencies is the beginning of the artifact.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hitless.artifact import archive, dependencies, npm, serverless_wsgi
from hitless.artifact.archive import ZipMember, case_collisions, folders_of, shown
from hitless.artifact.dependencies import Dependencies
from hitless.artifact.locks import LOCKS
from hitless.artifact.model import DIRECT_UPLOAD_LIMIT_BYTES, Artifact, BuiltArtifacts, Host, Platform
from hitless.artifact.programs import check_node, check_program
from hitless.artifact.requirements import REQUIREMENTS_FILE, Requirements, read_requirements
from hitless.artifact.selection import PackagePatterns, Walk
from hitless.artifact.store import ArtifactStore, WorkFolder
from hitless.artifact.uv import Uv
from hitless.errors import BuildError
from hitless.service.model import ENDED_RUNTIMES, PROGRAM, Function, Service, WsgiApp

_Source = tuple[str, ...] | str
"""Where a package's code is from: the service's folder by these patterns, or the zip of `package.artifact`."""

_OTHER_LOCKS = (*LOCKS, "pdm.lock")
_SHOWN_AT_MOST = 5
_DATABASES = (".db", ".sqlite", ".sqlite3")

_WSGI_HANDLER = """\
\"\"\"Added by hitless in place of the plugin serverless-wsgi: the WSGI application as a Lambda handler.\"\"\"

import os

import serverless_wsgi

handler = serverless_wsgi.make_handler(os.path.dirname(os.path.abspath(__file__)))
"""


def build(
    service: Service,
    store: ArtifactStore,
    *,
    say: Callable[[str], None],
    installer: Uv | None = None,
    host: Host | None = None,
) -> BuiltArtifacts:
    """Build the artifacts of all functions of `service` into `store`.

    `say` gets a sentence for each step that takes time. `installer` and `host` are uv with this process's environment,
    and this machine.
    Raises BuildError (a fault of the service) or MachineError (disk, permissions); then nothing incomplete is left.
    """
    started = time.monotonic()
    files = wsgi_files(service.wsgi)
    by_function: dict[str, Artifact] = {}
    portable: dict[str, Artifact] = {}
    warnings: list[str] = []
    with store.working() as workspace:
        for module in dict.fromkeys(function.module for function in service.functions):
            _Build(
                service, store, say, files, installer or Uv(dict(os.environ)), host or Host.here(), workspace,
                module, read_requirements(service.folder / module), by_function, portable, warnings,
            ).run()  # fmt: skip
    count = len({artifact.digest for artifact in by_function.values()})
    say(f"built {count} artifact{'s' if count != 1 else ''} in {time.monotonic() - started:.2f} s")
    names = [function.name for function in service.functions]
    return BuiltArtifacts(
        {name: by_function[name] for name in names},
        {name: portable[name] for name in names if name in portable},
        tuple(warnings),
    )


def wsgi_files(wsgi: WsgiApp | None) -> Mapping[str, bytes]:
    """Name → content of the files that the plugin serverless-wsgi packs, with a module of ours in its place."""
    if wsgi is None:
        return {}
    configuration = {"app": wsgi.app, "text_mime_types": list(wsgi.text_mime_types)}
    return {
        "wsgi_handler.py": _WSGI_HANDLER.encode(),
        "serverless_wsgi.py": Path(serverless_wsgi.__file__).read_bytes(),
        serverless_wsgi.CONFIGURATION: json.dumps(configuration).encode(),
    }


class _Build(msgspec.Struct):
    """The artifacts of the functions of one `module`: the folder that is their package's root, "" for the service's."""

    service: Service
    store: ArtifactStore
    say: Callable[[str], None]
    generated: Mapping[str, bytes]
    installer: Uv
    host: Host
    workspace: WorkFolder
    module: str
    requirements: Requirements
    by_function: dict[str, Artifact]
    portable: dict[str, Artifact]
    warnings: list[str]
    code: dict[_Source, dict[str, ZipMember]] = msgspec.field(default_factory=dict)
    installed: dict[Platform, Dependencies] = msgspec.field(default_factory=dict)
    made: dict[tuple[_Source, Platform], Artifact] = msgspec.field(default_factory=dict)
    unportable: dict[Platform, BuildError] = msgspec.field(default_factory=dict)

    def run(self) -> None:
        """Build all functions in the file's order; equal packages are built once."""
        for function in [one for one in self.service.functions if one.module == self.module]:
            declared = Platform(function.runtime, function.architecture)
            source = function.artifact or (*self.service.package_patterns, *function.package_patterns)
            different = self.host.differences(declared)
            if declared.is_program:
                check_program(function, self._code(source).get(PROGRAM), different)
            elif declared.is_node:
                used = self._dependencies(source, declared)
                for warning in check_node(function, {*self._code(source), *(used.names if used else ())}, different):
                    self._warn(warning)
            elif different and function.artifact:
                self._warn(f"this machine differs, {'; '.join(different)}: {function.artifact} is run as it is")
            elif different:
                self._warn(
                    f"{'; '.join(different)}. What runs here is built for this machine from the same requirements."
                    " It cannot be promoted or sent to AWS"
                )
                if self.host.minor != declared.minor and declared.runtime not in ENDED_RUNTIMES:
                    self._warn(f"to run {declared.runtime} here, see docs/serverless-yml.md#the-declared-python")
                if (made := self._portable(source, declared)) is not None:
                    self.portable[function.name] = made
                self.by_function[function.name] = self._artifact(source, self.host.platform, declared)
            if function.artifact or not function.is_python or not different:
                self.by_function[function.name] = self._artifact(source, declared, declared)
                if declared.runtime not in ENDED_RUNTIMES:
                    self.portable[function.name] = self.by_function[function.name]
            if function.is_python:
                self._check_handler(function, source)
        self._warn_of_contents()

    def _portable(self, source: _Source, declared: Platform) -> Artifact | None:
        """The artifact for a declared platform that is not this machine's. A promotion needs it."""
        if declared not in self.unportable:
            try:
                if declared.runtime in ENDED_RUNTIMES:
                    raise BuildError(f"Lambda no longer supports {declared.runtime}")
                return self._artifact(source, declared, declared)
            except BuildError as error:
                self.unportable[declared] = error
        self._warn(
            f"no artifact for {declared}, so this release cannot be promoted: {self.unportable[declared].message}"
        )
        return None

    def _artifact(self, source: _Source, platform: Platform, declared: Platform) -> Artifact:
        known = self.made.get((source, platform))
        if known is None:
            known = self.made[source, platform] = self._pack(
                self._code(source), self._dependencies(source, platform), platform
            )
        return replace(known, runtime=declared.runtime, architecture=declared.architecture)

    def _code(self, source: _Source) -> dict[str, ZipMember]:
        """The code of a package by name, sorted, generated files included."""
        if source not in self.code:
            code = self._unpacked(source) if isinstance(source, str) else self._selected(source)
            self.code[source] = dict(sorted(code.items()))
        return self.code[source]

    def _unpacked(self, artifact: str) -> dict[str, ZipMember]:
        where = f"package.artifact: {artifact}"
        path = self.service.folder / artifact
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.service.folder)):
            raise BuildError(f"{where} is a link to a file outside the service's folder", hint="copy the file there")
        if not path.is_file():
            raise BuildError(f"{where} is missing", hint="build it before you ship; hitless takes it as it is")
        into = self.workspace.folder / f"unpacked-{self.module.replace('/', '-')}{len(self.code)}"
        try:
            return {one.name: one for one in archive.unpacked(path, into)}
        except BuildError as error:
            raise BuildError(f"{where}: {error.message}", hint=error.hint) from error

    def _selected(self, patterns: tuple[str, ...]) -> dict[str, ZipMember]:
        folder = self.service.folder
        data = os.path.realpath(self.store.root.parent)
        if data == os.path.realpath(folder):
            raise BuildError("the data folder is the service's own folder", hint="choose another with --data-dir")
        walk = Walk(folder, PackagePatterns((f"!{self.service.file.name}", *patterns)), frozenset({data}))
        prefix = f"{self.module}/" if self.module else ""
        kept = [
            replace(file, name=file.name.removeprefix(prefix)) for file in walk.files() if file.name.startswith(prefix)
        ]
        code = {file.name: file for file in kept}
        for notice in walk.notices:
            self._warn(notice)
        code.update({name: ZipMember(name, content) for name, content in self.generated.items()})
        if not code:
            raise BuildError(
                "the package is empty: package.patterns exclude every file of the service's folder",
                hint="the last pattern that matches a file decides; write the folders to keep after '!**'",
            )
        return code

    def _dependencies(self, source: _Source, platform: Platform) -> Dependencies | None:
        if platform.is_program or isinstance(source, str) or not (platform.is_node or self.requirements.required):
            return None
        package = npm.read_package(self.service.folder) if platform.is_node else None
        if platform.is_node and package is None:
            return None
        if platform not in self.installed:
            self.installed[platform] = self._cached_or_installed(platform, package)
        return self.installed[platform]

    def _cached_or_installed(self, platform: Platform, package: Mapping[str, bytes] | None) -> Dependencies:
        folder, keep_open = self.service.folder / self.module, (self.workspace.lock_fd,)
        uv, wanted = self.installer, self.requirements
        key = npm.key_of(package, platform) if package else dependencies.key_of(folder, wanted, platform, uv.settings())
        entry = self.store.cached(key)
        if entry is None:
            count = len(wanted.required)
            what = f"the packages of {npm.PACKAGE}" if package else f"{count} requirement{'s' if count != 1 else ''}"
            self.say(f"installing {what} for {platform}")
            fresh = self.workspace.folder / f"dependencies-{key}"
            if package:
                dependencies.install(fresh, lambda files: npm.install(package, platform, files, uv.environ, keep_open))
            else:
                dependencies.install(
                    fresh, lambda files: uv.install(folder, wanted, platform, files, keep_open=keep_open)
                )
            if package is None and read_requirements(folder) != wanted:
                raise BuildError(f"{REQUIREMENTS_FILE} changed during the build", hint="run it again")
            entry = self.store.cache(fresh, key, self.workspace)
        if package is None and (platform.host or not self.host.differences(platform)):
            dependencies.compile_bytecode(entry, keep_open=keep_open)
        return entry

    def _pack(self, code: dict[str, ZipMember], used: Dependencies | None, platform: Platform) -> Artifact:
        if used is not None and platform.is_node:
            code = {name: member for name, member in code.items() if not name.startswith(npm.MODULES)}
        names = used.names if used is not None else ()
        shadowed = self._shadowed(code, names)
        zipped = self.workspace.folder / f"artifact-{self.module.replace('/', '-')}{len(self.made)}.zip"
        if used is None or not shadowed:
            unpacked = archive.write(zipped, code.values(), prefix=used.archive if used is not None else None)
        else:
            kept = [member for member in used.members() if member.name not in shadowed]
            unpacked = archive.write(zipped, [*kept, *code.values()])
        size = zipped.stat().st_size
        digest = self.store.add(zipped, used, len(names) - len(shadowed))
        if size > DIRECT_UPLOAD_LIMIT_BYTES:
            self._warn(f"a zip of {size / 1e6:.0f} MB is over Lambda's 50 MB for direct upload, so it needs a bucket")
        for first, second in case_collisions([*names, *code]):
            self._warn(f"{first} and {second} differ only by case: macOS takes them for one file")
        return Artifact(digest, size, unpacked, bool(platform.host), platform.runtime, platform.architecture)

    def _shadowed(self, code: dict[str, ZipMember], names: Iterable[str]) -> set[str]:
        """The dependencies' files that code replaces. Raises BuildError if a file of one is a folder of the other."""
        theirs = set(names)
        every = theirs | code.keys()
        if clash := every.intersection(folders_of(every)):
            raise BuildError(
                f"{shown(min(clash))} would be both a file and a folder of the package",
                hint="rename it in the service: the other comes from a dependency or is a generated file",
            )
        shadowed = theirs & code.keys()
        for name in sorted(shadowed):
            self._warn(f"{name} of the service replaces a dependency's file of the same name")
        return shadowed

    def _check_handler(self, function: Function, source: _Source) -> None:
        module, _, attribute = function.handler.rpartition(".")
        path = module.replace(".", "/")
        names = set(self._code(source)).union(*(used.names for used in self.installed.values()))
        modules = [f"{path}.py", f"{path}/__init__.py"]
        modules += [name for name in names if name.startswith(f"{path}.") and name.endswith(".so")]
        if not attribute or names.isdisjoint(modules):
            raise BuildError(
                f"functions.{function.name}.handler: {function.handler}: the package does not contain {path}.py",
                hint="write FOLDER/MODULE.FUNCTION, and check that package.patterns do not exclude the module",
            )

    def _warn_of_contents(self) -> None:
        distributions = {name for used in self.installed.values() for name in used.distributions}
        if loose := self.requirements.unpinned(distributions):
            more = f" and {len(loose) - _SHOWN_AT_MOST} more" if len(loose) > _SHOWN_AT_MOST else ""
            self._warn(
                f"{REQUIREMENTS_FILE} does not pin {', '.join(loose[:_SHOWN_AT_MOST])}{more}, so a later build may"
                " give other bytes; list what you want in requirements.in and run:"
                f" uv pip compile requirements.in -o {REQUIREMENTS_FILE}"
            )
        if built := sorted({name for used in self.installed.values() for name in used.built}):
            self._warn(
                f"{', '.join(built)}: built from source because there is no wheel; other tools may build other bytes"
            )
        if raised := sorted({one for used in self.installed.values() for one in used.raised}):
            self._warn(
                f"{', '.join(raised)}: the pinned version has no wheel for this machine's Python, so this machine runs"
                " a newer one of the same major version"
            )
        if data := sorted({name for code in self.code.values() for name in code if name.endswith(_DATABASES)}):
            self._warn(f"{data[0]} is a database and is packaged; package.patterns: ['!{data[0]}'] leaves it out")
        for name in self.requirements.with_passwords():
            if any(name in code for code in self.code.values()):
                self._warn(f"{name} contains a password in a URL and is packaged; set UV_INDEX_URL instead")
        if not self.requirements.texts:
            locks = [name for name in _OTHER_LOCKS if (self.service.folder / name).exists()]
            if locks:
                self._warn(f"{locks[0]} is not read, and there is no {REQUIREMENTS_FILE}; create one, as by uv export")

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)
