"""A drill's sender, one of several that share the schedule. Started by `hitless.drill.load`: `MODULE:CLIENT`.

The client's module is named, because a sender over HTTP/1.1 loads nothing of HTTP/2.
"""

from __future__ import annotations

import pkgutil
import sys

from hitless.drill.sender import main

if __name__ == "__main__":
    sys.exit(main(pkgutil.resolve_name(f"hitless.drill.{sys.argv[1]}")))
