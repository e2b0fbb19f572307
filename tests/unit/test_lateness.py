"""The message for a start that took too long."""

from __future__ import annotations

import pytest

from hitless.workers.launch import LONGEST_LINE, last_seen, late_message, machine_is_busy

pytestmark = pytest.mark.unit

DUMP = [
    "Thread 0x00007f1 (most recent call first):",
    '  File "/usr/lib/python3.11/threading.py", line 324 in wait',
    "",
    "Current thread 0x00007f2 (most recent call first):",
    '  File "/service/app.py", line 2 in <module>',
    '  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed',
]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ""),
        (["connecting", " "], "it wrote `connecting`"),
        (DUMP, "it was at /service/app.py line 2"),
        (["one", "two", *DUMP], "it was at /service/app.py line 2, after it wrote `two`"),
        (["12:00\tred \x1b[31m"], "it wrote `12:00 red  [31m`"),
        (["x" * 500], f"it wrote `{'x' * LONGEST_LINE}`"),
    ],
)
def test_a_late_starts_last_output_and_position_are_reported(lines: list[str], said: str) -> None:
    assert last_seen(lines) == said


def test_a_late_start_on_an_overloaded_machine_says_so() -> None:
    assert machine_is_busy(3.9, 2) == ""
    assert late_message("shop/dev r1 api", 10, ["connecting"], 25.04, 2) == (
        "shop/dev r1 api was not ready within 10 s; it wrote `connecting`; the machine is overloaded"
        " (load 25.0 on 2 processors); the stage's ready_timeout_s sets the limit"
    )
    assert (
        late_message("a", 10, [], 0.1, 2) == "a was not ready within 10 s; the stage's ready_timeout_s sets the limit"
    )
