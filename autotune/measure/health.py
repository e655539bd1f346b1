"""Is this a picture at all? NaN, black, flat and wrong-size output is broken, whatever score it would get."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

FLAT = 1.5  # of 255: a picture whose every channel spreads less than this shows nothing


class BrokenOutput(Exception):
    """The pictures are not usable."""


@contextmanager
def no_silent_nan() -> Iterator[None]:
    """Inside, a NaN that is turned into a pixel raises BrokenOutput; left alone it would become a black pixel."""
    try:
        with np.errstate(invalid="raise"):
            yield
    except FloatingPointError as error:
        raise BrokenOutput("the pipeline's output has NaN pixels") from error


def check_pictures(images: Sequence[Image.Image], *, width: int, height: int, may_be_flat: bool) -> None:
    """Raises BrokenOutput. `may_be_flat`: of random weights nothing better can be asked."""
    for number, image in enumerate(images):
        if image.size != (width, height):
            raise BrokenOutput(f"picture {number} is {image.size[0]}x{image.size[1]}, not {width}x{height}")
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
        if may_be_flat:
            continue
        if pixels.max() <= 8:
            raise BrokenOutput(f"picture {number} is black")
        if pixels.std(axis=(0, 1)).max() < FLAT:
            raise BrokenOutput(f"picture {number} is one flat colour")
