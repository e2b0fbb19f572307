"""The same small JSON as a Starlette and a Flask application; run by the peers' own environment, `.venv-bench`."""
