"""Settings for all tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`pytest -m aws` uses two processes by default: its files share nothing, and mostly wait for Node."""
    if hasattr(config, "workerinput"):  # one of the two: it must not take two of its own
        return
    if (
        config.option.markexpr in ("aws", "aws and not long")
        and config.option.numprocesses is None
        and not config.option.usepdb
    ):
        config.option.numprocesses, config.option.dist = 2, "loadfile"
    config.option.loadscopereorder = False


LONGEST = tuple(
    f"tests/{name}.py"
    for name in (
        *("aws/test_release_faults", "aws/test_pipeline_run", "aws/test_release_lifecycle", "aws/test_adoption"),
        *("aws/test_release_kills", "aws/test_repair", "aws/test_homes", "aws/test_core_stack"),
        *("aws/test_release_templates", "aws/test_core_template", "aws/test_parity", "aws/test_transitions_emulated"),
        *("process/test_pipeline", "process/test_docs_pages", "process/test_drill_command", "conformance/test_engine"),
        *("process/test_pipeline_deaths", "process/test_previews", "process/test_rehearsal_load"),
        *("process/test_releases_under_load", "process/test_programs", "process/test_faults", "process/test_smoke"),
    )
)
"""Files that last half a minute and more, the longest first."""
AT_ONCE = 4


@pytest.hookimpl(trylast=True)  # when those of other marks are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that no process is alone with one at the end; after each four of them come four
    short ones. xdist hands out files in this order, and one more to a process that has no more than two tests left:
    without the short ones two of the longest were handed to the same process.
    """
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)
    long = [name for name in LONGEST if name in files]
    short = [name for name in files if name not in LONGEST and len(files[name]) > 2]
    first = [name for at in range(0, len(long), AT_ONCE) for name in (*long[at:][:AT_ONCE], *short[at:][:AT_ONCE])]
    order = dict.fromkeys((*first, *files))
    items[:] = [item for name in order for item in files[name]]
