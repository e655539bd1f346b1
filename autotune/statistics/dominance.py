"""Dominance: is a config slower and larger than an earlier one, beyond the noise? Then it can't reach the front."""

import math
from collections.abc import Sequence

from autotune.reuse import Reuse
from autotune.statistics.verdict import GAP

SAME_MEMORY = (
    0.02  # a peak that differs by no more than this share is the same: two runs of one config differ by as much
)
SAME_BYTES = 16 * 2**20  # peaks that differ by less are the same: processes of one config differ by some MiB


def dominated(reuse: Reuse, latencies_s: Sequence[float], error: float, memory_bytes: int) -> str | None:
    """Why a config with these figures can't reach the Pareto front, as a sentence; None: it might.

    latencies_s   seconds of one call at each size of the workload
    error         the standard error, as a share, of the median at the main size
    memory_bytes  its peak
    """
    mine_s = tuple(latencies_s) if reuse.each else (sum(latencies_s),)
    for incumbent in reuse.incumbents:
        half = 1.96 * math.sqrt(2 * reuse.spread**2 + error**2 + incumbent.error**2)
        slower = min(mine / theirs for mine, theirs in zip(mine_s, incumbent.latencies_s, strict=True))
        more_bytes = memory_bytes - incumbent.peak_memory_bytes
        is_larger = more_bytes > max(SAME_BYTES, reuse.same_memory * incumbent.peak_memory_bytes)
        if slower * math.exp(-half) > 1 + GAP and is_larger:
            return (
                f"can't reach the front: trial {incumbent.trial} is {slower:.2f}x as fast with "
                f"{more_bytes / memory_bytes:.0%} less memory, and loses no quality"
            )
    return None
