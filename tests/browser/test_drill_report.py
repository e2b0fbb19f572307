"""The drill's page in a real Chromium: it fits, nothing is empty or cut off, and it follows light and dark mode."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from hitless.drill.report import render
from tests.unit.test_drill_report import drilled

pytestmark = pytest.mark.browser

# Runs in a copy of the page whose policy is taken out: the page itself allows no script.
MEASURE = """<script>addEventListener('load', () => {
  const box = (one) => {
    const r = one.getBoundingClientRect();
    return {l: r.left, r: r.right, w: r.width, h: r.height};
  };
  const tiles = [...document.querySelectorAll('.tile')];
  tiles.forEach((one) => { one.querySelector('b').textContent = '1,027.6 → 1,067.8'; });
  const marks = [...document.querySelectorAll('svg .mark, svg .axis')].map(box);
  document.title = JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth,
    plots: [...document.querySelectorAll('svg.plot')].map(box),
    crowded: tiles.filter((one) => one.scrollWidth > one.clientWidth).length,
    outside: marks.filter((one) => one.l < 0 || one.r > innerWidth).length,
    background: getComputedStyle(document.body).backgroundColor,
    shapes: document.querySelectorAll('svg polygon, svg polyline, svg rect').length,
  });
});</script>"""


def chromium_command(tmp_path: Path) -> list[str]:
    """Headless Chromium that makes no requests of its own."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium (on Debian: apt-get install chromium)")
    return [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--hide-scrollbars"),
    ]


def chromium(tmp_path: Path, page: Path, *options: str, width: int = 1240) -> str:
    """The browser's standard output."""
    return run_chromium(tmp_path, page, *options, width=width).stdout


def run_chromium(tmp_path: Path, page: Path, *options: str, width: int = 1240) -> subprocess.CompletedProcess[str]:
    """Opens the page once and ends the browser."""
    return subprocess.run(
        [*chromium_command(tmp_path), f"--window-size={width},1400", *options, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def console(tmp_path: Path, page: Path, *options: str) -> list[str]:
    """The page's messages on the browser's console."""
    done = run_chromium(tmp_path, page, "--dump-dom", "--enable-logging=stderr", *options)
    assert "</html>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(tmp_path: Path, *options: str, width: int = 1240, failures: int = 10) -> Any:
    """Measurements of the page in the browser."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', MEASURE, render(drilled(failures=failures)))
    page = tmp_path / "measured.html"
    page.write_text(text)
    dom = chromium(tmp_path, page, "--dump-dom", *options, width=width)
    found = re.search(r"<title>(\{.*?\})</title>", dom)
    assert found, dom[:500]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("width", [1240, 500])
def test_the_drill_report_fits_its_window_and_every_plot_is_drawn(tmp_path: Path, width: int) -> None:
    seen = measured(tmp_path, width=width)
    assert seen["overflow"] <= 0
    assert seen["crowded"] == 0, "a tile is as wide as its figure"
    assert len(seen["plots"]) == 4
    assert all(plot["w"] >= 720 and plot["h"] > 120 for plot in seen["plots"]), "legible, by scrolling where need be"
    assert width < 1000 or seen["outside"] == 0
    assert seen["shapes"] > 30


def test_the_drill_report_follows_the_readers_light_or_dark_mode(tmp_path: Path) -> None:
    light = measured(tmp_path, "--blink-settings=preferredColorScheme=1")["background"]
    dark = measured(tmp_path, "--blink-settings=preferredColorScheme=0")["background"]
    assert light == "rgb(246, 247, 249)"
    assert dark == "rgb(15, 20, 27)"


@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_a_phone_shows_the_report_without_sideways_scrolling_or_console_messages(tmp_path: Path, scheme: int) -> None:
    page, outer = tmp_path / "drill.html", tmp_path / "phone.html"
    page.write_text(render(drilled(failures=10)))
    script = MEASURE.replace("document.title = JSON", "parent.postMessage(JSON").replace(
        "length,\n  })", "length,\n  }), '*')"
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', script, page.read_text())
    (tmp_path / "inner.html").write_text(text)
    outer.write_text(
        "<script>addEventListener('message', (event) => { document.title = event.data; });</script>"
        '<iframe src="inner.html" style="width:360px;height:800px;border:0"></iframe>'
    )
    dom = chromium(tmp_path, outer, "--dump-dom", f"--blink-settings=preferredColorScheme={scheme}")
    found = re.search(r"<title>(\{.*?\})</title>", dom)
    assert found, dom[:500]
    assert json.loads(unescape(found[1]))["overflow"] <= 0
    said = console(tmp_path, page, f"--blink-settings=preferredColorScheme={scheme}")
    assert said == []


def test_console_messages_are_detected(tmp_path: Path) -> None:
    page = tmp_path / "loud.html"
    page.write_text(render(drilled()).replace("</main>", '<img src="http://127.0.0.1:1/x.png"></main>'))
    assert any("Content Security Policy" in line for line in console(tmp_path, page)), "its policy lets nothing in"


def test_the_drill_report_works_under_its_own_content_security_policy(tmp_path: Path) -> None:
    page, picture = tmp_path / "drill.html", tmp_path / "drill.png"
    page.write_text(render(drilled()))
    chromium(tmp_path, page, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 30_000, "a page without its style, or without its plots, is a smaller picture"
