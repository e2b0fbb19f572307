"""A receipt's page in a real Chromium: it fits a phone, follows light and dark mode, and logs nothing."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from hitless.receipts.page import render
from tests.browser.test_drill_report import chromium_command
from tests.unit.test_receipt_page import rolled_back, shown

pytestmark = pytest.mark.browser

# A window of Chromium's has at least 500 points; a frame has the width that it is given. The page's own policy is
# taken out of this copy only, since it allows no script.
MEASURE = """<script>addEventListener('load', () => {
  const r = (one) => one.getBoundingClientRect();
  const inside = [...document.querySelectorAll('.plot span')].map(r);
  parent.document.title = JSON.stringify({
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    plots: [...document.querySelectorAll('.plot')].map((one) => [r(one).width, r(one).height]),
    cut: inside.filter((one) => one.left < 0 || one.right > innerWidth).length,
    background: getComputedStyle(document.body).backgroundColor,
    first: document.querySelector('main').firstElementChild.innerText,
    bars: document.querySelectorAll('rect').length,
  });
});</script>"""


def browse(tmp_path: Path, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*chromium_command(tmp_path), "--window-size=1240,1400", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def measured(tmp_path: Path, *options: str, width: int = 1240) -> Any:
    text = render(shown(rolled_back(), rolled_back()))
    (tmp_path / "page.html").write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', MEASURE, text))
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<title>none</title><body style="margin:0"><iframe src="page.html" style="border:0;width:{width}px;'
        'height:1000px"></iframe>'
    )
    allowed = "--allow-file-access-from-files"
    dom = browse(tmp_path, frame, "--dump-dom", allowed, "--disable-web-security", *options).stdout
    found = re.search(r"<title>(\{.*?\})</title>", dom)
    assert found, dom[:500]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [390, 1240])
def test_the_receipt_page_fits_its_window_and_begins_with_the_result(tmp_path: Path, width: int) -> None:
    seen = measured(tmp_path, width=width)
    assert seen["width"] == width
    assert seen["overflow"] <= 0
    assert seen["cut"] == 0
    assert len(seen["plots"]) == 4
    assert all(wide > 0.6 * min(width, 800) and high > 60 for wide, high in seen["plots"])
    assert seen["bars"] > 20
    assert seen["first"] == "release 12: 2 of 8,000 requests failed"


def test_the_receipt_page_follows_the_readers_light_or_dark_mode(tmp_path: Path) -> None:
    light = measured(tmp_path, "--blink-settings=preferredColorScheme=1")["background"]
    dark = measured(tmp_path, "--blink-settings=preferredColorScheme=0")["background"]
    assert (light, dark) == ("rgb(246, 247, 249)", "rgb(15, 20, 27)")


def test_the_receipt_page_works_under_its_own_content_security_policy_without_console_messages(tmp_path: Path) -> None:
    page, picture = tmp_path / "receipt.html", tmp_path / "receipt.png"
    page.write_text(render(shown()))
    ran = browse(tmp_path, page, f"--screenshot={picture}", "--enable-logging=stderr")
    assert picture.stat().st_size > 30_000, "a page without its style, or without its plots, is a smaller picture"
    assert "CONSOLE" not in ran.stderr
    page.write_text(render(shown()).replace("</main>", "<script>1</script></main>"))
    assert "CONSOLE" in browse(tmp_path, page, f"--screenshot={picture}", "--enable-logging=stderr").stderr, (
        "what the policy refuses would have been seen"
    )
