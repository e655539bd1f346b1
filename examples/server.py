"""Serve the pictures of one tuned pipeline over HTTP.

pip install fastapi uvicorn
CONFIG=best.json uvicorn --app-dir examples server:app

curl --get --data-urlencode "prompt=a red fox in the snow" --data seed=7 -o fox.png localhost:8000/picture
"""

import io
import os

import torch
from fastapi import FastAPI, HTTPException, Response

import autotune

# warmup: compile now. thread_safe: FastAPI calls picture() in threads, and a pipe can't run two calls at once.
pipe = autotune.load(os.environ.get("CONFIG", "best.json"), warmup=True, thread_safe=True)
pipe.set_progress_bar_config(disable=True)
app = FastAPI()


@app.get("/picture")
def picture(prompt: str, seed: int = 0) -> Response:
    if not (prompt.strip() and len(prompt) <= 1000 and 0 <= seed < 2**32):
        raise HTTPException(422, "give a prompt of 1 to 1000 characters and a seed from 0 to 2**32 - 1")
    image = pipe(prompt, generator=torch.Generator("cpu").manual_seed(seed)).images[0]
    png = io.BytesIO()
    image.save(png, "PNG")
    return Response(png.getvalue(), media_type="image/png")
