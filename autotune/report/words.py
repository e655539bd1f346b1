"""Words: numbers, configs, trials and qualities as people read them."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence

from autotune.config import Config, Value
from autotune.knob import Stage
from autotune.knobs import all_knobs
from autotune.measurement import Measurement, ShapeCost
from autotune.pipeline import Pipeline
from autotune.pipelines import requested_options
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
    """Bytes: 1.23e9 -> "1.23 GB", 239e6 -> "239 MB"."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def config(values: Config) -> str:
    """The knobs that are not at their default: "compile=regional dtype=bf16"."""
    knobs = all_knobs()
    changed = [f"{name}={value}" for name, value in values.items() if name in knobs and value != knobs[name].default]
    return " ".join(changed) or "all defaults"


def compiling(values: Config, trials: Sequence[Trial]) -> str:
    """That a trial of this config compiles, and how long such trials took; empty where it does not compile.

    Such trials are those with the same setting; where there is none, any that compile. Where the compiled code of an
    earlier one was reused, they took less, which is why the range is told.
    """
    of = _compiles(values)
    if not of:
        return ""
    before = [trial for trial in trials if _compiles(trial.config) == of]
    before = before or [trial for trial in trials if _compiles(trial.config)]
    took = [trial.seconds for trial in before]
    if not took:
        return "compiling; no such trial has run before"
    each = seconds(took[0]) if len(took) == 1 else f"{seconds(min(took))} to {seconds(max(took))}"
    return f"compiling; such trials took {each} before"


def _compiles(values: Config) -> dict[str, Value]:
    """The settings that compile a part of the pipe, without those that only refine them."""
    at = {name: knob for name, knob in all_knobs().items() if knob.stage is Stage.COMPILE and knob.modifies is None}
    return {name: values[name] for name, knob in at.items() if values.get(name, knob.default) != knob.default}


def naming(pipeline: Pipeline) -> list[str]:
    """The options of a command line that name this pipeline, and what is put on top of it."""
    built = ["--factory", f"{pipeline.source}:{pipeline.factory}", "--run-code"]
    return [*(built if pipeline.factory is not None else ["--pipeline", pipeline.name]), *options(pipeline)]


def options(pipeline: Pipeline) -> list[str]:
    """The options of a command line that load this pipeline beside its name: ["--task", "image2image"]."""
    requested = requested_options(pipeline)
    given = [("task", requested["task"])] if "task" in requested else []
    given += [("config", pipeline.config)] if pipeline.config else []
    if "scheduler" in requested:
        told = {name: v if isinstance(v, str) else json.dumps(v) for name, v in pipeline.scheduler_settings.items()}
        settings = ",".join(f"{name}={value}" for name, value in told.items())
        given += [("scheduler", requested["scheduler"] + (f":{settings}" if settings else ""))]
    if "controlnet" in requested:
        given += [("controlnet", s if w is None else f"{s}:{w:g}") for s, w in pipeline.controlnets.values()]
    if "lora" in requested:
        given += [("lora", source if w == 1.0 else f"{source}:{w:g}") for source, w in pipeline.loras.values()]
    given += [("gguf", pipeline.gguf)] if pipeline.gguf is not None else []
    if pipeline.ip_adapter is not None:
        given += [("ip-adapter", f"{pipeline.ip_adapter}:{pipeline.ip_adapter_scale:g}")]
    given += [("textual-inversion", f"{s}:{t}" if t else s) for s, t in pipeline.textual_inversions.items()]
    return [word for name, value in given for word in (f"--{name}", value)]


def outcome(trial: Trial, baseline: Trial, spread: float = PRIOR_SPREAD) -> str:
    """One line for a finished trial: its figures and remarks, or why it failed.

    spread  of one config's latency from process to process, as a share, see drift.py
    """
    if isinstance(trial.outcome, Failure):
        return f"{trial.outcome.cause}: {trial.outcome.reason}"
    measured, reference = trial.outcome, baseline.measured
    assert reference is not None
    ratio = speed(trial, baseline, spread)
    several = f"{seconds(measured.latency_s)} ({ratio}; {_sizes(measured)})" if measured.also else None
    figures = f"{several or f'{_call(measured)} ({ratio})'}, {memory(measured.peak_memory_bytes)}"
    if measured.quality is not None and reference.quality is not None:
        figures += f", {quality(trial, baseline)}"
    return "; ".join([figures, *remarks(trial)])


def remarks(trial: Trial) -> list[str]:
    """Remarks on a measured trial: what it has reused, why it was stopped early, what its spot check has found."""
    measured = trial.measured
    if measured is None:
        return []
    check = measured.spot_check
    found = [check.mismatch] if check and check.mismatch else []
    if measured.stopped:
        found.append(f"stopped: {measured.stopped}")
    if measured.compiled_as:
        found.append(f"compiled as trial {measured.compiled_as.trial}")
    if measured.quality_of is not None and check:
        found.append(f"pictures as trial {measured.quality_of}'s (one compared, SSIM {check.ssim:.3f})")
    return found


def speed(trial: Trial, baseline: Trial, spread: float) -> str:
    """ "1.23x" the baseline's speed; "~1x" where the difference is within the noise."""
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
    """The earlier studies of a warm start, and how many trials they have put first."""
    counts: Counter[str] = Counter()
    for study in studies:
        counts[study.device] += len(study.trials)
    trials = " and ".join(f"{count} trial{'s' * (count > 1)} of {device}" for device, count in counts.items())
    many = f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}"
    ordered = f"order the first {first}" if first else "put none first: none of them is known to keep the limits here"
    return f"warm start from {many}: {trials} {ordered}"


def untried(skipped: Untried) -> str:
    """The configs that the sampler has skipped: how many, and the prediction that is the reason."""
    configs = "config was" if skipped.count == 1 else "configs were"
    return (
        f"{skipped.count} {configs} not tried: predicted to need more than "
        f"{memory(skipped.limit_bytes)} (least: {memory(skipped.least_bytes)})"
    )


def _call(cost: Measurement | ShapeCost) -> str:
    """One call at one size: "644 ms +-9.6%", half of the interquartile range."""
    return f"{seconds(statistics.median(cost.latency_samples_s))} +-{cost.latency_spread / 2:.1%}"


def _sizes(measured: Measurement) -> str:
    """Each size, the main one first: "400 ms +-9.6%, 96x96@2 800 ms +-3.0% with 3 more graphs"."""
    graphs = {cost.shape: f"{cost.graphs_added} more graph{'s' * (cost.graphs_added > 1)}" for cost in measured.also}
    others = [
        f"{cost.shape} {_call(cost)}" + (f" with {graphs[cost.shape]}" if cost.graphs_added else "")
        for cost in measured.also
    ]
    return ", ".join([_call(measured), *others])


def quality(trial: Trial, baseline: Trial) -> str:
    """Relative to the baseline: "CLIP +0.09 +-0.13 (16 pairs see drops from 0.14), SSIM 0.995"."""
    return ", ".join(quality_lines(trial, baseline)).replace(", (", " (")


def quality_lines(trial: Trial, baseline: Trial) -> list[str]:
    """The same for a narrow column: the score, the smallest detectable drop, the likeness."""
    measured, reference = trial.measured, baseline.measured
    assert measured is not None
    assert reference is not None
    if measured.quality is None or reference.quality is None:
        return ["not judged"]
    likeness = f"SSIM {measured.quality.ssim_mean:.3f}"
    if measured.quality.metric == "likeness":
        return [likeness]
    return [*drop_lines(paired_drop(measured.quality, reference.quality)), likeness]


def drop_lines(drop: Paired) -> list[str]:
    """The change of the CLIP score, and the smallest drop that its pairs can show (no line where all pairs agree)."""
    half = "?" if drop.half_width is None else f"{drop.half_width:.2f}"
    score = f"CLIP {0.0 - drop.mean:+.2f} +-{half}"
    if drop.smallest_detectable is None:
        return [score, "(1 pair shows no interval)"]
    if drop.smallest_detectable == 0:
        return [score]
    return [score, f"({drop.n} pairs see drops from {drop.smallest_detectable:.2f})"]
