"""Temporal: how far the changes from frame to frame lie from those of the reference clip, in levels of 0 to 255.

A setting that makes a clip flicker, or stand still, changes each frame little and this figure much. The change at a
frame is its difference to the next one, pixel by pixel; the score of the frame is the mean absolute difference of the
two clips' changes, over the three colours. The last frame has none.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.errors import UserError
from autotune.measure.metrics import Images, Judge, Metric

if TYPE_CHECKING:
    from PIL.Image import Image

STILL = 0.02  # of the baseline's motion: a clip that moves less stands still
LEAST_MOTION = 0.25  # levels: below it, the baseline itself stands still, to the eye
FLICKERS = 3.0  # times the baseline's flicker, and
LEAST_FLICKER = 4.0  # levels more than it


class Motion(NamedTuple):
    """How the pixels of a clip change, in levels of 0 to 255.

    change   the mean absolute difference of neighbouring frames
    flicker  how far frames lie from the middle of their two neighbours, as a mean: 0 where all changes are steady
    """

    change: float
    flicker: float


def motion(frames: Images) -> Motion:
    """The motion of a clip. Frames are read one by one, as a clip may be larger than the memory as numbers."""
    changes, flickers = [], []
    before: list[NDArray[np.float32]] = []
    for frame in frames:
        before = [*before[-2:], _levels(frame)]
        if len(before) > 1:
            changes.append(float(np.abs(before[-1] - before[-2]).mean()))
        if len(before) > 2:
            flickers.append(float(np.abs(before[-2] - (before[-1] + before[-3]) / 2).mean()))
    return Motion(*(float(np.mean(values)) if values else 0.0 for values in (changes, flickers)))


def motion_fault(clip: Motion, baseline: Motion) -> str | None:
    """What is wrong with how a clip moves, against the baseline's clip, as words after "clip 3"; None: nothing."""
    if baseline.change >= LEAST_MOTION and clip.change <= STILL * baseline.change:
        return (
            f"stands still: its frames differ by {clip.change:.2f} levels of 255, the baseline's by "
            f"{baseline.change:.2f}"
        )
    if clip.flicker >= max(FLICKERS * baseline.flicker, baseline.flicker + LEAST_FLICKER):
        return (
            f"flickers: frames lie {clip.flicker:.1f} levels of 255 from the middle of their neighbours, the "
            f"baseline's {baseline.flicker:.1f}"
        )
    return None


def _levels(frame: "Image") -> NDArray[np.float32]:
    return np.asarray(frame.convert("RGB"), np.float32)


def _scores(frames: Images, prompts: object, references: Images) -> list[float | None]:
    if len(frames) != len(references) or len(frames) < 2:
        raise UserError("temporal compares clips of the same number of frames, two at least.")
    scores: list[float | None] = []
    pairs = zip(frames, references, frames[1:], references[1:], strict=False)
    for one, of_one, other, of_other in pairs:
        if one.size != of_one.size:
            raise UserError("temporal compares clips of one size.")
        changes = _levels(other) - _levels(one), _levels(of_other) - _levels(of_one)
        scores.append(float(np.abs(changes[0] - changes[1]).mean()))
    return [*scores, None]


METRIC = Metric(
    "temporal",
    summary="difference of the changes from frame to frame to the reference clip's",
    better="lower",
    unit="levels",
    load=lambda source, device: Judge("the mean difference of the changes of neighbouring frames", _scores),
    needs_reference=True,
    every_frame=True,
    clips_only=True,
)
