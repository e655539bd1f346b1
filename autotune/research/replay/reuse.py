"""What a search would have been spared that a recording has measured in full: its outcome, and the seconds it takes."""

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

# Of the seconds of a compilation, those that it takes to find that all its code is there: a table can't tell.
FROM_CACHE = 0.15


def reused(
    row: Row, outcome: Measurement, reuse: Reuse, earlier: Sequence[Trial], calls: int
) -> tuple[Measurement, float]:
    """(the outcome, the seconds) where no more is timed, drawn and judged than must be.

    Starting, loading and warming up take what they took, and so does compiling, unless the code is an earlier trial's;
    the latency is that of the calls that would have been timed. Judging is spared where the table says how long it
    took. `calls`: so many draw all pictures.
    """
    samples_s, score_s = row.latency_samples_s, row.score_s or 0.0
    compiled_s = 0.0 if reuse.compiler is None else (1 - FROM_CACHE) * (row.compile_s or 0.0)
    before_s = row.seconds - sum(samples_s) - score_s - compiled_s
    draw_s = calls * statistics.median(samples_s)
    for_time = reuse.source is not None or (outcome.also and reuse.incumbents)  # see measure/spared.py: wanted
    timed = calls_needed(samples_s, 0 if for_time else calls, reuse.precision)
    timed = LEAST_CALLS if _is_seen_early(outcome, reuse) else timed
    seen = outcome.model_copy(update={"latency_samples_s": outcome.latency_samples_s[:timed]})
    timed_s = before_s + sum(samples_s[:timed])
    why = dominated(reuse, seen.latencies_s, median_error(seen.latency_samples_s), seen.peak_memory_bytes)
    if why is not None:
        return seen.model_copy(update={"quality": None, "stopped": why}), timed_s
    if reuse.source is None:
        return seen, timed_s + score_s + (draw_s if for_time else 0.0)
    spot_check = spot_check_in_table(outcome, reuse.source, earlier)
    seen = seen.model_copy(update={"spot_check": spot_check})
    if spot_check.same:
        return with_quality_of(seen, spot_check.trial, earlier), timed_s
    return seen, timed_s + draw_s + score_s


def _is_seen_early(outcome: Measurement, reuse: Reuse) -> bool:
    """Would it have been stopped after the least number of calls? Of several sizes, all are timed first."""
    first = outcome.latency_samples_s[:LEAST_CALLS]
    if outcome.also:
        return False
    return dominated(reuse, [statistics.median(first)], median_error(first), outcome.peak_memory_bytes) is not None


def spot_check_in_table(mine: Measurement, source: SourceTrial, earlier: Sequence[Trial]) -> SpotCheck:
    """How like the two pictures can at most be.

    A table has no pictures. It says how far off the baseline's each of them lies; two that lie off by much and by
    little are no nearer to each other than by the difference.
    """
    theirs = next(trial.judged for trial in earlier if trial.number == source.trial)
    assert theirs is not None
    assert theirs.quality is not None
    assert mine.quality is not None
    both = [quality.psnr_db[source.prompt] for quality in (mine.quality, theirs.quality)]
    off = [0.0 if psnr_db is None else 255 * 10 ** (-psnr_db / 20) for psnr_db in both]
    apart = abs(off[0] - off[1])  # root mean square, levels of 255
    return SpotCheck(
        **source.model_dump(exclude={"images"}),
        ssim=1 - abs(mine.quality.ssim[source.prompt] - theirs.quality.ssim[source.prompt]),
        psnr_db=20 * math.log10(255 / apart) if apart > 0 else None,
        largest_levels=math.ceil(apart),
    )
