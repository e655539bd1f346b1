"""What a search would have been spared that a recording has measured in full: its outcome, and the seconds it takes."""

import math
import statistics
from collections.abc import Sequence

from autotune.drift import median_error
from autotune.likeness import Look
from autotune.measure.latency import LEAST_CALLS, calls_for_time_alone
from autotune.recording import Row
from autotune.runner import taken_over
from autotune.thrift import Giver, Thrift
from autotune.trial import Measurement, Trial


def spared(
    row: Row, outcome: Measurement, thrift: Thrift, earlier: Sequence[Trial], calls: int
) -> tuple[Measurement, float]:
    """(the outcome, the seconds) where no more is drawn and judged than must be. So many calls draw all pictures.

    Starting, loading, compiling, warming up and timing take what they took. Judging is spared where the table says how
    long it took. Pictures that a look found to be others are drawn beside the timed ones.
    """
    timed_s, whole_s = row.latency_samples_s, row.seconds
    alone = calls_for_time_alone(timed_s)
    drawn_beside_s = max(0, alone + calls - len(timed_s)) * statistics.median(timed_s)
    why = thrift.hopeless(outcome.latencies_s, median_error(outcome.latency_samples_s), outcome.peak_memory_bytes)
    if why is not None:
        timed = LEAST_CALLS if _is_seen_early(outcome, thrift) else alone if thrift.giver or outcome.also else None
        stopped = outcome.model_copy(update={"quality": None, "stopped": why})
        return stopped, whole_s - _spared_s(row, len(timed_s) if timed is None else timed)
    if thrift.giver is None:
        return outcome, whole_s + (drawn_beside_s if outcome.also and thrift.rivals else 0.0)
    look = look_in_table(outcome, thrift.giver, earlier)
    seen = outcome.model_copy(update={"look": look})
    if look.same:
        return taken_over(seen, look.trial, earlier), whole_s - _spared_s(row, alone)
    return seen, whole_s + drawn_beside_s


def _is_seen_early(outcome: Measurement, thrift: Thrift) -> bool:
    """Would it have been stopped after the least number of calls? Of several sizes, all are timed first."""
    first = outcome.latency_samples_s[:LEAST_CALLS]
    if outcome.also:
        return False
    return thrift.hopeless([statistics.median(first)], median_error(first), outcome.peak_memory_bytes) is not None


def _spared_s(row: Row, timed: int) -> float:
    """What the calls beyond so many took, and the judging."""
    return sum(row.latency_samples_s[timed:]) + (row.score_s or 0.0)


def look_in_table(mine: Measurement, giver: Giver, earlier: Sequence[Trial]) -> Look:
    """How like the two pictures can at most be.

    A table has no pictures. It says how far off the baseline's each of them lies; two that lie off by much and by
    little are no nearer to each other than by the difference.
    """
    theirs = next(trial.judged for trial in earlier if trial.number == giver.trial)
    assert theirs is not None
    assert theirs.quality is not None
    assert mine.quality is not None
    both = [quality.psnr_db[giver.prompt] for quality in (mine.quality, theirs.quality)]
    off = [0.0 if psnr_db is None else 255 * 10 ** (-psnr_db / 20) for psnr_db in both]
    apart = abs(off[0] - off[1])  # root mean square, levels of 255
    return Look(
        **giver.model_dump(exclude={"images"}),
        ssim=1 - abs(mine.quality.ssim[giver.prompt] - theirs.quality.ssim[giver.prompt]),
        psnr_db=20 * math.log10(255 / apart) if apart > 0 else None,
        largest_levels=math.ceil(apart),
    )
