"""The packaging process of a build step: a checkout becomes a candidate. Started by `hitless.pipeline.packaging`."""

from __future__ import annotations

from hitless.pipeline.children import answer
from hitless.pipeline.package import package

if __name__ == "__main__":
    answer(package)
