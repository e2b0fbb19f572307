"""The arrows of the architecture, made executable: who may import whom, no cycles, no lazy import of our own."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SOURCE = Path(__file__).parents[2] / "src" / "hitless"

SERVICES = {"rollout", "scaling", "drill", "engine", "cloud", "receipts", "pipeline"}
ADAPTERS = {"forge", "gateway", "workers", "store", "artifact", "aws"}
BASE = {"errors", "clock", "documents", "charts", "pages", "hitless"}
MODEL = {"release", "service", *BASE}

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "clock": set(),
    "charts": set(),
    "documents": {"errors"},
    "pages": {"pages", "documents", "errors"},
    "service": {"service", *BASE},
    "release": MODEL,
    "worker": {"worker"},
    "checks": {"checks"},
    "gateway": {"gateway", "worker", *MODEL},
    "store": {"store", *MODEL},
    "artifact": {"artifact", *MODEL},
    "receipts": {"receipts", *MODEL},
    "workers": {"workers", "worker", *MODEL},
    "scaling": {"scaling", *MODEL},
    "rollout": {"rollout", "scaling", "worker", "checks", *ADAPTERS, *MODEL},
    "engine": {"engine", "rollout", "scaling", "worker", *ADAPTERS, *MODEL},
    "drill": {"drill", "receipts", *ADAPTERS, *MODEL},
    "forge": {"forge", *MODEL},
    "pipeline": {"pipeline", "homes", "forge", "engine", "rollout", "drill", "receipts", "worker", *ADAPTERS, *MODEL},
    "aws": {"aws", *MODEL},
    "cloud": {"cloud", *ADAPTERS, *MODEL},
    "homes": {"homes", "api", "engine", "cloud", "drill", "receipts", *ADAPTERS, *MODEL},
    "api": {"api", *SERVICES, *ADAPTERS, *MODEL},
    "dashboard": {"dashboard", "api", "engine", "receipts", "pipeline", "homes", *ADAPTERS, *MODEL},
    "cli": {"cli", "api", "dashboard", "homes", "templates", "traces", *SERVICES, *ADAPTERS, *MODEL},
    "traces": {"traces", "pipeline", "engine", "rollout", *ADAPTERS, *MODEL},
    "processes": {"processes", "cli", "api", "homes", "worker", *SERVICES, *ADAPTERS, *MODEL},
    "templates": BASE,
}

WITHIN_CLOUD: dict[str, set[str]] = {
    "transform": set(),
    "transition": {"transform"},
    "setup": {"transform"},
    "records": {"transform"},
    "stage": {"records", "transform"},
    "release": {"stage", "records", "transition", "transform"},
    "repair": {"release", "stage", "records", "transform"},
    "adoption": {"release", "stage", "records", "transition", "transform"},
    "status": {"repair", "stage", "records", "transform"},
}


@pytest.fixture(scope="module", autouse=True)
def _trees() -> Iterator[None]:
    """All modules are parsed once, and their trees, 100 MB, are not kept for other tests."""
    yield
    modules.cache_clear()


@functools.cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(_modules())


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        if relative.parts[0] == "templates" and len(relative.parts) > 2:
            continue
        parts = ("hitless", *relative.with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(), str(path))


def own_imports(tree: ast.AST, known: set[str]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "hitless")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hitless":
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                yield (target if target in known else str(node.module)), node.lineno


def area(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def part(module: str) -> str:
    return module.split(".")[2]


def test_every_import_follows_the_allowed_directions() -> None:
    found = dict(modules())
    wrong = [
        f"{name}:{line} imports {target}"
        for name, tree in found.items()
        if name not in ("hitless", "hitless.__main__")
        for target, line in own_imports(tree, set(found))
        if area(target) not in ALLOWED[area(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_aws_packages_import_each_other_in_one_direction() -> None:
    found = {name: tree for name, tree in modules() if name.startswith("hitless.cloud.")}
    wrong = [
        f"{name}:{line} imports {target}"
        for name, tree in found.items()
        for target, line in own_imports(tree, set(found))
        if area(target) == "cloud" and (of := part(target)) != part(name) and of not in WITHIN_CLOUD[part(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_homes_import_only_the_apis_client_and_requests() -> None:
    found = {name: tree for name, tree in modules() if area(name) == "homes"}
    known = dict(modules())
    targets = {target for tree in found.values() for target, _ in own_imports(tree, set(known))}
    assert {target for target in targets if area(target) == "api"} == {
        "hitless.api.client",
        "hitless.api.requests",
    }


def test_no_module_imports_our_own_inside_a_function() -> None:
    found = dict(modules())
    lazy = [
        f"{name}:{line} imports {target} in {function.name}"
        for name, tree in found.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for target, line in own_imports(function, set(found))
    ]
    assert not lazy, "\n".join(lazy)


def test_no_modules_import_each_other_in_a_cycle() -> None:
    found = dict(modules())
    graph = {name: {target for target, _ in own_imports(tree, set(found))} for name, tree in found.items()}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for target in sorted(graph.get(module, ())):
            if target != module:
                walk(target, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_every_program_outside_worker_is_a_module_of_processes() -> None:
    programs = {name for name, tree in modules() if any(map(_runs_as_program, tree.body))}
    assert not {name for name in programs if area(name) not in ("processes", "worker")}


def test_every_process_is_started_by_its_module_name() -> None:
    processes = {name for name, _ in modules() if name.startswith("hitless.processes.")}
    named = re.findall(r'"(hitless\.processes\.\w+)(\{[^"]*\})?"', "\n".join(map(Path.read_text, SOURCE.rglob("*.py"))))
    started = {name + end for name, varies in named for end in (("1", "2") if varies else ("",))}
    assert started == processes


def _runs_as_program(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)


def test_only_the_wiring_builds_the_gateway_and_the_fleet() -> None:
    builders = [
        f"{name}:{node.lineno} builds {node.func.id}"
        for name, tree in modules()
        if name != "hitless.cli.wire"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Gateway", "Fleet")
    ]
    assert not builders, "\n".join(builders)


def test_only_the_store_uses_sqlite() -> None:
    users = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and any(alias.name == "sqlite3" for alias in node.names)
    }
    assert users == {"hitless.store.store", *(name for name in users if name.startswith("hitless.store."))}


def test_the_worker_imports_only_the_standard_library_httptools_uvloop_and_setproctitle() -> None:
    allowed = {*sys.stdlib_module_names, "httptools", "uvloop", "setproctitle", "hitless"}
    foreign = []
    for name, tree in modules():
        if area(name) != "worker":
            continue
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            foreign += [f"{name} imports {each}" for each in names if each.split(".")[0] not in allowed]
    assert not foreign, "\n".join(foreign)


def test_a_command_takes_plain_options_without_loading_their_validators() -> None:
    """Each of these takes 10 to 90 ms of a command's processor time."""
    heavy = {"pydantic", "packaging", "croniter", "dateutil", "hitless.gateway.state"}
    words = ["deploy", "--stage", "dev", "--param", "a=b", "--no-wait", "--data-dir", "/nonexistent"]
    words += ["--service-dir", str(SOURCE.parents[1] / "examples" / "worldclock")]
    script = f"""
import sys
from hitless.cli.main import main
try:
    main({words})
except SystemExit as end:
    print(end.code, *sorted({heavy} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5"], done.stderr


def test_gits_hook_loads_no_command_line() -> None:
    script = (
        "import sys, hitless.processes.git_hook; print(*{'typer', 'yaml', 'hitless.cli'}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_command_that_asks_the_daemon_loads_no_engine() -> None:
    """A command's start is half of its time, and of git's hook's; these run many times a day."""
    modules = ["hitless.processes.git_hook"]
    modules += [f"hitless.cli.{name}" for name in ("deploy", "logs", "pipeline", "promote", "status", "up")]
    heavy = {
        "hitless.engine.engine",
        "hitless.pipeline.parts",
        "hitless.gateway.render",
        "boto3",
        "uvicorn",
    }
    script = f"import sys, {', '.join(modules)}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
