"""Builds that leave circular links, pipes, endless files or runaway processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hitless.pipeline.buildspec.files import find_files, open_inside
from hitless.pipeline.buildspec.processes import end_user
from hitless.pipeline.buildspec.reports import LONGEST_NAME, MAX_FAILURES, MAX_FILES, MAX_REPORT_BYTES
from hitless.pipeline.buildspec.run import MAX_ARTIFACTS, MAX_FILE_BYTES
from hitless.pipeline.environments import (
    CACHES_KEPT,
    ENVIRONMENTS_KEPT,
    KEPT_S,
    MAX_CACHE_BYTES,
    environment,
    keep_cache,
    restore_cache,
)
from hitless.pipeline.workshop import BUILD_UIDS
from tests.component.test_pipeline_buildspec import Built, build
from tests.support import eventually

pytestmark = pytest.mark.component
as_root = pytest.mark.skipif(os.getuid() != 0, reason="builds run as somebody else where the engine is root")


def within(tmp_path: Path, command: str, *, head: str = "", tail: str = "", deadline_s: float = 60.0) -> Built:
    """The build's result, by a deadline, because reading it has no time limit of its own."""
    found: list[Built] = []
    phases = f"  build: {{commands: [{command!r}]}}"
    worker = threading.Thread(target=lambda: found.append(build(tmp_path, phases, head=head, tail=tail)), daemon=True)
    worker.start()
    worker.join(deadline_s)
    assert found, "the result never came"
    return found[0]


def test_circular_links_of_a_build_are_not_followed(tmp_path: Path) -> None:
    command = "for name in a b c d; do ln -s . $name; done; mkdir real; touch real/r.xml; ln -s real/r.xml linked.xml"
    done = within(tmp_path, command, tail="artifacts: {files: ['**/*.xml']}\n")
    names = [str(Path(path).relative_to(tmp_path / "source")) for path in done.build.artifacts]
    assert sorted(names) == ["linked.xml", "real/r.xml"]


@pytest.mark.parametrize("name", ["exported", "status"])
@pytest.mark.parametrize("made", ["mkfifo", "ln -s /dev/zero", "ln -s /etc/passwd"])
def test_a_link_or_pipe_in_place_of_a_status_file_is_not_read(tmp_path: Path, name: str, made: str) -> None:
    command = f"rm -f ../scratch/{name}; {made} ../scratch/{name}; exit 0"
    done = within(tmp_path, command, head="env: {exported-variables: [V]}\n")
    assert done.build.exported == {}
    assert done.phases == ({} if name == "status" else {"build": 1})


def test_exported_variables_are_limited_in_number_and_size(tmp_path: Path) -> None:
    command = "(printf V=; head -c 8000000 /dev/zero | tr '\\0' a) >> ../scratch/exported"
    done = within(tmp_path, command, head="env: {exported-variables: [V]}\n")
    assert 0 < len(done.build.exported["V"]) < 1 << 20


def test_only_counts_of_reports_are_kept(tmp_path: Path) -> None:
    case = f"<testcase name='{'x' * 9999}'><p><failure/></p><error/></testcase>"
    (tmp_path / "junit").write_text(f"<s>{case * 99}</s>")
    (tmp_path / "coverage").write_text(f"<coverage lines-valid='²' lines-covered='{'9' * 5000}'/>")
    done = within(
        tmp_path,
        "cp ../junit r.xml; cp ../coverage c.xml",
        tail="reports: {t: {files: [r.xml]}, c: {files: [c.xml], file-format: COBERTURAXML}}\n",
    )
    tests, lines = done.build.reports
    assert (tests.tests, tests.failed, len(tests.failures)) == (99, 99, MAX_FAILURES)
    assert max(map(len, tests.failures)) == LONGEST_NAME
    assert lines.coverage_percent == 0.0


def test_an_xml_report_with_a_document_type_is_refused_in_every_encoding(tmp_path: Path) -> None:
    text = "<?xml version='1.0' encoding='utf-16'?><!DOCTYPE s [<!ENTITY e 'x'>]><s><testcase name='&e;'/></s>"
    (tmp_path / "evil").write_bytes(text.encode("utf-16"))
    done = within(tmp_path, "cp ../evil evil.xml", tail="reports: {t: {files: ['*.xml']}}\n")
    assert done.build.reports[0].tests == 0
    assert "document type" in done.build.reports[0].unreadable[0]


def test_reports_are_limited_in_size_and_number(tmp_path: Path) -> None:
    (tmp_path / "whole").write_text(f"<s>{' ' * (MAX_REPORT_BYTES - 7)}</s>")
    (tmp_path / "larger").write_text(f"<s>{' ' * (MAX_REPORT_BYTES - 6)}</s>")
    done = within(
        tmp_path,
        "for n in 1 2 3 4 5; do ln ../whole whole-$n.xml; done; ln ../larger larger.xml;"
        " seq -f %.0f.txt 1001 | xargs touch",
        tail="reports: {one: {files: [larger.xml]}, all: {files: ['whole-*.xml']}, many: {files: ['*.txt']}}\n",
    )
    one, together, many = (report.unreadable for report in done.build.reports)
    assert one == ("larger.xml: larger than 16 MiB",)
    assert together == ("more than 64 MiB",)
    assert (len(many), many[-1]) == (MAX_FILES + 1, f"more than {MAX_FILES} files")


def test_files_and_artifacts_of_a_build_are_limited_in_size_and_number(tmp_path: Path) -> None:
    done = within(
        tmp_path,
        f"seq -f %.0f.txt {MAX_ARTIFACTS + 1} | xargs touch; ! truncate -s {MAX_FILE_BYTES + 1} endless",
        tail="artifacts: {files: ['*.txt']}\n",
    )
    assert done.build.succeeded, done.log
    assert len(done.build.artifacts) == MAX_ARTIFACTS


def test_a_build_folder_replaced_by_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("not the build's")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_text("mine")
    (found,) = find_files(root, ("**/*",), root)
    (root / "folder" / "file").unlink()
    (root / "folder").rmdir()
    (root / "folder").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError):
        open_inside(root, found)
    assert found.read_text() == "not the build's", "as a plain open would"


def test_a_cache_keeps_links_and_old_caches_are_removed(tmp_path: Path) -> None:
    folder, caches = tmp_path / "source", tmp_path / "caches"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "tool").write_text("x")
    (folder / "lib" / "tool").chmod(0o755)
    (folder / "lib64").symlink_to("lib")
    (folder / "out").symlink_to("/etc")
    caches.mkdir()
    for number in range(CACHES_KEPT + 3):
        keep_cache(caches / f"branch-{number}", folder, ("**/*",), None)
    assert len(list(caches.iterdir())) == CACHES_KEPT
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    restore_cache(caches / f"branch-{CACHES_KEPT + 2}", fresh, None)
    assert (fresh / "lib64").readlink() == Path("lib")
    assert os.access(fresh / "lib" / "tool", os.X_OK)
    assert not (fresh / "out").exists()


def test_unused_caches_expire_and_too_large_ones_are_not_kept(
    tmp_path: Path,
) -> None:
    folder, caches = tmp_path / "source", tmp_path / "caches"
    folder.mkdir()
    caches.mkdir()
    (folder / "file").touch()
    for branch in ("forgotten", "asked-for"):
        keep_cache(caches / branch, folder, ("**/*",), None)
        make_older(caches / branch, KEPT_S)
    restore_cache(caches / "asked-for", folder, None)
    keep_cache(caches / "now", folder, ("**/*",), None)
    assert sorted(path.name for path in caches.iterdir()) == ["asked-for", "now"]

    with (folder / "file").open("wb") as file:
        file.truncate(MAX_CACHE_BYTES + 1)
    keep_cache(caches / "now", folder, ("**/*",), None)
    keep_cache(caches / "large", folder, ("**/*",), None)
    assert (caches / "now").stat().st_size < MAX_CACHE_BYTES, "the one before stays"
    assert not (caches / "large").exists()


def make_older(path: Path, seconds: float) -> None:
    """Make it look unused for a minute longer than that."""
    last = time.time() - seconds - 60
    os.utime(path, (last, last))


def test_unused_environments_expire_unless_a_build_holds_them(tmp_path: Path) -> None:
    with environment(tmp_path, "forgotten", None, None) as forgotten:
        pass
    with environment(tmp_path, "at-work", None, None) as at_work:
        for place in (forgotten, at_work):
            make_older(place.with_name(f"{place.name}.made"), KEPT_S)
        with environment(tmp_path, "now", None, None):
            pass
        assert at_work.is_dir()
        assert {path.name.partition("-0")[0] for path in tmp_path.iterdir()} == {"at-work", "now"}


def test_old_environments_are_removed_completely(tmp_path: Path) -> None:
    for number in range(ENVIRONMENTS_KEPT + 3):
        with environment(tmp_path, f"key{number}", None, None) as place:
            (place / "made").symlink_to(tmp_path / "elsewhere")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == ENVIRONMENTS_KEPT
    assert len(list(tmp_path.glob("*.lock"))) == ENVIRONMENTS_KEPT
    assert not (tmp_path / "elsewhere").exists()


@as_root
def test_a_process_that_keeps_forking_is_ended(tmp_path: Path) -> None:
    uid = BUILD_UIDS[-1]
    source = "import os\nos.setsid()\nwhile True:\n    if os.fork(): os._exit(0)\n"
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import os\nif os.fork(): os._exit(0)\n{source}"],
        user=uid, group=uid, extra_groups=[], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert of_user(uid)
    end_user(uid)
    eventually(lambda: not of_user(uid), what="none of its processes is left")


def of_user(uid: int) -> bool:
    return subprocess.run(["pgrep", "-u", str(uid)], stdout=subprocess.DEVNULL, check=False).returncode == 0
