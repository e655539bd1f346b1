"""Scale: where the numbers of a parameter lie, from 0 to 1, and which of them are proposed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution

INACTIVE = -1.0  # the position of a number that has no effect beside the other parameters
EVENLY = 5  # numbers of a grid
FINEST = 6  # halvings of the range, around a number: 1/64 of it


@dataclass(frozen=True)
class Scale:
    """The scale of a number.

    distribution  Optuna's: its ends, its step, linear or logarithmic
    beside        (parameter, value): the number has an effect beside this value of another parameter only; None: always
    """

    name: str
    distribution: IntDistribution | FloatDistribution
    beside: tuple[str, Any] | None = None

    def contains(self, number: Any) -> bool:
        return isinstance(number, int | float) and self.distribution.low <= number <= self.distribution.high

    def position(self, params: Mapping[str, Any]) -> float:
        """Where the number of this config lies; INACTIVE where it has no effect."""
        if self.beside is not None and params[self.beside[0]] != self.beside[1]:
            return INACTIVE
        low, high = self.distribution.low, self.distribution.high
        if self.distribution.log:
            return math.log(params[self.name] / low) / math.log(high / low)
        return float((params[self.name] - low) / (high - low))

    def grid(self) -> Sequence[int | float]:
        """A few numbers, evenly spread, with the ends."""
        return list(dict.fromkeys(self._at(step / (EVENLY - 1)) for step in range(EVENLY)))

    def around(self, params: Mapping[str, Any]) -> Sequence[int | float]:
        """The numbers a quarter of the range away from this config's, an eighth ...; none where it is inactive."""
        here = self.position(params)
        if here == INACTIVE:
            return []
        places = [here + sign * 0.5**halvings for halvings in range(2, FINEST + 1) for sign in (-1, 1)]
        return list(dict.fromkeys(self._at(place) for place in places if 0 <= place <= 1))

    def _at(self, position: float) -> int | float:
        """The number at a position, a whole number of steps from the low end."""
        low, high, step = self.distribution.low, self.distribution.high, self.distribution.step
        number = low * (high / low) ** position if self.distribution.log else low + position * (high - low)
        if step is not None:
            number = low + round((number - low) / step) * step
        nearest: int | float = min(max(number, low), high)
        return nearest
