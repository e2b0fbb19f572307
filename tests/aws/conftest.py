"""Fixtures of the AWS tests: one ministack behind one front for the session, reset before each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws.emulated import EmulatedAws, emulated_aws
from tests.aws.front.emulators import Emulator, start_moto
from tests.support import free_port

TIMEOUT_S = 600
"""When a test is taken for hung. The longest takes a minute on a quiet machine, beside other load many times that."""

CLOCK_FACTOR = pytest.StashKey[float]()


@pytest.fixture(scope="session")
def running_aws(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[EmulatedAws]:
    """Started once, because ministack takes seconds to start."""
    with emulated_aws(tmp_path_factory.mktemp("emulators")) as running:
        pytestconfig.stash[CLOCK_FACTOR] = running.front.codedeploy.clock_factor
        yield running


@pytest.fixture
def aws(running_aws: EmulatedAws) -> EmulatedAws:
    """Emulated AWS without any resources."""
    running_aws.front.reset()
    running_aws.emulator.reset()
    return running_aws


@pytest.fixture(scope="session")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The second emulator, for resources that ministack refuses: NAT gateways, addresses, flow logs."""
    emulator: Emulator = start_moto(free_port(), Path(tmp_path_factory.mktemp("moto")))
    try:
        yield emulator.url
    finally:
        emulator.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sets the same timeout for every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints how much faster than on AWS the emulated CodeDeploy's minutes passed."""
    factor = config.stash.get(CLOCK_FACTOR, None)
    if factor is not None:
        terminalreporter.write_line(f"emulated CodeDeploy: a minute lasted {60 / factor:g} s (clock factor {factor:g})")
