"""NoiseFloor: how much pictures differ from the baseline's although no change should show.

A likeness below 1 means something only in comparison with it. Two kinds of pictures show it: those of the baseline
itself, drawn again, and those of equivalent configs, which compute the same in another way (another kernel, another
layout, compiled code) and differ by rounding.
"""

from collections.abc import Iterable, Sequence

from autotune.device import Device
from autotune.frozen_model import FrozenModel
from autotune.knobs import all_knobs
from autotune.trial import Anchor, Trial

ITSELF = 0.99  # SSIM of the baseline to itself, below which something has changed: rounding stays above


class NoiseFloor(FrozenModel):
    """SSIM to the baseline's pictures, mean and worst. None: not measured in this study.

    repeated          of the baseline, drawn again
    equivalent        of the equivalent config that is least like the baseline
    equivalent_trial  the number of its trial
    """

    repeated_mean: float | None = None
    repeated_worst: float | None = None
    equivalent_mean: float | None = None
    equivalent_worst: float | None = None
    equivalent_trial: int | None = None


def noise_floor(trials: Sequence[Trial], anchors: Iterable[Anchor]) -> NoiseFloor:
    """The noise floor that the runs of a study show. `trials[0]` is the baseline."""
    repeated = next((a.measured.quality for a in anchors if a.measured and a.measured.quality), None)
    equivalent = [
        (trial, likeness) for trial in trials[1:] if is_equivalent(trial, trials[0]) and (likeness := _likeness(trial))
    ]
    furthest = min(equivalent, key=lambda pair: pair[1][0], default=None)
    return NoiseFloor(
        repeated_mean=repeated.ssim_mean if repeated else None,
        repeated_worst=repeated.ssim_worst if repeated else None,
        equivalent_mean=furthest[1][0] if furthest else None,
        equivalent_worst=furthest[1][1] if furthest else None,
        equivalent_trial=furthest[0].number if furthest else None,
    )


def unlike_itself(baseline: Trial, anchor: Anchor, device: Device) -> str | None:
    """Why the baseline that was drawn again can't be the same pipeline, as a clause; None: nothing is known against it.

    Only float32 on a CPU is sure to draw the same pictures: elsewhere, kernels may add in any order.
    """
    judged = anchor.measured.quality if anchor.measured else None
    if judged is None or device.is_gpu or baseline.values.get("dtype") != "fp32" or judged.ssim_worst >= ITSELF:
        return None
    return (
        f"the baseline drawn again has SSIM {judged.ssim_worst:.2f} to its own pictures, although float32 on a CPU "
        "draws the same ones: the weights, the libraries or the pictures of trial 0 have changed since"
    )


def is_equivalent(trial: Trial, baseline: Trial) -> bool:
    """Does it differ from the baseline, and only in knobs that declare not to change the picture?"""
    knobs = all_knobs()
    changed = [n for n in {**trial.values, **baseline.values} if trial.values.get(n) != baseline.values.get(n)]
    return bool(changed) and all(name in knobs and not knobs[name].changes_output for name in changed)


def _likeness(trial: Trial) -> tuple[float, float] | None:
    """SSIM of the trial's own pictures to the baseline's: (mean, worst). They are equal if it drew only one picture."""
    judged = trial.judged
    if judged is None or judged.quality is None:
        return None
    if judged.quality_of is None:
        return judged.quality.ssim_mean, judged.quality.ssim_worst
    spot_check = judged.spot_check
    return (spot_check.ssim, spot_check.ssim) if spot_check and spot_check.trial == 0 else None
