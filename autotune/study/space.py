"""SearchSpace: the configs that are allowed, by target, space file and the user's options.

A value that is missing has one of five reasons, each kept as a sentence: it is not available here (`Knob.why_not`), it
is not worth trying here (`Knob.not_worth_trying`), it can't be combined with another value (`Knob.clash`), trials
showed that it changes nothing ("had no effect here"), or every trial with it has failed for the same reason.
"""

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from autotune.building.changes import objection
from autotune.config import Config, Range, Value
from autotune.errors import UserError
from autotune.knob import Change, Knob
from autotune.knobs import active_part, all_knobs, check_value, complete, find_knob
from autotune.statistics.failing_values import FailingValue, failing_values, in_common
from autotune.study.space_file import SpaceFile
from autotune.target import Target
from autotune.trial import Failure, Trial

ENUMERABLE = 200_000  # combinations up to which a space is listed in full, when random draws find nothing new
FEW = 50  # random draws of listed values where other numbers can be drawn as well
HALVINGS = 12  # of a range, to find which of its numbers are available
COUNTABLE = 20_000  # combinations up to which a space is counted, which takes a second or two


class SearchSpace:
    """The values of each knob that are available on the target, and the rules between them.

    later             what users do to the pipe after it is loaded: values that don't survive it are not available
    values            knob -> its available values, the baseline's first; of a range, those that are tried first
    ranges            knob -> the ranges between whose listed values other numbers are allowed, too
    impossible        (knob, value) -> why it is not available, or not worth trying
    not_worth_trying  those of `impossible` that are available
    no_effect         (knob, value) pairs that trials showed to change nothing
    failing           (knob, value) -> the trials that failed alike with it
    """

    def __init__(
        self,
        target: Target,
        offered: Mapping[str, tuple[Value, ...]],
        later: Iterable[Change] = (),
        ranges: Mapping[str, tuple[Range, ...]] | None = None,
    ) -> None:
        self.target, self.later = target, tuple(later)
        self._reasons: dict[tuple[str, type, Value, Value | None], str | None] = {}
        self.impossible: dict[tuple[str, Value], str] = {}
        self.not_worth_trying: frozenset[tuple[str, Value]] = frozenset()
        self.values: dict[str, tuple[Value, ...]] = {}
        for name, values in offered.items():
            why_not = {value: self._why_not(name, value) for value in values}
            self.impossible |= {(name, value): why for value, why in why_not.items() if why}
            self.values[name] = tuple(value for value, why in why_not.items() if not why)
        available = {n: [r for each in of if (r := self._available_part(n, each))] for n, of in (ranges or {}).items()}
        self.ranges: dict[str, tuple[Range, ...]] = {name: tuple(of) for name, of in available.items() if of}
        self.no_effect: set[tuple[str, Value]] = set()
        self.failing: dict[tuple[str, Value], FailingValue] = {}

    def _available_part(self, name: str, whole: Range) -> Range | None:
        """The range between the numbers that are available here. None: there are not two of them.

        Known are the listed values in it. Each end is moved until a number that is not available lies next to it.
        """
        listed = sorted(n for value in self.values[name] if (n := whole.number(value)) is not None)
        if not listed:
            return None
        ends = []
        for end, inner in ((whole.low, listed[0]), (whole.high, listed[-1])):
            good, bad = whole.position(inner), whole.position(end)
            if self._why_not(name, whole.value(end)) is None:
                good = bad
            for _ in range(HALVINGS if good != bad else 0):
                middle = (good + bad) / 2
                if self._why_not(name, whole.value(whole.at(middle))) is None:
                    good = middle
                else:
                    bad = middle
            ends.append(whole.at(good))
        return whole.model_copy(update={"low": ends[0], "high": ends[1]}) if ends[0] < ends[1] else None

    def offers(self, name: str, value: Value) -> bool:
        """Is this value listed, or in a range of the knob?"""
        return value in self.values.get(name, ()) or any(value in each for each in self.ranges.get(name, ()))

    def _why_not(self, name: str, value: Value, steps: Value | None = None) -> str | None:
        """Why this value is not available, asked once for each value. 1, 1.0 and True are three values.

        steps  of a call, where the config has other ones than the workload: a cache may need more of them
        """
        key = (name, type(value), value, steps)
        if key not in self._reasons:
            target = self.target.with_steps(steps) if isinstance(steps, int) and name != "steps" else self.target
            self._reasons[key] = find_knob(name).why_not(value, target) or self._undone(name, value)
        return self._reasons[key]

    def _undone(self, name: str, value: Value) -> str | None:
        """Why this value does not survive what users do to the pipe later, or its own call does; None: it does."""
        traits = self.target.pipeline.known
        if traits.sets_processors and objection("processors", name, value):
            return f"acts in the attention processors, which each call of {traits.class_name} replaces"
        for change in self.later:
            why = objection(change, name, value)
            if why:
                return f"{why} (--{change.replace('_', '-')}-later)"
        return None

    @property
    def free(self) -> dict[str, tuple[Value, ...]]:
        """The knobs with more than one value: the sampler's parameters."""
        return {name: values for name, values in self.values.items() if len(values) > 1}

    def config(self, values: Mapping[str, Value]) -> Config:
        """The config of these values. Other knobs have their first available value, or else their default."""
        first = {name: offered[0] for name, offered in self.values.items() if offered}
        return complete({**first, **values})

    def objection(self, config: Config) -> str | None:
        """Why this config is not to be tried here; None: it is allowed."""
        for name, value in config.items():
            why = self.impossible.get((name, value)) or self._why_not(name, value, config.get("steps"))
            if why:
                return f"{name}={value}: {why}"
            if (name, value) in self.dropped:
                return self.why_dropped(name, value)
        for knob in all_knobs().values():
            why = knob.clash(config, self.target) if knob.name in config else None
            if why:
                return why
        return None

    def learn(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Drop values of this trial that all trials show to fail for the same reason, or to change nothing.

        trials  of the study, this one among them; the baseline is the first
        """
        if not isinstance(trial.outcome, Failure):
            return
        name, defaults = trial.outcome.knob, {name: knob.default for name, knob in all_knobs().items()}
        if name is not None and _did_nothing(trial, name) and self._never_acts(name, trial.values[name], trials):
            self.no_effect.add((name, trial.values[name]))
        found = failing_values(trials, defaults, among=trial)
        self.failing |= {(one.knob, one.value): one for one in found}

    def _never_acts(self, name: str, value: Value, trials: Sequence[Trial]) -> bool:
        """Do the trials show that this value changes nothing here, whatever the other knobs have?

        No trial was measured with it, and those in which it changed nothing have nothing else in common that could be
        why: one step, to which guidance can't end earlier, says nothing about thirty. The knob that it modifies is not
        asked: a value acts beside that one alone.
        """
        with_it = [trial for trial in trials if trial.values.get(name) == value]
        if any(trial.measured for trial in with_it):
            return False
        idle, carrier = [trial for trial in with_it if _did_nothing(trial, name)], find_knob(name).modifies
        plain = {(knob.name, knob.default) for knob in all_knobs().values()} | {*trials[0].values.items()}
        plain |= {(name, value), *((carrier, trial.values[carrier]) for trial in idle if carrier in trial.values)}
        return not in_common(idle, plain)

    @property
    def dropped(self) -> Set[tuple[str, Value]]:
        """The (knob, value) pairs that trials have shown to be of no use here."""
        return self.no_effect | self.failing.keys() if self.failing else self.no_effect

    def why_dropped(self, name: str, value: Value) -> str:
        """Why a value of `dropped` is, as a sentence without a full stop."""
        return str(self.failing.get((name, value), f"{name}={value} had no effect here"))

    def clashes(self) -> dict[str, list[str]]:
        """Sentence -> what it forbids: values alone as "knob=value", and pairs as "knob=value, value + knob=value".

        A value that is forbidden beside the first values of all other knobs is named once, not with each of them. What
        a value forbids is not said again of the knobs that modify it.
        """
        pairs: dict[str, list[tuple[tuple[str, Value], ...]]] = {}
        changed = [(n, v) for n, values in self.free.items() for v in values if v != find_knob(n).default]
        alone = {pair: self._objection_to(pair) for pair in changed}
        for pair, why in alone.items():
            if why:
                pairs.setdefault(why, []).append((pair,))
        for one, other in itertools.combinations(changed, 2):
            why = self._objection_to(one, other) if one[0] != other[0] else None
            if why and why not in (alone[one], alone[other]):
                pairs.setdefault(why, []).append((one, other))
        return {why: _in_words(forbidden) for why, forbidden in pairs.items()}

    def _objection_to(self, *pairs: tuple[str, Value]) -> str | None:
        """Why these values can't be combined, where they are all active and the other knobs have their first values.

        A knob that modifies another one is tried beside each value of that one with which the rest is allowed.
        """
        named, reasons = dict(pairs), list[str | None]()
        modified = [m for m in (find_knob(name).modifies for name in named) if m in self.free and m not in named]
        for carried in itertools.product(*(self.free[m][1:] for m in modified)):
            carriers = dict(zip(modified, carried, strict=True))
            rests = [{n: v for n, v in named.items() if n != name} for name in named] if carriers else []
            if any(self.objection(self.config({**carriers, **rest})) for rest in rests):
                continue
            config = self.config({**carriers, **named})
            acts = all(config.get(name) == value for name, value in pairs)
            reasons.append(self.objection(config) if acts else None)
        return reasons[0] if reasons and all(reasons) else None

    def combinations(self) -> int:
        """The number of combinations of listed values, before any rule."""
        return math.prod(len(values) for values in self.free.values())

    @property
    def is_listable(self) -> bool:
        """Does all_configs() take no more than a second or two?"""
        return self.combinations() <= COUNTABLE

    def all_configs(self) -> Iterator[Config]:
        """Every allowed config of listed values, once."""
        seen = set()
        names = list(self.free)
        first = {name: (*self.values.get(name, ()), knob.default)[0] for name, knob in all_knobs().items()}
        for values in itertools.product(*self.free.values()):  # each value was checked when the space was made
            config = active_part({**first, **dict(zip(names, values, strict=True))})
            if config not in seen and not self.objection(config):
                seen.add(config)
                yield config

    def count(self) -> int | None:
        """The number of allowed configs of listed values; None if there are too many to count."""
        return sum(1 for _ in self.all_configs()) if self.is_listable else None

    def random_number(self, rng: random.Random, tried: set[Config], attempts: int) -> Config | None:
        """An allowed, untried config with a number drawn from each range of which a value was drawn; None: none."""
        for _ in range(attempts):
            values = {name: rng.choice(values) for name, values in self.free.items()}
            for name, ranges in self.ranges.items():
                within = next((each for each in ranges if values.get(name) in each), None)
                if within is not None:
                    values[name] = within.value(within.at(rng.random()))
            config = self.config(values)
            if config not in tried and not self.objection(config):
                return config
        return None

    def _random_listed(self, rng: random.Random, tried: set[Config], attempts: int) -> Config | None:
        for _ in range(min(attempts, FEW) if self.ranges else attempts):
            config = self.config({name: rng.choice(values) for name, values in self.free.items()})
            # The value drawn for a modifier that is not active is lost: so many draws give this same config.
            alike = math.prod(len(values) for name, values in self.free.items() if name not in config)
            if rng.random() < 1 / alike and config not in tried and not self.objection(config):
                return config
        if self.ranges or self.combinations() > ENUMERABLE:
            return None  # with ranges, there is always a number
        left = [config for config in self.all_configs() if config not in tried]
        return rng.choice(left) if left else None

    def random(self, rng: random.Random, tried: Iterable[Config], attempts: int = 2000) -> Config | None:
        """An allowed, untried config; each has the same chance. None if none is left, or none was found.

        Of a space with ranges, every second one has numbers drawn from them, and all have when the listed were tried.

        attempts  random draws, before all configs are listed
        """
        tried = set(tried)
        draws = [self._random_listed, self.random_number] if self.ranges else [self._random_listed]
        if self.ranges and rng.random() < 0.5:
            draws.reverse()
        found = (draw(rng, tried, attempts) for draw in draws)
        return next((config for config in found if config is not None), None)


def make_space(
    target: Target,
    file: SpaceFile,
    *,
    fix: Mapping[str, Value],
    exclude: Iterable[str],
    baseline: Config,
    later: Iterable[Change] = (),
) -> SearchSpace:
    """The space to search. Raises UserError for options that can't be met here.

    fix       knobs held at one value
    exclude   knobs left at the baseline's value
    baseline  its values are always part of the space
    later     what users do to the pipe after it is loaded, such as putting a LoRA on it
    """
    exclude = set(exclude)
    both = next((name for name in fix if name in exclude), None)
    if both is not None:
        raise UserError(f"--fix {both}={fix[both]} and --exclude {both} are two values: give one of them.")
    for name in (*fix, *exclude):
        find_knob(name)
    offered: dict[str, tuple[Value, ...]] = {}
    ranges: dict[str, tuple[Range, ...]] = {}
    for name, knob in all_knobs().items():
        own = baseline.get(name, knob.default)
        if name in fix:
            offered[name] = (check_value(name, fix[name]),)
        elif name in exclude:
            offered[name] = (own,)
        else:
            listed, ranges[name] = _offer(knob, file, target)
            offered[name] = _unique((own, *listed))
    asked = {*file.knobs, *file.ranges, *file.own_ranges, *fix}
    left_out = _left_out(target, {n: v[1:] for n, v in offered.items() if n not in asked})  # the first: the baseline's
    offered = {name: tuple(v for v in values if (name, v) not in left_out) for name, values in offered.items()}
    space = SearchSpace(target, offered, later, ranges)
    space.impossible |= left_out
    space.not_worth_trying = frozenset(left_out)
    for name in fix:
        if not space.values[name]:
            raise UserError(f"--fix {name}={fix[name]}: {space.impossible[name, fix[name]]}.")
    _drop_unusable(space, fix)
    for name in fix:
        modified = find_knob(name).modifies
        if modified and set(space.values[modified]) == {find_knob(modified).default}:
            held = find_knob(modified).default
            raise UserError(f"--fix {name}={fix[name]}: not available, because {modified} stays at {held}.")
    return space


def _left_out(target: Target, offered: Mapping[str, Iterable[Value]]) -> dict[tuple[str, Value], str]:
    """(knob, value) -> why a value that works is not worth trying here."""
    found = dict[tuple[str, Value], str]()
    for name, value in ((name, value) for name, values in offered.items() for value in values):
        why = find_knob(name).not_worth_trying(value, target)
        if why:
            found[name, value] = f"{why}; --fix {name}={value} tries it"
    return found


def _offer(knob: Knob, file: SpaceFile, target: Target) -> tuple[tuple[Value, ...], tuple[Range, ...]]:
    """(the listed values, the ranges) that the file offers of a knob, or the knob itself where the file has none.

    A range of the knob of which it lists no value (steps) is offered only where the file asks for it. Of a range of
    which the file lists no value, the knob's own values are listed, or else a grid.
    """
    if knob.name not in {*file.knobs, *file.ranges, *file.own_ranges}:
        listed = knob.values
        return listed, tuple(each for each in knob.ranges(target) if any(value in each for value in listed))
    listed = file.knobs.get(knob.name, ())
    ranges = file.ranges.get(knob.name, ()) + (knob.ranges(target) if knob.name in file.own_ranges else ())
    for each in ranges:
        if not any(value in each for value in listed):
            listed += tuple(value for value in knob.values if value in each) or each.grid()
    return listed, ranges


def _drop_unusable(space: SearchSpace, fix: Mapping[str, Value]) -> None:
    """Leave a knob at its default if one of its modifiers has no available value. Raises UserError if it is fixed.

    An example is token merging, if no level of the UNet that it could merge at has attention.
    """
    for name, values in list(space.values.items()):
        modified = all_knobs()[name].modifies
        if values or modified is None:
            continue
        why = next(why for (knob, _), why in space.impossible.items() if knob == name)
        default = all_knobs()[modified].default
        space.impossible |= {(modified, v): why for v in space.values[modified] if v != default}
        space.values[modified] = tuple(v for v in space.values[modified] if v == default)
        space.ranges.pop(modified, None)
        if modified in fix and not space.values[modified]:
            raise UserError(f"--fix {modified}={fix[modified]}: {why}.")


def _unique(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(values))


def _did_nothing(trial: Trial, name: str) -> bool:
    """Has the trial failed because this knob changed nothing?"""
    failure = trial.outcome
    return isinstance(failure, Failure) and failure.cause == "no_effect" and failure.knob == name


def _in_words(forbidden: Iterable[tuple[tuple[str, Value], ...]]) -> list[str]:
    """Values, and pairs of values, as lines. Pairs that differ in the first value share a line, then in the second."""
    alone = defaultdict[str, list[Value]](list)
    firsts = defaultdict[tuple[str, tuple[str, Value]], list[Value]](list)
    seconds = defaultdict[tuple[str, tuple[Value, ...], str], list[Value]](list)
    for (name, value), *other in forbidden:
        if other:
            firsts[name, other[0]].append(value)
        else:
            alone[name].append(value)
    for (name, (beside, value)), values in firsts.items():
        seconds[name, tuple(values), beside].append(value)
    lines = [f"{name}={_listed(values)}" for name, values in alone.items()]
    return [*lines, *(f"{a}={_listed(xs)} + {b}={_listed(ys)}" for (a, xs, b), ys in seconds.items())]


def _listed(values: Iterable[Value]) -> str:
    return ", ".join(map(str, values))
