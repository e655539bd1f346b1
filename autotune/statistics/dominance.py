"""Dominance: is a config slower and larger than an earlier one, beyond the noise?

Then it can't reach the Pareto front, and its trial may stop early.
"""

import math
from collections.abc import Sequence

from autotune.reuse import Reuse
from autotune.statistics.verdict import GAP

SAME_MEMORY = 0.02  # peaks that differ by no more than this share are the same: two runs of a config differ as much
SAME_BYTES = 16 * 2**20  # peaks that differ by no more are the same: two processes of a config differ by some MiB


def dominated(reuse: Reuse, latencies_s: Sequence[float], error: float, memory_bytes: int) -> str | None:
    """Why a config with these figures can't reach the Pareto front, as a sentence; None: it might.

    reuse         holds the incumbents to compare with
    latencies_s   seconds of one call at each size of the workload
    error         the standard error of the median latency at the main size, as a share
    memory_bytes  the peak
    """
    own_s = tuple(latencies_s) if reuse.each else (sum(latencies_s),)
    for incumbent in reuse.incumbents:
        half = 1.96 * math.sqrt(2 * reuse.spread**2 + error**2 + incumbent.error**2)
        slower = min(own / other for own, other in zip(own_s, incumbent.latencies_s, strict=True))
        more_bytes = memory_bytes - incumbent.peak_memory_bytes
        is_larger = more_bytes > max(SAME_BYTES, reuse.same_memory * incumbent.peak_memory_bytes)
        if slower * math.exp(-half) > 1 + GAP and is_larger:
            return (
                f"can't reach the front: trial {incumbent.trial} is {slower:.2f}x as fast with "
                f"{more_bytes / memory_bytes:.0%} less memory, and loses no quality"
            )
    return None
