"""Frames: how a metric of pictures judges a clip: frame by frame, then one score for the clip."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autotune.measure.metrics import Images, Loaded, Metric, Score
from autotune.pictures.video import spread

if TYPE_CHECKING:
    from PIL.Image import Image

SPREAD = 8  # frames of a clip that a neural network judges, spread over it: neighbours are nearly the same to it


def clip_score(metric: Metric, loaded: Loaded, frames: Images, prompt: str, reference: Images) -> Score:
    """The score of one clip. Raises UserError as Loaded.scores().

    reference  the frames of the clip to compare with, or one picture; where the metric needs none, empty
    """
    scores = frame_scores(metric, loaded, frames, prompt, reference)
    return metric.of_clip(scores)


def frame_scores(metric: Metric, loaded: Loaded, frames: Images, prompt: str, reference: Images) -> tuple[Score, ...]:
    """The score of each frame that the metric judges."""
    chosen = range(len(frames)) if metric.every_frame else spread(len(frames), SPREAD)
    references = list(reference) * len(frames) if len(reference) == 1 else list(reference)
    return loaded.scores(
        _at(frames, chosen), [prompt] * len(chosen), _at(references, chosen) if references else references
    )


def _at(frames: Images, numbers: Sequence[int]) -> list["Image"]:
    return [frames[number] for number in numbers]
