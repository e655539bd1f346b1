"""Numbers and configs as people read them."""

import statistics
from collections import Counter
from collections.abc import Sequence

from autotune.config import Config
from autotune.knobs import all_knobs
from autotune.measurement import Measurement, ShapeCost
from autotune.statistics.drift import PRIOR_SPREAD, speedup_interval
from autotune.statistics.paired import Paired, paired_drop
from autotune.statistics.verdict import GAP
from autotune.study.earlier import EarlierStudy
from autotune.study.record import Untried
from autotune.trial import Anchor, Failure, Trial


def seconds(value: float) -> str:
    """0.4213 -> "421 ms", 12.34 -> "12.3 s", 754 -> "12 min 34 s"."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.3g} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def memory(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def config(values: Config) -> str:
    """What differs from the defaults: "compile=regional dtype=bf16"."""
    knobs = all_knobs()
    changed = [f"{name}={value}" for name, value in values.items() if name in knobs and value != knobs[name].default]
    return " ".join(changed) or "all defaults"


def outcome(trial: Trial, baseline: Trial, spread: float = PRIOR_SPREAD) -> str:
    """One line for a finished trial. `spread`: of one config from process to process, see drift.py."""
    if isinstance(trial.outcome, Failure):
        return f"{trial.outcome.cause}: {trial.outcome.reason}"
    mine, theirs = trial.outcome, baseline.measured
    assert theirs is not None
    ratio = speed(trial, baseline, spread)
    latency = f"{seconds(mine.latency_s)} ({ratio}; {_sizes(mine)})" if mine.also else f"{_call(mine)} ({ratio})"
    words = f"{latency}, {memory(mine.peak_memory_bytes)}"
    found = "".join(f"; {said}" for said in remarks(trial))
    if mine.quality is None or theirs.quality is None:
        return words + found
    return f"{words}, {quality(trial, baseline)}{found}"


def remarks(trial: Trial) -> list[str]:
    """What is to be said of a measured trial: that its code or its pictures are another's, that these were not worth
    drawing, or that they are not what a knob had promised."""
    mine = trial.measured
    if mine is None:
        return []
    found = [mine.spot_check.mismatch] if mine.spot_check and mine.spot_check.mismatch else []
    if mine.stopped:
        found.append(f"stopped: {mine.stopped}")
    if mine.compiled_as:
        found.append(f"compiled as trial {mine.compiled_as.trial}")
    if mine.quality_of is not None and mine.spot_check:
        found.append(f"pictures as trial {mine.quality_of}'s (one compared, SSIM {mine.spot_check.ssim:.3f})")
    return found


def speed(trial: Trial, baseline: Trial, spread: float) -> str:
    """ "1.23x" the baseline's speed; "~1x" where the interval does not exclude that nothing but noise is seen."""
    ratio, low, high = speedup_interval(trial, baseline, spread)
    return f"{ratio:.2f}x" if low > 1 + GAP or high < 1 / (1 + GAP) else "~1x"


def anchor(again: Anchor, baseline: Trial) -> str:
    """The baseline measured again: "650 ms, 0.9% slower than at first"."""
    if again.measured is None or baseline.measured is None:
        return (
            f"{again.outcome.cause}: {again.outcome.reason}" if isinstance(again.outcome, Failure) else "not measured"
        )
    change = again.measured.latency_s / baseline.measured.latency_s - 1
    return (
        f"{seconds(again.measured.latency_s)}, {abs(change):.1%} {'slower' if change > 0 else 'faster'} than at first"
    )


def warm_start(studies: Sequence[EarlierStudy], first: int) -> str:
    """What earlier studies have done for this one; none of their figures."""
    counts: Counter[str] = Counter()
    for study in studies:
        counts[study.device] += len(study.trials)
    trials = " and ".join(f"{count} trial{'s' * (count > 1)} of {device}" for device, count in counts.items())
    many = f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}"
    ordered = f"order the first {first}" if first else "put none first: none of theirs is known to keep the limits here"
    return f"warm start from {many}: {trials} {ordered}"


def untried(found: Untried) -> str:
    """What was left alone, and by whose word."""
    one = found.count == 1
    return (
        f"{found.count} {'config was' if one else 'configs were'} not tried: predicted to need more than "
        f"{memory(found.limit_bytes)} (least: {memory(found.least_bytes)})"
    )


def _call(cost: Measurement | ShapeCost) -> str:
    """One call at one size: "644 ms +-9.6%", half of the interquartile range."""
    return f"{seconds(statistics.median(cost.latency_samples_s))} +-{cost.latency_spread / 2:.1%}"


def _sizes(measured: Measurement) -> str:
    """Of several sizes, the main one first: "400 ms +-9.6%, 96x96@2 800 ms +-3.0% with 3 more graphs"."""
    graphs = {cost.shape: f"{cost.graphs_added} more graph{'s' * (cost.graphs_added > 1)}" for cost in measured.also}
    others = [
        f"{cost.shape} {_call(cost)}" + (f" with {graphs[cost.shape]}" if cost.graphs_added else "")
        for cost in measured.also
    ]
    return ", ".join([_call(measured), *others])


def quality(trial: Trial, baseline: Trial) -> str:
    """How the pictures compare: "CLIP +0.09 +-0.13 (16 pairs see drops from 0.14), SSIM 0.995"."""
    return ", ".join(quality_lines(trial, baseline)).replace(", (", " (")


def quality_lines(trial: Trial, baseline: Trial) -> list[str]:
    """The same, for a narrow column: the score, the smallest drop that its pairs can show, the likeness."""
    mine, theirs = trial.measured, baseline.measured
    assert mine is not None
    assert theirs is not None
    if mine.quality is None or theirs.quality is None:
        return ["not judged"]
    if mine.quality.metric == "likeness":
        return [f"SSIM {mine.quality.ssim_mean:.3f}"]
    return [*drop_lines(paired_drop(mine.quality, theirs.quality)), f"SSIM {mine.quality.ssim_mean:.3f}"]


def drop_lines(drop: Paired) -> list[str]:
    """A drop of the CLIP score, and beside it the smallest one that these pairs can show (none where all agree)."""
    half = "?" if drop.half_width is None else f"{drop.half_width:.2f}"
    score = f"CLIP {0.0 - drop.mean:+.2f} +-{half}"
    if drop.smallest_detectable is None:
        return [score, "(1 pair shows no interval)"]
    if drop.smallest_detectable == 0:
        return [score]
    return [score, f"({drop.n} pairs see drops from {drop.smallest_detectable:.2f})"]
