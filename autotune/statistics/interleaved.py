"""Two configs measured in turn, each time in a fresh process, until their difference is known well enough.

The order changes from pair to pair (AB, BA, AB ...): what slows the device down little by little cancels.
"""

from collections.abc import Callable
from typing import Literal

from autotune.measurement import Measurement
from autotune.statistics.verdict import Verdict, judge
from autotune.trial import Failure

Side = Literal["first", "second"]
Pair = tuple[Measurement, Measurement]
MOST_TIMES = 3  # pairs, as a multiple of the least number, where the interval stays wide


def interleave(run: Callable[[int, Side], Measurement | Failure], *, least: int) -> list[Pair] | Failure:
    """At least so many pairs; more while their interval is wide. `run` measures one side of a pair (from 0).

    How many are taken depends on the width of the interval alone, never on which side it is in favour of.
    """
    pairs: list[Pair] = []
    while len(pairs) < least or (len(pairs) < MOST_TIMES * least and not verdict_of(pairs).is_precise):
        found: dict[Side, Measurement] = {}
        order: tuple[Side, ...] = ("first", "second") if len(pairs) % 2 == 0 else ("second", "first")
        for side in order:
            outcome = run(len(pairs), side)
            if isinstance(outcome, Failure):
                return outcome
            found[side] = outcome
        pairs.append((found["first"], found["second"]))
    return pairs


def verdict_of(pairs: list[Pair]) -> Verdict:
    """How fast the second is beside the first."""
    return judge([first.latency_s for first, _ in pairs], [second.latency_s for _, second in pairs])
