"""Reuse in a replay: the outcome and the seconds that a trial would have had if it had skipped what reuse allows.

A recording measures every config in full. A real search reuses earlier trials (autotune/reuse.py) and stops dominated
configs early, so a replayed search must do the same, and must not pay for the work that it skips.
"""

import math
import statistics
from collections.abc import Sequence

from autotune.execution.reused import with_quality_of
from autotune.measure.latency import LEAST_CALLS, calls_needed
from autotune.measurement import Measurement
from autotune.recordings.recording import Row
from autotune.reuse import Reuse, SourceTrial, SpotCheck
from autotune.statistics.dominance import dominated
from autotune.statistics.drift import median_error
from autotune.trial import Trial

# The share of the seconds of a compilation that remains where all code comes from the cache. No table records it.
FROM_CACHE = 0.15


def reused(
    row: Row, outcome: Measurement, reuse: Reuse, earlier: Sequence[Trial], calls: int
) -> tuple[Measurement, float]:
    """(outcome, seconds) of a row of the table, without the calls, pictures and scores that reuse skips.

    Starting, loading and warming up count in full. So does compiling, unless an earlier trial compiled the same code.
    The latency is that of the calls that would have been timed. Seconds of scoring are saved only where the table
    records them.

    outcome  of the row
    earlier  the trials of the replayed search so far
    calls    the number of calls that draw all pictures
    """
    samples_s, score_s = row.latency_samples_s, row.score_s or 0.0
    compiled_s = 0.0 if reuse.compiler is None else (1 - FROM_CACHE) * (row.compile_s or 0.0)
    before_s = row.seconds - sum(samples_s) - score_s - compiled_s
    draw_s = calls * statistics.median(samples_s)
    timed_first = reuse.source is not None or (outcome.also and reuse.incumbents)  # see measure/reuse.py
    timed = calls_needed(samples_s, 0 if timed_first else calls, reuse.precision)
    timed = LEAST_CALLS if _stops_early(outcome, reuse) else timed
    reduced = outcome.model_copy(update={"latency_samples_s": outcome.latency_samples_s[:timed]})
    timed_s = before_s + sum(samples_s[:timed])
    why = dominated(reuse, reduced.latencies_s, median_error(reduced.latency_samples_s), reduced.peak_memory_bytes)
    if why is not None:
        return reduced.model_copy(update={"quality": None, "stopped": why}), timed_s
    if reuse.source is None:
        return reduced, timed_s + score_s + (draw_s if timed_first else 0.0)
    spot_check = spot_check_in_table(outcome, reuse.source, earlier)
    reduced = reduced.model_copy(update={"spot_check": spot_check})
    if spot_check.same:
        return with_quality_of(reduced, spot_check.trial, earlier), timed_s
    return reduced, timed_s + draw_s + score_s


def _stops_early(outcome: Measurement, reuse: Reuse) -> bool:
    """Is the config dominated after the least number of calls? With several sizes, all are timed before that."""
    first = outcome.latency_samples_s[:LEAST_CALLS]
    if outcome.also:
        return False
    return dominated(reuse, [statistics.median(first)], median_error(first), outcome.peak_memory_bytes) is not None


def spot_check_in_table(outcome: Measurement, source: SourceTrial, earlier: Sequence[Trial]) -> SpotCheck:
    """The spot check of a config against its source trial, with the greatest likeness that the table allows.

    A table has no pictures, only the distance of each picture from the baseline's. By the triangle inequality two
    pictures are at least as far apart as these distances differ.
    """
    source_outcome = next(trial.judged for trial in earlier if trial.number == source.trial)
    assert source_outcome is not None
    own, other = outcome.quality, source_outcome.quality
    assert own is not None
    assert other is not None
    distances = [_distance_levels(quality.psnr_db[source.prompt]) for quality in (own, other)]
    apart = abs(distances[0] - distances[1])
    return SpotCheck(
        **source.model_dump(exclude={"images"}),
        ssim=1 - abs(own.ssim[source.prompt] - other.ssim[source.prompt]),
        psnr_db=20 * math.log10(255 / apart) if apart > 0 else None,
        largest_levels=math.ceil(apart),
    )


def _distance_levels(psnr_db: float | None) -> float:
    """The root mean square difference of two pictures, in levels of 255. None: they are equal."""
    return 0.0 if psnr_db is None else 255 * 10 ** (-psnr_db / 20)
