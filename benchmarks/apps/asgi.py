"""The answers of `benchmarks/service` as a Starlette application."""

import asyncio
import time
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


async def compute(request: Request) -> JSONResponse:
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return JSONResponse({})


async def wait(request: Request) -> JSONResponse:
    await asyncio.sleep(0.2)
    return JSONResponse({})


async def large(request: Request) -> JSONResponse:
    return JSONResponse({"text": "x" * 100_000})


async def upload(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())})


app = Starlette(
    routes=[
        Route("/hello", hello, methods=["GET"]),
        Route("/hello", greet, methods=["POST"]),
        Route("/compute", compute),
        Route("/wait", wait),
        Route("/large", large),
        Route("/upload", upload, methods=["POST"]),
    ]
)
