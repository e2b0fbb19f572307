"""A drill's sender over HTTP/1.1, one of several that share the schedule. Started by `hitless.drill.load`."""

from __future__ import annotations

import sys

from hitless.drill.http1 import Http1Client
from hitless.drill.sender import main

if __name__ == "__main__":
    sys.exit(main(Http1Client))
