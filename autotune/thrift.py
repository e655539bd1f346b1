"""Thrift: what a trial need not do. Written into its job, decided where it is measured.

A giver is an earlier trial whose pictures this config should draw, too: one is drawn and compared, and if it is the
same the giver's are taken over. A rival is an earlier trial that loses no quality: what is slower and larger than it,
beyond the noise, can't reach the front, whatever its pictures are like. A compiler is an earlier trial that has
compiled the same graphs: its code is taken, and what compiling costs is what it has cost there. And a latency need not
be known much better than processes of one config agree: more calls of one of them can't tell more.
"""

import math
from collections.abc import Sequence

from pydantic import Field

from autotune.config import Value
from autotune.noun import Noun
from autotune.verdict import GAP

MOST_ERROR = 0.02  # the standard error of a latency, as a share, however much processes differ
SAME_BYTES = 16 * 2**20  # peaks that differ by less are the same: processes of one config differ by some MiB


class Giver(Noun):
    """`images` is the folder of its pictures. The rest goes into the Look, see likeness.py."""

    trial: int
    prompt: int
    suspects: dict[str, Value]
    least_psnr_db: float | None
    can_tell: bool
    images: str = ""


class Rival(Noun):
    """`latencies_s` as they would be now: as many as are minimised. `error`: the standard error of the median."""

    trial: int
    latencies_s: tuple[float, ...]
    error: float  # as a share
    peak_memory_bytes: int


class Thrift(Noun):
    """spread       the standard deviation, as a share, of one config's latency from process to process
    same_memory  two peaks that differ by no more than this share are the same
    each         is every size's latency minimised by itself, or their sum?
    """

    giver: Giver | None = None
    compiler: int | None = None  # the trial
    rivals: tuple[Rival, ...] = ()
    spread: float = Field(default=0.0, ge=0)
    same_memory: float = 0.0
    each: bool = False

    @property
    def precision(self) -> float:
        """The standard error of a latency, as a share, that is good enough.

        Half the spread between processes: all in all, it is made wider by an eighth.
        """
        return min(self.spread / 2, MOST_ERROR)

    def hopeless(self, latencies_s: Sequence[float], error: float, memory_bytes: int) -> str | None:
        """Why a config that takes so long at each size, and so much memory, can't reach the front; None: it might.

        error  the standard error, as a share, of the median at the main size
        """
        mine_s = tuple(latencies_s) if self.each else (sum(latencies_s),)
        for rival in self.rivals:
            half = 1.96 * math.sqrt(2 * self.spread**2 + error**2 + rival.error**2)
            slower = min(mine / theirs for mine, theirs in zip(mine_s, rival.latencies_s, strict=True))
            more_bytes = memory_bytes - rival.peak_memory_bytes
            is_larger = more_bytes > max(SAME_BYTES, self.same_memory * rival.peak_memory_bytes)
            if slower * math.exp(-half) > 1 + GAP and is_larger:
                return (
                    f"can't reach the front: trial {rival.trial} is {slower:.2f}x as fast with "
                    f"{more_bytes / memory_bytes:.0%} less memory, and loses no quality"
                )
        return None
