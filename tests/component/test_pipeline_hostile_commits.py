"""Hostile commits and pushes: control characters, git attributes, huge files and messages, links."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hitless.errors import MachineError
from hitless.pipeline.definition import Definition
from hitless.pipeline.orders import NOTHING, RefUpdate
from hitless.pipeline.packaging import PackageOrder, package_in_process
from hitless.pipeline.pushes import MAX_UPDATES
from hitless.pipeline.repository import MAX_PUSH_BYTES, Repository
from hitless.release.document import ReleaseDocument
from hitless.service.files import repository_root
from tests.component.artifact_support import RUNTIME, a_service, make_wheel
from tests.component.pipeline_bench import DEFINITION, PipelineBench, tell_story

pytestmark = pytest.mark.component


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PipelineBench]:
    one = PipelineBench(tmp_path)
    yield one
    one.store.close()


def push(bench: PipelineBench, *words: str) -> str:
    """Commit the changes added in the clone and push them; returns the commit."""
    bench.git("add", "--all")
    bench.git("commit", "-q", "--allow-empty", *words)
    bench.git("push", "-q", "--force", str(bench.repository.folder), "dev")
    return bench.git("rev-parse", "HEAD")


def test_commit_texts_are_one_line_without_control_characters(bench: PipelineBench) -> None:
    first = push(bench, "-m", "begun")
    name = "A\u2028da \x1b[2J"
    evil = push(bench, "--author", f"{name} <a@example.org>", "-m", "one\x1b[31m\u2028two\x0bthree\rfour")
    described = asyncio.run(bench.repository.describe(evil))
    assert (described.subject, described.author) == ("one�[31m�two�three�four", "A�da �[2J")
    assert asyncio.run(bench.repository.commits_between(first, evil)) == (described,)


def test_a_huge_commit_message_is_refused(bench: PipelineBench, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(b"s" * (17 << 20))
    large = push(bench, "-F", str(tmp_path / "message"))
    with pytest.raises(MachineError, match="printed more than"):
        asyncio.run(bench.repository.describe(large))


def test_a_commits_attributes_run_no_filter_of_the_operator(
    bench: PipelineBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.clone / ".gitattributes").write_text("* filter=theirs\n")
    (bench.clone / "code").write_text("as it was pushed")
    commit = push(bench, "-m", "with attributes")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text('[filter "theirs"]\n\tsmudge = echo filtered\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "out").mkdir()
    asyncio.run(bench.repository.extract(commit, tmp_path / "out"))
    assert (tmp_path / "out" / "code").read_text() == "as it was pushed"


def test_export_attributes_in_gitattributes_are_ignored(bench: PipelineBench, tmp_path: Path) -> None:
    """The files are those of a clone: a buildspec that is left out would skip the tests."""
    (bench.clone / "sub").mkdir()
    for name in ("buildspec-test.yml", "sub/kept", "sub/words"):
        (bench.clone / name).write_text("$Format:%an$")
    (bench.clone / ".gitattributes").write_text(
        "[attr]gone export-ignore\nbuildspec-test.yml gone\nsub export-ignore\n"
    )
    (bench.clone / "sub" / ".gitattributes").write_text("kept export-ignore\nwords export-subst\n")
    commit = push(bench, "-m", "with attributes")
    (tmp_path / "out").mkdir()
    asyncio.run(bench.repository.extract(commit, tmp_path / "out"))
    assert (tmp_path / "out" / "buildspec-test.yml").exists()
    assert (tmp_path / "out" / "sub" / "kept").exists()
    assert (tmp_path / "out" / "sub" / "words").read_text() == "$Format:%an$"


def test_a_too_large_push_or_fetch_is_refused(bench: PipelineBench, monkeypatch: pytest.MonkeyPatch) -> None:
    said = bench.git("--git-dir", str(bench.repository.folder), "config", "receive.maxInputSize")
    assert int(said) == MAX_PUSH_BYTES, "git itself refuses a larger push"
    bench.git("switch", "-q", "-c", "large")
    (bench.clone / "noise").write_bytes(os.urandom(1 << 20))
    bench.git("add", "--all")
    bench.git("commit", "-q", "-m", "large")
    monkeypatch.setattr("hitless.pipeline.repository.MAX_PUSH_BYTES", 1 << 18)
    with pytest.raises(MachineError, match="git fetch"):
        asyncio.run(bench.repository.fetch(str(bench.clone), "refs/heads/large"))
    assert not asyncio.run(bench.repository.has(bench.git("rev-parse", "large")))


def test_a_push_of_too_many_branches_is_refused_and_one_of_many_starts_ten_runs(tmp_path: Path) -> None:
    async def story(bench: PipelineBench) -> None:
        commit = bench.commit("1")
        many = [RefUpdate(NOTHING, commit, f"refs/heads/feature-{number}") for number in range(MAX_UPDATES + 1)]
        refused = await bench.pipeline.check(many, {}, "ada")
        assert refused == ["more than 1000 branches and tags in one push"]
        assert await bench.pipeline.check(many[1:], {}, "ada") == []

        bench.git("push", "-q", str(bench.repository.folder), *(f"dev:{one.ref}" for one in many[:12]))
        started = await bench.pipeline.push(many[:12], {}, "ada")
        runs = [one for one in started if isinstance(one, int)]
        assert started[10:] == [f"feature-{one} starts no run: more than 10 in one push" for one in (10, 11)]
        assert len(runs) == len(bench.records.runs()) == 10
        for run in runs:
            await bench.end_of(run)

    tell_story(tmp_path, story)


def test_a_commit_whose_checkout_would_be_too_large_is_refused(bench: PipelineBench, tmp_path: Path) -> None:
    def written(*words: str, text: str) -> str:
        done = subprocess.run(["git", *words], cwd=bench.clone, input=text, text=True, capture_output=True, check=True)
        return done.stdout.strip()

    push(bench, "-m", "begun")
    blob = written("hash-object", "-w", "--stdin", text="x" * 1000)
    tree = written("mktree", text="".join(f"100644 blob {blob}\tf{n}\n" for n in range(10)))
    for _ in range(3):
        tree = written("mktree", text="".join(f"040000 tree {tree}\td{n}\n" for n in range(10)))
    bench.git("reset", "-q", "--soft", bench.git("commit-tree", tree, "-p", "dev", "-m", "ten thousand files"))
    bench.git("push", "-q", str(bench.repository.folder), "HEAD:dev")
    (tmp_path / "out").mkdir()
    bounded = Repository(bench.repository.folder, max_bytes=1 << 20)
    with pytest.raises(MachineError, match="take up more than 1048576 bytes"):
        asyncio.run(bounded.extract(bench.git("rev-parse", "HEAD"), tmp_path / "out"))
    assert sum(1 for _ in (tmp_path / "out").rglob("f*")) <= (1 << 20) // 1000


def test_a_service_folder_linked_out_of_the_commit_is_not_packaged(tmp_path: Path) -> None:
    def prepare(bench: PipelineBench) -> None:
        replace(DEFINITION, path="shop").write(bench.pipeline.parts.workshop.definition)

    async def story(bench: PipelineBench) -> None:
        (elsewhere := tmp_path / "elsewhere").mkdir()
        (elsewhere / "code").write_text("not the commit's")
        (bench.clone / "shop").symlink_to(elsewhere)
        bench.commit("1")
        run = await bench.end_of(await bench.push())
        assert (run["state"], run["reason"]) == ("failed", "build: shop leads out of the commit's files")

    tell_story(tmp_path, story, prepare=prepare)


def test_a_service_file_cannot_read_above_its_checkout(tmp_path: Path) -> None:
    """The engine's data folder is in a git repository, to whose root a service file could reach up."""
    roots: list[Path] = []

    def prepare(bench: PipelineBench) -> None:
        async def package(order: PackageOrder, log: Path) -> tuple[ReleaseDocument, Definition]:
            roots.append(repository_root(order.folder))
            return await bench.packaging(order, log=log)

        bench.replace_parts(package=package)

    async def story(bench: PipelineBench) -> None:
        (tmp_path / ".git").mkdir()
        bench.commit("1")
        await bench.end_of(await bench.push())
        assert roots == [bench.pipeline.parts.workshop.work_of(1) / "package"]

    tell_story(tmp_path, story, prepare=prepare)


def test_a_commit_cannot_move_roots_uv_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the pusher's, root's writes would follow links."""
    service, theirs = tmp_path / "service", tmp_path / "theirs"
    make_wheel(service / "wheels", "dep", "1.0", {"dep/__init__.py": ""})
    a_service(service, requirements="--no-index\n--find-links wheels\ndep==1.0\n")
    (service / "uv.toml").write_text(f'cache-dir = "{theirs}"\n')
    what = f"provider: {{name: aws, runtime: {RUNTIME}}}\n"
    what += "functions: {api: {handler: src/handlers.api, events: [{http: GET /}]}}\n"
    (service / "serverless.yml").write_text(f"service: sample\n{what}")
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    order = PackageOrder(service, "", "dev", "0" * 40, None, None)
    document, _ = asyncio.run(package_in_process(tmp_path / "artifacts", order, log=tmp_path / "log"))
    assert document.artifacts
    assert (tmp_path / "cache" / "uv").is_dir()
    assert not theirs.exists()
