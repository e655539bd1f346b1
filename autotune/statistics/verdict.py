"""Verdict: are two latencies different, and by how much? Read off pairs of runs, each run in a fresh process.

Within one process the calls of a config agree better than two processes of the same config do, so that processes are
what is repeated and counted (pyperf's rule). A pair (a round) is two processes next to each other in time, whose order
changes from pair to pair: what drifts slowly cancels. The interval is Student's, of the mean log ratio.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from autotune.frozen_model import FrozenModel

Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]

GAP = 0.01  # differences up to this share are noise whatever their interval (Criterion's noise threshold)
SAME_WITHIN = 0.05  # an interval that stays this near to 1 on both sides says "the same"
FLOOR = 0.01  # what processes of one config differ by on a good day: a few pairs that agree better were lucky
PRECISE = 0.02  # half an interval's width, as a share of the latency, at which no further pair is needed ...
PRECISE_PAIRS = 5  # ... from so many pairs on
CLEAR = 4.0  # nor is one where it is so many times smaller than the difference itself

# The 97.5 % quantile of Student's distribution with 1, 2, 3 ... degrees of freedom.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_OF_MANY = 2.12  # of 16; a little wide for more


class Verdict(FrozenModel):
    """`speedup` is how many times as fast the second is as the first; `low` to `high` its 95 % interval."""

    word: Word
    speedup: float
    low: float
    high: float
    pairs: int

    @property
    def is_precise(self) -> bool:
        """Would more pairs tell us more that matters? By the interval's width, not by what it says."""
        half = math.log(self.high / self.low) / 2
        return half <= abs(math.log(self.speedup)) / CLEAR or (half <= PRECISE and self.pairs >= PRECISE_PAIRS)

    def words(self, whose: str, more: str = "") -> str:
        """ "1.23x the baseline's speed (95 % interval 1.20 to 1.26, 3 interleaved rounds)", or that nothing shows.

        whose  "the baseline's speed";  more  what else stands in the brackets
        """
        seen = f"(95 % interval {self.low:.2f} to {self.high:.2f}, {self.pairs} interleaved rounds{more})"
        if self.word in ("FASTER", "SLOWER"):
            return f"{self.speedup:.2f}x {whose} {seen}"
        return f"{whose}, no difference beyond the noise {seen}"


def judge(first_s: Sequence[float], second_s: Sequence[float]) -> Verdict:
    """The verdict on two configs' latencies, pair by pair. Raises ValueError for fewer than two pairs."""
    logs = [math.log(a / b) for a, b in zip(first_s, second_s, strict=True)]
    if len(logs) < 2:
        raise ValueError(f"{len(logs)} pair of runs has no interval")
    middle, half = statistics.fmean(logs), half_width(logs)
    low, high = math.exp(middle - half), math.exp(middle + half)
    return Verdict(word=_word(low, high), speedup=math.exp(middle), low=low, high=high, pairs=len(logs))


def judge_apart(then_s: Sequence[float], now_s: Sequence[float]) -> Verdict:
    """The verdict on runs that were not taken in turn: some of another day, and those of now. `pairs`: runs of now.

    Student's interval of the difference of the mean logs, both groups scattering alike; what the machine itself does
    from day to day is not in it. Raises ValueError where all together are fewer than three.
    """
    then, now = [math.log(s) for s in then_s], [math.log(s) for s in now_s]
    freedom = len(then) + len(now) - 2
    if freedom < 1 or not then or not now:
        raise ValueError(f"{len(then)} and {len(now)} runs have no interval")
    middle = statistics.fmean(then) - statistics.fmean(now)
    squares = sum((x - statistics.fmean(group)) ** 2 for group in (then, now) for x in group)
    error = math.sqrt(1 / len(then) + 1 / len(now))
    half = max(t_quantile(freedom) * math.sqrt(squares / freedom), 1.96 * FLOOR) * error
    low, high = math.exp(middle - half), math.exp(middle + half)
    return Verdict(word=_word(low, high), speedup=math.exp(middle), low=low, high=high, pairs=len(now))


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of the mean log ratio, by Student's distribution, and no less than FLOOR means."""
    students = t_quantile(len(values) - 1) * statistics.stdev(values)
    return max(students, 1.96 * math.sqrt(2) * FLOOR) / math.sqrt(len(values))


def t_quantile(freedom: int) -> float:
    return T[freedom - 1] if freedom <= len(T) else T_OF_MANY


def _word(low: float, high: float) -> Word:
    if low > 1 + GAP:
        return "FASTER"
    if high < 1 / (1 + GAP):
        return "SLOWER"
    return "SAME" if low > 1 / (1 + SAME_WITHIN) and high < 1 + SAME_WITHIN else "UNCLEAR"
