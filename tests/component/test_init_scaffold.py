"""`hitless init` makes a service that works at once, and changes none of the user's files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from hitless.aws.template import load_template
from hitless.cli.init import LONGEST_NAME, TEMPLATES, _move_into_place, _staging, scaffold, service_name
from hitless.cli.main import build
from hitless.errors import UsageError
from hitless.service.load import load_service

pytestmark = pytest.mark.component

WORLDCLOCK = Path(__file__).parents[2] / "examples" / "worldclock"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(build(("init",)), ["init", *arguments])


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_new_service_passes_its_own_tests(tmp_path: Path) -> None:
    scaffold(tmp_path / "hello", "hello", "service")

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path / "hello", capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert re.search(r"\b1[0-9] passed", done.stdout)


def test_a_new_service_has_all_files_needed_to_ship(tmp_path: Path) -> None:
    files = scaffold(tmp_path / "hello", "hello", "service")

    assert set(files) == {name for name in tree(tmp_path / "hello") if (tmp_path / "hello" / name).is_file()}
    assert files == sorted(files)
    wanted = {
        "serverless.yml",
        "requirements.txt",
        "buildspec-test.yml",
        "buildspec-deploy.yml",
        "README.md",
        ".gitignore",
    }
    assert wanted <= set(files)
    assert any(name.startswith("tests/") for name in files)


def test_a_new_go_service_has_all_files_needed_to_build_and_ship(tmp_path: Path) -> None:
    done = run(str(tmp_path / "Tea_Time"), "--template", "go")
    service = load_service(tmp_path / "Tea_Time", stage="dev", environ={})

    assert "sh build.sh\n  hitless up --detach" in done.stdout
    assert (service.name, service.notices, service.functions[0].runtime) == ("tea-time", (), "provided.al2023")
    wanted = {"main.go", "api.go", "runtime.go", "api_test.go", "go.mod", "build.sh", ".gitignore", "README.md"}
    wanted |= {f"buildspec-{step}.yml" for step in ("test", "build", "deploy")} | {"deploy/requirements.txt"}
    assert wanted <= tree(tmp_path / "Tea_Time")
    assert "bootstrap" in (tmp_path / "Tea_Time" / ".gitignore").read_text().split()
    for path in (tmp_path / "Tea_Time").rglob("*"):
        assert not path.is_file() or "{{" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("runtime.go", TEMPLATES / "go" / "runtime.go"),
        ("main.go", TEMPLATES / "go" / "main.go"),
        ("build.sh", TEMPLATES / "go" / "build.sh"),
        ("openapi.json", WORLDCLOCK / "worldclock" / "openapi.json"),
        ("schemathesis.toml", WORLDCLOCK / "schemathesis.toml"),
    ],
)
def test_the_go_example_has_the_templates_runtime_and_worldclocks_contract(name: str, same_as: Traversable) -> None:
    assert (WORLDCLOCK.with_name("worldclock-go") / name).read_bytes() == same_as.read_bytes()


def test_the_go_template_has_no_workflow_for_github(tmp_path: Path) -> None:
    refused = run(str(tmp_path / "hello"), "--template", "go", "--github")

    assert refused.exit_code == 2
    assert "--github: the template go has no workflow" in refused.stderr
    assert tree(tmp_path) == set()


def test_the_service_is_named_after_its_folder(tmp_path: Path) -> None:
    run(str(tmp_path / "Tea_Time"))

    service = yaml.safe_load((tmp_path / "Tea_Time" / "serverless.yml").read_text(encoding="utf-8"))
    assert service["service"] == "tea-time"
    for path in (tmp_path / "Tea_Time").rglob("*"):
        assert not path.is_file() or "{{" not in path.read_text(encoding="utf-8")


def test_every_requirement_is_pinned_and_names_no_registry(tmp_path: Path) -> None:
    scaffold(tmp_path / "hello", "hello", "service")

    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = (tmp_path / "hello" / name).read_text(encoding="utf-8").splitlines()
        assert lines
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines), lines


def test_a_new_service_has_three_stages_in_the_order_of_promotion(tmp_path: Path) -> None:
    scaffold(tmp_path / "hello", "hello", "service")
    stages = load_service(tmp_path / "hello", stage="prod", environ={}).stages

    assert [(stage.name, stage.branch, stage.rehearsal is not None, str(stage.approval)) for stage in stages] == [
        ("dev", "dev", False, "none"),
        ("staging", "staging", True, "none"),
        ("prod", "prod", True, "manual"),
    ]
    assert [str(stage.strategy) for stage in stages] == [
        "AllAtOnce",
        "Canary10Percent1Minute",
        "Canary10Percent5Minutes",
    ]


def test_a_new_service_loads_without_notices(tmp_path: Path) -> None:
    scaffold(tmp_path / "hello", "hello", "service")
    service = load_service(tmp_path / "hello", stage="dev", environ={})

    assert (service.name, service.notices) == ("hello", ())
    routes = {f"{route.method} {route.path}" for function in service.functions for route in function.routes}
    assert {"GET /hello/{name}", "POST /greetings", "GET /health", "GET /version"} == routes


@pytest.mark.parametrize(
    "folder", [TEMPLATES / "service", TEMPLATES / "go", WORLDCLOCK], ids=["scaffold", "go", "worldclock"]
)
@pytest.mark.parametrize("step", ["test", "deploy"])
def test_each_command_of_a_pipeline_step_is_plain_text(folder: Traversable, step: str) -> None:
    """YAML reads an unquoted command with a `: ` as a map."""
    spec = yaml.safe_load((folder / f"buildspec-{step}.yml").read_text(encoding="utf-8"))

    commands = [command for phase in spec["phases"].values() for command in phase["commands"]]
    assert commands
    assert all(isinstance(command, str) for command in commands), commands


@pytest.mark.parametrize(
    ("folder", "name"),
    [("hello", "hello"), ("My API_2", "my-api-2"), ("Café", "cafe"), ("-a--b-", "a-b"), ("x1", "x1")],
)
def test_a_folders_name_is_converted_to_a_valid_service_name(folder: str, name: str) -> None:
    assert service_name(folder) == name


@pytest.mark.parametrize("folder", ["", "x", "2026", "___", "世界", "9lives", "a" * (LONGEST_NAME + 1)])
def test_init_in_a_folder_with_an_unusable_name_is_an_error(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UsageError) as refused:
        service_name(folder)

    assert refused.value.hint
    if folder:
        assert run(str(tmp_path / folder)).exit_code == 2
        assert tree(tmp_path) == set()


def test_init_in_a_folder_with_files_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"mine-{number}").write_text("mine", encoding="utf-8")
    before = tree(tmp_path)
    refused = run(str(tmp_path / "mine-0" / ".."))

    assert refused.exit_code == 2
    assert "mine-0, mine-1, mine-2, mine-3, mine-4 and 2 more" in refused.stderr
    assert tree(tmp_path) == before


def test_init_onto_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("mine", encoding="utf-8")

    assert run(str(tmp_path / "hello")).exit_code == 2
    assert (tmp_path / "hello").read_text(encoding="utf-8") == "mine"


def test_init_fills_an_empty_folder_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hello"
    (folder / ".git").mkdir(parents=True)
    inode = folder.stat().st_ino
    monkeypatch.chdir(folder)
    made = run(".")

    assert made.exit_code == 0
    assert "cd " not in made.stdout
    assert folder.stat().st_ino == inode
    assert {".git", "serverless.yml", ".gitignore"} <= tree(folder)
    assert not [name for name in tree(folder) if "hitless-init" in name]


def test_init_creates_parent_folders(tmp_path: Path) -> None:
    assert run(str(tmp_path / "a" / "b" / "hello")).exit_code == 0
    assert tree(tmp_path / "a") >= {"b", "b/hello", "b/hello/serverless.yml"}
    assert not [name for name in tree(tmp_path) if "hitless-init" in name]


def fill(folder: Path, names: list[str], *, then: Callable[[Path], None]) -> None:
    """Make a folder of these files like `scaffold`, and call the given function just before they are moved into
    place.
    """
    with _staging(folder) as staging:
        for name in names:
            (staging / name).write_text("ours", encoding="utf-8")
        then(folder)
        _move_into_place(staging, folder)


def test_a_failed_write_during_init_leaves_no_files(tmp_path: Path) -> None:
    def fail(_: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill(tmp_path / "a" / "hello", ["serverless.yml"], then=fail)

    assert tree(tmp_path) == set()


def test_files_created_during_init_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()

    with pytest.raises(FileExistsError):
        fill(tmp_path / "hello", ["a", "b", "c"], then=lambda folder: (folder / "b").touch())

    assert tree(tmp_path / "hello") == {"b"}
    assert (tmp_path / "hello" / "b").read_bytes() == b""


def commands_of(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_a_github_workflow_runs_the_pipelines_commands(tmp_path: Path) -> None:
    assert ".github/workflows/deploy.yml" not in scaffold(tmp_path / "plain", "plain", "service")
    assert ".github/workflows/deploy.yml" in scaffold(tmp_path / "hello", "hello", "service", github=True)
    workflow = yaml.safe_load((tmp_path / "hello" / ".github" / "workflows" / "deploy.yml").read_text("utf-8"))
    service = load_service(tmp_path / "hello", stage="dev", environ={})
    test, deploy = workflow["jobs"]["test"], workflow["jobs"]["deploy"]

    assert workflow[True]["push"]["branches"] == [stage.branch for stage in service.stages]  # YAML reads `on` as true
    for name, job in (("test", test), ("deploy", deploy)):
        spec = yaml.safe_load((tmp_path / "hello" / f"buildspec-{name}.yml").read_text("utf-8"))
        of_pipeline = [command for phase in spec["phases"].values() for command in phase["commands"]]
        own = [one for one in of_pipeline if not one.startswith("cd ") and "HITLESS_ARTIFACT_BUCKET" not in one]
        assert commands_of(job) == own
        (python,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert f"python{python['python-version']}" == service.functions[0].runtime
    (assumed,) = [step["with"] for step in deploy["steps"] if "configure-aws-credentials" in step.get("uses", "")]
    assert assumed["aws-region"] == service.region
    assert set(assumed) == {"aws-region", "role-to-assume", "role-session-name", "role-duration-seconds"}, "no key"
    longest = load_template("core")["Resources"]["DeployRole"]["Properties"]["MaxSessionDuration"]
    assert assumed["role-duration-seconds"] == longest == 60 * deploy["timeout-minutes"]


def test_a_github_workflow_requests_its_token_only_to_release(tmp_path: Path) -> None:
    scaffold(tmp_path / "hello", "hello", "service", github=True)
    text = (tmp_path / "hello" / ".github" / "workflows" / "deploy.yml").read_text("utf-8")
    workflow = yaml.safe_load(text)

    assert set(workflow[True]) == {"push", "pull_request"}
    assert workflow["permissions"] == {"contents": "read"}
    allowed = {name: job.get("permissions", {}) for name, job in workflow["jobs"].items()}
    assert allowed == {"test": {}, "deploy": {"contents": "read", "id-token": "write"}}
    assert workflow["jobs"]["deploy"]["if"].startswith("github.event_name == 'push' && ")
    assert workflow["jobs"]["deploy"]["needs"] == "test"


def test_actions_of_the_workflow_are_named_by_commit() -> None:
    """GitHub's security guide for Actions: "Pinning an action to a full-length commit SHA is currently the only way to
    use an action as an immutable release."
    """
    text = (TEMPLATES / "github" / "dot-github" / "workflows" / "deploy.yml").read_text("utf-8")
    used = re.findall(r"uses: (.+)", text)
    assert len(used) == 6
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_an_unknown_template_is_an_error_with_the_known_ones(tmp_path: Path) -> None:
    refused = run(str(tmp_path / "hello"), "--template", "microservice")

    assert refused.exit_code == 2
    assert "known templates: go, service" in refused.stderr
    assert "The scaffold to use: go or service." in " ".join(run("--help").stdout.replace("│", " ").split())
    assert tree(tmp_path) == set()


def test_init_prints_the_next_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("tea time")

    assert made.exit_code == 0
    assert "  cd 'tea time'\n  hitless up --detach\n" in made.stdout
    assert "git init" in made.stdout


def test_init_with_json_prints_one_document(tmp_path: Path) -> None:
    made = json.loads(run(str(tmp_path / "hello"), "--json").stdout)

    assert (made["service"], made["folder"]) == ("hello", str(tmp_path / "hello"))
    assert "serverless.yml" in made["files"]

    refused = run(str(tmp_path / "hello"), "--json")
    assert json.loads(refused.stdout)["error"]["code"] == "usage"
