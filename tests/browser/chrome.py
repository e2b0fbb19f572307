"""A Chromium that a test drives: the DevTools protocol over two pipes (`--remote-debugging-pipe`), by the standard
library alone. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Chrome:
    """One page of a browser. `messages`: what the page's console showed, exceptions and refused requests included."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from, self._rest, self._last = to_browser, from_browser, b"", 0
        self.messages: list[str] = []
        self.bytes_received = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._page = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def do(self, method: str, **given: Any) -> Any:
        """One command to the page."""
        return self._call(method, self._page, **given)

    def look_like(self, *, width: int, height: int = 900, dark: bool = False, scale: float = 1) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.do("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        self.do("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression; a promise is awaited."""
        answer = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> Any:
        """The value of the expression as soon as it is true; a page that is just loading is not asked."""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            answer = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
            if "exceptionDetails" not in answer and answer.get("result", {}).get("value"):
                return answer["result"]["value"]
            self._read(0.05)
        raise AssertionError(f"never true: {script}\n{self.messages}\n{self.run('document.body.innerText')[:2000]}")

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, "")
        codes = {"Tab": 9, "Enter": 13, "Escape": 27}
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.do("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **more)

    def picture(self, file: Path, *, whole: bool = False) -> None:
        taken = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))

    def _call(self, method: str, session: str = "", **given: Any) -> Any:
        self._last += 1
        document = {"id": self._last, "method": method, "params": given, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(document).encode() + b"\0")
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            for answer in self._read(0.5):
                if answer.get("id") == self._last:
                    assert "error" not in answer, (method, answer["error"])
                    return answer["result"]
        raise AssertionError(f"{method}: Chromium does not respond")

    def _read(self, patience_s: float) -> list[Any]:
        """The documents that came; the page's messages among them are kept."""
        if not select.select([self._from], [], [], patience_s)[0]:
            return []
        *whole, self._rest = (self._rest + os.read(self._from, 1 << 20)).split(b"\0")
        found = [json.loads(one) for one in whole]
        for one in found:
            self._note(one.get("method"), one.get("params", {}))
        return found

    def _note(self, method: str | None, given: Any) -> None:
        match method:
            case "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(one.get("value")) for one in given["args"]))
            case "Runtime.exceptionThrown":
                self.messages.append(str(given["exceptionDetails"]))
            case "Log.entryAdded":
                self.messages.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
            case "Network.loadingFinished":
                self.bytes_received += given["encodedDataLength"]


@contextmanager
def chrome(folder: Path) -> Iterator[Chrome]:
    """A browser with a profile in the folder; it has ended when the block ends. FileNotFoundError without Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError("needs Chromium (on Debian: apt-get install chromium)")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    process = subprocess.Popen(
        [
            *("bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", browser),
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"),
        ],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        one = Chrome(ours_out, ours_in)
        yield one
        one._call("Browser.close")
    finally:
        os.close(ours_out)
        os.close(ours_in)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
