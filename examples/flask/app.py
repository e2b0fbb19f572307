"""A greeting by Flask."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

app = Flask(__name__)


@app.get("/greetings/<name>")
def greeting(name: str) -> Response:
    return jsonify(greeting=f"Hello, {name}", times=request.args.get("times", 1, int))


@app.post("/sums")
def total() -> tuple[Response, int]:
    return jsonify(total=sum(request.get_json()["numbers"])), 201


@app.errorhandler(HTTPException)
def failed(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error=error.name), error.code or 500
