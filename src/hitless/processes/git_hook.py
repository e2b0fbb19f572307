"""The git hook of an engine's repository: `DATA_DIR [SERVICE] pre-receive|post-receive`. Started by git on a push.

The first asks the engine whether to refuse the push. The second starts its runs and prints their logs, which git shows
to the pusher. A pusher who disconnects stops nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from msgspec.structs import replace

from hitless.api.client import EngineClient, RemoteError
from hitless.api.requests import PushRequest
from hitless.engine.folders import Folders
from hitless.errors import EngineNotRunningError, HitlessError
from hitless.pipeline.buildspec.output import visible
from hitless.pipeline.orders import RefUpdate
from hitless.release.who import who

MAX_OPTIONS = 20


def main() -> int:
    """0, or 1 if the push is refused."""
    data, *named, name = sys.argv[1:]
    service = named[0] if named else None
    started: int | None = None
    push = PushRequest([RefUpdate(*line.split(None, 2)) for line in sys.stdin.read().splitlines()], _options(), who())
    try:
        folders = Folders.of(Path(data), os.environ)
        if not folders.engine_is_alive():
            raise EngineNotRunningError(f"no engine is running on {folders.data}")
        client = EngineClient(folders.api_socket)
        if name == "pre-receive":
            asked = replace(push, lineage=_lineage(push.updates))
            refusals = client.call("POST", "/pipeline/check", asked, service=service)["refusals"]
            for sentence in refusals:
                _say(f"refused: {sentence}\n")
            return 1 if refusals else 0
        for line in client.stream("POST", "/pipeline/push", push, service=service):
            started = line.get("started", started)
            _say(line.get("text", ""))
    except HitlessError as error:
        hint = after_the_push(error, started) if name == "post-receive" else error.hint
        _say(f"error: {error.message}\nhint: {hint}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def after_the_push(error: HitlessError, started: int | None) -> str:
    """The hint for an error after git has accepted the push."""
    if isinstance(error, RemoteError):  # the engine runs, and its error has a hint
        kept = f"`hitless pipeline show {started}` tells more" if started else "its runs start once that is fixed"
        return f"{error.hint}; the push is kept, and {kept}"
    if started is None:
        return "the push is kept, and its runs start when the engine does: `hitless up`"
    return f"the push is kept; once the engine runs again, `hitless pipeline show {started}` tells what became of it"


def _lineage(updates: list[RefUpdate]) -> dict[str, list[str]]:
    """The parents of each pushed commit, which only the hook can see until git has accepted the push."""
    new = [update.new for update in updates if not update.deletes]
    words = ["git", "rev-list", "--no-walk", "--parents", "--stdin"]
    text = "".join(f"{one}\n" for one in new)
    out = subprocess.run(words, input=text, capture_output=True, text=True, check=False).stdout
    return {line.split()[0]: line.split()[1:] for line in out.splitlines()}


def _options() -> list[str]:
    count = min(int(os.environ.get("GIT_PUSH_OPTION_COUNT") or 0), MAX_OPTIONS)
    return [os.environ.get(f"GIT_PUSH_OPTION_{index}", "") for index in range(count)]


def _say(text: str) -> None:
    sys.stdout.write(visible(text))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
