"""Dominance: is a config slower and larger than an earlier one, beyond the noise?

Then it can't reach the Pareto front, and its trial may stop early.
"""

import math
from collections.abc import Sequence

from autotune.reuse import Reuse
from autotune.statistics.peak_memory import is_larger
from autotune.statistics.verdict import GAP


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
        larger = is_larger(memory_bytes, incumbent.peak_memory_bytes, reuse.same_memory)
        if slower * math.exp(-half) > 1 + GAP and larger:
            return (
                f"can't reach the front: trial {incumbent.trial} is {slower:.2f}x as fast with "
                f"{1 - incumbent.peak_memory_bytes / memory_bytes:.0%} less memory, and loses no quality"
            )
    return None
