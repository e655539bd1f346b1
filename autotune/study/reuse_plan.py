"""Which earlier trials spare the next one some of its work: whose pictures it should draw, whose compiled code it can
take, and who has beaten it.

What is not drawn twice are pictures that only knobs lie between that, as they say, don't change them. They are not
believed: one picture is drawn and compared. How far it may lie off is known from the study itself. In plain float32
another order of the same arithmetic moves no pixel by a level; in a coarser format it moves the picture by about as
much as that format's rounding does (0.9 to 1.1 times, compat/judge.py), and how much that is, the trial shows that
differs from the baseline in its format alone. A knob that is found out counts as one that changes the picture, from
then on.
"""

import math
from collections.abc import Mapping, Sequence

from autotune.config import Config, Value
from autotune.goal import Goal
from autotune.knob import Knob, Stage
from autotune.knobs import all_knobs, complete, different
from autotune.reuse import MIN_PSNR_DB, Incumbent, Reuse, SourceTrial
from autotune.statistics.dominance import SAME_MEMORY
from autotune.statistics.drift import drift_at, median_error, process_spread
from autotune.study.pareto_front import costs, keeps
from autotune.study.record import Record
from autotune.trial import Anchor, Trial

ROUNDED_DB = 20 * math.log10(2)  # a picture may lie twice as far off as rounding has moved that of the reference

Key = tuple[tuple[str, Value], ...]


def plan_reuse(
    number: int, config: Config, trials: Sequence[Trial], anchors: Sequence[Anchor], record: Record
) -> Reuse:
    """What the trial of this number need not do, as far as those before it tell. `trials[0]` is the baseline."""
    baseline = trials[0]
    return Reuse(
        source=_source(number, config, trials, record),
        compiler=_compiler(config, trials),
        incumbents=incumbents(trials, record.goal, drift_at(baseline, anchors, number)),
        spread=process_spread(baseline, anchors),
        same_memory=SAME_MEMORY,
        each=record.goal.minimise == "each",
    )


def incumbents(trials: Sequence[Trial], goal: Goal, drift: float) -> tuple[Incumbent, ...]:
    """The trials that keep the goal's limits and lose no quality, without those that another of them beats.

    drift  how much slower the device is now than it was at trial 0
    """
    found: list[tuple[tuple[float, ...], int, Trial]] = []
    for trial in trials:
        mine, theirs = trial.judged, trials[0].judged
        if mine is None or theirs is None or mine.quality is None or theirs.quality is None:
            continue
        if round(mine.quality.loss(theirs.quality), 2) == 0 and keeps(trial, trials[0], goal):  # see pareto_front
            *undrifted_s, peak_bytes = costs(trial, goal.minimise)
            found.append((tuple(one * drift for one in undrifted_s), int(peak_bytes), trial))
    kept: list[Incumbent] = []
    for latencies_s, memory_bytes, trial in sorted(found, key=lambda one: (*one[0], one[1], one[2].number)):
        if not any(_beats(old, latencies_s, memory_bytes) for old in kept):
            assert trial.measured is not None
            error = median_error(trial.measured.latency_samples_s)
            kept.append(
                Incumbent(trial=trial.number, latencies_s=latencies_s, error=error, peak_memory_bytes=memory_bytes)
            )
    return tuple(kept)


def _beats(incumbent: Incumbent, latencies_s: Sequence[float], memory_bytes: int) -> bool:
    pairs = zip(incumbent.latencies_s, latencies_s, strict=True)
    return incumbent.peak_memory_bytes <= memory_bytes and all(theirs <= mine for theirs, mine in pairs)


def _source(number: int, config: Config, trials: Sequence[Trial], record: Record) -> SourceTrial | None:
    """Of the trials that should have drawn this config's pictures, the one that differs in the fewest knobs."""
    distrusted = found_out(trials)
    key, cleared = picture_key(config, distrusted), _cleared(trials)
    drawn = [t for t in trials if t.judged and t.pictures_of == t.number and picture_key(t.config, distrusted) == key]
    if not drawn:
        return None
    chosen = min(drawn, key=lambda t: (len(different(config, t.config)), t.number))
    prompt = number % len(record.target.workload.prompts)
    min_psnr_db = _rounding_limit_db(chosen, prompt, trials)
    exact = not _rounding(chosen.config) and record.target.device.kind == "cpu"  # a GPU's default rounds, see tf32
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
    """The trial that has compiled this config's graphs from nothing."""
    key = graph_key(config)
    if key is None:
        return None
    own = (t for t in trials if t.measured and t.measured.compiled_as is None)
    return next((t.number for t in own if graph_key(t.config) == key), None)


def graph_key(config: Config) -> Key | None:
    """What decides which graphs are compiled; None where Inductor compiles nothing.

    All knobs do, of most of which Inductor's cache knows nothing (an attention kernel that is set around the denoiser
    is not in its key), but for those that say what of theirs does not.
    """
    whole, knobs = complete(config), all_knobs()
    if whole["compile"] in ("off", "trace"):
        return None
    return tuple(sorted((name, knobs[name].in_graphs(v) if name in knobs else v) for name, v in whole.items()))


def picture_key(config: Config, distrusted: frozenset[str] = frozenset()) -> Key:
    """The knobs that decide what is drawn: configs with the same key should draw the same pictures."""
    whole = complete(config)
    return tuple(sorted(pair for pair in whole.items() if changes_the_picture(pair[0], whole, distrusted)))


def changes_the_picture(name: str, config: Mapping[str, Value], distrusted: frozenset[str] = frozenset()) -> bool:
    """Does the knob, or the one that it refines? Those that are not known here do.

    Fused projections and linear layers in place of convolutions alter which weights a quantization takes.
    """
    knobs = all_knobs()
    knob = knobs.get(name)
    if knob is None:
        return True
    chain = [knob, *([knobs[knob.modifies]] if knob.modifies else [])]
    if any(one.changes_output or one.name in distrusted for one in chain):
        return True
    return knob.stage == Stage.SURGERY and any(_acts(knobs.get(n), v, Stage.QUANTIZE) for n, v in config.items())


def _acts(knob: Knob | None, value: Value, stage: Stage) -> bool:
    return knob is not None and knob.stage == stage and value != knob.default and knob.modifies is None


def found_out(trials: Sequence[Trial]) -> frozenset[str]:
    """The knobs that were seen to change the picture in this study though they say that they don't."""
    spot_checks = [trial.measured.spot_check for trial in trials if trial.measured and trial.measured.spot_check]
    return frozenset(name for spot_check in spot_checks if spot_check.mismatch for name in spot_check.suspects)


def _cleared(trials: Sequence[Trial]) -> set[tuple[str, Value | None]]:
    """(knob, value) of both sides of every spot_check that has found nothing."""
    by_number, cleared = {trial.number: trial for trial in trials}, set[tuple[str, Value | None]]()
    for trial in trials:
        spot_check = trial.measured.spot_check if trial.measured else None
        if spot_check and spot_check.same and spot_check.trial in by_number:
            mine, theirs = trial.config, by_number[spot_check.trial].config
            cleared |= {(name, side.get(name)) for name in different(mine, theirs) for side in (mine, theirs)}
    return cleared


def _rounding(config: Config) -> Key:
    """The knobs that round, where they are not at their defaults."""
    knobs = all_knobs()
    return tuple(
        sorted((n, v) for n, v in complete(config).items() if n in knobs and knobs[n].rounds and v != knobs[n].default)
    )


def _rounding_limit_db(source: Trial, prompt: int, trials: Sequence[Trial]) -> float | None:
    """How far off (PSNR, dB) the source's rounding lets this picture lie. None: no trial shows how much it rounds.

    The reference is a trial that differs from the baseline in formats alone, one of the two in the source's, the other
    in the pipeline's own.
    """
    wanted = _rounding(source.config)
    if not wanted:
        return None
    rest = _but_rounding(trials[0].config)
    for trial in trials[1:]:
        quality = trial.judged.quality if trial.judged and trial.pictures_of == trial.number else None
        pair = {_rounding(trial.config), _rounding(trials[0].config)}
        if quality is None or pair != {wanted, ()} or _but_rounding(trial.config) != rest:
            continue
        moved_db = quality.psnr_db[prompt]
        if moved_db is not None:
            return max(MIN_PSNR_DB, moved_db - ROUNDED_DB)
    return None


def _but_rounding(config: Config) -> Key:
    knobs = all_knobs()
    return tuple((n, v) for n, v in picture_key(config) if n not in knobs or not knobs[n].rounds)
