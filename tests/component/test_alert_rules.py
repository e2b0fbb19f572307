"""The alert rules are valid, and name metrics that the engine has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import hitless.engine.metrics

pytestmark = pytest.mark.component

RULES = Path(__file__).parents[2] / "docs/prometheus-alerts.yml"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus is not installed")
def test_promtool_accepts_the_alert_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_alert_rules_name_metrics_of_the_engine() -> None:
    source = Path(hitless.engine.metrics.__file__).read_text()
    for name in set(re.findall(r"\bhitless_\w+", RULES.read_text())):
        assert f'"{re.sub("_(total|bucket)$", "", name)}"' in source, name
