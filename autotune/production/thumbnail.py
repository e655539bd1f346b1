"""Thumbnail: a picture in 16 x 16 cells, small enough for a JSON file, sharp enough to see that another picture is drawn.

It is not a measure of quality: a texture that is lost leaves the cells as they were.
"""

import base64
from typing import Annotated, Any

from pydantic import Field

from autotune.frozen_model import FrozenModel
from autotune.workload import Workload

SIDE = 16
THUMBNAILS = 4  # of a study's pictures: the first ones
BASE64_CHARACTERS = SIDE * SIDE * 3 * 4 // 3
DIFFERS = 8.0  # levels of 255, mean over the cells: two libraries' roundings stay far below, another picture far above


class Thumbnail(FrozenModel):
    """The mean colour of each cell, row by row, RGB, 8 bits each, as base64."""

    prompt: str
    seed: int
    cells: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9+/]+$", min_length=BASE64_CHARACTERS, max_length=BASE64_CHARACTERS)
    ]

    def difference(self, other: "Thumbnail") -> float:
        """The mean absolute difference of the cells, in levels of 255."""
        mine, theirs = base64.b64decode(self.cells), base64.b64decode(other.cells)
        return sum(abs(a - b) for a, b in zip(mine, theirs, strict=True)) / len(mine)


def thumbnail_of(image: Any, prompt: str, seed: int) -> Thumbnail:
    """Of a PIL picture."""
    from PIL import Image

    cells = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    return Thumbnail(prompt=prompt, seed=seed, cells=base64.b64encode(cells).decode())


def with_thumbnails(workload: Workload) -> Workload:
    """The part of the workload whose pictures are kept as thumbnails: its first prompts, at its main size."""
    few = {"prompts": workload.prompts[:THUMBNAILS], "seeds": workload.seeds[:THUMBNAILS], "references": (), "also": ()}
    return workload.model_copy(update=few)
