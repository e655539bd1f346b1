"""Verdict: are two latencies different, and by how much?

A verdict comes from pairs of runs, each in a fresh process. Calls within one process agree better than two processes of
the same config do, so the processes are repeated and counted (as pyperf does). A pair, or round, is two processes that
run one after the other. Their order changes from pair to pair, so that slow drift cancels. The interval is Student's,
of the mean log ratio.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from autotune.frozen_model import FrozenModel

Word = Literal["FASTER", "SLOWER", "SAME", "UNCLEAR"]

GAP = 0.01  # differences up to this share are noise whatever their interval (Criterion's noise threshold)
SAME_WITHIN = 0.05  # an interval that stays this close to 1 on both sides means "the same"
LEAST_SPREAD = 0.01  # between processes of one config. A few pairs that agree better did so by chance
PRECISE = 0.02  # half an interval's width, as a share of the latency, at which no further pair is needed ...
PRECISE_PAIRS = 5  # ... once there are so many pairs
CLEAR = 4.0  # no further pair is needed either if the difference is so many times half the interval's width

# The 97.5 % quantile of Student's distribution with 1, 2, 3 ... degrees of freedom.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_OF_MANY = 2.12  # of 16 degrees of freedom; slightly too wide for more
MOST = 700.0  # of a logarithm: above it, math.exp has no result


class Verdict(FrozenModel):
    """How many times as fast the second config is as the first: `speedup`, with the 95 % interval `low` to `high`.

    pairs  the number of pairs; if the runs were not interleaved, of the later runs
    """

    word: Word
    speedup: float
    low: float
    high: float
    pairs: int

    @property
    def is_precise(self) -> bool:
        """Are more pairs unnecessary? Depends on the width of the interval, not on which side it favours."""
        half = math.log(self.high / self.low) / 2
        return half <= abs(math.log(self.speedup)) / CLEAR or (half <= PRECISE and self.pairs >= PRECISE_PAIRS)

    def would_tell(self, speedup: float) -> bool:
        """Is the interval so narrow that around this speedup it would not reach 1? Where it lies is not looked at."""
        return math.log(self.high / self.low) / 2 < abs(math.log(speedup))

    def words(self, whose: str, more: str = "") -> str:
        """ "1.23x the baseline's speed (95 % interval 1.20 to 1.26, 3 interleaved rounds)", or that there is none.

        whose  what is compared with: "the baseline's speed"
        more   further text for the end of the brackets
        """
        interval = f"(95 % interval {self.low:.2f} to {self.high:.2f}, {self.pairs} interleaved rounds{more})"
        if self.word in ("FASTER", "SLOWER"):
            return f"{self.speedup:.2f}x {whose} {interval}"
        return f"{whose}, no difference beyond the noise {interval}"


def judge(first_s: Sequence[float], second_s: Sequence[float]) -> Verdict:
    """The verdict on the latencies of two configs, pair by pair. Raises ValueError for fewer than two pairs."""
    logs = [math.log(a) - math.log(b) for a, b in zip(first_s, second_s, strict=True)]  # a / b may be infinite
    if len(logs) < 2:
        raise ValueError(f"{len(logs)} pair of runs has no interval")
    middle, half = max(min(statistics.fmean(logs), MOST), -MOST), half_width(logs)
    low, high = math.exp(max(middle - half, -MOST)), math.exp(min(middle + half, MOST))
    return Verdict(word=_word(low, high), speedup=math.exp(middle), low=low, high=high, pairs=len(logs))


def judge_apart(then_s: Sequence[float], now_s: Sequence[float]) -> Verdict:
    """The verdict on runs that were not interleaved: those of an earlier day, and those of now (the `pairs`).

    Student's interval of the difference of the mean logs, with the same variance in both groups. It does not include
    what the machine itself changes from day to day. Raises ValueError for fewer than three runs together, or none in a
    group.
    """
    then, now = [math.log(s) for s in then_s], [math.log(s) for s in now_s]
    freedom = len(then) + len(now) - 2
    if freedom < 1 or not then or not now:
        raise ValueError(f"{len(then)} and {len(now)} runs have no interval")
    middle = statistics.fmean(then) - statistics.fmean(now)
    squares = sum((x - statistics.fmean(group)) ** 2 for group in (then, now) for x in group)
    error = math.sqrt(1 / len(then) + 1 / len(now))
    half = max(t_quantile(freedom) * math.sqrt(squares / freedom), 1.96 * LEAST_SPREAD) * error
    low, high = math.exp(middle - half), math.exp(middle + half)
    return Verdict(word=_word(low, high), speedup=math.exp(middle), low=low, high=high, pairs=len(now))


def half_width(values: Sequence[float]) -> float:
    """Half the width of Student's 95 % interval of the mean log ratio. No less than LEAST_SPREAD gives.

    values  log ratios, at least two
    """
    students = t_quantile(len(values) - 1) * statistics.stdev(values)
    return max(students, 1.96 * math.sqrt(2) * LEAST_SPREAD) / math.sqrt(len(values))


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's distribution with so many degrees of freedom."""
    return T[freedom - 1] if freedom <= len(T) else T_OF_MANY


def _word(low: float, high: float) -> Word:
    if low > 1 + GAP:
        return "FASTER"
    if high < 1 / (1 + GAP):
        return "SLOWER"
    return "SAME" if low > 1 / (1 + SAME_WITHIN) and high < 1 + SAME_WITHIN else "UNCLEAR"
