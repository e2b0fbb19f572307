"""Links by which a person answers a waiting run without a login here: signed, for one question of one run.

The key stands in the data folder, private. A link is worth an approval to whoever has it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32


def key_of(folder: Path, *, sync: Callable[[int], None] = os.fsync) -> bytes:
    """The key of a pipeline's folder, made where there is none, or none that is whole: with an empty one anybody could
    sign. It is on the disk (`sync`) before it has its name, and its name is before anything is signed with it.
    """
    file = folder / "link.key"
    with suppress(FileNotFoundError):
        if len(key := file.read_bytes()) == KEY_BYTES:
            return key
        file.unlink()
    fresh = file.with_suffix(f".{secrets.token_hex(8)}")
    fresh.touch(mode=0o600)
    with fresh.open("wb") as written:
        written.write(secrets.token_bytes(KEY_BYTES))
        written.flush()
        sync(written.fileno())
    with suppress(FileExistsError):  # the engine and the receiver may ask at once: the first key stays
        os.link(fresh, file)
    fresh.unlink()
    holder = os.open(folder, os.O_RDONLY)
    try:
        sync(holder)
    finally:
        os.close(holder)
    return file.read_bytes()


def token_of(key: bytes, run: int, asked_at: str) -> str:
    """The link's secret part: another question of the same run has another."""
    return hmac.new(key, f"{run}|{asked_at}".encode(), hashlib.sha256).hexdigest()


def is_valid(key: bytes, run: int, asked_at: str, token: str) -> bool:
    return hmac.compare_digest(token_of(key, run, asked_at).encode(), token.encode())


def publish(folder: Path, url: str) -> None:
    """Say where the receiver can be reached from outside, so that messages carry links."""
    (folder / "receiver.json").write_text(json.dumps({"url": url.rstrip("/")}))


def link_of(folder: Path, run: int, asked_at: str) -> str | None:
    """The link of a question, or None where no receiver was ever set up."""
    file = folder / "receiver.json"
    if not file.exists():
        return None
    url = json.loads(file.read_text())["url"]
    return f"{url}/approve/{run}?token={token_of(key_of(folder), run, asked_at)}"
