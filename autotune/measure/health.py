"""Picture health: refuse broken pictures, whatever score a metric would give them.

Found are NaN pixels, black pictures, one flat colour, a wrong size, saturated noise, and the same picture for several
prompts. Of clips it is their frames; a clip that stands still or flickers is found by its motion
(motion.py), against the baseline's.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autotune.pictures.video import Picture, frames_of

BLACK = 8  # of 255: a picture whose brightest value is no more than this is black
FLAT = 1.5  # of 255: a picture is flat if the standard deviation of every channel is smaller
SATURATED = 0.4  # share of a picture's values within EDGE of 0 or 255
EDGE = 2  # of 255: values so near to 0 or 255 are saturated
LEAST_EDGE = 0.05  # least share of the values at each end: a night sky with stars is no noise
UNCORRELATED = 0.3  # correlation of neighbouring pixels: 0 in noise, far more in black and white drawings
SMALL = 64  # pixels: pictures are compared with each other at about this size
# Root mean square difference of two pictures over their own spread. The demo's scenes have 0.27 and more.
REPEATED = 0.05


class BrokenOutput(Exception):
    """The pictures are not usable."""


@contextmanager
def no_silent_nan() -> Iterator[None]:
    """Inside the block, converting NaN to a pixel raises BrokenOutput. numpy would only warn and make it black."""
    try:
        with np.errstate(invalid="raise"):
            yield
    except FloatingPointError as error:
        raise BrokenOutput("the pipeline's output has NaN pixels") from error


def check_pictures(
    images: Sequence[Picture],
    *,
    width: int,
    height: int,
    may_be_flat: bool,
    frames: int | None = None,
    made_from: Sequence[Hashable] | None = None,
    one_start: bool = False,
) -> None:
    """Raise BrokenOutput if one of the pictures is broken, or if two are the same that should differ.

    width, height  in pixels
    may_be_flat    check the size only: random weights draw nothing better
    frames         of each clip; None: these are pictures
    made_from      a key for each picture's prompt and seed. Two pictures may be the same only if their keys are. None:
                   all keys differ
    one_start      all pictures started from the same picture, so they may be nearly the same
    """
    for number, image in enumerate(images):
        if image.size != (width, height):
            raise BrokenOutput(f"picture {number} is {image.size[0]}x{image.size[1]}, not {width}x{height}")
        if frames is not None and len(frames_of(image)) != frames:
            raise BrokenOutput(f"clip {number} has {len(frames_of(image))} frames, not {frames}")
    if may_be_flat:
        return
    for number, image in enumerate(images):
        faults = [_fault(np.asarray(frame.convert("RGB"), dtype=np.float32)) for frame in frames_of(image)]
        if all(faults):  # a clip may begin in the dark
            raise BrokenOutput(f"picture {number} is {faults[0]}")
    middle = [frames_of(image)[len(frames_of(image)) // 2] for image in images]
    _check_repetition(middle, made_from or range(len(images)), nearly=not one_start)


def _fault(picture: NDArray[np.float32]) -> str | None:
    """What is wrong with a picture (height x width x 3, 0 to 255), in words; None: nothing."""
    if picture.max() <= BLACK:
        return "black"
    if picture.std(axis=(0, 1)).max() < FLAT:
        return "one flat colour"
    dark, bright = float((picture <= EDGE).mean()), float((picture >= 255 - EDGE).mean())
    both = min(dark, bright) >= LEAST_EDGE
    if both and dark + bright >= SATURATED and _correlation(picture) < UNCORRELATED:
        return f"saturated noise: {dark:.0%} fully dark, {bright:.0%} fully bright, neighbouring pixels unrelated"
    return None


def _correlation(picture: NDArray[np.float32]) -> float:
    """The correlation of neighbouring pixels, in the direction where it is larger: near 1 in a picture, 0 in noise.

    picture  height x width x 3. Returns 1 where there are no neighbours, or the pixels don't vary.
    """
    correlations = []
    centred = picture - picture.mean(axis=(0, 1))  # a colour cast must not count as correlation
    for one, other in ((centred[:, :-1], centred[:, 1:]), (centred[:-1], centred[1:])):
        if one.size == 0 or one.std() == 0 or other.std() == 0:
            return 1.0
        correlations.append(float((one * other).mean() / np.sqrt((one**2).mean() * (other**2).mean())))
    return max(correlations)


def _check_repetition(images: Sequence[Image.Image], made_from: Sequence[Hashable], *, nearly: bool) -> None:
    """Raise BrokenOutput where two pictures are the same or, with `nearly`, almost the same when scaled down.

    How far apart two pictures must be depends on their own spread: two different dark pictures differ by little.
    """
    small = [np.asarray(image.convert("RGB").reduce(max(1, min(image.size) // SMALL)), np.float32) for image in images]
    spreads = np.array([np.sqrt(picture.var(axis=(0, 1)).mean()) for picture in small])
    limits = REPEATED * np.minimum(spreads[:, None], spreads[None])
    # Two pictures differ by at least as much as their spreads, so most pairs need no comparison.
    for i, j in np.argwhere(np.triu(np.abs(spreads[:, None] - spreads[None]) <= limits, k=1)):
        if made_from[i] == made_from[j] or float(np.sqrt(np.mean((small[i] - small[j]) ** 2))) > limits[i, j]:
            continue
        same = images[i].convert("RGB").tobytes() == images[j].convert("RGB").tobytes()
        if same or nearly:
            how = "the same as" if same else "nearly the same as"
            raise BrokenOutput(f"picture {j} is {how} picture {i}, which has another prompt or seed")
