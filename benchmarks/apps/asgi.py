"""The answers of `benchmarks/service` as a Starlette application."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

RELEASE = {"x-hitless-release": Path(__file__).with_name("RELEASE").read_text()}


async def hello(request: Request) -> JSONResponse:
    name = request.query_params.get("name", "world")
    return JSONResponse({"greeting": f"hello {name}", "path": request.url.path}, headers=RELEASE)


async def greet(request: Request) -> JSONResponse:
    name = (await request.json())["name"]
    return JSONResponse({"greeting": f"hello {name}", "path": request.url.path}, headers=RELEASE)


app = Starlette(routes=[Route("/hello", hello, methods=["GET"]), Route("/hello", greet, methods=["POST"])])
