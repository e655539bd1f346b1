"""What stands in where a config can't act as it was measured: another GPU, a package that is missing.

Knob by knob, the nearest value that every rule of the knobs allows here: what the knob itself names as the next best
(`Knob.nearest`), in the end its default. The same rules keep such values out of a search. Speed is not looked at: a
replaced config was measured nowhere, so each replacement is told with its reason.
"""

from collections.abc import Iterator

from autotune.config import Config, Value
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.knob import Knob
from autotune.knobs import all_knobs, complete
from autotune.target import Target


class Replacement(FrozenModel):
    """A knob's value that can't act here, what is taken instead, and why."""

    knob: str
    asked: Value
    given: Value
    why: str

    def __str__(self) -> str:
        return f"{self.knob}={self.given} instead of {self.knob}={self.asked}: {self.why}"


def fit(config: Config, target: Target) -> tuple[Config, tuple[Replacement, ...]]:
    """The nearest config that can act on this target, and what was replaced. Raises UserError where there is none."""
    values, found = dict(config), list[Replacement]()
    for name, knob in all_knobs().items():
        why = knob.why_not(values[name], target) if name in values else None
        if why:
            given = next((v for v in _nearest(knob, values[name]) if not knob.why_not(v, target)), knob.default)
            found.append(Replacement(knob=name, asked=values[name], given=given, why=why))
            values[name] = given
    for _ in range(len(all_knobs()) * 3):
        fitted = _completed(values)
        clash = _first_clash(fitted, target)
        if clash is None:
            return fitted, tuple(found)
        knob, why = clash
        given = _without_clash(knob, fitted, target)
        found.append(Replacement(knob=knob.name, asked=fitted[knob.name], given=given, why=why))
        values = {**fitted, knob.name: given}
    raise UserError(f"no config near this one can act here: {found[-1].why}.")


def _completed(values: dict[str, Value]) -> Config:
    """Modifiers of a knob that is now at its default take no part any more."""
    return complete(values)


def _first_clash(config: Config, target: Target) -> tuple[Knob, str] | None:
    for knob in all_knobs().values():
        why = knob.clash(config, target) if knob.name in config else None
        if why:
            return knob, why
    return None


def _without_clash(knob: Knob, config: Config, target: Target) -> Value:
    """The nearest value of the knob with which it has nothing against the others. Raises UserError."""
    for value in _nearest(knob, config[knob.name]):
        if not knob.why_not(value, target) and not knob.clash(_completed({**config, knob.name: value}), target):
            return value
    raise UserError(f"{knob.name}={config[knob.name]} can't act here, nor can any other value in its place.")


def _nearest(knob: Knob, value: Value) -> Iterator[Value]:
    """What to try instead of a value, the nearest first, the default last."""
    yield from (other for other in knob.nearest.get(value, ()) if other != value)
    if value != knob.default:
        yield knob.default
