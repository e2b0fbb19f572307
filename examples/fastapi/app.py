"""A greeting by FastAPI."""

from __future__ import annotations

from fastapi import FastAPI
from mangum import Mangum
from pydantic import BaseModel


class Numbers(BaseModel):
    """The body of `POST /sums`."""

    numbers: list[int]


app = FastAPI(title="greetings")


@app.get("/greetings/{name}")
async def greeting(name: str, times: int = 1) -> dict[str, object]:
    return {"greeting": f"Hello, {name}", "times": times}


@app.post("/sums", status_code=201)
async def total(body: Numbers) -> dict[str, int]:
    return {"total": sum(body.numbers)}


handler = Mangum(app, lifespan="off")
