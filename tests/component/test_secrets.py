"""Secrets: stored encrypted, shipped by releases, never shown."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from hitless.cli.main import main
from hitless.errors import EngineError, MachineError, UsageError
from hitless.release.document import ReleaseDocument, environment_changes
from hitless.rollout.release import Release, pool_spec
from hitless.store.secrets import KEY_VARIABLE, SecretKey, SecretStore, used_secrets, with_current
from hitless.store.store import Store
from tests.component.engine_bench import Bench, run
from tests.fakes import release_document

pytestmark = pytest.mark.component

NOW = "2026-11-30T00:00:00Z"
SERVICE = """service: shop
provider: {name: aws, runtime: python3.11, environment: {URL: 'db://u:${ssm:/shop/db}@h'}}
functions: {api: {handler: handlers.api, events: [http: GET /]}}
custom: {hitless: {stages: {dev: {}, prod: {}}}}
"""


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecretKey:
    file = tmp_path / "elsewhere" / "key"
    monkeypatch.setenv(KEY_VARIABLE, str(file))
    return SecretKey(file)


@pytest.fixture
def folder(tmp_path: Path, key: SecretKey) -> Path:
    home = tmp_path / "shop"
    home.mkdir()
    (home / "handlers.py").write_text("def api(event, context): ...\n")
    (home / "serverless.yml").write_text(SERVICE)
    return home


@pytest.fixture
def secrets(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, Any]]:
    """Runs a verb of `hitless secrets` with --json: exit code and document."""

    def call(*words: str, value: str | bytes = "", code: int = 0) -> Any:
        given = value if isinstance(value, bytes) else value.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        with pytest.raises(SystemExit) as end:
            main(["secrets", *words, "--json", "--service-dir", str(folder)])
        out, err = capsys.readouterr()
        assert end.value.code == code, err
        return json.loads(out)

    return call


def with_environment(document: ReleaseDocument, **environment: str) -> ReleaseDocument:
    functions = tuple(replace(one, environment=tuple(sorted(environment.items()))) for one in document.functions)
    return replace(document, functions=functions)


def spec_of(document: ReleaseDocument) -> dict[str, str]:
    release = Release("dev", 1, document)
    spec = pool_spec(release, document.functions[0], key="k", task_root="/t", log_dir="/l")
    assert not any(value in repr(spec) for name, value in spec.environment.items() if name == "URL")
    return dict(spec.environment)


def test_the_value_is_in_the_environment_of_workers_alone(tmp_path: Path, key: SecretKey) -> None:
    store = SecretStore(tmp_path)
    store.set("dev", "/shop/db", "s3cret", key, NOW)
    document = with_environment(release_document(), URL=f"db://u:{store.sealed('dev')['/shop/db']}@h")
    assert spec_of(document)["URL"] == "db://u:s3cret@h"
    assert "s3cret" not in f"{document!r} {document.to_json()} {store.of('dev')!r}"


def contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_secret_is_stored_encrypted_and_listed_without_its_value(
    secrets: Callable[..., Any], folder: Path, key: SecretKey
) -> None:
    stored = secrets("set", "/shop/db", value="s3cret\n")
    assert (stored["changed"], stored["used_by"], stored["needs_release"]) == (True, [], False)
    assert secrets("set", "/shop/db", value="s3cret")["changed"] is False, "a line feed at the end is not part of it"
    assert [one["name"] for one in secrets("list")] == ["/shop/db"]
    assert secrets("list", "--stage", "prod") == [], "each stage has its own"
    store = SecretStore(folder / ".hitless")
    assert key.environment([("A", store.sealed("dev")["/shop/db"])]) == {"A": "s3cret"}
    assert b"s3cret" not in contents(folder)
    for file in (store.file, key.file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("${ssm:/x}", "v"),
        ("/a//b", "v"),
        ("aws/x", "v"),
        ("/x", ""),
        ("/x", "a\0b"),
        ("/x", "v" * 8193),
        ("/x", b"\xff"),
    ],
)
def test_a_name_or_value_that_cannot_be_used_is_refused(
    secrets: Callable[..., Any], folder: Path, name: str, value: str | bytes
) -> None:
    # "A parameter name can't be prefixed with "aws" or "ssm" (case-insensitive)", letters, digits, ".", "-", "_":
    # https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html
    assert secrets("set", name, value=value, code=2)["error"]["code"] == "usage"
    assert not (folder / ".hitless" / "secrets.json").exists()


def test_a_secret_that_serverless_yml_uses_is_unset_only_by_force(secrets: Callable[..., Any]) -> None:
    secrets("set", "/shop/db", value="s3cret")
    assert "is used in stage dev by api" in secrets("unset", "/shop/db", code=1)["error"]["message"]
    secrets("unset", "/shop/db", "--force")
    assert secrets("list") == []
    assert secrets("unset", "/shop/db", code=2)["error"]["hint"] == "dev has no secrets"


def test_a_release_now_needs_a_live_release(secrets: Callable[..., Any]) -> None:
    assert secrets("set", "/shop/db", "--release", "now", value="x", code=2)["error"]["code"] == "usage"
    assert secrets("list") == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.chmod(0o640), "can be read by other users"),
        (lambda file: file.write_bytes(b"short"), "is not 32 bytes"),
        (lambda file: file.write_bytes(b"A" * 43 + b"="), "is not the key that encrypted the secret /shop/db"),
    ],
    ids=["missing", "open", "damaged", "another"],
)
def test_without_its_key_nothing_is_stored_shipped_or_started(
    harm: Callable[[Path], Any], said: str, tmp_path: Path, key: SecretKey
) -> None:
    store = SecretStore(tmp_path)
    store.set("dev", "/shop/db", "s3cret", key, NOW)
    document = with_environment(release_document(), URL=store.sealed("dev")["/shop/db"])
    harm(key.file)
    before = store.file.read_bytes()
    for refused in (lambda: store.set("prod", "/other", "v", key, NOW), lambda: spec_of(document)):
        with pytest.raises(MachineError, match=said) as error:
            refused()
        assert "s3cret" not in str(error.value.to_json())
    assert store.file.read_bytes() == before

    async def story(bench: Bench) -> None:
        with pytest.raises(MachineError, match=said):
            await bench.engine.deploy("dev", document, strategy=None, force=False)
        assert not bench.store.releases("dev")

    run(tmp_path, story)


def test_a_full_disk_for_a_secret_is_an_error_with_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    key = SecretKey(tmp_path / "key")
    key.make()
    (tmp_path / "data").mkdir()
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, limit[1]))
    try:
        with pytest.raises(OSError, match="large") as told:
            SecretStore(tmp_path / "data").set("dev", "A", "1", key, "2026-11-24T06:00:00Z")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert told.value.filename == str(tmp_path / "data" / "secrets.json")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_damaged_file_of_secrets_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{")
    with pytest.raises(EngineError, match=r"secrets\.json"):
        SecretStore(tmp_path).sealed("dev")


def test_a_release_ships_the_present_value_whatever_its_builder_read(tmp_path: Path, key: SecretKey) -> None:
    """A run may wait for a person while the secret is rotated."""
    store = SecretStore(tmp_path)
    store.set("dev", "/shop/db", "first", key, NOW)
    built = with_environment(release_document(), URL=f"db://{store.sealed('dev')['/shop/db']}@h", LEVEL="info")

    async def story(bench: Bench) -> None:
        assert (await bench.end(await deploy(bench)))["outcome"] == "live"
        assert (await bench.end(await deploy(bench)))["outcome"] == "unchanged"
        store.set("dev", "/shop/db", "first", key, NOW)
        assert (await bench.end(await deploy(bench)))["outcome"] == "unchanged", "the same value"
        store.set("dev", "/shop/db", "second", key, NOW)
        assert (await bench.end(await deploy(bench)))["release"] == 2
        assert used(bench) == {"URL": "db://second@h", "LEVEL": "info"}
        store.unset("dev", "/shop/db")
        await bench.end(await bench.engine.rollback("dev", 1))
        assert used(bench)["URL"] == "db://first@h", "a release keeps its value"

    async def deploy(bench: Bench) -> Any:
        return await bench.engine.deploy("dev", built, strategy=None, force=False)

    def used(bench: Bench) -> dict[str, str]:
        specs = [pool.spec for pool in bench.workers.running.values()]
        environment = max(specs, key=lambda spec: spec.key).environment
        return {name: text for name, text in environment.items() if not name.startswith("HITLESS")}

    run(tmp_path, story)
    rows = [json.dumps(row.document) for row in Store(tmp_path / "state.sqlite", read_only=True).releases("dev")]
    assert len(rows) == 2
    assert not any(value in row for row in rows for value in ("first@", "second@"))
    assert b"first@" not in contents(tmp_path / "logs")


def test_a_rollback_to_an_earlier_value_is_said(tmp_path: Path, key: SecretKey) -> None:
    store = SecretStore(tmp_path)
    store.set("dev", "/shop/db", "first", key, NOW)
    built = with_environment(release_document(), URL=store.sealed("dev")["/shop/db"])

    async def story(bench: Bench) -> None:
        await bench.end(await bench.engine.deploy("dev", built, strategy=None, force=False))
        store.set("dev", "/shop/db", "second", key, NOW)
        await bench.end(await bench.engine.deploy("dev", built, strategy=None, force=False))
        await bench.end(await bench.engine.rollback("dev", None))
        said = [event.sentence for event in bench.store.events(limit=50)]
        assert any("release 1 has earlier values of /shop/db" in sentence for sentence in said)

    run(tmp_path, story)


def test_changed_variables_are_named_without_their_values() -> None:
    old = with_environment(release_document("api", "gone"), A="1", B="2", C="3")
    new = with_environment(release_document("api", "new"), A="1", B="other", D="4")
    assert environment_changes(old, new.functions) == ["api.B", "api.C", "api.D"]
    assert environment_changes(old, old.functions) == []


def test_only_the_secrets_of_the_stage_are_renewed() -> None:
    document = with_environment(release_document(), A="{hitless-secret:/a:one=}-{hitless-secret:/b:two=}")
    renewed = with_current(document, {"/a": "{hitless-secret:/a:new=}"})
    assert used_secrets(renewed) == {"/a": {"api": "new="}, "/b": {"api": "two="}}
    with pytest.raises(UsageError):
        SecretStore(Path(os.devnull).parent / "nowhere").unset("dev", "/a")
