"""Together: few configs of many values that hold every pair of them, so that a pair costs a fraction of a config.

Where such a config draws the picture of its reference, so does each pair in it, unless a third value hides what two do
to each other. Where it fails, its pairs are tried in smaller configs, and at last alone. Whether a value has an effect
beside another is seen by what the knobs count, not by another picture.
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace

from autotune.compat.plan import Check, check
from autotune.config import Value
from autotune.study.space import SearchSpace

SIZES = (12, 4)  # values of a config at most, in each round
Named = tuple[str, Value]


def together(space: SearchSpace, pairs: Iterable[Check], most: int) -> list[tuple[Check, list[Check]]]:
    """Checks of at most this many values, with the pairs that each holds. Every pair is in one that the rules allow."""
    left = {frozenset(pair.values): pair for pair in pairs}
    values = list(dict.fromkeys(value for pair in left.values() for value in pair.values))
    made: list[tuple[Check, list[Check]]] = []
    while left:
        whole = next(iter(left.values()))
        for _ in range(len(whole.values), most):
            whole, added = _with_another(space, whole, values, left)
            if not added:
                break
        held = [frozenset(pair) for pair in itertools.combinations(whole.values, 2)]
        made.append((replace(whole, without={}), [left.pop(pair) for pair in held if pair in left]))
    return made


def _with_another(
    space: SearchSpace, whole: Check, values: Iterable[Named], left: dict[frozenset[Named], Check]
) -> tuple[Check, bool]:
    """The check with the one value more that holds most of the pairs that are left, and was there one?"""
    taken = {name for name, _ in whole.values}
    gains = {
        value: sum(frozenset((value, other)) in left for other in whole.values)
        for value in values
        if value[0] not in taken
    }
    for value in sorted((value for value, gain in gains.items() if gain), key=lambda value: -gains[value]):
        larger = check(space, *whole.values, value)
        if not larger.refused:
            return larger, True
    return whole, False
