"""PSNR: peak signal-to-noise ratio to the reference, in dB. There is no number for equal pictures."""

import math
import statistics
from collections.abc import Sequence

from autotune.measure.metrics import Images, Judge, Metric, Score
from autotune.measure.metrics._pixels import library, pairs


def _scores(images: Images, prompts: object, references: Images) -> list[float | None]:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return [
        None if same else float(peak_signal_noise_ratio(a, b, data_range=1.0))
        for a, b, same in pairs(images, references)
    ]


def _of_clip(scores: Sequence[Score]) -> Score:
    """The ratio to the mean squared error over all frames: a mean of decibels would hide the worst frames."""
    errors = [0.0 if score is None else 10 ** (-score / 10) for score in scores]
    return -10 * math.log10(statistics.fmean(errors)) if any(errors) else None


METRIC = Metric(
    "psnr",
    summary="likeness to the reference pixel by pixel",
    better="higher",
    unit="dB",
    load=lambda source, device: Judge(library(), _scores),
    needs_reference=True,
    every_frame=True,
    of_clip=_of_clip,
)
