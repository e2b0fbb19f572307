"""The answers of `benchmarks/service` as a Flask application."""

from pathlib import Path
from typing import Any

from flask import Flask, request

RELEASE = {"x-hitless-release": Path(__file__).with_name("RELEASE").read_text()}
app = Flask(__name__)


@app.get("/hello")
def hello() -> tuple[dict[str, Any], dict[str, str]]:
    name = request.args.get("name", "world")
    return {"greeting": f"hello {name}", "path": request.path}, RELEASE


@app.post("/hello")
def greet() -> tuple[dict[str, Any], dict[str, str]]:
    name = request.get_json()["name"]
    return {"greeting": f"hello {name}", "path": request.path}, RELEASE
