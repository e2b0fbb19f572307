"""osls, the maintained open-source line of Serverless Framework, as two subprocesses: `package` and `deploy`.

`package` runs on an overlay: a folder of links to the service's own entries, with a serverless.yml in which `package`
is replaced by one empty artifact. So nothing is zipped (the artifacts are ours), and nothing is written to the
service's folder. The overlay is made on YAML's nodes, which keeps CloudFormation's short tags.

`deploy` runs in a folder that holds only generated files, so no variable of the service is resolved a second time. Its
serverless-state.json is ours and small: osls keeps it in a bucket, and its own one holds every resolved variable. It
names no function, because the artifacts are in the bucket already.

Both subprocesses end with the process that started them. An osls that outlived a killed hitless would start an update
beside the one of the next command.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hitless.errors import CloudError, MachineError, ServiceFileError

VERSION = "4.3.1"
"""The version of osls that node/package.json pins and buildspecs install. A test compares them."""

NODE_AT_LEAST = (20, 19)
TIMEOUT_S = 3600.0
PACKAGE_TIMEOUT_S = 300.0
INSTALL_HINT = f"`npm install osls@{VERSION}` in the service's folder, or `scripts/setup --aws` in a checkout"

_SETUP = Path(__file__).resolve().parents[3] / "node"
"""The folder in which scripts/setup installs osls in a checkout; elsewhere it does not exist."""

_DONE_BY_HITLESS = {"serverless-python-requirements"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_SHOWN_LINES = 15
_SHOWN_LETTERS = 1000


_PR_SET_PDEATHSIG = 1
_END_WITH_PARENT = (
    functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if sys.platform == "linux"
    else None
)
"""Runs in the child before exec. Only Linux has it."""


@dataclass(frozen=True, slots=True)
class Osls:
    """An installed osls. `command` begins each call; `environ` is the whole environment of the subprocess."""

    command: tuple[str, ...]
    environ: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The user's own `--param`s."""

    def package(self, overlay: Path, *, stage: str, region: str, params: Mapping[str, str]) -> Packaged:
        """Compile the overlay's serverless.yml. Raises ServiceFileError with osls' own words if osls refuses it."""
        out = overlay.parent / "packaged"
        arguments = ["package", "--stage", stage, "--region", region, "--package", str(out)]
        for name, value in sorted({**self.params, **params}.items()):
            arguments += ["--param", f"{name}={value}"]
        done = self._run(arguments, overlay, PACKAGE_TIMEOUT_S)
        if done.returncode:
            raise ServiceFileError(
                f"osls cannot package the service: {_why(done)}",
                hint="fix serverless.yml; what its variables read on AWS is named by `hitless aws bootstrap --reads`",
            )
        return read((out / STATE_FILE).read_text("utf-8"))

    def deploy(self, folder: Path, state: Mapping[str, Any]) -> str | None:
        """Deploy a generated state from `folder`, which must be empty.

        Returns None if osls reports success, else its last words. The stack may still be updating or rolling back then:
        only the stack tells how the update ended.
        """
        package = folder / "package"
        package.mkdir(parents=True, exist_ok=True)
        (package / STATE_FILE).write_text(json.dumps(state), "utf-8")
        service = state["service"]
        provider = {key: service["provider"][key] for key in ("name", "region", "stage", "deploymentBucket")}
        document = {"service": service["service"], "frameworkVersion": "4", "provider": provider}
        (folder / "serverless.yml").write_text(json.dumps(document), "utf-8")
        arguments = ["deploy", "--package", str(package), "--force", "--stage", provider["stage"]]
        try:
            done = self._run([*arguments, "--region", provider["region"]], folder, TIMEOUT_S)
        except CloudError as late:
            return late.message
        return _why(done) if done.returncode else None

    def _run(self, arguments: list[str], folder: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
        environ = {**self.environ, "SLS_NOTIFICATIONS_MODE": "off", "SLS_TELEMETRY_DISABLED": "1", "CI": "1"}
        environ["NODE_NO_WARNINGS"] = "1"
        try:
            return subprocess.run(
                [*self.command, *arguments], cwd=folder, env=environ, text=True, capture_output=True,
                timeout=timeout_s, check=False, stdin=subprocess.DEVNULL, preexec_fn=_END_WITH_PARENT,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CloudError(
                f"osls {arguments[0]} took longer than {timeout_s:.0f} s", hint="repeat the command: it continues"
            ) from error


def find_osls(folder: Path, environ: Mapping[str, str], *, beside: Path = Path(sys.executable).parent) -> Osls:
    """Find osls: $HITLESS_OSLS, the service's node_modules, `beside` the `hitless` command, the checkout, PATH.

    Node is looked for beside the `hitless` command first, where scripts/setup installs one if the system's is too old.
    Raises MachineError.
    """
    environ = {**environ, "PATH": os.pathsep.join(filter(None, [str(beside), environ.get("PATH", "")]))}
    _check_node(environ)
    named = environ.get("HITLESS_OSLS")
    if named and not os.access(named, os.X_OK):
        raise MachineError(
            f"HITLESS_OSLS={named} is not an executable file", hint="set it to the path of osls, or unset it"
        )
    places = [folder / "node_modules" / ".bin" / "osls", beside / "osls", _SETUP / "node_modules" / ".bin" / "osls"]
    found = named or next((str(place) for place in places if os.access(place, os.X_OK)), None)
    found = found or shutil.which("osls", path=environ["PATH"])
    if found is None:
        raise MachineError("osls (Serverless Framework) is not installed", hint=INSTALL_HINT)
    return Osls((found,), dict(environ))


def _check_node(environ: Mapping[str, str]) -> None:
    node = shutil.which("node", path=environ.get("PATH"))
    hint = f"install Node {NODE_AT_LEAST[0]}.{NODE_AT_LEAST[1]} or newer, or run `scripts/setup --aws` in a checkout"
    if node is None:
        raise MachineError("Node is not installed; Serverless Framework needs it", hint=hint)
    said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    number = re.match(r"v(\d+)\.(\d+)\.", said)
    if number is None or (int(number[1]), int(number[2])) < NODE_AT_LEAST:
        raise MachineError(f"{node} is Node {said or 'of an unknown version'}", hint=hint)


def make_overlay(file: Path, place: Path) -> Path:
    """Make a folder under `place` that osls packages instead of the service's, and return it."""
    folder = place / "service"
    folder.mkdir(parents=True)
    for entry in file.parent.iterdir():
        if entry.name not in (file.name, ".serverless", ".hitless"):
            (folder / entry.name).symlink_to(entry)
    empty = place / "empty.zip"
    with zipfile.ZipFile(empty, "w"):
        pass
    (folder / "serverless.yml").write_text(overlay_text(file.read_text("utf-8"), str(empty)), "utf-8")
    return folder


def overlay_text(original: str, artifact: str) -> str:
    """The serverless.yml with every `package` replaced by one that takes `artifact`, without plugins whose work the
    build does, and without a profile, which would replace the credentials. Scalars and tags stay as written.
    """
    root = yaml.compose(original, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ServiceFileError("serverless.yml is not a mapping", hint="see `hitless init`")
    _remove(root, "package")
    package = yaml.MappingNode("tag:yaml.org,2002:map", [(_scalar("artifact"), _scalar(artifact))])
    root.value.append((_scalar("package"), package))
    if isinstance(provider := _get(root, "provider"), yaml.MappingNode):
        _remove(provider, "profile")
    functions = _get(root, "functions")
    for group in functions.value if isinstance(functions, yaml.SequenceNode) else [functions]:
        for _, function in group.value if isinstance(group, yaml.MappingNode) else ():
            if isinstance(function, yaml.MappingNode):
                _remove(function, "package")
    plugins = _get(root, "plugins")
    if isinstance(plugins, yaml.SequenceNode):
        plugins.value = [item for item in plugins.value if item.value not in _DONE_BY_HITLESS]
    return str(yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, width=10_000))


def _get(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in node.value if key.value == name), None)


def _remove(node: yaml.MappingNode, name: str) -> None:
    node.value = [pair for pair in node.value if pair[0].value != name]


def _scalar(text: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", text)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """osls' own reason for its failure, from its `Error:` line on, if there is one."""
    lines = [line.strip() for line in _COLOUR.sub("", done.stderr + done.stdout).splitlines() if line.strip()]
    first = next((at for at, line in enumerate(lines) if line.startswith("Error:")), 0)
    said = " ".join(lines[first : first + _SHOWN_LINES]).removeprefix("Error:").strip()
    return said[:_SHOWN_LETTERS] or f"exit {done.returncode}"


STATE_FILE = "serverless-state.json"

_PATH = re.compile(r'\$(?:\[(?:\d+|"(?:[^\\"]|\\.)*")\])*')
_PART = re.compile(r'\[(?:(\d+)|("(?:[^\\"]|\\.)*"))\]')


@dataclass(frozen=True, slots=True)
class Packaged:
    """What `osls package` made: the compiled template, and of the service what the template does not say."""

    service: str
    stage: str
    region: str
    stack_name: str
    template: dict[str, Any]
    function_names: Mapping[str, str]
    """Lambda's name of a function → its name in serverless.yml."""
    provider: Mapping[str, Any] = field(default_factory=dict)
    """Those of the provider's settings that osls does not write into the template."""


NOT_IN_TEMPLATE = ("apiGateway", "logs", "rollbackConfiguration", "stackTags", "tracing")


def decode(text: str) -> Any:
    """The document without json-cycle references: each is replaced by the object that it refers to.

    osls writes an object that occurs twice once; its second place holds `{"$ref": "$[\\"path\\"]"}`.
    """
    root = json.loads(text)
    return _resolved(root, root)


def _resolved(node: Any, root: Any) -> Any:
    places = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for at, value in places:
        node[at] = _target(value, root) if _is_reference(value) else _resolved(value, root)
    return node


def _is_reference(node: Any) -> bool:
    return isinstance(node, dict) and isinstance(node.get("$ref"), str) and bool(_PATH.fullmatch(node["$ref"]))


def _target(reference: dict[str, str], root: Any) -> Any:
    found = root
    for index, name in _PART.findall(reference["$ref"]):
        found = found[int(index)] if index else found[json.loads(name)]
    return _target(found, root) if _is_reference(found) else found


def read(text: str) -> Packaged:
    """The packaged service. Raises CloudError if the state is not of the form that osls 4 writes."""
    try:
        service = decode(text)["service"]
        provider = service["provider"]
        name, stage = str(service["service"]), str(provider["stage"])
        return Packaged(
            service=name,
            stage=stage,
            region=str(provider["region"]),
            stack_name=str(provider.get("stackName") or f"{name}-{stage}"),
            template=json.loads(json.dumps(provider["compiledCloudFormationTemplate"])),
            function_names={str(function["name"]): key for key, function in service["functions"].items()},
            provider={key: provider[key] for key in NOT_IN_TEMPLATE if provider.get(key)},
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CloudError(
            f"{STATE_FILE} has an unknown form: {error!r}", hint="install the pinned osls: scripts/setup"
        ) from error


def deployable(
    *,
    service: str,
    stage: str,
    region: str,
    bucket: str,
    template: Mapping[str, Any],
    role: str,
    directory: str,
    tags: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The state that `osls deploy --package` deploys: that template, by UpdateStack, with the stack's service role."""
    provider: dict[str, Any] = {
        "name": "aws",
        "region": region,
        "stage": stage,
        "versionFunctions": False,
        "deploymentMethod": "direct",
        "deploymentBucket": bucket,
        # osls would delete its older templates, which the deploy role may not: the bucket's lifecycle rules do
        "deploymentBucketObject": {"name": bucket, "maxPreviousDeploymentArtifacts": 1_000_000},
        "stackTags": {**(tags or {}), "hitless:service": service, "hitless:stage": stage},
        "compiledCloudFormationTemplate": template,
        "coreCloudFormationTemplate": template,
    }
    if role:
        provider["iam"] = {"deploymentRole": role}
    return {
        "service": {"service": service, "provider": provider, "functions": {}, "layers": {}},
        "package": {"artifactDirectoryName": directory},
    }
