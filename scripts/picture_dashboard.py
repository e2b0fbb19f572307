"""Takes the pictures of docs/dashboard.md: an engine with three stages under load, a canary that an alarm rolls back, a
run that waits for approval. Needs Chromium and git; about four minutes. Called by `scripts/picture dashboard`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.chrome import Chrome, chrome  # noqa: E402
from tests.support import eventually, free_port  # noqa: E402

HITLESS = str(ROOT / ".venv" / "bin" / "hitless")
ENV = {**os.environ, "HITLESS_HANDLER_PATHS": str(ROOT)}
GREET = '    return {"greeting": greet(name)}\n'
BROKEN = '    if name == "grace" and id(object()) % 3 == 0:\n        raise RuntimeError("no greeting")\n' + GREET
RATES = {"dev": 5, "staging": 40, "prod": 15}


def hitless(*words: str, folder: Path) -> str:
    """The standard output of a command; a rolled back release is no error here."""
    done = subprocess.run([HITLESS, *words], cwd=folder, env=ENV, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git = ("git", "-c", "user.name=ada", "-c", "user.email=ada@example.com")
    subprocess.run([*git, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-qm", message], cwd=folder, check=True)


def write_service(folder: Path) -> dict[str, int]:
    """The scaffold with short bakes; returns each stage's port."""
    hitless("init", str(folder), folder=folder.parent)
    file, ports = folder / "serverless.yml", {stage: free_port() for stage in RATES}
    text = file.read_text().replace("workers: 2 ", "workers: {min: 2, max: 6} ")
    for stage, port in ports.items():
        text = text.replace(
            f"        branch: {stage}\n", f"        branch: {stage}\n        listen: 127.0.0.1:{port}\n"
        )
    text = text.replace("rehearsal: true ", "rehearsal: false ").replace("rehearsal: true\n", "rehearsal: false\n")
    alarms = "alarms: {error_rate_percent: 3, minimum_requests: 60}"
    text = text.replace("strategy: Canary10Percent1Minute", f"{alarms}\n        strategy: Canary20Percent1Minute")
    file.write_text(text)
    subprocess.run(["git", "init", "-qb", "main"], cwd=folder, check=True)
    commit(folder, "Greet people by name")
    return ports


def send(port: int, rate: int, stopped: threading.Event) -> None:
    """GET requests until stopped."""
    for number in range(1_000_000):
        path = ("hello/ada", "version", "hello/grace", "health")[number % 4]
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5).read()
        if stopped.wait(1 / rate):
            return


def take(browser: Chrome, address: str, name: str, height: int) -> None:
    for theme in ("light", "dark"):
        browser.look_like(width=1240, height=height, dark=theme == "dark")
        browser.open(address)
        time.sleep(1.5)
        browser.picture(ROOT / "docs" / f"dashboard-{name}-{theme}.png")


def main() -> None:
    stopped = threading.Event()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "worldclock"
        ports = write_service(folder)
        for stage in ports:
            hitless("up", "--detach", "--stage", stage, folder=folder)
        for stage, port in ports.items():
            threading.Thread(target=send, args=(port, RATES[stage], stopped), daemon=True).start()
        served = subprocess.Popen(
            [HITLESS, "dashboard", "--listen", "127.0.0.1:0"], cwd=folder, env=ENV, stdout=subprocess.PIPE, text=True
        )
        try:
            assert served.stdout is not None
            link = served.stdout.readline().strip()
            with chrome(Path(place)) as browser:
                browser.open(link)
                browser.wait("!!document.querySelector('.link.on')")
                tell(browser, link.partition("/enter/")[0], folder)
        finally:
            stopped.set()
            served.terminate()
            served.wait()
            hitless("down", "--force", folder=folder)


def tell(browser: Chrome, base: str, folder: Path) -> None:
    """Ship releases, and take each picture at its moment."""
    api = folder / "app" / "api.py"
    good = api.read_text()
    api.write_text(good.replace(GREET, BROKEN))
    hitless("deploy", "--stage", "staging", "-m", "Greet by time of day", folder=folder)
    take(browser, f"{base}/stages/staging", "rollout", 1160)
    take(browser, f"{base}/stages/staging/releases/2", "receipt", 1000)
    api.write_text(good + "\n# a faster greeting\n")
    commit(folder, "Cache greetings by language")
    url = hitless("pipeline", "url", folder=folder)
    subprocess.run(["git", "push", "-q", url, "HEAD:dev"], cwd=folder, env=ENV, check=True)
    hitless("promote", "dev", "prod", folder=folder)
    take(browser, f"{base}/runs/2", "run", 900)
    hitless("deploy", "--stage", "staging", "--no-wait", "-m", "Cache greetings by language", folder=folder)
    eventually(lambda: json.loads(hitless("status", "--json", folder=folder))["stages"][1]["candidate"], deadline_s=60)
    time.sleep(8)
    take(browser, f"{base}/", "overview", 760)


if __name__ == "__main__":
    main()
