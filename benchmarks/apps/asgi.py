"""The answer of `benchmarks/service` as a Starlette application."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def hello(request: Request) -> JSONResponse:
    name = request.query_params.get("name", "world")
    return JSONResponse({"greeting": f"hello {name}", "path": request.url.path})


app = Starlette(routes=[Route("/hello", hello)])
