"""The noise floor of likeness: how far pictures lie from the baseline's where nothing that matters was changed.

A likeness below 1 means something only beside it: the same config drawn twice, and configs that only compute otherwise
(another kernel, another layout, compiled code), whose rounding differs.
"""

from collections.abc import Iterable, Sequence

from autotune.frozen_model import FrozenModel
from autotune.knobs import all_knobs
from autotune.trial import Anchor, Trial


class NoiseFloor(FrozenModel):
    """SSIM to the baseline's pictures, mean and worst. None: not measured in this study."""

    again_mean: float | None = None  # the baseline drawn once more
    again_worst: float | None = None
    otherwise_mean: float | None = None  # of the configs that only compute otherwise, the one that lies furthest off
    otherwise_worst: float | None = None
    otherwise: int | None = None  # the number of that trial


def noise_floor(trials: Sequence[Trial], anchors: Iterable[Anchor]) -> NoiseFloor:
    """What the runs of a study say of it; the first trial is the baseline."""
    again = next((a.measured.quality for a in anchors if a.measured and a.measured.quality), None)
    same = [
        (trial, likeness)
        for trial in trials[1:]
        if only_computes_otherwise(trial, trials[0]) and (likeness := _likeness(trial))
    ]
    furthest = min(same, key=lambda pair: pair[1][0], default=None)
    return NoiseFloor(
        again_mean=again.ssim_mean if again else None,
        again_worst=again.ssim_worst if again else None,
        otherwise_mean=furthest[1][0] if furthest else None,
        otherwise_worst=furthest[1][1] if furthest else None,
        otherwise=furthest[0].number if furthest else None,
    )


def only_computes_otherwise(trial: Trial, baseline: Trial) -> bool:
    """Does it differ from the baseline in nothing but knobs that, as they say, don't change the picture?"""
    knobs = all_knobs()
    changed = [n for n in {**trial.values, **baseline.values} if trial.values.get(n) != baseline.values.get(n)]
    return bool(changed) and all(name in knobs and not knobs[name].changes_output for name in changed)


def _likeness(trial: Trial) -> tuple[float, float] | None:
    """SSIM of its own pictures to the baseline's, mean and worst: of the only one, where no more were drawn."""
    mine = trial.judged
    if mine is None or mine.quality is None:
        return None
    if mine.quality_of is None:
        return mine.quality.ssim_mean, mine.quality.ssim_worst
    return (mine.spot_check.ssim, mine.spot_check.ssim) if mine.spot_check and mine.spot_check.trial == 0 else None
