"""Thumbnail: a picture reduced to 16 x 16 pixels, which shows whether a config still draws the same picture.

It is small enough for the exported JSON. It does not measure quality: the loss of a fine texture does not change it.
"""

import base64
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from autotune.frozen_model import FrozenModel
from autotune.workload import Workload

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 16
THUMBNAILS = 4  # how many an exported config has: those of the first prompts
BASE64_CHARACTERS = SIDE * SIDE * 3 * 4 // 3
# The mean difference of the cells, in levels of 255, from which on two pictures are not the same. Rounding in other
# versions of the libraries stays far below, another picture lies far above.
DIFFERS = 8.0


class Thumbnail(FrozenModel):
    """The mean colour of each cell, row by row, RGB, 8 bits each, as base64."""

    prompt: str
    seed: int
    cells: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9+/]+$", min_length=BASE64_CHARACTERS, max_length=BASE64_CHARACTERS)
    ]

    def difference(self, other: "Thumbnail") -> float:
        """The mean absolute difference of the cells, in levels of 255."""
        first, second = base64.b64decode(self.cells), base64.b64decode(other.cells)
        return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)


def thumbnail_of(image: "Image", prompt: str, seed: int) -> Thumbnail:
    """The thumbnail of a PIL picture that was drawn from this prompt and seed."""
    from PIL.Image import Resampling

    cells = image.convert("RGB").resize((SIDE, SIDE), Resampling.BOX).tobytes()
    return Thumbnail(prompt=prompt, seed=seed, cells=base64.b64encode(cells).decode())


def with_thumbnails(workload: Workload) -> Workload:
    """The part of the workload that an exported config has thumbnails of: its first prompts, at its main size."""
    part = {
        "prompts": workload.prompts[:THUMBNAILS],
        "seeds": workload.seeds[:THUMBNAILS],
        "references": (),
        "also": (),
    }
    return workload.model_copy(update=part)
