"""Takes away folders that builds or pushes have filled, whatever they hold.

By rm, which goes down as deep as the names reach: Python's rmtree calls itself for each level, and a commit of some
thousand nested folders ended it, and the daemon's next start with it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def remove(folder: Path) -> None:
    """Remove a folder; nothing there is fine, links are not followed. What cannot be removed is left. Blocking."""
    if not _rm(folder):
        words = ["chmod", "-R", "u+rwX", "--", str(folder)]  # folders that a build forbade itself to enter
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        _rm(folder)


def _rm(folder: Path) -> bool:
    if not os.path.lexists(folder):
        return True
    words = ["rm", "-rf", "--", str(folder)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
