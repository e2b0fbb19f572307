"""A traceback names the author's files, not those of an artifact's tree."""

from __future__ import annotations

import pytest

from hitless.release.source import in_source, last_place

pytestmark = pytest.mark.unit

TREE = f"/srv/hello/.hitless/artifacts/trees/{'0a' * 32}"
TRACE = [
    f'  File "{TREE}/app/api.py", line 3, in <module>\n    from app import stock',
    f'  File "{TREE}/app/stock.py", line 12, in <module>\n    import nothing_like_this',
    '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode',
]


def test_files_of_a_tree_are_relative_to_the_services_folder() -> None:
    assert in_source(TRACE[0]).splitlines()[0] == '  File "app/api.py", line 3, in <module>'
    assert in_source(TRACE[2]) == TRACE[2]
    assert in_source("see /srv/trees/oak/a.py") == "see /srv/trees/oak/a.py"


def test_the_last_place_is_the_services_own() -> None:
    assert last_place(TRACE) == " (app/stock.py:12)"
    assert last_place(TRACE[2:]) == ""
    assert last_place([f'  File "{TREE}/app/api.py" Line 7\n    def x(:']) == " (app/api.py:7)"


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (f"{TREE}/src/prices.js:2", " (src/prices.js:2)"),
        (f"    at Object.<anonymous> ({TREE}/src/prices.cjs:7:3)", " (src/prices.cjs:7)"),
        (f"    at file://{TREE}/src/orders.mjs:1:8", " (src/orders.mjs:1)"),
        (f"    at main ({TREE}/node_modules/pg/lib/index.js:9:1)", ""),
        ("    at load (file:///opt/hitless/worker/bootstrap.mjs:103:22)", ""),
        ("    at Module.load (node:internal/modules/cjs/loader:1266:32)", ""),
    ],
)
def test_the_first_place_of_a_node_trace_is_the_services_own(line: str, place: str) -> None:
    later = f"    at later ({TREE}/src/later.js:1:1)"
    assert last_place(["ReferenceError: nothere is not defined", line, later]) == (place or " (src/later.js:1)")
