"""The packaging process of a build step: a checkout becomes a candidate. Started by `hitless.pipeline.packaging`."""

from __future__ import annotations

from hitless.pipeline.children import serve_call
from hitless.pipeline.packaging import package

if __name__ == "__main__":
    serve_call(package)
