"""The programs that hitless starts as `python -m hitless.processes.NAME`: one a file, outside of `worker/`."""
