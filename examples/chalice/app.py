"""A greeting by Chalice."""

from __future__ import annotations

from urllib.parse import unquote

from chalice import Chalice, Response

app = Chalice(app_name="chalice-example")


@app.route("/greetings/{name}")
def greeting(name: str) -> dict[str, object]:
    # Chalice hands path parameters on as API Gateway does: as the client encoded them
    return {
        "greeting": f"Hello, {unquote(name)}",
        "times": int((app.current_request.query_params or {}).get("times", 1)),
    }


@app.route("/sums", methods=["POST"])
def total() -> Response:
    return Response({"total": sum(app.current_request.json_body["numbers"])}, status_code=201)
