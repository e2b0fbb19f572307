"""The same handler for a server that does not name the release by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import handlers

_FILE = Path(__file__).with_name("RELEASE")
RELEASE = _FILE.read_text() if _FILE.exists() else "1"


def hello(event: dict[str, Any], context: Any) -> dict[str, Any]:
    answer = handlers.hello(event, context)
    answer["headers"]["x-hitless-release"] = RELEASE
    return answer
