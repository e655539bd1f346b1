"""The noise floor of likeness: how far pictures lie from the baseline's where nothing that matters was changed.

A likeness below 1 means something only beside it: the same config drawn twice, and configs that only compute otherwise
(another kernel, another layout, compiled code), whose rounding differs.
"""

from collections.abc import Iterable, Sequence

from autotune.knobs import all_knobs
from autotune.noun import Noun
from autotune.trial import Anchor, Quality, Trial


class Floor(Noun):
    """SSIM to the baseline's pictures, mean and worst. None: not measured in this study."""

    again_mean: float | None = None  # the baseline drawn once more
    again_worst: float | None = None
    otherwise_mean: float | None = None  # of the configs that only compute otherwise, the one that lies furthest off
    otherwise_worst: float | None = None
    otherwise: int | None = None  # the number of that trial


def noise_floor(trials: Sequence[Trial], anchors: Iterable[Anchor]) -> Floor:
    """What the runs of a study say of it; the first trial is the baseline."""
    again = next((a.measured.quality for a in anchors if a.measured and a.measured.quality), None)
    same = [
        (trial, quality)
        for trial in trials[1:]
        if only_computes_otherwise(trial, trials[0]) and (quality := _of(trial))
    ]
    furthest = min(same, key=lambda pair: pair[1].ssim_mean, default=None)
    return Floor(
        again_mean=again.ssim_mean if again else None,
        again_worst=again.ssim_worst if again else None,
        otherwise_mean=furthest[1].ssim_mean if furthest else None,
        otherwise_worst=furthest[1].ssim_worst if furthest else None,
        otherwise=furthest[0].number if furthest else None,
    )


def only_computes_otherwise(trial: Trial, baseline: Trial) -> bool:
    """Does it differ from the baseline in nothing but knobs that, as they say, don't change the picture?"""
    knobs = all_knobs()
    changed = [n for n in {**trial.values, **baseline.values} if trial.values.get(n) != baseline.values.get(n)]
    return bool(changed) and all(name in knobs and not knobs[name].changes_output for name in changed)


def _of(trial: Trial) -> Quality | None:
    return trial.measured.quality if trial.measured else None
