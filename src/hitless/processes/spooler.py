"""The gateway's spooler, which waits for slow clients. Started by `hitless.gateway.spooling`; outlives the daemon."""

from __future__ import annotations

import sys

from hitless.gateway.spooler import main

if __name__ == "__main__":
    main(sys.argv[1])
