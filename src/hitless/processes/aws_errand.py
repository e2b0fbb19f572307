"""An AWS errand of a pipeline's run, as the daemon loads no boto3. Started by `hitless.pipeline.errands`."""

from __future__ import annotations

from hitless.homes.errand import run_errand
from hitless.pipeline.children import serve_call

if __name__ == "__main__":
    serve_call(run_errand)
