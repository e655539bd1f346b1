"""Reuse plan: which work of earlier trials the next trial may reuse, and which trials it has to beat.

Knobs declare whether they change the picture. Two configs that differ only in knobs that don't should draw the same
pictures, so the second one takes the quality of the first. The declaration is not trusted: one picture is drawn and
compared (a spot check). A knob that fails the check counts as one that changes the picture from then on.

How far the two pictures may differ follows from the study itself. In plain float32, another order of the same
arithmetic changes no pixel by a level. In a coarser format it changes the picture about as much as the format's
rounding does (0.9 to 1.1 times, see compat/judge.py). The trial that differs from the baseline only in its format
shows how much that is.
"""

import math
from collections.abc import Mapping, Sequence

from autotune.config import Config, Value
from autotune.goal import Goal
from autotune.knob import Knob, Stage
from autotune.knobs import all_knobs, complete, different
from autotune.reuse import MIN_PSNR_DB, Incumbent, Reuse, SourceTrial
from autotune.statistics.drift import drift_at, median_error, process_spread
from autotune.statistics.peak_memory import SAME_MEMORY
from autotune.study.pareto_front import costs, keeps
from autotune.study.record import Record
from autotune.trial import Anchor, Trial

ROUNDED_DB = 20 * math.log10(2)  # a picture may differ twice as much as rounding has changed the reference's

Key = tuple[tuple[str, Value], ...]


def plan_reuse(
    number: int,
    config: Config,
    trials: Sequence[Trial],
    anchors: Sequence[Anchor],
    record: Record,
    card: str | None = None,
) -> Reuse:
    """What the trial of this number and config may skip. `trials` are all before it; `trials[0]` is the baseline.

    card  on which it runs, of a search on several: compiled code stays on the host that made it
    """
    baseline = trials[0]
    return Reuse(
        source=_source(number, config, trials, record),
        compiler=_compiler(config, [trial for trial in trials if host_of(trial.card) == host_of(card)]),
        incumbents=incumbents(trials, record.goal, drift_at(baseline, anchors, number, card)),
        spread=process_spread(baseline, anchors),
        same_memory=SAME_MEMORY,
        each=record.goal.minimise == "each",
    )


def host_of(card: str | None) -> str | None:
    """The host of a card "HOST/NAME"."""
    return card.rpartition("/")[0] if card is not None else None


def incumbents(trials: Sequence[Trial], goal: Goal, drift: float) -> tuple[Incumbent, ...]:
    """The trials that keep the goal's limits and lose no quality, without those that another of them dominates.

    drift  how many times slower the device is now than at trial 0
    """
    lossless: list[tuple[tuple[float, ...], int, Trial]] = []
    for trial in trials:
        judged, reference = trial.judged, trials[0].judged
        if judged is None or reference is None or judged.quality is None or reference.quality is None:
            continue
        # Rounded as in pareto_front.py.
        if round(judged.quality.loss(reference.quality), 2) == 0 and keeps(trial, trials[0], goal):
            *undrifted_s, peak_bytes = costs(trial, goal.minimise)
            lossless.append((tuple(latency_s * drift for latency_s in undrifted_s), int(peak_bytes), trial))
    kept: list[Incumbent] = []
    for latencies_s, memory_bytes, trial in sorted(lossless, key=lambda entry: (*entry[0], entry[1], entry[2].number)):
        if not any(_dominates(incumbent, latencies_s, memory_bytes) for incumbent in kept):
            assert trial.measured is not None
            error = median_error(trial.measured.latency_samples_s)
            kept.append(
                Incumbent(trial=trial.number, latencies_s=latencies_s, error=error, peak_memory_bytes=memory_bytes)
            )
    return tuple(kept)


def _dominates(incumbent: Incumbent, latencies_s: Sequence[float], memory_bytes: int) -> bool:
    pairs = zip(incumbent.latencies_s, latencies_s, strict=True)
    return incumbent.peak_memory_bytes <= memory_bytes and all(old_s <= new_s for old_s, new_s in pairs)


def _source(number: int, config: Config, trials: Sequence[Trial], record: Record) -> SourceTrial | None:
    """The trial that drew the pictures which this config should draw. Of several, the one that differs least."""
    distrusted = distrusted_knobs(trials)
    key, cleared = picture_key(config, distrusted), _cleared(trials)
    drawn = [t for t in trials if t.judged and t.pictures_of == t.number and picture_key(t.config, distrusted) == key]
    if not drawn:
        return None
    chosen = min(drawn, key=lambda t: (len(different(config, t.config)), t.number))
    prompt = number % len(record.target.workload.prompts)
    min_psnr_db = _rounding_limit_db(chosen, prompt, trials)
    exact = not _rounding(chosen.config) and not record.target.device.is_gpu  # a GPU rounds by default, see tf32
    differs = different(config, chosen.config)
    suspects = {n: v for n, v in differs.items() if {(n, v), (n, chosen.config.get(n))} - cleared} or differs
    return SourceTrial(
        trial=chosen.number,
        prompt=prompt,
        suspects=suspects,
        min_psnr_db=min_psnr_db,
        conclusive=exact or min_psnr_db is not None,
    )


def _compiler(config: Config, trials: Sequence[Trial]) -> int | None:
    """The number of the trial that compiled this config's graphs without a cache; None: there is none."""
    key = graph_key(config)
    if key is None:
        return None
    compiled = (t for t in trials if t.measured and t.measured.compiled_as is None)
    return next((t.number for t in compiled if graph_key(t.config) == key), None)


def compiled_on(config: Config, trials: Sequence[Trial]) -> frozenset[str]:
    """The hosts on which a trial has compiled this config's graphs, of a search on several cards."""
    key = graph_key(config)
    known = (t for t in trials if key is not None and t.measured and graph_key(t.config) == key)
    return frozenset(host for trial in known if (host := host_of(trial.card)) is not None)


def graph_key(config: Config) -> Key | None:
    """What decides which graphs are compiled: configs with the same key share them. None: Inductor compiles nothing.

    It holds the values of all knobs, since Inductor's own cache key knows nothing of most of them (such as an attention
    kernel that is set around the denoiser). `Knob.in_graphs` reduces a value to the part of it that matters.
    """
    whole, knobs = complete(config), all_knobs()
    if whole["compile"] in ("off", "trace"):
        return None
    return tuple(sorted((name, knobs[name].in_graphs(v) if name in knobs else v) for name, v in whole.items()))


def picture_key(config: Config, distrusted: frozenset[str] = frozenset()) -> Key:
    """What decides which pictures are drawn: configs with the same key should draw the same ones.

    distrusted  knobs that count as changing the picture, see `distrusted_knobs`
    """
    whole = complete(config)
    return tuple(sorted(pair for pair in whole.items() if changes_the_picture(pair[0], whole, distrusted)))


def changes_the_picture(name: str, config: Mapping[str, Value], distrusted: frozenset[str] = frozenset()) -> bool:
    """Does the knob change the picture, or the knob that it modifies? Unknown knobs do.

    So do fused projections and linear layers in place of convolutions where weights are quantized: they alter which
    weights the quantization takes.
    """
    knobs = all_knobs()
    knob = knobs.get(name)
    if knob is None:
        return True
    chain = [knob, *([knobs[knob.modifies]] if knob.modifies else [])]
    if any(link.changes_output or link.name in distrusted for link in chain):
        return True
    return knob.stage == Stage.SURGERY and any(_acts(knobs.get(n), v, Stage.QUANTIZE) for n, v in config.items())


def _acts(knob: Knob | None, value: Value, stage: Stage) -> bool:
    return knob is not None and knob.stage == stage and value != knob.default and knob.modifies is None


def distrusted_knobs(trials: Sequence[Trial]) -> frozenset[str]:
    """The knobs that declare not to change the picture, and that a spot check of this study blames for changing it."""
    spot_checks = [trial.measured.spot_check for trial in trials if trial.measured and trial.measured.spot_check]
    return frozenset(name for spot_check in spot_checks if spot_check.mismatch for name in spot_check.suspects)


def _cleared(trials: Sequence[Trial]) -> set[tuple[str, Value | None]]:
    """(knob, value) pairs that a spot check has cleared: those in which two trials with the same picture differ."""
    by_number, cleared = {trial.number: trial for trial in trials}, set[tuple[str, Value | None]]()
    for trial in trials:
        spot_check = trial.measured.spot_check if trial.measured else None
        if spot_check and spot_check.same and spot_check.trial in by_number:
            configs = (trial.config, by_number[spot_check.trial].config)
            cleared |= {(name, config.get(name)) for name in different(*configs) for config in configs}
    return cleared


def _rounding(config: Config) -> Key:
    """The values of knobs that round (number formats, quantization), where they are not the default."""
    knobs = all_knobs()
    return tuple(
        sorted((n, v) for n, v in complete(config).items() if n in knobs and knobs[n].rounds and v != knobs[n].default)
    )


def _rounding_limit_db(source: Trial, prompt: int, trials: Sequence[Trial]) -> float | None:
    """The PSNR in dB that the spot check must reach, by how much the source's format rounds. None: no trial shows it.

    The reference is a trial that differs from the baseline only in its format, where one of the two has the source's
    format and the other the pipeline's own.
    """
    wanted = _rounding(source.config)
    if not wanted:
        return None
    rest = _without_rounding(trials[0].config)
    for trial in trials[1:]:
        quality = trial.judged.quality if trial.judged and trial.pictures_of == trial.number else None
        pair = {_rounding(trial.config), _rounding(trials[0].config)}
        if quality is None or pair != {wanted, ()} or _without_rounding(trial.config) != rest:
            continue
        moved_db = quality.psnr_db[prompt]
        if moved_db is not None:
            return max(MIN_PSNR_DB, moved_db - ROUNDED_DB)
    return None


def _without_rounding(config: Config) -> Key:
    """What else decides which pictures are drawn."""
    knobs = all_knobs()
    return tuple((n, v) for n, v in picture_key(config) if n not in knobs or not knobs[n].rounds)
