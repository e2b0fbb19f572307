"""The emulators as child processes: started on free ports, awaited by a probe, ended by their own pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.support import eventually


class Emulator:
    """One emulator process on 127.0.0.1. Its output goes to a file in `folder`, for a test that fails."""

    def __init__(
        self, command: list[str], *, port: int, folder: Path, environ: Mapping[str, str], ready: str, reset: str
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{Path(command[0]).name}-{port}.log"
        self._reset = reset
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(environ),
                start_new_session=True,
            )
        try:
            eventually(lambda: self._answers(ready), deadline_s=60, every_s=0.1, what=f"{command[0]} on {self.url}")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.log.read_text(errors='replace')[-2000:]}") from None

    def _answers(self, path: str) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the emulator ended with {self.process.returncode}: {self.log.read_text()[-2000:]}")
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return bool(answer.status == 200)

    def reset(self) -> None:
        """Removes everything, as in a new emulator."""
        request = urllib.request.Request(self.url + self._reset, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    def stop(self) -> None:
        """TERM, then KILL, to the child's own session, so that its Lambda processes end too."""
        for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait(10)


def clean_environ() -> dict[str, str]:
    """This process's environment without AWS settings of the person who runs the tests."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "SLS_", "HITLESS_"))}


def start_ministack(port: int, folder: Path, *, front_url: str = "", enforce: bool = False) -> Emulator:
    """ministack on `port`. Functions that it runs reach CodeDeploy, which it does not have, at the front.

    `enforce`: signatures, policies and the trust of roles are checked; the key `test` is the root of its account, a key
    of 12 digits that of another one.
    """
    environ = clean_environ() | {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(folder),
        **({"AWS_ENDPOINT_URL": front_url} if front_url else {}),
        **({"AUTH": "true"} if enforce else {}),
    }
    command = str(Path(sys.executable).with_name("ministack"))
    return Emulator(
        [command], port=port, folder=folder, environ=environ, ready="/_ministack/ready", reset="/_ministack/reset"
    )


def start_moto(port: int, folder: Path) -> Emulator:
    command = str(Path(sys.executable).with_name("moto_server"))
    return Emulator(
        [command, "-H", "127.0.0.1", "-p", str(port)],
        port=port,
        folder=folder,
        environ=clean_environ(),
        ready="/moto-api/data.json",
        reset="/moto-api/reset",
    )
