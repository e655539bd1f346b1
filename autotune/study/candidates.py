"""Candidates: the allowed, untried configs that AutoSampler chooses from."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from autotune.config import Config, Value
from autotune.knobs import all_knobs, is_active
from autotune.study.optuna_view import Parameters
from autotune.study.space import SearchSpace

NUMBERS = 300  # configs with random numbers, for each proposal
FIRST_DRAWN, DRAWN = 1000, 100  # random configs of a space too large to list: at first, and for each later proposal

Params = Mapping[str, Value]


class Candidates:
    """All configs of a space that can be listed. Of a larger one, random configs and the neighbours of the best.

    These are of listed values. Where a knob has ranges, configs with random numbers are added, and the numbers around
    those of the best: the grid is refined where it is worth it.
    """

    def __init__(self, space: SearchSpace, rng: random.Random) -> None:
        self.space, self.rng = space, rng
        self.parameters = Parameters(space.free, space.ranges)
        self.known: dict[Config, Params] = {}

    def params(self, tried: set[Config], best: Sequence[Params]) -> list[Params]:
        """Allowed, untried configs as Optuna's parameters: each once, in an order that follows from the seed.

        best  the parameters of the best configs so far
        """
        configs = [self.space.config(self.parameters.values(params)) for params in best]
        if not self.space.is_listable:
            self._add(self._drawn(DRAWN if self.known else FIRST_DRAWN, tried))
            self._add(self._neighbours(configs))
        elif not self.known:
            self._add(self.space.all_configs())
        between = [*self._refined(configs), *self._numbers(tried)]  # not kept: the best change
        refined = {config: self.parameters.of(config) for config in between}
        considered, dropped = {**self.known, **refined}, self.space.dropped
        if not dropped:
            return [params for config, params in considered.items() if config not in tried]
        return [p for c, p in considered.items() if c not in tried and not any(pair in dropped for pair in c.items())]

    def _add(self, configs: Iterable[Config]) -> None:
        self.known |= {config: self.parameters.of(config) for config in configs if config not in self.known}

    def _numbers(self, tried: set[Config]) -> Iterator[Config]:
        for _ in range(NUMBERS if self.space.ranges else 0):
            config = self.space.random_number(self.rng, tried, attempts=10)
            if config is not None:
                yield config

    def _refined(self, best: Iterable[Config]) -> Iterator[Config]:
        """The allowed configs that differ from one of these in one number of a range, see Range.around."""
        for config in best:
            for name, ranges in self.space.ranges.items():
                within = next((each for each in ranges if config.get(name) in each), None)
                for value in within.around(config[name]) if within is not None else ():
                    near = self.space.config({**config, name: value})
                    if not self.space.objection(near):
                        yield near

    def _drawn(self, count: int, tried: set[Config]) -> Iterator[Config]:
        for _ in range(count):
            config = self.space.random(self.rng, tried)
            if config is not None:
                yield config

    def _neighbours(self, best: Iterable[Config]) -> Iterator[Config]:
        """The allowed configs that differ from one of these in one knob."""
        for config in best:
            for name, values in self.space.free.items():
                for value in values:
                    if config.get(name) == value or not is_active(all_knobs()[name], {**config, name: value}):
                        continue
                    near = self.space.config({**config, name: value})
                    if not self.space.objection(near):
                        yield near
