"""Serve the pictures of one tuned pipeline over HTTP, with a queue.

pip install fastapi uvicorn
CONFIG=best.json uvicorn --app-dir examples server:app

curl --get --data-urlencode "prompt=a red fox in the snow" --data seed=7 -o fox.png localhost:8000/picture

One thread draws. Requests that wait at the same moment are drawn in one call of the measured batch size, as a call of
another size would compile again. A full queue answers 503, so that a client can ask another server.
"""

import asyncio
import io
import os
import queue
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import torch
from fastapi import FastAPI, HTTPException, Response
from PIL import Image

import autotune

CONFIG = os.environ.get("CONFIG", "best.json")
LONGEST_QUEUE = int(os.environ.get("LONGEST_QUEUE", "32"))


@dataclass
class Request:
    """A picture that is asked for. `done` gets the PNG, or the exception that came instead."""

    prompt: str
    seed: int
    done: "asyncio.Future[bytes]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Painter(threading.Thread):
    """Draws what waits in the queue, a batch at a time."""

    def __init__(self, config: str) -> None:
        super().__init__(daemon=True)
        self.waiting: queue.Queue[Request] = queue.Queue(LONGEST_QUEUE)
        self.batch = autotune.TunedConfig.load(config).workload.batch
        self.pipe = autotune.load(config, warmup=True)  # warmup: compile now, not at the first request
        self.pipe.set_progress_bar_config(disable=True)

    def run(self) -> None:
        while True:
            requests = [self.waiting.get()]
            while len(requests) < self.batch and not self.waiting.empty():
                requests.append(self.waiting.get())
            try:
                answers: list[bytes] | list[Exception] = self.draw(requests)
            except Exception as error:  # the next request must not find a dead thread
                answers = [error] * len(requests)
            for request, answer in zip(requests, answers, strict=True):
                request.done.get_loop().call_soon_threadsafe(settle, request, answer)

    def draw(self, requests: list[Request]) -> list[bytes]:
        padded = requests + requests[-1:] * (self.batch - len(requests))  # a smaller batch would compile again
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in padded]
        images = self.pipe([request.prompt for request in padded], generator=generators).images
        return [png(image) for image in images[: len(requests)]]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def settle(request: Request, answer: bytes | Exception) -> None:
    if request.done.done():  # the client has gone
        return
    if isinstance(answer, Exception):
        request.done.set_exception(answer)
    else:
        request.done.set_result(answer)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.painter = Painter(CONFIG)
    app.state.painter.start()
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/picture")
async def picture(prompt: str, seed: int = 0) -> Response:
    if not (prompt.strip() and len(prompt) <= 1000 and 0 <= seed < 2**32):
        raise HTTPException(422, "give a prompt of 1 to 1000 characters and a seed from 0 to 2**32 - 1")
    request = Request(prompt, seed)
    try:
        app.state.painter.waiting.put_nowait(request)
    except queue.Full:
        raise HTTPException(503, "too many requests wait", {"Retry-After": "5"}) from None
    return Response(await request.done, media_type="image/png")


@app.get("/health")
async def health() -> dict[str, int]:
    """How many requests wait; an error where nothing draws any more."""
    if not app.state.painter.is_alive():
        raise HTTPException(500, "the painter has ended")
    return {"waiting": app.state.painter.waiting.qsize()}
