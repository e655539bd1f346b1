"""Parameters: the free knobs of a space as Optuna's parameters, and Optuna's parameters as knobs.

A knob of listed values is one categorical parameter of its name. A knob with ranges is a choice, "off or a number": a
categorical parameter of its name, whose choices are the values outside the ranges and each range as a word, and a
number for each range, called "KNOB in RANGE". If all values lie in one range, there is no choice, only the number.

Optuna's samplers want all parameters in every trial. So a knob that is not active in a config gets its first value,
and a number that is not chosen the middle of its range.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autotune.config import Config, Value
from autotune.range import Range

Free = Mapping[str, tuple[Value, ...]]
Params = dict[str, Value]


class Parameters:
    """The parameters of these knobs.

    free        knob -> its listed values, the first value first
    ranges      knob -> its ranges; knobs without any may be absent
    conditions  number -> (choice, the choice's value beside which the number counts); a number that always counts is
                absent
    """

    def __init__(self, free: Free, ranges: Mapping[str, tuple[Range, ...]]) -> None:
        self.free = free
        self.ranges = {name: ranges[name] for name in free if ranges.get(name)}
        self.choices = {name: self._choices(name) for name in free}
        self.conditions: dict[str, tuple[str, Value]] = {
            number: (name, str(within)) for name, within, number in self._numbers() if len(self.choices[name]) > 1
        }

    def _choices(self, name: str) -> tuple[Value, ...]:
        """The values outside the ranges, and each range as a word, in the order of the listed values."""
        return tuple(dict.fromkeys(self._choice(name, value) for value in self.free[name]))

    def _choice(self, name: str, value: Value) -> Value:
        within = self._range_of(name, value)
        return value if within is None else str(within)

    def _range_of(self, name: str, value: Value) -> Range | None:
        return next((each for each in self.ranges.get(name, ()) if value in each), None)

    def _numbers(self) -> Iterator[tuple[str, Range, str]]:
        """(knob, range, the name of its number)"""
        for name, ranges in self.ranges.items():
            for within in ranges:
                yield name, within, f"{name} in {within}"

    def names_of(self, knob: str) -> list[str]:
        """The parameters of a knob."""
        return [knob, *(number for name, _, number in self._numbers() if name == knob)]

    def hold(self, config: Config) -> bool:
        """Is each value of these knobs listed or in a range?"""
        own = {name: config.get(name, values[0]) for name, values in self.free.items()}
        return all(value in self.free[name] or self._range_of(name, value) for name, value in own.items())

    def distributions(self) -> dict[str, BaseDistribution]:
        made: dict[str, BaseDistribution] = {}
        for name, choices in self.choices.items():
            if len(choices) > 1 or name not in self.ranges:
                made[name] = CategoricalDistribution(choices)
        for _, within, number in self._numbers():
            if within.is_whole:
                made[number] = IntDistribution(within.low, within.at(1), log=within.log, step=within.step)
            else:
                made[number] = FloatDistribution(within.low, within.high, log=within.log)
        return made

    def of(self, config: Config) -> Params:
        """The config as Optuna's parameters."""
        if not self.ranges:
            return {name: config.get(name, values[0]) for name, values in self.free.items()}
        params: Params = {}
        for name, values in self.free.items():
            choice = self._choice(name, config.get(name, values[0]))
            if len(self.choices[name]) > 1 or name not in self.ranges:
                params[name] = choice
        for name, within, number in self._numbers():
            given = within.number(config.get(name, self.free[name][0]))
            params[number] = within.at(0.5) if given is None else given
        return params

    def values(self, params: Mapping[str, Any]) -> dict[str, Value]:
        """The values of the knobs in these parameters."""
        values = {name: params[name] for name in self.free if name in params}
        for name, within, number in self._numbers():
            if values.get(name, str(within)) == str(within):
                values[name] = within.value(params[number])
        return values

    def rounded(self, params: Mapping[str, Any]) -> Params:
        """A sampler's proposal with the numbers that a search tries, see range.py."""
        numbers = {number: within.at(within.position(params[number])) for _, within, number in self._numbers()}
        return {**params, **numbers}

    def suggest(self, trial: Trial) -> Params:
        """The values that Optuna's trial suggests for all parameters."""
        return {name: _suggest(trial, name, each) for name, each in self.distributions().items()}


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Value:
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return int(trial.suggest_int(name, low, high, log=distribution.log, step=distribution.step))
    if isinstance(distribution, FloatDistribution):
        return float(trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log))
    assert isinstance(distribution, CategoricalDistribution)
    value: Value = trial.suggest_categorical(name, distribution.choices)
    return value
