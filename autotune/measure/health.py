"""Is this a picture at all? Broken output is refused whatever score it would get: a CLIP score likes even black ones.

Caught are NaN, black, flat and wrong-size pictures, saturated noise, and one picture for several prompts.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

BLACK = 8  # of 255: nothing of a picture is brighter
FLAT = 1.5  # of 255: a picture whose every channel spreads less than this shows nothing
SATURATED = 0.4  # share of a picture's values within EDGE of 0 or 255
EDGE = 2  # of 255
LEAST_EDGE = 0.05  # share of the values at each end
UNCORRELATED = 0.3  # correlation of neighbouring pixels: noise has 0, drawings in black and white far more
SMALL = 64  # pixels: pictures are compared with each other at about this size
# Root mean square difference of two pictures over their own spread. The demo's scenes have 0.27 and more.
REPEATED = 0.05


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


def check_pictures(
    images: Sequence[Image.Image],
    *,
    width: int,
    height: int,
    may_be_flat: bool,
    made_from: Sequence[Hashable] | None = None,
    one_start: bool = False,
) -> None:
    """Raises BrokenOutput.

    may_be_flat  of random weights nothing better can be asked than the right size
    made_from    what each picture was made from, its prompt and seed: only pictures of the same may be the same. None:
                 each was made from something else
    one_start    all were made from one picture: then others that are nearly the same are no surprise
    """
    for number, image in enumerate(images):
        if image.size != (width, height):
            raise BrokenOutput(f"picture {number} is {image.size[0]}x{image.size[1]}, not {width}x{height}")
    if may_be_flat:
        return
    for number, image in enumerate(images):
        fault = _fault(np.asarray(image.convert("RGB"), dtype=np.float32))
        if fault:
            raise BrokenOutput(f"picture {number} is {fault}")
    _check_repetition(images, made_from or range(len(images)), nearly=not one_start)


def _fault(picture: Any) -> str | None:
    """What is wrong with one picture (height x width x 3, 0 to 255), in words."""
    if picture.max() <= BLACK:
        return "black"
    if picture.std(axis=(0, 1)).max() < FLAT:
        return "one flat colour"
    dark, bright = float((picture <= EDGE).mean()), float((picture >= 255 - EDGE).mean())
    both = min(dark, bright) >= LEAST_EDGE  # stars at night are no noise
    if both and dark + bright >= SATURATED and _correlation(picture) < UNCORRELATED:
        return f"saturated noise: {dark:.0%} fully dark, {bright:.0%} fully bright, no pixel like the next"
    return None


def _correlation(picture: Any) -> float:
    """Of pixels with their neighbours, the larger of the two directions: near 1 in a picture, 0 in noise.

    1 where there are no neighbours, or none that vary.
    """
    found = []
    centred = picture - picture.mean(axis=(0, 1))  # a colour cast makes no pixel like the next
    for one, other in ((centred[:, :-1], centred[:, 1:]), (centred[:-1], centred[1:])):
        if one.size == 0 or one.std() == 0 or other.std() == 0:
            return 1.0
        found.append(float((one * other).mean() / np.sqrt((one**2).mean() * (other**2).mean())))
    return max(found)


def _check_repetition(images: Sequence[Image.Image], made_from: Sequence[Hashable], *, nearly: bool) -> None:
    """Raises BrokenOutput where two pictures are the same or, seen from afar, differ by no more than a trace.

    The trace is measured by the pictures' own spread: a dark picture differs little from a dark one and is another.
    """
    small = [np.asarray(image.convert("RGB").reduce(max(1, min(image.size) // SMALL)), np.float32) for image in images]
    spreads = np.array([np.sqrt(picture.var(axis=(0, 1)).mean()) for picture in small])
    limits = REPEATED * np.minimum(spreads[:, None], spreads[None])
    # Pictures differ by no less than their spreads do, which spares most pairs the rest.
    for i, j in np.argwhere(np.triu(np.abs(spreads[:, None] - spreads[None]) <= limits, k=1)):
        if made_from[i] == made_from[j] or float(np.sqrt(np.mean((small[i] - small[j]) ** 2))) > limits[i, j]:
            continue
        same = images[i].convert("RGB").tobytes() == images[j].convert("RGB").tobytes()
        if same or nearly:
            how = "the same as" if same else "nearly the same as"
            raise BrokenOutput(f"picture {j} is {how} picture {i}, whose prompt or seed is another")
