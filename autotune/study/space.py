"""SearchSpace: which configs are allowed for this target. Knobs x target x a space file x the user's wishes.

A value can be missing for three reasons, and each is kept with its sentence: it can't act here (`why_not`), it goes
with nothing else (`clash`), or it was tried and changed nothing ("no effect here").
"""

import itertools
import math
import random
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from autotune.config import Config, Value
from autotune.errors import UserError, nearest
from autotune.frozen_model import FrozenModel
from autotune.knobs import all_knobs, check_value, complete, find_knob
from autotune.target import Target
from autotune.trial import Failure, Trial

PACKAGE = Path(__file__).parents[1]
SHIPPED = (PACKAGE / "search_spaces", PACKAGE.parent / "search_spaces")  # wheel, checkout
ENUMERABLE = 200_000  # spaces of up to so many combinations are searched exhaustively
COUNTABLE = 20_000  # and of so many are counted, which takes a second or two


class Recipe(FrozenModel):
    """A config that others recommend: tried before the sampler's own."""

    name: str
    values: dict[str, Value]


class SpaceFile(FrozenModel):
    """search_spaces/*.toml: the values to search, knob by knob. A knob that is not named keeps all that it offers."""

    description: str = ""
    knobs: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    recipes: tuple[Recipe, ...] = ()


class SearchSpace:
    """The values of each knob that can act on the target, and the rules between them."""

    def __init__(self, target: Target, offered: Mapping[str, tuple[Value, ...]]) -> None:
        self.target = target
        self.impossible: dict[tuple[str, Value], str] = {}
        self.values: dict[str, tuple[Value, ...]] = {}
        for name, values in offered.items():
            why_not = {value: find_knob(name).why_not(value, target) for value in values}
            self.impossible |= {(name, value): why for value, why in why_not.items() if why}
            self.values[name] = tuple(value for value, why in why_not.items() if not why)
        self.no_effect: set[tuple[str, Value]] = set()

    @property
    def free(self) -> dict[str, tuple[Value, ...]]:
        """The knobs with a choice: the sampler's parameters."""
        return {name: values for name, values in self.values.items() if len(values) > 1}

    def config(self, values: Mapping[str, Value]) -> Config:
        """The config of these values; knobs not named keep the only value that they have, or their default."""
        fixed = {name: offered[0] for name, offered in self.values.items() if offered}
        return complete({**fixed, **values})

    def objection(self, config: Config) -> str | None:
        """Why this config is not worth a process here, or None."""
        for name, value in config.items():
            why = self.impossible.get((name, value)) or find_knob(name).why_not(value, self.target)
            if why:
                return f"{name}={value}: {why}"
            if (name, value) in self.no_effect:
                return f"{name}={value} had no effect here"
        for knob in all_knobs().values():
            why = knob.clash(config, self.target) if knob.name in config else None
            if why:
                return why
        return None

    def learn(self, trial: Trial, trials: Iterable[Trial]) -> None:
        """A value that changed nothing, and never did anything in another one of the trials, leaves the space."""
        if isinstance(trial.outcome, Failure) and trial.outcome.cause == "no_effect" and trial.outcome.knob:
            name = trial.outcome.knob
            value = trial.values[name]
            if not any(t.measured and t.values.get(name) == value for t in trials):
                self.no_effect.add((name, value))

    def clashes(self) -> dict[str, list[str]]:
        """Why two values, each possible alone, don't go together: sentence -> pairs, as "knob=value + knob=value"."""
        found: dict[str, list[str]] = {}
        changed = [(n, v) for n, values in self.free.items() for v in values if v != find_knob(n).default]
        for (a, x), (b, y) in itertools.combinations(changed, 2):
            modified = [m for m in (find_knob(a).modifies, find_knob(b).modifies) if m in self.free and m not in (a, b)]
            config = self.config({**{m: self.free[m][1] for m in modified}, a: x, b: y})
            why = self.objection(config) if a != b and config.get(a) == x and config.get(b) == y else None
            if why:
                found.setdefault(why, []).append(f"{a}={x} + {b}={y}")
        return found

    def combinations(self) -> int:
        """How many combinations there are before any rule."""
        return math.prod(len(values) for values in self.free.values())

    @property
    def is_listable(self) -> bool:
        """Does all_configs() come to an end in a second or two?"""
        return self.combinations() <= COUNTABLE

    def all_configs(self) -> Iterator[Config]:
        """Every allowed config, once."""
        seen = set()
        names = list(self.free)
        for values in itertools.product(*self.free.values()):
            config = self.config(dict(zip(names, values, strict=True)))
            if config not in seen and not self.objection(config):
                seen.add(config)
                yield config

    def count(self) -> int | None:
        """How many configs are allowed; None where there are too many to count."""
        return sum(1 for _ in self.all_configs()) if self.is_listable else None

    def random(self, rng: random.Random, tried: Iterable[Config], attempts: int = 2000) -> Config | None:
        """An allowed config that was not tried, each with the same chance; None where none is left."""
        tried = set(tried)
        for _ in range(attempts):
            config = self.config({name: rng.choice(values) for name, values in self.free.items()})
            # A modifier that doesn't act has been drawn in vain: so many draws give this very config.
            alike = math.prod(len(values) for name, values in self.free.items() if name not in config)
            if rng.random() < 1 / alike and config not in tried and not self.objection(config):
                return config
        if self.combinations() > ENUMERABLE:
            return None
        left = [config for config in self.all_configs() if config not in tried]
        return rng.choice(left) if left else None


def read_space_file(path: Path) -> SpaceFile:
    """Read and check against the knobs. Raises UserError for a typo, an unknown knob or a value it can't have."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no space file {str(path)!r}.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"the space file {str(path)!r} can't be read: {error}.") from None
    for key in data.keys() - SpaceFile.model_fields.keys():
        raise UserError(f"the space file {str(path)!r}: {key!r} is unknown, {nearest(key, SpaceFile.model_fields)}")
    file = SpaceFile.parse(_listed(data), f"the space file {str(path)!r}")
    for name, values in [*file.knobs.items(), *((n, (v,)) for r in file.recipes for n, v in r.values.items())]:
        for value in values:
            try:
                check_value(name, value)
            except UserError as error:
                raise UserError(f"the space file {str(path)!r}: {error}") from None
    return file


def _listed(data: dict[str, Any]) -> dict[str, Any]:
    """In a space file `dtype = "bf16"` fixes a knob: the same as a list of one."""
    knobs = data.get("knobs", {})
    if not isinstance(knobs, dict):
        return data  # refused where it is parsed
    return {**data, "knobs": {name: v if isinstance(v, list) else [v] for name, v in knobs.items()}}


def shipped_space_file(name: str) -> SpaceFile:
    folder = next(folder for folder in SHIPPED if folder.is_dir())
    return read_space_file(folder / name)


def make_space(
    target: Target,
    file: SpaceFile,
    *,
    fix: Mapping[str, Value],
    exclude: Iterable[str],
    baseline: Config,
) -> SearchSpace:
    """The space to search. Raises UserError for wishes that can't be met here.

    fix      knobs held at one value
    exclude  knobs left at the baseline's value
    baseline its values are always part of the space
    """
    exclude = set(exclude)
    for name in (*fix, *exclude):
        find_knob(name)
    offered: dict[str, tuple[Value, ...]] = {}
    for name, knob in all_knobs().items():
        own = baseline.get(name, knob.default)
        if name in fix:
            offered[name] = (check_value(name, fix[name]),)
        elif name in exclude:
            offered[name] = (own,)
        else:
            offered[name] = _unique((own, *file.knobs.get(name, knob.values)))
    space = SearchSpace(target, offered)
    for name in fix:
        if not space.values[name]:
            raise UserError(f"--fix {name}={fix[name]}: {space.impossible[name, fix[name]]}.")
    _check_modifiers(space, fix)
    for name in fix:
        modified = find_knob(name).modifies
        if modified and set(space.values[modified]) == {find_knob(modified).default}:
            held = find_knob(modified).default
            raise UserError(f"--fix {name}={fix[name]}: it can't act, because {modified} stays at {held}.")
    return space


def _check_modifiers(space: SearchSpace, fix: Mapping[str, Value]) -> None:
    """A modifier without any possible value takes what it modifies with it: ToMe where no level has attention."""
    for name, values in list(space.values.items()):
        modified = all_knobs()[name].modifies
        if values or modified is None:
            continue
        why = next(why for (knob, _), why in space.impossible.items() if knob == name)
        default = all_knobs()[modified].default
        space.impossible |= {(modified, v): why for v in space.values[modified] if v != default}
        space.values[modified] = tuple(v for v in space.values[modified] if v == default)
        if modified in fix and not space.values[modified]:
            raise UserError(f"--fix {modified}={fix[modified]}: {why}.")


def _unique(values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(dict.fromkeys(values))
