"""OptunaView: trials and configs as Optuna is told of them: objectives, constraints, parameters.

A knob of listed values is one categorical parameter of its name. A knob with ranges is a choice, "off or a number": a
categorical parameter of its name, whose choices are the values outside the ranges and each range as a word, and a
number for each range, called "KNOB in RANGE". If all values lie in one range, there is no choice, only the number.

Optuna's samplers want all parameters in every trial. So a knob that is not active in a config gets its first value,
and a number that is not chosen the middle of its range.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from optuna import Trial as Asked
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autotune.config import Config, Range, Value
from autotune.sampler import FAILED, NOT_MEASURED
from autotune.study.pareto_front import costs, host_bytes, objectives, violations, worst_place_levels
from autotune.study.record import Record
from autotune.study.reuse_plan import picture_key
from autotune.trial import Failure, Trial

Free = Mapping[str, tuple[Value, ...]]
Params = dict[str, Value]


class OptunaView:
    """One trial as Optuna sees it. `trials[0]` is the baseline."""

    def __init__(self, trial: Trial, trials: Sequence[Trial], record: Record) -> None:
        self.trial, self.trials, self.record = trial, trials, record

    @cached_property
    def values(self) -> list[float]:
        """The objectives. Optuna needs a number for each, so some are made up:

        - A failed trial gets the worst values of the others; its violated constraint ranks it last.
        - A trial that was stopped early (it is dominated whatever its quality) gets the quality loss of trials that
          draw the same pictures, or the median of all. `attributes` tells AutoSampler that it was not measured.
        """
        baseline, minimise = self.trials[0], self.record.goal.minimise
        if self.trial.judged:
            return list(objectives(self.trial, baseline, minimise))
        judged = [t for t in self.trials if t.judged]
        known = [objectives(t, baseline, minimise) for t in judged]
        if not self.trial.measured:
            return [max(column) for column in zip(*known, strict=True)]
        key = picture_key(self.trial.config)
        same = [values[-1] for t, values in zip(judged, known, strict=True) if picture_key(t.config) == key]
        return [*costs(self.trial, minimise), statistics.median(same or [values[-1] for values in known])]

    @property
    def constraints(self) -> dict[str, float]:
        """Optuna's constraints: 0 or less holds. Every trial has all of them, since the GP sampler fails otherwise."""
        failed = 0.0 if self.trial.measured else 1.0
        others = worst_place_levels(self.trial), host_bytes(self.trial)
        return {FAILED: failed, **violations(self.values, self.record.goal, *others)}

    @property
    def attributes(self) -> dict[str, Any]:
        """User attributes: what a reader of study.db sees of a trial, and what AutoSampler needs."""
        failure = self.trial.outcome if isinstance(self.trial.outcome, Failure) else None
        stopped = self.trial.measured.stopped if self.trial.measured else None
        of_pictures = [name for name in self.constraints if name in ("max_quality_drop", "max_worst_place")]
        missing = {NOT_MEASURED: [self.record.latencies + 1, *of_pictures]} if stopped else {}
        memory = {"memory": failure.memory} if failure and failure.memory else {}
        return {
            "config": dict(self.trial.config),
            "origin": self.trial.origin,
            "outcome": failure.cause if failure else "stopped" if stopped else "measured",
            "reason": failure.reason if failure else stopped or "",
            "seconds": self.trial.seconds,
            **memory,
            **missing,
        }


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
        given = {number: (within, params.get(number)) for _, within, number in self._numbers()}
        # NSGA-II leaves out what it mutates: as a knob then has its first value, a number is then in the middle.
        places = {n: 0.5 if number is None else within.position(number) for n, (within, number) in given.items()}
        return {**params, **{n: within.at(places[n]) for n, (within, _) in given.items()}}

    def suggest(self, trial: Asked) -> Params:
        """The values that Optuna's trial suggests for all parameters."""
        return {name: _suggest(trial, name, each) for name, each in self.distributions().items()}


def _suggest(trial: Asked, name: str, distribution: BaseDistribution) -> Value:
    if isinstance(distribution, IntDistribution):
        low, high = distribution.low, distribution.high
        return int(trial.suggest_int(name, low, high, log=distribution.log, step=distribution.step))
    if isinstance(distribution, FloatDistribution):
        return float(trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log))
    assert isinstance(distribution, CategoricalDistribution)
    value: Value = trial.suggest_categorical(name, distribution.choices)
    return value
