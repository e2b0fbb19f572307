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
    for name in ("conformance/test_engine", "process/test_docs_pages", "process/test_pipeline", "process/test_smoke")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that last longest begin first. Processes share the files by their order; left to itself, xdist begins with
    those of the most tests, and one process was alone with the minutes of AWS in the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("aws") is None and not item.nodeid.startswith(LONGEST))
