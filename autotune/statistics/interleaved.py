"""Interleaved measurement: two configs by turns until their difference is known well enough.

Each run is a fresh process. The order changes from pair to pair (AB, BA, AB ...), so that slow drift of the device
cancels.
"""

from collections.abc import Callable
from typing import Literal

from autotune.measurement import Measurement
from autotune.statistics.verdict import Verdict, judge
from autotune.trial import Failure

Side = Literal["first", "second"]
Pair = tuple[Measurement, Measurement]
MOST_TIMES = 3  # pairs at most, as a multiple of the least number, while the interval stays wide


def interleave(
    run: Callable[[int, Side], Measurement | Failure],
    *,
    least: int,
    most: int | None = None,
    to_be_told: float | None = None,
) -> list[Pair] | Failure:
    """At least so many pairs, and more while their interval is wide; the failure, as soon as a run fails.

    The number of pairs depends only on the width of the interval, never on which side it favours.

    run         measures one side of a pair, given the index of the pair (from 0)
    most        pairs at most; None: MOST_TIMES the least number
    to_be_told  a speedup, known before: the interval is narrow enough where it would tell this one from 1. None: where
                it is precise, see Verdict
    """
    pairs: list[Pair] = []
    most = MOST_TIMES * least if most is None else most
    while len(pairs) < least or (len(pairs) < most and not _is_enough(verdict_of(pairs), to_be_told)):
        measured: dict[Side, Measurement] = {}
        order: tuple[Side, ...] = ("first", "second") if len(pairs) % 2 == 0 else ("second", "first")
        for side in order:
            outcome = run(len(pairs), side)
            if isinstance(outcome, Failure):
                return outcome
            measured[side] = outcome
        pairs.append((measured["first"], measured["second"]))
    return pairs


def _is_enough(verdict: Verdict, to_be_told: float | None) -> bool:
    return verdict.is_precise if to_be_told is None else verdict.would_tell(to_be_told)


def verdict_of(pairs: list[Pair]) -> Verdict:
    """How fast the second config is compared with the first."""
    return judge([first.latency_s for first, _ in pairs], [second.latency_s for _, second in pairs])
