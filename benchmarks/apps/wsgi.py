"""The answer of `benchmarks/service` as a Flask application."""

from typing import Any

from flask import Flask, request

app = Flask(__name__)


@app.get("/hello")
def hello() -> dict[str, Any]:
    name = request.args.get("name", "world")
    return {"greeting": f"hello {name}", "path": request.path}
